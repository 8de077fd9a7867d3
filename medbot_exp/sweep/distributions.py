"""What may be searched: from Hydra's override syntax to Optuna's distributions.

https://hydra.cc/docs/1.3/advanced/override_grammar/extended:

    a,b,c   choice(a,b,c)   glob(*)            one of them; whole lists and dicts too
    range(1,9)   range(0,1,0.25)               its numbers; whether the stop is one of them, see searched_or_fixed
    interval(0,1)                              floats, also between whole numbers: Hydra reads those as floats
    int(interval(1,64))                        whole numbers, both ends included
    tag(log,interval(1e-5,1e-2))               on a logarithmic scale; int(...) of it for whole numbers
    shuffle(range(1,9))                        its numbers as choices without an order, never the stop

An import of this module loads Optuna.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from itertools import accumulate
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep, Sweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from medbot_exp.override_text import is_number, plain, written

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Searched:
    """A distribution, and of a categorical one what Hydra reads each choice from."""

    distribution: BaseDistribution
    texts: tuple[str, ...] = ()


def searched_or_fixed(override: Override, with_stop: bool) -> Searched | str:
    """How `override` is to be searched, or its text where it is one value; that of `~key` is empty.

    Args:
        with_stop: a range goes up to its stop, if its steps come there. hydra-optuna-sweeper has it so for every
            sampler but grid, where it leaves the stop out, as Hydra does.

    Raises:
        ValueError: it cannot be searched, or has no text.
    """
    if override.value_type is None:
        return ""
    value = override.value()
    if isinstance(value, Glob):
        names = list(override.sweep_iterator())
        if not names:
            raise ValueError(f"the group {override.key_or_group} has no option that matches {value.include}")
        return categorical(names)
    if not isinstance(value, Sweep):
        return written(value)
    if isinstance(value, IntervalSweep):
        return Searched(interval(value))
    if isinstance(value, RangeSweep):
        return searched_range(value, with_stop and not value.shuffle, str(override.input_line))
    if "log" in value.tags:
        raise ValueError("tag(log,...) goes around an interval or a range")
    assert isinstance(value, ChoiceSweep)
    # A shuffled choice is left as it is: to Optuna choices have no order, and a resumed study needs them unchanged.
    return categorical(value.list)


def categorical(values: Sequence[Any]) -> Searched:
    """One of `values`; those that are no scalars, or that Optuna would confuse, are their override text to it."""
    choices = {written(value): value for value in map(plain, values)}
    if len(choices) < len(values):
        log.warning("choices that are there twice count once: %s", ",".join(written(plain(value)) for value in values))
    names = [text if isinstance(value, list | dict) else value for text, value in choices.items()]
    # 1, 1.0 and true are equal in Python, and Optuna looks choices up by equality.
    if len(set(names)) < len(names):
        names = list(choices)
    return Searched(CategoricalDistribution(names), tuple(choices))


def interval(sweep: IntervalSweep) -> IntDistribution | FloatDistribution:
    """Whole numbers where int() was written around it, else floats."""
    low, high, logarithmic = sweep.start, sweep.end, "log" in sweep.tags
    assert low is not None and high is not None
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=logarithmic)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"an interval must have finite ends, not {low} and {high}")
    return FloatDistribution(low, high, log=logarithmic)


def searched_range(sweep: RangeSweep, with_stop: bool, text: str) -> Searched:
    """The numbers of the range that `text` spells."""
    numbers = numbers_of(sweep, with_stop)
    if with_stop and sweep.stop in numbers:
        log.info("%s: %s is one of its numbers, as in hydra-optuna-sweeper; to a grid it is not", text, sweep.stop)
    if "log" in sweep.tags and not (isinstance(numbers, range) and abs(numbers.step) == 1):
        raise ValueError("a logarithmic scale has no steps; try tag(log,interval(<low>,<high>))")
    if sweep.shuffle:
        return categorical(numbers)
    low, high = min(numbers[0], numbers[-1]), max(numbers[0], numbers[-1])
    if isinstance(numbers, range):
        return Searched(IntDistribution(low, high, log="log" in sweep.tags, step=abs(numbers.step)))
    return Searched(FloatDistribution(low, high, step=abs(sweep.step)))


def numbers_of(sweep: RangeSweep, with_stop: bool) -> Sequence[Any]:
    """The numbers of `sweep`, a Python range where they are whole.

    Raises:
        ValueError: there are none, or endlessly many.
    """
    start, stop, step = sweep.start, sweep.stop, sweep.step
    assert start is not None and stop is not None
    if not all(map(math.isfinite, (start, stop, step))) or step == 0:
        raise ValueError(f"a range must end, not go from {start} to {stop} by {step}")
    numbers: Sequence[Any]
    if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
        beyond = 1 if step > 0 else -1
        numbers = range(start, stop + beyond if with_stop else stop, step)
    else:
        steps = (exact(stop) - exact(start)) / exact(step)
        numbers = decimals(start, step, math.floor(steps) + 1 if with_stop else math.ceil(steps))
    if not numbers:
        raise ValueError(f"a range must have a number, but from {start} to {stop} by {step} there is none")
    return numbers


def decimals(start: float, step: float, count: int) -> list[float]:
    """`count` numbers from `start` by `step`, as one counts on paper: 0, 0.1, 0.2, 0.3 and not 0.30000000000000004."""
    return [float(number) for number in accumulate([exact(step)] * (count - 1), initial=exact(start))][: max(count, 0)]


def exact(number: float) -> Decimal:
    """The number that was written."""
    return Decimal(repr(number))


def older(settings: Any) -> Searched:
    """What an entry of hydra.sweeper.search_space asks for.

    Raises:
        ValueError: a key is missing, unknown, or has a value that does not go with the others.
    """
    allowed = ("type", "low", "high", "log", "step", "choices")
    if not isinstance(settings, dict) or not set(settings) <= set(allowed):
        raise ValueError(f"its keys must be some of {', '.join(allowed)}")
    given: dict[str, Any] = dict.fromkeys(allowed) | settings
    kind = given["type"].name if isinstance(given["type"], Enum) else given["type"]
    low, high, step = given["low"], given["high"], given["step"]
    if kind == "categorical":
        if not isinstance(given["choices"], list) or not given["choices"]:
            raise ValueError("a categorical one must have a list of choices")
        return categorical(given["choices"])
    if kind not in ("int", "float"):
        raise ValueError("its type must be int, float or categorical")
    if not (is_number(low) and is_number(high)):
        raise ValueError("low and high must be numbers")
    logarithmic = bool(given["log"])
    if kind == "int":
        return Searched(IntDistribution(int(low), int(high), log=logarithmic, step=1 if step is None else int(step)))
    return Searched(FloatDistribution(low, high, log=logarithmic, step=step))


def values_of(distribution: BaseDistribution) -> Sequence[Any]:
    """Every value of a distribution that can be counted."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    assert isinstance(distribution, FloatDistribution) and distribution.step is not None
    steps = (exact(distribution.high) - exact(distribution.low)) / exact(distribution.step)
    return decimals(distribution.low, distribution.step, round(steps) + 1)
