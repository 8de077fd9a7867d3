"""Metrics, against a hand calculation or another library."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from medbot_exp.evaluation.metrics import calibration_error, confidence, macro_f1, metrics_of, paper_metrics
from medbot_exp.evaluation.paper import Paper
from medbot_exp.evaluation.prediction import Prediction, State

LETTERS = dict.fromkeys("ABCD", "text")
STATES = ("correct", "wrong")
DECISION = {"yes": "yes", "no": "no", "maybe": "maybe"}


def prediction(number, state="correct", label="A", answer="A", **more):
    known = Prediction(
        id=f"item-{number}",
        group=None,
        tags=[],
        options=LETTERS,
        label=label,
        state=state,
        answer=answer,
        prompt="",
        completion="text",
        stop="end",
        forced=False,
        prompt_tokens=10,
        completion_tokens=5,
        log_likelihoods=None,
        item_hash="",
        prompt_hash="",
        target_hash="",
    )
    return replace(known, **more)


def test_every_state_but_correct_is_wrong_and_told():
    states = ["correct"] * 4 + ["wrong"] * 3 + ["unparsed", "truncated", "unclosed_think"]
    found = metrics_of([prediction(number, state) for number, state in enumerate(states)], seconds=2.0)
    assert found["n"] == 10 and found["accuracy"] == 0.4
    assert [found[state] for state in ("unparsed", "truncated", "unclosed_think")] == [0.1, 0.1, 0.1]
    assert found["accuracy_best"] == pytest.approx(0.7)
    assert found["accuracy_low"] < 0.4 < found["accuracy_high"]
    assert (found["chance"], found["majority"]) == (0.25, 1.0)
    assert found["completion_tokens"] == 5 and found["tokens_per_second"] == 25.0
    assert {state.name for state in State} == set(states)


def test_macro_f1_is_scikit_learns():
    # scikit-learn 1.7: f1_score(labels, answers, average="macro", labels=["yes", "no", "maybe"], zero_division=0)
    labels = ["yes", "yes", "no", "no", "maybe", "yes"]
    answers = ["yes", "no", "no", "yes", "yes", "yes"]
    rows = [
        prediction(number, label=label, answer=answer, options=DECISION)
        for number, (label, answer) in enumerate(zip(labels, answers, strict=True))
    ]
    # yes: precision 2/4, recall 2/3; no: 1/2 and 1/2; maybe: none.
    assert macro_f1(rows) == pytest.approx((4 / 7 + 1 / 2 + 0) / 3)
    assert "macro_f1" in metrics_of(rows, 1.0) and "macro_f1" not in metrics_of([prediction(1)], 1.0)


def test_calibration_error_is_the_gap_of_each_bin():
    sure = {"A": 0.0, "B": -100.0, "C": -100.0, "D": -100.0}
    torn = {"A": math.log(2), "B": 0.0}  # 2/3 and 1/3
    rows = [prediction(number, state, log_likelihoods=sure) for number, state in enumerate(["correct", "wrong"])]
    rows += [prediction(9, "correct", log_likelihoods=torn)]
    assert calibration_error(rows) == pytest.approx((2 * abs(1 - 0.5) + abs(2 / 3 - 1)) / 3)


def test_confidence_is_that_of_the_answer_which_need_not_be_the_likeliest():
    likelihoods = {"A": math.log(0.06), "B": math.log(0.02), "C": math.log(0.1), "D": math.log(0.02)}
    assert confidence(prediction(0, answer="A", log_likelihoods=likelihoods)) == pytest.approx(0.3)
    assert confidence(prediction(0, answer="C", log_likelihoods=likelihoods)) == pytest.approx(0.5)
    beyond = {"A": -5000.0, "B": -5000.0 - math.log(3)}  # texts of many words, whose likelihoods are no floats
    assert confidence(prediction(0, answer="A", log_likelihoods=beyond)) == pytest.approx(0.75)
    assert confidence(prediction(0, log_likelihoods=dict.fromkeys("ABCD", -math.inf))) == 0.25


def test_metrics_are_json():
    for likelihoods in (dict.fromkeys("ABCD", -math.inf), {"A": 0.0, "B": -math.inf}):
        for state in ("correct", "wrong"):
            rows = [prediction(0, state, completion=None, log_likelihoods=likelihoods, group="anatomy")]
            json.dumps(metrics_of(rows, 0.0), allow_nan=False)
            json.dumps(metrics_of([prediction(0, state)], 0.0), allow_nan=False)


def test_tags_have_numbers_of_their_own():
    rows = [prediction(number, "correct") for number in range(6)]
    rows += [prediction(6, "correct", tags=["negated"]), prediction(7, "wrong", tags=["negated", "multi"])]
    found = metrics_of(rows, 1.0)
    assert (found["negated/n"], found["negated/accuracy"], found["negated/gap"]) == (2, 0.5, 0.5)
    assert (found["multi/n"], found["multi/accuracy"]) == (1, 0.0)


def test_orders_of_an_item_count_together_and_show_what_a_place_is_worth():
    rows = []
    for item, right in (("x", "ABCD"), ("y", "A")):
        for turn, label in enumerate("ABCD"):
            state = "correct" if label in right else "wrong"
            rows.append(prediction(0, state, label, id=f"{item}~{turn}", group=item))
    found = metrics_of(rows, 1.0)
    assert found["all_right"] == 0.5
    assert found["position_spread"] == 0.5  # all right at A, half elsewhere
    alone = metrics_of([replace(row, group=None) for row in rows], 1.0)
    assert found["accuracy_high"] - found["accuracy_low"] > alone["accuracy_high"] - alone["accuracy_low"]


@pytest.mark.parametrize("subject", [None, "anatomy"])
def test_turns_that_are_all_right_are_as_sure_as_their_items(subject):
    rows = [prediction(0, id=f"{item}~{turn}", group=subject or str(item)) for item in range(10) for turn in range(4)]
    assert metrics_of(rows, 1.0)["accuracy_low"] == pytest.approx(0.7225, abs=1e-4)  # Wilson's of 10 of 10


def test_subjects_are_counted_where_the_interval_is_over_them():
    def subjects(groups, right):
        rows = [
            prediction(number, "correct" if each else "wrong", group=group)
            for number, (group, each) in enumerate(zip(groups, right, strict=True))
        ]
        return metrics_of(rows, 1.0).get("subjects")

    assert subjects("aabbcc", [1, 0, 1, 1, 0, 0]) == 3
    assert subjects("abcdef", [1, 0, 1, 1, 0, 0]) is None  # each item alone
    assert subjects("aaaaaa", [1, 0, 1, 1, 0, 0]) is None
    assert subjects([None] * 6, [1, 0, 1, 1, 0, 0]) is None
    assert subjects("aabbcc", [1] * 6) is None  # Wilson's of the items
    turns = [
        prediction(0, state, id=f"{item}~{turn}", group=item) for item in "xy" for turn, state in enumerate(STATES)
    ]
    assert "subjects" not in metrics_of(turns, 1.0)


def test_measured_options_have_no_tokens_per_second():
    rows = [prediction(0, completion=None, log_likelihoods={"A": 0.0, "B": np.log(0.5)})]
    found = metrics_of(rows, 1.0)
    assert "calibration_error" in found and "tokens_per_second" not in found


def test_items_that_are_given_away_are_left_out_of_the_clean_accuracy(compose):
    rows = [replace(prediction(number, state), id=f"i{number}~0") for number, state in enumerate(["correct", "wrong"])]
    paper = Paper("medqa", "medqa", "0" * 64, compose("benchmark=[medqa]").benchmark["medqa"], [], [], ("long-1",))
    found = paper_metrics(paper, rows, 1.0, frozenset({"i1"}))
    assert (found["eval/medqa/clean/n"], found["eval/medqa/clean/accuracy"]) == (1, 1.0)
    assert (found["eval/medqa/accuracy"], found["eval/medqa/too_long"]) == (0.5, 1)
    assert paper_metrics(paper, rows, 1.0, frozenset({"i0", "i1"}))["eval/medqa/clean/n"] == 0
    assert not any("clean" in key for key in paper_metrics(paper, rows, 1.0))
