"""The end of a grid: one table of its trials, the best of them, and what to type next."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.markup import escape
from rich.table import Table

from medbot_exp.config import Direction, ObjectiveConfig
from medbot_exp.report.console import print_facts, stdout_console
from medbot_exp.report.progress import duration
from medbot_exp.report.summary import benchmarks_of
from medbot_exp.rundir import HydraFiles, RunDirectory, trials_of
from medbot_exp.sweep.winner import test_facts


@dataclass(frozen=True)
class Trial:
    """A trial as its directory tells it.

    Attributes:
        held_out: fingerprint of its tokenised held-out rows; None where it did not come so far.
        result: the content of result.json; None where it did not end.
    """

    directory: RunDirectory
    files: HydraFiles
    held_out: str | None
    result: dict[str, Any] | None

    def objective(self) -> float | None:
        """The value that the grid is about, the first of several; None unless the trial is complete."""
        if self.result is None or self.result["status"] != "complete":
            return None
        return float(next(iter(self.result["objective"].values())))


def print_grid(study: Path, points: int) -> None:
    """Print how the trials in `study` went; nothing where none began.

    Args:
        points: how many the grid was to have.
    """
    trials = [read(directory) for directory in trials_of(study) if directory.config.is_file()]
    if not trials:
        return
    objective = ObjectiveConfig(**yaml.safe_load(trials[0].files.resolved)["objective"])
    metric, direction = next(iter(objective.goals().items()))
    comparable = compare(trials, metric)
    best = best_of(trials, direction) if comparable else None
    console = stdout_console()
    console.print()
    console.print(table_of(trials, best))
    for trial in trials:
        if trial.result is not None and trial.result["status"] == "failed":
            reason = trial.result["error"].splitlines()[0]
            console.print(f"  {trial.directory.path.name} failed: {escape(reason)}", soft_wrap=True, highlight=False)
    facts = {"study": f"{RunDirectory(study)} ({len(trials)} of {points} trials begun)"}
    if not comparable:
        facts["best"] = (
            "none: the trials' held-out tokens differ (data, prompt or tokenizer), so their losses do not compare"
        )
    elif best is not None:
        facts["best"] = f"{best.directory}, by {metric}"
        facts["again"] = best.files.command(without=("study=",))
        if len(trials) == points and all(trial.result is not None for trial in trials):
            facts |= test_facts(best.directory)
    if list(study.glob("trial-*/wandb/offline-run-*")):
        facts["W&B"] = f"offline; wandb sync {RunDirectory(study)}/trial-*/wandb/offline-run-*"
    print_facts(console, facts)


def compare(trials: list[Trial], metric: str) -> bool:
    """Whether `metric` means the same in all `trials`: a loss does over the same held-out tokens alone."""
    return metric.endswith("/accuracy") or len({trial.held_out for trial in trials} - {None}) < 2


def table_of(trials: list[Trial], best: Trial | None) -> Table:
    """A row for each of `trials`: what is its own among the overrides, and how it did."""
    common = set.intersection(*(set(trial.files.task_overrides()) for trial in trials))
    rows = [[word for word in trial.files.task_overrides() if word not in common] for trial in trials]
    metrics = {key for trial in trials if trial.result for key in trial.result.get("metrics", {})}
    accuracies = [f"eval/{name}/accuracy" for name in sorted(benchmarks_of(dict.fromkeys(metrics)))]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("trial", no_wrap=True)
    longest = max((len(word) for row in rows for word in row), default=0)
    table.add_column("overrides", overflow="fold", min_width=min(40, longest))
    for name in ("held-out\nloss", *(f"accuracy\non {key.split('/')[1]}" for key in accuracies), "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for trial, varied in zip(trials, rows, strict=True):
        cells = [trial.directory.path.name, "\n".join(varied) or "-", *measured(trial, accuracies), status(trial, best)]
        table.add_row(*map(escape, cells), style="bold" if trial is best else None)
    return table


def read(directory: RunDirectory) -> Trial:
    """The trial in `directory`."""
    manifest, result = (
        json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        for path in (directory.manifest, directory.result)
    )
    held_out = None if manifest is None else manifest["tokenized"]["validation"]["fingerprint"]
    return Trial(directory, HydraFiles.read(directory), held_out, result)


def best_of(trials: list[Trial], direction: Direction) -> Trial | None:
    """The complete trial with the best objective, the first of equals; None where none is complete."""
    sign = 1 if direction is Direction.minimize else -1
    scored = [(sign * value, index) for index, trial in enumerate(trials) if (value := trial.objective()) is not None]
    return trials[min(scored)[1]] if scored else None


def measured(trial: Trial, accuracies: list[str]) -> list[str]:
    """Held-out loss, accuracies and time of `trial`, a dash where it has none."""
    if trial.result is None:
        return ["-"] * (len(accuracies) + 2)
    metrics = trial.result.get("metrics", {})
    shown = [f"{metrics['validation/loss']:.4f}" if "validation/loss" in metrics else "-"]
    shown += [f"{metrics[key]:.1%}" if key in metrics else "-" for key in accuracies]
    return [*shown, duration(trial.result["seconds"]["total"])]


def status(trial: Trial, best: Trial | None) -> str:
    """How `trial` ended."""
    if trial.result is None:
        return "stopped"
    return "best" if trial is best else trial.result["status"]
