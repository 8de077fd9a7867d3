"""Bounds on metrics: how they are read, and that a trial beyond them is not the best."""

import pytest

from medbot_exp.errors import ConfigError
from medbot_exp.sweep.constraints import Constraint, excesses, read_constraints

METRICS = ["validation/loss", "peak_memory_gib"]


def test_bounds_are_read_as_metric_operator_and_number():
    read = read_constraints(["peak_memory_gib<=20", " eval/cases/accuracy >= 1.5e-1 "], None)
    assert read == (Constraint("peak_memory_gib", "<=", 20.0), Constraint("eval/cases/accuracy", ">=", 0.15))
    assert read_constraints(None, METRICS) == ()


@pytest.mark.parametrize(
    "texts, words",
    [
        ("peak_memory_gib<=20", "must be a list of bounds on metrics, but got peak_memory_gib<=20"),
        (["peak_memory_gib<20"], "each a metric, <= or >= and a number, but got peak_memory_gib<20"),
        (["peak_memory_gib<=much"], "but got peak_memory_gib<=much"),
        ([20], "but got 20"),
        (["peak_memory<=20"], "but got peak_memory<=20; the run has: validation/loss, peak_memory_gib"),
    ],
)
def test_what_is_no_bound_is_told(texts, words):
    with pytest.raises(ConfigError) as caught:
        read_constraints(texts, METRICS)
    assert words in str(caught.value)


def test_all_faults_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        read_constraints(["a", "memory<=1"], METRICS)
    assert len(str(caught.value).splitlines()) == 2


def test_excess_is_above_zero_exactly_beyond_the_bound():
    constraints = (Constraint("memory", "<=", 20.0), Constraint("accuracy", ">=", 0.5))
    found = excesses(constraints, {"memory": 20.0, "accuracy": 0.25, "loss": 1.0})
    assert found == {"memory<=20": 0.0, "accuracy>=0.5": 0.25}
    assert excesses(constraints, {"memory": 21.5}) == {"memory<=20": 1.5}
