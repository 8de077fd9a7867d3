"""What becomes of training rows that give away an item."""

from dataclasses import replace

import pytest

from medbot_exp.config import OnLeak
from medbot_exp.data.example import Example, Split
from medbot_exp.errors import DataError
from medbot_exp.evaluation.item import Item
from medbot_exp.evaluation.order import turns
from medbot_exp.evaluation.paper import Paper, read_papers
from medbot_exp.tasks.leak_gate import asked_of, pass_gate
from medbot_exp.tasks.start import read_questions

QUESTION = (
    "A 34-year-old woman has had tremor, heat intolerance and weight loss of six kilograms for two months. Her thyroid "
    "is diffusely enlarged, and TSH is suppressed. Which antibody explains all of it?"
)
ITEM = Item("thyroid-1", QUESTION, {"A": "Anti-TPO", "B": "TSH receptor", "C": "Anti-dsDNA", "D": "Anti-GBM"}, "B")
OTHER = Example("free", "Which vitamin prevents scurvy in sailors without fruit?", "Collagen.", "Vitamin C")
HELD_OUT = Example("held-out", "Why do sailors eat limes on long voyages?", "Vitamin C.", "Against scurvy")
UNSEEN = frozenset({"medqa"})
LEAKING = Example("leaking", QUESTION.replace("34", "35"), "Graves.", "TSH receptor")


@pytest.fixture
def paper(compose):
    """One item."""
    return Paper("medqa", "medqa", "0" * 64, compose("benchmark=[medqa]").benchmark["medqa"], [ITEM], [])


def test_rows_that_give_nothing_away_pass(paper):
    passed = pass_gate(Split([OTHER], []), [paper], OnLeak.error, UNSEEN)
    assert passed.split.train == [OTHER] and passed.dropped() == 0 and passed.rows() == []
    assert passed.report()["benchmarks"] == {"medqa": {"items": 1, "leaked": 0, "overlap": 0, "ngrams": 0, "fuzzy": 0}}


def test_row_that_gives_an_item_away_is_dropped(paper, caplog):
    passed = pass_gate(Split([LEAKING, OTHER], []), [paper], OnLeak.drop, UNSEEN)
    assert (
        passed.split.train == [OTHER] and passed.dropped() == 1 and passed.given_away([paper]) == {"medqa": frozenset()}
    )
    assert passed.report()["benchmarks"]["medqa"]["leaked"] == 1
    (row,) = passed.rows()
    assert (row["row"], row["benchmark"], row["item"]) == ("leaking", "medqa", "thyroid-1") and 0 < row["share"] <= 1
    assert "1 of 2 do (row leaking gives away item thyroid-1 of medqa: overlap" in caplog.text


def test_row_that_is_kept_is_told_with_the_items_that_it_gives_away(paper):
    passed = pass_gate(Split([LEAKING, OTHER], []), [paper], OnLeak.report, UNSEEN)
    assert passed.split.train == [LEAKING, OTHER]
    assert passed.given_away([paper]) == {"medqa": frozenset({"thyroid-1"})}
    assert passed.given_away([replace(paper, items=[], others=[ITEM])]) == {"medqa": frozenset()}


def test_item_that_a_limit_leaves_out_is_sought_too(paper):
    hidden = replace(paper, items=[replace(ITEM, id="scurvy", question="Scurvy is the lack of:")], others=[ITEM])
    passed = pass_gate(Split([LEAKING, OTHER], []), [hidden], OnLeak.drop, UNSEEN)
    assert passed.split.train == [OTHER] and passed.audit.items == {"medqa": 2}


