"""The benchmark that sets our reader beside others runs their code, and scores it as they do."""

import pytest

HARNESS = "mmlu_pro, custom-extract", "gpqa_main_cot_zeroshot, flexible-extract"
OPTIONS = {"A": "Warfarin", "B": "Heparin", "C": "Vitamin A", "D": "Aspirin"}


@pytest.mark.parametrize(
    "completion, by_sentence, by_choice",
    [
        ("The answer is (B).", "B", "B"),
        ("Give heparin.", None, "B"),
        ("<think>The answer is (A).</think>The answer is (D).", "A", "D"),
    ],
)
def test_filters_of_the_harness_take_what_its_tasks_score(completion, by_sentence, by_choice):
    pytest.importorskip("lm_eval")
    from answers import harness

    named = {extractor.name: extractor for extractor in harness()}
    row = {"completion": completion, "options": OPTIONS}
    assert [named[name].take([row]) for name in HARNESS] == [[by_sentence], [by_choice]]


@pytest.mark.parametrize(
    "completion, letter, word",
    [
        ("The final answer is B.", "B", None),
        ("<think>The answer is A.</think>Answer: D", "D", None),
        ("yes", None, "yes"),
    ],
)
def test_lighteval_takes_a_letter_or_the_whole_word(completion, letter, word):
    pytest.importorskip("lighteval")
    from answers import lighteval

    by_match, by_choice, decision = lighteval()
    assert by_match.take([{"completion": completion, "options": OPTIONS}]) == [letter]
    assert by_choice.take([{"completion": "ANSWER: C", "options": OPTIONS}]) == ["C"]
    assert decision.take([{"completion": completion, "options": {"yes": "yes", "no": "no"}}]) == [word]
