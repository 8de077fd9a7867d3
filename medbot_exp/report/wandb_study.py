"""A study as a run of its own in W&B, in the group of its trials: history, table, importances, the page, the best."""

import logging
from itertools import accumulate
from pathlib import Path
from typing import Any

from medbot_exp.config import TrackingConfig
from medbot_exp.override_text import is_number
from medbot_exp.report.study import Space, StudySummary, TrialRow, counts, plain
from medbot_exp.tracking.wandb import Place, WandbMirror, decide_mode, open_mirror

log = logging.getLogger(__name__)


def mirror_study(
    tracking: TrackingConfig, place: Place, summary: StudySummary, page: Path, config: dict[str, Any]
) -> str | None:
    """Tell W&B what the study came to; where a person finds it, None where W&B could not take it.

    Args:
        page: report.html of the study.
        config: what the trials have in common.
    """
    try:
        mirror = open_mirror(tracking, decide_mode(tracking), place, config)
        tell(mirror, summary, page)
    except Exception as error:  # a mirror is somebody else's service: it may fail in any way
        log.warning("W&B has no run of the study, its files are complete: %s: %s", type(error).__name__, error)
        return None
    return mirror.description


def tell(mirror: WandbMirror, summary: StudySummary, page: Path) -> None:
    """Fill the run and close it."""
    mirror.series("trial", history(summary))
    mirror.table("trials", *table(summary))
    if summary.importances is not None:
        mirror.table("importances", ["parameter", "importance"], [list(pair) for pair in summary.importances.items()])
    mirror.page("report", page)
    mirror.summarize(headline(summary))
    mirror.finish(0)


def history(summary: StudySummary) -> dict[int, dict[str, float]]:
    """The metrics of each complete trial by its number; of one objective also the best so far."""
    rows = [row for row in summary.trials if row.state == "complete" and row.values]
    # Not under the metrics' own names: in a chart of all runs those go by training step.
    names = [f"trials/{metric}" for metric in summary.metric_names]
    told = {row.number: dict(zip(names, row.values or [], strict=True)) for row in rows}
    if len(summary.directions) == 1:
        pick = min if summary.directions[0] == "minimize" else max
        kept = [row for row in rows if row.feasible]
        best = accumulate((row.values[0] for row in kept if row.values), pick)
        for row, value in zip(kept, best, strict=True):
            told[row.number][f"best/{summary.metric_names[0]}"] = value
    return told


def table(summary: StudySummary) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of all trials."""
    columns = ["trial", "state", *summary.metric_names, *summary.spaces, "seconds", "feasible", "retry of", "reason"]
    return columns, [cells(summary, row) for row in summary.trials]


def cells(summary: StudySummary, row: TrialRow) -> list[Any]:
    """The row of a trial."""
    values: list[Any] = [*row.values] if row.values else [None] * len(summary.metric_names)
    parameters = [
        as_cell(row.params[name], space) if name in row.params else None for name, space in summary.spaces.items()
    ]
    return [row.number, row.state, *values, *parameters, row.seconds, row.feasible, row.retry_of, row.reason]


def as_cell(value: Any, space: Space) -> Any:
    """`value` as text, unless all values of its parameter are numbers: W&B wants one type in each column."""
    return value if all(is_number(choice) for choice in space.choices) else plain(value)


def headline(summary: StudySummary) -> dict[str, Any]:
    """How many trials there are of each state, and the best one or the Pareto front, where there is any."""
    told: dict[str, Any] = {"states": counts(row.state for row in summary.trials)}
    if len(summary.directions) > 1:
        told["pareto_front"] = [row.number for row in summary.best]
    elif summary.best:
        told["best"] = {"trial": summary.best[0].number, "params": summary.best[0].params}
    return told