def test_held_out_row_that_gives_a_test_away_is_dropped(paper, caplog):
    passed = pass_gate(Split([OTHER], [LEAKING, HELD_OUT]), [paper], OnLeak.drop, UNSEEN)
    assert passed.split == Split([OTHER], [HELD_OUT]) and passed.dropped() == 0
    assert passed.report()["held_out"] == {"rows": 2, "dropped": 1, "leaked": {"medqa": 1}}
    assert [row["part"] for row in passed.rows()] == ["validation"]
    assert "held-out rows that give away an item of a benchmark: 1 of 2 do (row leaking gives away" in caplog.text
    kept = pass_gate(Split([OTHER], [LEAKING, HELD_OUT]), [paper], OnLeak.report, UNSEEN)
    assert kept.split.validation == [LEAKING, HELD_OUT]
    assert kept.given_away([paper]) == {"medqa": frozenset({"thyroid-1"})}


@pytest.mark.parametrize("rows, policy", [([LEAKING, HELD_OUT], OnLeak.error), ([LEAKING], OnLeak.drop)])
def test_held_out_rows_end_the_run_where_they_are_to_or_none_is_left(paper, rows, policy):
    with pytest.raises(DataError, match="no held-out row may give away an item of a benchmark, but 1 of"):
        pass_gate(Split([OTHER], rows), [paper], policy, UNSEEN)


def test_held_out_rows_may_give_away_what_a_run_is_chosen_by_anyhow(paper):
    passed = pass_gate(Split([OTHER], [LEAKING]), [paper], OnLeak.error, frozenset())
    assert passed.split.validation == [LEAKING] and passed.held_out.leaks == []


def test_held_out_cases_are_a_test_where_runs_are_chosen_by_others_set_apart(compose):
    def held_out(*overrides):
        passed, _ = read_questions(compose(*overrides))
        return passed, {row.id for row in passed.split.validation}

    passed, rows = held_out()
    assert len(rows) == 45 and passed.rows() == []
    passed, rows = held_out("objective=accuracy", "benchmark.cases.limit=5")
    apart = {item.id for paper in read_papers(compose("objective=accuracy"))[1] for item in paper.items}
    assert rows == apart and len(rows) == 30 and passed.report()["held_out"]["dropped"] == 15


def test_worked_example_that_gives_an_item_away_is_told(paper, caplog):
    shown = replace(ITEM, id="shown", question=QUESTION.replace("34", "35"))
    papers = [replace(paper, worked=[shown])]
    passed = pass_gate(Split([OTHER], []), papers, OnLeak.drop, UNSEEN)
    assert passed.given_away(papers) == {"medqa": frozenset({"thyroid-1"})}
    assert "worked examples that give away an item of a benchmark: 1 of 1 do (row shown gives away" in caplog.text
    with pytest.raises(DataError, match="no worked example may give away an item of a benchmark, but 1 of 1"):
        pass_gate(Split([OTHER], []), papers, OnLeak.error, UNSEEN)


@pytest.mark.parametrize("rows, policy", [([LEAKING, OTHER], OnLeak.error), ([LEAKING], OnLeak.drop)])
def test_run_ends_where_it_is_to_or_no_row_is_left(paper, rows, policy):
    with pytest.raises(DataError, match="no training row may give away an item of a benchmark, but 1 of"):
        pass_gate(Split(rows, []), [paper], policy, UNSEEN)


def test_item_in_several_orders_is_sought_once(paper):
    assert [asked.id for asked in asked_of(replace(paper, items=turns(ITEM)))] == ["thyroid-1"]


def test_question_is_sought_without_its_context_too(paper):
    item = replace(ITEM, context="We asked forty patients. Most of them were better after a week of rest in bed.")
    row = replace(LEAKING, question=QUESTION)
    asked = replace(paper, items=[item])
    passed = pass_gate(Split([row, OTHER], []), [asked], OnLeak.drop, UNSEEN)
    assert len(passed.rows()) == 1 and passed.audit.items == {"medqa": 1}
    in_context = replace(row, question=f"{item.context} {QUESTION}")
    assert len(pass_gate(Split([in_context, OTHER], []), [asked], OnLeak.drop, UNSEEN).rows()) == 1
