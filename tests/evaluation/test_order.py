"""Tags that an item's words call for, and the order of its options."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from medbot_exp.config import OptionOrder
from medbot_exp.evaluation.item import Item
from medbot_exp.evaluation.order import movable, negated, ordered, tagged

ITEM = Item(
    "item-1", "Which bone is in the arm?", dict(zip("ABCD", ["Femur", "Tibia", "Ulna", "Rib"], strict=True)), "C"
)


def with_options(*texts: str) -> Item:
    """ITEM with other texts under its letters."""
    return replace(ITEM, options=dict(zip("ABCD", texts, strict=True)))


class TestNegated:
    @pytest.mark.parametrize(
        "stem",
        [
            "All of the following cause fever EXCEPT:",
            "Causes of fever are all except",
            "Fever is caused by all, except -",
            "All of these are true except that one of them",
            "All of the following, except one, are bones. All are paired except?",
            "Which of the following is NOT a bone?",
            "Which of the following is not a bone?",
            "Which drugs are not given in pregnancy?",
            "Which of these does not cross the midline",
            "Which organ doesn't make bile?",
            "Which of the following cannot be felt?",
            "A man has a cough. Which of the following findings would not be expected?",
            "A man has a cough. Which of these is least likely to help him?",
            "Which of the following is unlikely in anaemia?",
            "Which of the following statements is false?",
            "False statement about the spleen:",
            "About the spleen. False is",
            "The incorrect statement about the liver is",
            "True about the spleen are all but one. Which is incorrect?",
            "Which is not true about the liver: it makes bile",
            "Which is not. true about the liver?",
            "The ulna does not touch the:",
            "In scurvy not seen is -",
            "Not a feature of scurvy:",
            "Muscles that are not supplied by the ulnar nerve include the:",
            "Regarding the skin, which of the following is/are not seen?",
        ],
    )
    def test_exception_is_asked_for(self, stem):
        assert negated(stem)

    @pytest.mark.parametrize(
        "stem",
        [
            "Which bone is in the arm?",
            "The fever did not respond to treatment. What is the next step?",
            "He is not allowed to work. He is:",
            "Examination is normal except for a murmur. What is the diagnosis?",
            "Which of the following is given to a man with a normal examination except for a murmur?",
            "She does not want surgery; the best advice is",
            "What is given to a patient who does not tolerate aspirin?",
            "Which of the following best explains why this patient is not better?",
            "Which of the following is the most likely reason that the drug is not working?",
            "Which test is best if the kidneys do not work?",
            "Why can't a patient speak with a tube?",
            "Owing to which defect, the vitamin cannot be made?",
            "The treatment of a newborn not passing stool is",
            "Which of the following has a false positive rate of 5%?",
            "The most common cause of a false aneurysm is",
            "The false vocal cords are swollen. What is seen next?",
            "Which of the following statements is true?",
            "Which notable finding explains the nausea?",
        ],
    )
    def test_denial_within_the_story_is_none(self, stem):
        assert not negated(stem)

    def test_published_stems_that_were_read_by_hand(self, real_rows):
        """Of 600 stems, 58 ask for the exception by hand; the rule finds 57 of them, and no other."""
        found = {}
        for name in ("medqa_us_test_300.jsonl", "medmcqa_dev_300.jsonl"):
            lines = (real_rows / name).read_text(encoding="utf-8").splitlines()
            found[name] = {number for number, line in enumerate(lines) if negated(json.loads(line)["question"])}
        assert found["medqa_us_test_300.jsonl"] == {99, 124}
        by_hand = """0 1 4 7 11 15 27 34 40 46 59 63 66 75 82 87 89 97 99 106 108 116 123 129 135 149 159 163 168 169
            170 174 179 183 184 193 210 213 215 218 223 231 232 234 250 253 254 257 258 263 264 276 287 288 289 299"""
        assert {int(number) for number in by_hand.split()} - found["medmcqa_dev_300.jsonl"] == {169}
        assert not found["medmcqa_dev_300.jsonl"] - {int(number) for number in by_hand.split()}


class TestTagged:
    @pytest.mark.parametrize(
        "text",
        ["All of the above", "None of the above.", "ALL", "None", "All of these", "none of these", "All are correct"]
        + ["Any of the above", "Both A and B", "A and C", "a & b", "(A), (B) and (C)", "Both AB", "Only B", "B only"]
        + [
            "Neither A nor B",
            "Both",
            "Both of the above",
            "All except C",
            "A, B, C and D",
            "More than one of the above",
        ],
    )
    def test_option_that_speaks_of_others(self, text):
        assert tagged(with_options("Femur", "Tibia", "Ulna", text)).tags == ("all_of_the_above",)

    @pytest.mark.parametrize(
        "text",
        ["All lobes", "Both lungs", "Hepatitis A and B", "Vitamin A", "Factors B and C", "AB", "ACE", "No complication"]
        + ["None of the patient's relatives", "A", "Apo B", "Either lung"],
    )
    def test_option_that_stands_by_itself(self, text):
        assert tagged(with_options("Femur", "Tibia", "Ulna", text)).tags == ()

    def test_same_text_twice(self):
        assert tagged(with_options("Femur", "Tibia", "Ulna", "Tibia")).tags == ("same_options",)

    def test_tags_are_added_to_those_there_are(self):
        item = replace(with_options("Femur", "Tibia", "Ulna", "None"), question="Which is not a bone?", tags=("multi",))
        assert tagged(item).tags == ("multi", "negated", "all_of_the_above")


YES_NO = Item("7", "Does rest help?", {"yes": "yes", "no": "no", "maybe": "maybe"}, "yes")
ABOVE = with_options("Femur", "Tibia", "Ulna", "All of the above")
LETTERS = with_options("Femur", "Tibia", "Ulna", "Both A and C")


class TestMovable:
    @pytest.mark.parametrize(
        ("item", "keys"),
        [
            (ITEM, "ABCD"),
            (ABOVE, "ABC"),
            (with_options("Femur", "Tibia", "All of these", "None of these"), "AB"),
            (with_options("Femur", "All of the above", "Ulna", "Rib"), ""),
            (with_options("Femur", "Tibia", "Both", "Rib"), ""),
            (with_options("A", "B", "AB", "O"), ""),
            (LETTERS, ""),
            (YES_NO, ""),
        ],
    )
    def test_what_can_change_places(self, item, keys):
        assert movable(item) == list(keys)


def test_published_order_is_left_alone():
    assert ordered([ITEM, ABOVE], OptionOrder.published, seed=1) == [ITEM, ABOVE]


class TestShuffled:
    def test_texts_move_under_the_letters_and_the_label_goes_with_its_text(self):
        for seed in range(50):
            (item,) = ordered([ITEM], OptionOrder.shuffled, seed)
            assert list(item.options) == list("ABCD")
            assert sorted(item.options.values()) == sorted(ITEM.options.values())
            assert item.options[item.label] == "Ulna"
            assert replace(item, options=ITEM.options, label="C") == ITEM

    def test_order_follows_from_id_and_seed_alone(self):
        others = [replace(ITEM, id=f"item-{number}") for number in range(9)]
        (alone,) = ordered([others[5]], OptionOrder.shuffled, 3407)
        assert ordered(others, OptionOrder.shuffled, 3407)[5] == alone
        assert alone in ordered(others[::-1], OptionOrder.shuffled, 3407)

    def test_every_place_is_as_likely(self):
        items = ordered([replace(ITEM, id=str(number)) for number in range(4000)], OptionOrder.shuffled, 3407)
        labels = Counter(item.label for item in items)
        # 1,000 each, but for 4 standard deviations of 27.
        assert all(890 <= labels[letter] <= 1110 for letter in "ABCD")
        assert len({tuple(item.options.values()) for item in items}) == 24

    def test_another_seed_is_another_order(self):
        orders = {tuple(ordered([ITEM], OptionOrder.shuffled, seed)[0].options.values()) for seed in range(20)}
        assert len(orders) > 5

    def test_what_speaks_of_all_above_stays_below(self):
        for seed in range(20):
            (item,) = ordered([ABOVE], OptionOrder.shuffled, seed)
            assert item.options["D"] == "All of the above"
            assert item.options[item.label] == "Ulna"

    def test_items_that_cannot_be_reordered_are_as_published(self):
        for seed in range(20):
            assert ordered([LETTERS, YES_NO], OptionOrder.shuffled, seed) == [LETTERS, YES_NO]

    def test_label_goes_with_its_place_where_two_texts_are_the_same(self):
        item = with_options("Femur", "Ulna", "Ulna", "Rib")
        labels = {ordered([item], OptionOrder.shuffled, seed)[0].label for seed in range(30)}
        assert labels == set("ABCD")


class TestCyclic:
    def test_four_rotations_with_the_label_once_in_each_place(self):
        items = ordered([ITEM], OptionOrder.cyclic, seed=1)
        assert [item.id for item in items] == ["item-1~0", "item-1~1", "item-1~2", "item-1~3"]
        assert ["".join(text[0] for text in item.options.values()) for item in items] == [
            "FTUR",
            "TURF",
            "URFT",
            "RFTU",
        ]
        assert [item.label for item in items] == ["C", "B", "A", "D"]
        assert {item.group for item in items} == {"item-1"}

    def test_group_is_kept_where_there_is_one(self):
        items = ordered([replace(ITEM, group="Anatomy")], OptionOrder.cyclic, seed=1)
        assert {item.group for item in items} == {"Anatomy"}

    def test_three_rotations_above_what_speaks_of_all(self):
        items = ordered([ABOVE], OptionOrder.cyclic, seed=1)
        assert [item.label for item in items] == ["C", "B", "A"]
        assert {item.options["D"] for item in items} == {"All of the above"}

    def test_item_that_cannot_be_rotated_appears_once(self):
        items = ordered([LETTERS, YES_NO], OptionOrder.cyclic, seed=1)
        assert items == [replace(item, id=f"{item.id}~0", group=item.id) for item in (LETTERS, YES_NO)]
