"""The bundled held-out cases: which they are."""

from collections import Counter

import pytest

from medbot_exp.errors import ConfigError
from medbot_exp.evaluation.benchmarks.cases import read


class TestRead:
    def test_there_are_45_cases_three_of_each_of_15_specialties(self, benchmark):
        items = read(benchmark("cases"))
        assert len({item.id for item in items}) == len(items) == 45
        assert Counter(Counter(item.group for item in items).values()) == {3: 15}

    def test_any_15_in_a_row_from_the_first_are_of_all_specialties(self, benchmark):
        items = read(benchmark("cases"))
        assert all(len({item.group for item in items[start : start + 15]}) == 15 for start in (0, 15, 30))

    def test_every_case_has_four_different_options_and_its_answer_is_the_labelled_one(self, benchmark):
        for item in read(benchmark("cases")):
            assert len(set(item.options.values())) == 4
            assert item.label in item.options

    def test_labels_are_spread_so_that_no_letter_wins_by_itself(self, benchmark):
        labels = Counter(item.label for item in read(benchmark("cases")))
        assert max(labels.values()) <= 45 / 2

    def test_specialty_is_the_group(self, benchmark):
        assert all(item.id == f"{item.group}-{item.id[-2:]}" for item in read(benchmark("cases")))

    def test_training_part_can_be_read_and_no_other(self, benchmark):
        assert len(read(benchmark("cases", split="train"))) == 135
        with pytest.raises(
            ConfigError, match="`benchmark.cases.split` must be one of train, validation, but got .*=test"
        ):
            read(benchmark("cases", split="test"))

    @pytest.mark.parametrize("change", [{"path": "cases.jsonl"}, {"hub": "someone/cases"}])
    def test_another_place_is_refused(self, benchmark, change):
        with pytest.raises(ConfigError, match="the cases are in the package, but got benchmark.cases.path="):
            read(benchmark("cases", **change))
