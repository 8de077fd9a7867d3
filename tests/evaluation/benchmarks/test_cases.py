"""The bundled held-out cases: which they are."""

from collections import Counter

import pytest

from medbot_exp.errors import ConfigError


class TestRead:
    def test_there_are_45_cases_three_of_each_of_15_specialties(self, published):
        items = published("cases")
        assert len({item.id for item in items}) == len(items) == 45
        assert Counter(Counter(item.group for item in items).values()) == {3: 15}

    def test_any_15_in_a_row_from_the_first_are_of_all_specialties(self, published):
        items = published("cases")
        assert all(len({item.group for item in items[start : start + 15]}) == 15 for start in (0, 15, 30))

    def test_every_case_has_four_different_options_and_its_answer_is_the_labelled_one(self, published):
        for item in published("cases"):
            assert len(set(item.options.values())) == 4
            assert item.label in item.options

    def test_labels_are_spread_so_that_no_letter_wins_by_itself(self, published):
        labels = Counter(item.label for item in published("cases"))
        assert max(labels.values()) <= 45 / 2

    def test_specialty_is_the_group(self, published):
        assert all(item.id == f"{item.group}-{item.id[-2:]}" for item in published("cases"))

    def test_training_part_can_be_read_and_no_other(self, published):
        assert len(published("cases", split="train")) == 135
        with pytest.raises(
            ConfigError, match="`benchmark.cases.split` must be one of train, validation, but got .*=test"
        ):
            published("cases", split="test")

    @pytest.mark.parametrize("change", [{"path": "cases.jsonl"}, {"hub": "someone/cases"}])
    def test_another_place_is_refused(self, published, change):
        with pytest.raises(ConfigError, match="the cases are in the package, but got benchmark.cases.path="):
            published("cases", **change)
