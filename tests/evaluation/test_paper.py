"""What is put to models: tests without what was set apart of them, options in the order asked for, sources pinned."""

import json

import pytest

from medbot_exp.evaluation.benchmarks import registry
from medbot_exp.evaluation.item import fingerprint
from medbot_exp.evaluation.paper import read_developments, read_tests


@pytest.fixture
def medqa(tmp_path):
    """Overrides for six questions in MedQA's format."""
    rows = [
        {"question": f"Q {n}?", "options": {x: f"{x}{n}" for x in "ABCD"}, "answer": f"B{n}", "answer_idx": "B"}
        for n in range(6)
    ]
    (tmp_path / "medqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "benchmark=[medqa]",
        f"benchmark.medqa.path={tmp_path}/medqa.jsonl",
        "benchmark.medqa.development_split=null",
    ]


def test_run_that_is_not_chosen_by_a_benchmark_is_asked_all_of_it(compose, medqa):
    (paper,) = read_tests(compose(*medqa, "benchmark.medqa.development=2"))
    assert (paper.name, paper.metric, len(paper.items)) == ("medqa", "medqa", 6)
    assert read_developments(compose(*medqa)) == []


def test_what_a_run_is_chosen_by_is_none_of_its_test(compose, medqa):
    goal = ["objective.metric=eval/medqa_development/accuracy", "objective.direction=maximize"]
    config = compose(*medqa, *goal, "benchmark.medqa.development=2")
    (test,), (development,) = read_tests(config), read_developments(config)
    assert development.metric == "medqa_development"
    assert (len(test.items), len(development.items)) == (4, 2)
    assert not {item.id for item in test.items} & {item.id for item in development.items}
    # Both are pinned by the whole source.
    whole = fingerprint(registry.published("medqa", config.benchmark["medqa"]))
    assert test.source == development.source == whole


def test_options_stand_in_the_order_asked_for(compose, medqa):
    published, shuffled, cyclic = (
        read_tests(compose(*medqa, f"benchmark.medqa.order={order}"))[0].items
        for order in ("published", "shuffled", "cyclic")
    )
    assert all(list(item.options.values())[0].startswith("A") for item in published)
    assert [item.id for item in shuffled] == [item.id for item in published]
    assert any(item.label != "B" for item in shuffled)
    assert len(cyclic) == 24 and [item.label for item in cyclic[:4]] == ["B", "A", "D", "C"]
