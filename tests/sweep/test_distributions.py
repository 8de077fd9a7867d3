"""What may be searched: Hydra's override syntax as Optuna's distributions."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from medbot_exp.sweep.distributions import Searched, searched_or_fixed


def searched(text, with_stop=False):
    """The distribution behind `x=<text>`."""
    entry = searched_or_fixed(OverridesParser.create().parse_override(f"x={text}"), with_stop)
    assert isinstance(entry, Searched)
    return entry.distribution


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(-5.5, 5.5)", FloatDistribution(-5.5, 5.5)),
        ("interval(1,64)", FloatDistribution(1.0, 64.0)),
        ("int(interval(1,64))", IntDistribution(1, 64)),
        ("float(interval(1,64))", FloatDistribution(1.0, 64.0)),
        ("tag(log,interval(1e-5,1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
        ("tag(log, int(interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("int(tag(log,interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("tag(mine,interval(0,1))", FloatDistribution(0.0, 1.0)),
        ("range(1,9)", IntDistribution(1, 8)),
        ("range(8)", IntDistribution(0, 7)),
        ("range(1,10,4)", IntDistribution(1, 9, step=4)),
        ("range(1,9,4)", IntDistribution(1, 5, step=4)),
        ("range(5,1,-2)", IntDistribution(3, 5, step=2)),
        ("tag(log,range(1,65))", IntDistribution(1, 64, log=True)),
        ("range(0,1,0.25)", FloatDistribution(0.0, 0.75, step=0.25)),
        ("range(0,0.9,0.3)", FloatDistribution(0.0, 0.6, step=0.3)),
        ("float(range(1,4))", FloatDistribution(1.0, 3.0, step=1.0)),
        ("shuffle(range(1,4))", CategoricalDistribution([1, 2, 3])),
        ("shuffle(range(0,0.4,0.1))", CategoricalDistribution([0.0, 0.1, 0.2, 0.3])),
        ("shuffle(range(0,0.9,0.3))", CategoricalDistribution([0.0, 0.3, 0.6])),
        ("sort(range(5,1,-1))", IntDistribution(2, 5)),
        ("choice(-5 ,0 ,5)", CategoricalDistribution([-5, 0, 5])),
        ("a,b,c", CategoricalDistribution(["a", "b", "c"])),
        ("shuffle(3,1,2)", CategoricalDistribution([3, 1, 2])),
        ("sort(3,1,2)", CategoricalDistribution([1, 2, 3])),
        ("int(choice(1.5,2.5))", CategoricalDistribution([1, 2])),
        ("null,true,0.5", CategoricalDistribution([None, True, 0.5])),
        ("choice([q_proj,v_proj],all-linear)", CategoricalDistribution(["[q_proj,v_proj]", "all-linear"])),
    ],
)
def test_override_syntax_becomes_optunas_distribution(text, expected):
    found = searched(text)
    assert found == expected
    assert [type(value) for value in vars(found).values()] == [type(value) for value in vars(expected).values()]


def test_choice_that_is_there_twice_counts_once(caplog):
    assert searched("a,b,a") == CategoricalDistribution(["a", "b"])
    assert "there twice" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("range(1,3)", IntDistribution(1, 3)),
        ("range(1,9,4)", IntDistribution(1, 9, step=4)),
        ("range(1,10,4)", IntDistribution(1, 9, step=4)),
        ("range(5,1,-2)", IntDistribution(1, 5, step=2)),
        ("range(3,3)", IntDistribution(3, 3)),
        ("range(0.5,5.5,step=1)", FloatDistribution(0.5, 5.5, step=1.0)),
        ("range(0,0.9,0.3)", FloatDistribution(0.0, 0.9, step=0.3)),
        ("range(0,1,0.3)", FloatDistribution(0.0, 0.9, step=0.3)),
        ("range(1,0,-0.25)", FloatDistribution(0.0, 1.0, step=0.25)),
        ("range(0.0001,0.2)", FloatDistribution(0.0001, 0.0001, step=1.0)),
        ("shuffle(range(1,3))", CategoricalDistribution([1, 2])),
    ],
)
def test_range_with_its_stop_has_it_where_the_steps_come_there(text, expected):
    assert searched(text, with_stop=True) == expected


def test_range_says_that_it_has_its_stop(caplog):
    caplog.set_level("INFO")
    searched("range(1,10,4)", with_stop=True)
    searched("range(1,9,4)")
    assert not caplog.records
    searched("range(1,9,4)", with_stop=True)
    assert "x=range(1,9,4): 9 is one of its numbers" in caplog.text
