"""Bounds that a trial's metrics must keep: hydra.sweeper.constraints, for example ["peak_memory_gib<=20"].

Samplers that know constraints (tpe, gp, nsgaii, nsgaiii) look for trials that keep them; whatever the sampler, one that
does not keep them is not the best.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medbot_exp.errors import ConfigError

FORM = re.compile(r"\s*(?P<metric>[^\s<>=!]+)\s*(?P<operator><=|>=)\s*(?P<bound>\S+)\s*")


@dataclass(frozen=True)
class Constraint:
    """`metric` must be at most `bound`, or at least: the `operator` is <= or >=."""

    metric: str
    operator: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric}{self.operator}{self.bound:g}"

    def excess(self, value: float) -> float:
        """How far `value` is beyond the bound; at most zero where it keeps it, as Optuna has it."""
        return value - self.bound if self.operator == "<=" else self.bound - value


def read_constraints(texts: Any, metrics: Sequence[str] | None) -> tuple[Constraint, ...]:
    """The constraints that hydra.sweeper.constraints lists.

    Args:
        texts: a list of them, or None.
        metrics: those that a run has; None where that is not known beforehand.

    Raises:
        ConfigError: all faults, a line each.
    """
    rule = "`hydra.sweeper.constraints` must be a list of bounds on metrics"
    example = "for example '[\"peak_memory_gib<=20\"]'"
    if not isinstance(texts, list | None):
        raise ConfigError(f"{rule}, but got {texts}; {example}")
    constraints, faults = [], []
    for text in texts or []:
        try:
            match = FORM.fullmatch(text)
            constraints.append(Constraint(match["metric"], match["operator"], float(match["bound"])))  # type: ignore[index]
        except (TypeError, ValueError):
            faults.append(f"{rule}, each a metric, <= or >= and a number, but got {text}; {example}")
    faults += [
        f"`hydra.sweeper.constraints` must bound what the run measures, but got {constraint}; "
        f"the run has: {', '.join(metrics)}"
        for constraint in constraints
        if metrics is not None and constraint.metric not in metrics
    ]
    if faults:
        raise ConfigError("\n".join(faults))
    return tuple(constraints)


def excesses(constraints: Sequence[Constraint], measured: Mapping[str, Any]) -> dict[str, float]:
    """How far each of `constraints` whose metric is `measured` is exceeded, by its text."""
    return {
        str(constraint): constraint.excess(float(measured[constraint.metric]))
        for constraint in constraints
        if constraint.metric in measured
    }
