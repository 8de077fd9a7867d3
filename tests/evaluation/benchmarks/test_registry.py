"""Benchmarks by their names: which items are asked, which are shown, and whose file was given."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from medbot_exp.errors import ConfigError, DataError
from medbot_exp.evaluation.benchmarks.pubmedqa import official_ids
from medbot_exp.evaluation.benchmarks.registry import READERS, Benchmark, limited
from medbot_exp.evaluation.item import Item, fingerprint


def published(name, config):
    return Benchmark(name, config).published


def read(name, config, apart=()):
    return Benchmark(name, config).asked(apart)


def shots(name, config):
    return Benchmark(name, config).worked


def development(name, config):
    return Benchmark(name, config).development


def medqa_row(number: int, **changes):
    """A row in MedQA's format."""
    options = {letter: f"Drug {letter} of {number}" for letter in "ABCD"}
    row = {"question": f"A patient has fever number {number}. Which drug helps?", "options": options}
    return row | {"answer": options["C"], "answer_idx": "C", "meta_info": "step1"} | changes


@pytest.fixture
def medqa(benchmark, write):
    """medqa(count, **changes): the config of that many rows, with as many others to show."""

    def configured(count: int, **changes):
        path = write("test.jsonl", [medqa_row(number) for number in range(count)])
        shots_path = write("train.jsonl", [medqa_row(100 + number) for number in range(count)])
        return benchmark("medqa", path=path, shots_path=shots_path, **changes)

    return configured


FILES = {
    "medqa": ("rows.jsonl", [medqa_row(1)]),
    "medmcqa": (
        "rows.json",
        [
            {"id": f"{cop}", "question": "Why?", "opa": "p", "opb": "q", "opc": "r", "opd": "s", "cop": cop}
            | {"subject_name": "ENT", "choice_type": "single"}
            for cop in (1, 4)
        ],
    ),
    "pubmedqa": ("rows_pqal.json", {"7": {"QUESTION": "Why?", "CONTEXTS": ["So."], "final_decision": "no"}}),
    "mmlu_medical": ("anatomy_test.csv", "Why?,p,q,r,s,A\n"),
    "cases": ("cases.jsonl", [{"specialty": "ent", "basis": "", "question": "Why?", "options": {}, "label": "A"}]),
}


class TestRead:
    def test_every_benchmark_has_a_reader(self, benchmark, write):
        for name in READERS.keys() - {"cases"}:
            file, content = FILES[name]
            split = {"split": "labeled"} if name == "pubmedqa" else {}
            assert read(name, benchmark(name, path=write(file, content), **split))
        assert len(read("cases", benchmark("cases", limit=None))) == 45

    def test_unknown_benchmark_is_refused(self, benchmark):
        with pytest.raises(ConfigError, match="must be one of cases, medqa, .*mmlu_medical, but got benchmark.medqu"):
            read("medqu", benchmark("medqa"))

    def test_items_are_tagged(self, benchmark, write):
        rows = [medqa_row(1, question="Which of these is NOT a drug?"), medqa_row(2)]
        rows[1]["options"]["A"] = rows[1]["options"]["B"]
        items = read("medqa", benchmark("medqa", path=write("test.jsonl", rows)))
        assert [item.tags for item in items] == [("negated",), ("same_options",)]

    def test_empty_file_is_refused(self, benchmark, write):
        with pytest.raises(DataError, match="must have an item, but .*test.jsonl .part test. has none of medqa's"):
            read("medqa", benchmark("medqa", path=write("test.jsonl", "\n")))
        path = write("ori_pqal.json", FILES["pubmedqa"][1])
        with pytest.raises(DataError, match="but .*ori_pqal.json .part test. has none of pubmedqa's"):
            read("pubmedqa", benchmark("pubmedqa", path=path))


class TestForeignFile:
    @pytest.mark.parametrize("given", FILES)
    @pytest.mark.parametrize("wanted", ["medqa", "medmcqa", "pubmedqa", "mmlu_medical"])
    def test_message_says_whose_it_looks_like(self, benchmark, write, given, wanted):
        if given == wanted:
            return
        with pytest.raises(DataError, match=f"`benchmark.{wanted}.path` must hold rows in {wanted}'s format") as caught:
            read(wanted, benchmark(wanted, path=write(*FILES[given])))
        assert f"it looks like {given}'s: name it under benchmark.{given}" in str(caught.value)

    def test_row_of_nobody_is_told_by_its_fields(self, benchmark, write):
        path = write("test.jsonl", [medqa_row(1), {"question": "Why?", "reply": "So."}])
        message = r"\(question, options, answer, answer_idx\), but .*line 2 has: question, reply\nmend the rows"
        with pytest.raises(DataError, match=message):
            read("medqa", benchmark("medqa", path=path))

    def test_rows_of_the_hub_are_told_by_its_key(self, benchmark, hub):
        with pytest.raises(
            DataError, match=r"`benchmark.medqa.hub` must hold rows in medqa's(.|\n)*like mmlu_medical's"
        ):
            row = {"question": "Why?", "choices": ["p", "q", "r", "s"], "answer": 0}
            read("medqa", benchmark("medqa", hub=hub({"default": {"test": [row]}})))


