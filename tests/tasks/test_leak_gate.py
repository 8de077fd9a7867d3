"""What becomes of training rows that give away an item."""

from dataclasses import replace

import pytest

from medbot_exp.config import OnLeak
from medbot_exp.data.example import Example, Split
from medbot_exp.errors import DataError
from medbot_exp.evaluation.item import Item
from medbot_exp.evaluation.order import turns
from medbot_exp.evaluation.paper import Paper
from medbot_exp.tasks.leak_gate import asked_of, pass_gate

QUESTION = (
    "A 34-year-old woman has had tremor, heat intolerance and weight loss of six kilograms for two months. Her thyroid "
    "is diffusely enlarged, and TSH is suppressed. Which antibody explains all of it?"
)
ITEM = Item("thyroid-1", QUESTION, {"A": "Anti-TPO", "B": "TSH receptor", "C": "Anti-dsDNA", "D": "Anti-GBM"}, "B")
OTHER = Example("free", "Which vitamin prevents scurvy in sailors without fruit?", "Collagen.", "Vitamin C")
LEAKING = Example("leaking", QUESTION.replace("34", "35"), "Graves.", "TSH receptor")


@pytest.fixture
def paper(compose):
    """One item."""
    return Paper("medqa", "medqa", "0" * 64, compose("benchmark=[medqa]").benchmark["medqa"], [ITEM], [])


def test_rows_that_give_nothing_away_pass(paper):
    passed = pass_gate(Split([OTHER], []), [paper], OnLeak.error)
    assert passed.split.train == [OTHER] and passed.dropped() == 0 and passed.rows() == []
    assert passed.report()["benchmarks"] == {"medqa": {"items": 1, "leaked": 0, "overlap": 0, "ngrams": 0, "fuzzy": 0}}


def test_row_that_gives_an_item_away_is_dropped(paper, caplog):
    passed = pass_gate(Split([LEAKING, OTHER], []), [paper], OnLeak.drop)
    assert passed.split.train == [OTHER] and passed.dropped() == 1 and passed.given_away() == {}
    assert passed.report()["benchmarks"]["medqa"]["leaked"] == 1
    (row,) = passed.rows()
    assert (row["row"], row["benchmark"], row["item"]) == ("leaking", "medqa", "thyroid-1") and 0 < row["share"] <= 1
    assert "1 of 2 do (row leaking gives away item thyroid-1 of medqa: overlap" in caplog.text


def test_row_that_is_kept_is_told_with_the_items_that_it_gives_away(paper):
    passed = pass_gate(Split([LEAKING, OTHER], []), [paper], OnLeak.report)
    assert passed.split.train == [LEAKING, OTHER] and passed.given_away() == {"medqa": frozenset({"thyroid-1"})}


@pytest.mark.parametrize("rows, policy", [([LEAKING, OTHER], OnLeak.error), ([LEAKING], OnLeak.drop)])
def test_run_ends_where_it_is_to_or_no_row_is_left(paper, rows, policy):
    with pytest.raises(DataError, match="no training row may give away an item of a benchmark, but 1 of"):
        pass_gate(Split(rows, []), [paper], policy)


def test_item_in_several_orders_is_sought_once(paper):
    assert [asked.id for asked in asked_of(replace(paper, items=turns(ITEM)))] == ["thyroid-1"]


def test_question_is_sought_without_its_context_too(paper):
    item = replace(ITEM, context="We asked forty patients. Most of them were better after a week of rest in bed.")
    row = replace(LEAKING, question=QUESTION)
    asked = replace(paper, items=[item])
    passed = pass_gate(Split([row, OTHER], []), [asked], OnLeak.drop)
    assert len(passed.rows()) == 1 and passed.audit.items == {"medqa": 1}
    in_context = replace(row, question=f"{item.context} {QUESTION}")
    assert len(pass_gate(Split([in_context, OTHER], []), [asked], OnLeak.drop).rows()) == 1
