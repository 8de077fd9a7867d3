"""What is put to models: tests without what was set apart of them, options in the order asked for, sources pinned."""

import json
from dataclasses import replace

import pytest

from medbot_exp.evaluation import source
from medbot_exp.evaluation.benchmarks.registry import Benchmark
from medbot_exp.evaluation.item import fingerprint
from medbot_exp.evaluation.paper import read_papers
from medbot_exp.tasks.start import benchmarks_told

CHOSEN_BY = ["objective.metric=eval/medqa_development/accuracy", "objective.direction=maximize"]
COUNTED = ["benchmark.medqa.development=3", "benchmark.medqa.shots=2"]


def medqa_rows(numbers):
    """Lines in MedQA's format."""
    rows = [
        {"question": f"Q {n}?", "options": {x: f"{x}{n}" for x in "ABCD"}, "answer": f"B{n}", "answer_idx": "B"}
        for n in numbers
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def medqa(tmp_path):
    """Overrides for six questions in MedQA's format."""
    (tmp_path / "medqa.jsonl").write_text(medqa_rows(range(6)))
    return [
        "benchmark=[medqa]",
        f"benchmark.medqa.path={tmp_path}/medqa.jsonl",
        "benchmark.medqa.development_split=null",
    ]


def test_run_that_is_not_chosen_by_a_benchmark_is_asked_all_of_it(compose, medqa):
    (paper,), developments = read_papers(compose(*medqa, "benchmark.medqa.development=2"))
    assert (paper.name, paper.metric, len(paper.items)) == ("medqa", "medqa", 6)
    assert developments == []


def test_what_a_run_is_chosen_by_is_none_of_its_test(compose, medqa):
    config = compose(*medqa, *CHOSEN_BY, "benchmark.medqa.development=2")
    (test,), (development,) = read_papers(config)
    assert development.metric == "medqa_development"
    assert (len(test.items), len(development.items)) == (4, 2)
    assert not {item.id for item in test.items} & {item.id for item in development.items}
    # Both are pinned by the whole source.
    whole = fingerprint(Benchmark("medqa", config.benchmark["medqa"]).published)
    assert test.source == development.source == whole and test.asked != development.asked


@pytest.fixture
def trained_on(medqa, tmp_path):
    """trained_on(numbers): overrides of a run that is chosen by three others of MedQA, and shown two of the same file.

    Args:
        numbers: of the questions of that file.
    """

    def overrides(numbers):
        path = tmp_path / "train.jsonl"
        path.write_text(medqa_rows(numbers))
        places = [f"benchmark.medqa.{part}_path={path}" for part in ("development", "shots")]
        return [*medqa, *CHOSEN_BY, *places, "benchmark.medqa.development_split=train", *COUNTED]

    return overrides


def test_every_source_is_read_once(compose, trained_on, monkeypatch):
    read, opened = source.read_file, []

    def noted(path):
        opened.append(path.name)
        return read(path)

    monkeypatch.setattr(source, "read_file", noted)
    read_papers(compose(*trained_on(range(10, 20))))
    assert sorted(opened) == ["medqa.jsonl", "train.jsonl"]


def test_record_pins_what_is_asked_and_what_is_shown(compose, trained_on):
    one, other = (
        benchmarks_told([paper for part in read_papers(compose(*trained_on(numbers))) for paper in part])
        for numbers in (range(10, 20), range(20, 30))
    )
    assert one["medqa"]["asked"] == other["medqa"]["asked"]
    assert one["medqa"]["fingerprint"] == other["medqa"]["fingerprint"]
    assert one["medqa"]["worked"] != other["medqa"]["worked"]
    assert one["medqa_development"]["asked"] != other["medqa_development"]["asked"]
    # Its source is not read whole, and is not the test's.
    assert one["medqa_development"]["fingerprint"] is None


def test_record_has_the_commit_of_what_the_hub_gave_alone(compose, medqa):
    config = compose(*medqa)
    (paper,), _ = read_papers(config)
    # As beside worked examples of the hub, which are then of that commit, and the items of a file.
    pinned = replace(paper, benchmark=replace(paper.benchmark, revision="abc"))
    assert benchmarks_told([pinned])["medqa"]["revision"] is None
    of_hub = replace(pinned, benchmark=replace(pinned.benchmark, path=None))
    assert benchmarks_told([of_hub])["medqa"]["revision"] == "abc"


def test_options_stand_in_the_order_asked_for(compose, medqa):
    published, shuffled, cyclic = (
        read_papers(compose(*medqa, f"benchmark.medqa.order={order}"))[0][0].items
        for order in ("published", "shuffled", "cyclic")
    )
    assert all(list(item.options.values())[0].startswith("A") for item in published)
    assert [item.id for item in shuffled] == [item.id for item in published]
    assert any(item.label != "B" for item in shuffled)
    assert len(cyclic) == 24 and [item.label for item in cyclic[:4]] == ["B", "A", "D", "C"]