class TestFingerprint:
    def test_same_items_are_taken_whatever_the_limit(self, medqa):
        found = fingerprint(published("medqa", medqa(9)))
        assert len(read("medqa", medqa(9, fingerprint=found, limit=4))) == 4

    def test_tags_of_this_package_are_no_part_of_it(self, medqa):
        items = published("medqa", medqa(9))
        assert [item.tags for item in items] == [()] * 9

    def test_others_are_refused_with_both_values(self, medqa):
        found = fingerprint(published("medqa", medqa(9)))
        message = f"got benchmark.medqa.fingerprint={'0' * 64}, and the 9 items read have {found}"
        with pytest.raises(DataError, match=message):
            read("medqa", medqa(9, fingerprint="0" * 64))


class TestLimit:
    def test_all_items_keep_their_order(self, medqa):
        assert [item.question for item in read("medqa", medqa(9))] == [medqa_row(n)["question"] for n in range(9)]

    def test_larger_part_contains_the_smaller_in_its_order(self, medqa):
        parts = [read("medqa", medqa(30, limit=limit)) for limit in (5, 12, 30, 99)]
        assert [len(part) for part in parts] == [5, 12, 30, 30]
        assert parts[0] == parts[1][:5] and parts[1] == parts[2][:12]

    def test_part_of_a_sorted_file_is_a_fair_sample_of_it(self, medqa):
        item = read("medqa", medqa(1))[0]
        items = [replace(item, id=f"item-{number}", group=str(number // 100)) for number in range(1000)]
        for group in map(str, range(10)):
            # Of 100 drawn from ten groups of 100, each has 10 but for 3 standard deviations of 2.8.
            assert 2 <= sum(each.group == group for each in limited("medqa", items, 100)) <= 18

    def test_part_of_the_cases_has_one_of_each_specialty(self, benchmark):
        items = read("cases", benchmark("cases", limit=15))
        assert len({item.group for item in items}) == len(items) == 15


class TestShots:
    def test_none_are_asked_for_and_no_source_is_needed(self, benchmark, write):
        config = benchmark("medqa", path=write("test.jsonl", [medqa_row(1)]), shots_split=None)
        assert shots("medqa", config) == []

    def test_they_are_of_the_other_file(self, medqa):
        shown = shots("medqa", medqa(9, shots=3))
        assert len({item.question for item in shown}) == 3
        assert {item.question for item in shown} <= {medqa_row(100 + number)["question"] for number in range(9)}

    def test_they_are_of_the_other_part_of_the_hub(self, benchmark, hub):
        source = hub({"default": {"test": [medqa_row(1)], "train": [medqa_row(2)]}})
        (item,) = shots("medqa", benchmark("medqa", hub=source, shots=1))
        assert item.question == medqa_row(2)["question"]

    def test_seed_alone_draws_them_and_more_contain_the_fewer(self, medqa):
        three = shots("medqa", medqa(20, shots=3))
        assert shots("medqa", medqa(20, shots=5))[:3] == three
        assert any(shots("medqa", medqa(20, shots=3, seed=seed)) != three for seed in range(3))

    def test_of_one_file_of_pubmedqa_those_outside_the_official_test_are_shown(self, benchmark, write):
        official = sorted(official_ids())[0]
        row = FILES["pubmedqa"][1]["7"]
        path = write("ori_pqal.json", {official: row | {"QUESTION": "Is it?"}, "7": row})
        (item,) = shots("pubmedqa", benchmark("pubmedqa", path=path, shots_path=path, shots=1))
        assert item.id == "7"

    def test_cases_are_shown_from_their_training_part(self, benchmark):
        assert len(shots("cases", benchmark("cases", shots=2, shots_split="train"))) == 2

    def test_source_must_be_given(self, benchmark):
        with pytest.raises(
            DataError, match="got benchmark.cases.shots=2 with no source for them; give benchmark.cases.sh"
        ):
            shots("cases", benchmark("cases", shots=2))

    def test_asked_question_is_refused_though_its_case_and_spacing_differ(self, medqa, write):
        other = medqa_row(100, question="  a PATIENT has fever number 3.   Which drug helps? ")
        config = medqa(9, shots=1)
        config.shots_path = write("train.jsonl", [other])
        with pytest.raises(
            DataError, match="no worked example may be asked, but 'medqa-.*of item 'medqa-.*medqa.shots_path"
        ):
            shots("medqa", config)

    def test_question_that_a_limit_leaves_out_is_still_one_of_the_test(self, medqa):
        config = medqa(9, shots=9, limit=1)
        config.shots_path = config.path
        with pytest.raises(DataError, match="no worked example may be asked"):
            shots("medqa", config)

    def test_too_few_are_refused_and_the_same_twice_counts_once(self, medqa, write):
        config = medqa(9, shots=3)
        config.shots_path = write("train.jsonl", [medqa_row(100), medqa_row(100), medqa_row(101)])
        with pytest.raises(
            DataError, match="as `benchmark.medqa.shots` says, but 3 are to be drawn, and their source has 2 "
        ):
            shots("medqa", config)

    def test_row_that_is_not_drawn_need_not_be_whole(self, medqa, write):
        rows = [medqa_row(100 + number) for number in range(9)]
        config = medqa(9, shots=2)
        config.shots_path = write("train.jsonl", rows)
        drawn = {item.question for item in shots("medqa", config)}
        broken = [row if row["question"] in drawn else row | {"answer_idx": "Z"} for row in rows]
        config.shots_path = write("train.jsonl", broken)
        assert {item.question for item in shots("medqa", config)} == drawn
        config.shots = 3
        with pytest.raises(DataError, match="one of the options A, B, C, D, but .*train.jsonl, line [0-9] has 'Z'"):
            shots("medqa", config)

    def test_their_source_is_told_by_its_own_key(self, medqa, tmp_path):
        config = medqa(9, shots=1)
        config.shots_path = str(tmp_path / "none.jsonl")
        with pytest.raises(DataError, match="`benchmark.medqa.shots_path` must name a file"):
            shots("medqa", config)


class TestDevelopment:
    def test_is_set_apart_from_what_is_asked_where_it_has_no_source(self, benchmark):
        config = benchmark("cases", limit=None)
        apart = development("cases", config)
        asked = read("cases", config, {item.content_hash for item in apart})
        assert (len(apart), len(asked)) == (30, 15)
        assert {item.id for item in apart}.isdisjoint(item.id for item in asked)
        assert Counter(item.group for item in apart) == dict.fromkeys({item.group for item in asked}, 2)

    def test_must_leave_a_test(self, benchmark):
        with pytest.raises(DataError, match="must leave items for the test, but got benchmark.cases.development=45 of"):
            development("cases", benchmark("cases", development=45))

    def test_is_drawn_from_a_source_of_its_own_without_the_worked_examples(self, medqa, write):
        config = medqa(4, shots=3, development=5)
        config.shots_path = config.development_path = write("train.jsonl", [medqa_row(100 + n) for n in range(9)])
        apart, worked = development("medqa", config), shots("medqa", config)
        assert (len(apart), len(worked)) == (5, 3)
        assert {item.question for item in apart}.isdisjoint(item.question for item in worked)
        assert {item.question for item in apart}.isdisjoint(item.question for item in read("medqa", config))

    def test_worked_examples_of_another_source_take_none_of_it(self, benchmark, write):
        lines = "".join(f"Why {n}?,p,q,r,s,A\n" for n in range(7))
        path, shots_path, development_path = (
            write(f"anatomy_{part}.csv", lines.replace("Why", part)) for part in ("test", "dev", "val")
        )
        config = benchmark("mmlu_medical", path=path, shots_path=shots_path, shots=5, development=7)
        assert len(development("mmlu_medical", replace(config, development_path=development_path))) == 7
        # Of the same source there are two left.
        with pytest.raises(DataError, match="3 are to be drawn, and their source has 2 different ones besides the wor"):
            development("mmlu_medical", replace(config, development_path=shots_path, development=3))

    def test_item_that_is_asked_is_refused(self, medqa, write):
        config = medqa(4, development=9)
        config.development_path = write("train.jsonl", [medqa_row(n) for n in range(9)])
        with pytest.raises(DataError, match="no development item may be asked, but 'medqa-.*medqa.development_path or"):
            development("medqa", config)


def test_published_rows_are_asked(benchmark, real_rows):
    files = {
        "medqa": "medqa_us_test_300.jsonl",
        "medmcqa": "medmcqa_dev_300.jsonl",
        "pubmedqa": "pubmedqa_pqal_200.json",
    }
    for name, file in files.items():
        config = benchmark(name, path=str(real_rows / file), limit=50)
        assert len(read(name, config)) == 50
        assert json.dumps([item.id for item in read(name, config)]) == json.dumps(
            [item.id for item in read(name, replace(config, limit=90))][:50]
        )


LISTED = "A. w\nB. x\nC. y\nD. z"


@pytest.mark.parametrize(
    ("name", "heading", "question"),
    [
        ("medqa", "", "Question: Q?\n" + LISTED),
        ("medmcqa", "", "Question: Q?\nChoices:\n" + LISTED),
        ("pubmedqa", "", "Abstract: One.\nTwo.\nQuestion: Q?"),
        (
            "mmlu_medical",
            "The following are multiple choice questions (with answers) about college biology.\n\n",
            f"Q?\n{LISTED}",
        ),
    ],
)
def test_words_of_the_harness_are_those_of_the_benchmarks_task(name, heading, question):
    words = READERS[name].HARNESS
    options = dict(zip("ABCD", "wxyz", strict=True))
    item = Item("1", "Q?", options, "B", context="One.\n\nTwo.", group="college_biology")
    assert words.prompt(item, []) == f"{heading}{question}\nAnswer:"
    assert words.prompt(item, [item]) == f"{heading}{question}\nAnswer: B\n\n{question}\nAnswer:"
