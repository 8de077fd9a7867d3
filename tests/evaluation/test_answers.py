"""The answer is what a careful reader takes from the reply, and never from the thought."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from medbot_exp.evaluation.answers import Answer, Reading, read_answer
from medbot_exp.prompt import END_THINK

DRUGS = {"A": "Warfarin", "B": "Heparin", "C": "Vitamin A", "D": "Aspirin"}
DECISION = {"yes": "yes", "no": "no", "maybe": "maybe"}
BATTERY = [
    json.loads(line) for line in (Path(__file__).parent / "answers_battery.jsonl").read_text("utf-8").splitlines()
]


def read(text, options=DRUGS, opened=False, cut=False):
    answer = read_answer(text, options, opened, cut)
    return answer.key or answer.reading.name


def battery_answer(row, completion=None):
    text = row["completion"] if completion is None else completion
    return read_answer(text, row["options"], row["opened"], cut=row["stop"] == "length")


def test_battery_is_read_as_its_physician_reads_it():
    """Labelled by somebody who had not seen the reader; tests/benchmarks/answers.py shows other readers beside it."""
    wrong = defaultdict(list)
    for row in BATTERY:
        if battery_answer(row) != Answer(Reading[row["state"]], row["answer"]):
            wrong[row["id"].rpartition("-")[0]].append(row["id"])
    missed = sum(map(len, wrong.values()))
    assert len(BATTERY) >= 400
    assert missed <= 0.02 * len(BATTERY), dict(wrong)


@pytest.mark.parametrize("thought", ["The answer is {}.", "**Answer: {}**", "\\boxed{{{}}}", "Final answer: {}\n\n{}"])
def test_nothing_in_a_thought_changes_the_answer(thought):
    closed = [row for row in BATTERY if END_THINK in row["completion"]]
    assert len(closed) > 100
    for row in closed:
        _, closing, reply = row["completion"].rpartition(END_THINK)
        for key in row["options"]:
            assert battery_answer(row, thought.format(key, key) + closing + reply) == battery_answer(row), row["id"]


@pytest.mark.parametrize("key", DRUGS)
def test_open_thought_has_no_answer(key):
    assert read(f"<think>The answer is {key}.") == "unclosed_think"
    assert read(f"The answer is {key}.", opened=True) == "unclosed_think"
    assert read(f"The answer is {key}.", opened=True, cut=True) == "unclosed_think"
    assert read(f"</think>The answer is {key}. <think>But") == "unclosed_think"


@pytest.mark.parametrize(
    "text, found",
    [
        ("The answer is B.", "B"),
        ("b", "B"),
        ("**B. Heparin**", "B"),
        ("heparin", "B"),
        ("Final answer: \\boxed{B}", "B"),
        ('{"answer": "B"}', "B"),
        ("Die richtige Antwort ist B.", "B"),
        ("正确答案是Ｂ。", "B"),
        ("A deficiency of vitamin A is treated with a vitamin A supplement.", "C"),
        ("A patient with hepatitis B should get heparin.", "B"),
        ("A is wrong. The answer is not C but D.", "D"),
        ("Answer: B. Wait, I misread the stem: the answer is D.", "D"),
        ("Probably D, although B is possible.", "D"),
    ],
)
def test_answer_is_found(text, found):
    assert read(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer is A. The answer is B.",
        "Answer: A or B",
        "The answer is B: Warfarin.",
        "The answer is F.",
        "A is wrong. B is wrong.",
        "It depends on the patient.",
        "None of the above.",
        "A 45-year-old man was given a drug.",
        "Not B.",
    ],
)
def test_no_answer_is_made_up(text):
    assert read(text) == "unparsed"
    assert read(text, cut=True) == "truncated"


def test_answer_that_was_given_before_the_cut_counts():
    assert read("The answer is B. Heparin acts by way of antithrombin and so it", cut=True) == "B"


@pytest.mark.parametrize(
    "text, found",
    [
        ("Yes, mortality fell.", "yes"),
        ("No significant difference was found. The answer is yes.", "yes"),
        ("There was no difference between the groups.", "unparsed"),
        ("Answer: maybe", "maybe"),
        ("yes/no/maybe", "unparsed"),
        ("The answer is no.", "no"),
    ],
)
def test_decision_is_told_from_the_words_of_a_sentence(text, found):
    assert read(text, DECISION) == found


def test_next_turn_that_a_model_makes_up_does_not_count():
    assert read("The answer is B.\n\nQuestion: What else?\nA. x\nB. y\nAnswer: A") == "B"
    assert read("B<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nThe answer is C") == "B"
