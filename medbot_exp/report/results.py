"""The end of a search: the best parameters, the command that repeats them, and the study's files."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from medbot_exp.config import TrackingName, conf_directory
from medbot_exp.override_text import written
from medbot_exp.report.console import print_facts
from medbot_exp.report.page import page
from medbot_exp.report.progress import duration, plural
from medbot_exp.report.study import Notes, StudySummary, TrialRow, counts, summarize, write_experiment, write_trials_csv
from medbot_exp.report.svg import number
from medbot_exp.report.wandb_study import mirror_study
from medbot_exp.rules import typed
from medbot_exp.rundir import HydraFiles, RunDirectory, leaves
from medbot_exp.sweep.grid import without_hydra
from medbot_exp.sweep.search import Search
from medbot_exp.sweep.study import directory_of, overrides_of, reason_of, run_id
from medbot_exp.tracking.wandb import Place as WandbPlace
from medbot_exp.whole_files import write_text

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# The study's own run, and those of its trials.
WANDB_RUNS = ("wandb/offline-run-*", "*/wandb/offline-run-*")


def summary_of(search: Search) -> StudySummary:
    """The study of `search` as it is now."""
    return summarize(search.study, metric_names(search), lambda trial: notes(trial, search.folder))


def winner(search: Search) -> RunDirectory | None:
    """The best trial of one objective, in our own application; None without one, or where it is not seen from here."""
    summary = summary_of(search)
    if not search.own or len(summary.directions) > 1 or not summary.best:
        return None
    directory = RunDirectory(search.folder / (summary.best[0].directory or ""))
    return directory if directory.config.is_file() else None


def front(search: Search) -> list[RunDirectory]:
    """The best trials of several objectives, in our own application: those that are seen from here."""
    summary = summary_of(search)
    if not search.own or len(summary.directions) < 2:
        return []
    directories = [RunDirectory(search.folder / (row.directory or "")) for row in summary.best]
    return [directory for directory in directories if directory.config.is_file()]


def report(search: Search, console: Console, test: Mapping[str, str]) -> None:
    """Write the files of the study of `search` and print what it came to; nothing where no trial began.

    Args:
        test: what the best trial made of a test, by name.
    """
    folder = search.folder
    summary = summary_of(search)
    if not any(row.state != "waiting" for row in summary.trials):
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_trials_csv(folder / "trials.csv", summary)
    write_results(folder / "optimization_results.yaml", summary)
    facts = {"study": f"{RunDirectory(folder)} ({tally(summary)})"}
    again = None
    if not summary.best and any(row.state == "complete" for row in summary.trials):
        facts["best"] = f"none keeps {' and '.join(map(str, search.constraints)) or 'its constraints'}"
    if summary.best:
        best = summary.best[0]
        if len(summary.directions) == 1:
            overrides = overrides_of(search.ledger().trial(best.number))
            again = command(search, best, overrides)
            facts["best"] = f"trial {best.number}, {values(summary, best)}: {parameters(best)}"
            facts["again"] = again
            facts |= experiment(search, overrides)
        else:
            front = [f"trial {row.number}, {values(summary, row)}: {parameters(row)}" for row in summary.best]
            facts |= {f"best {place}": text for place, text in enumerate(front, 1)}
    seconds = sum(row.seconds or 0.0 for row in summary.trials)
    html = folder / "report.html"
    facts |= test
    write_text(html, page(summary, {**test, "time of all trials": duration(seconds)}, again))
    facts |= mirrored(search, summary, html)
    facts["page"] = f"{RunDirectory(folder)}/report.html"
    console.print()
    print_facts(console, facts)


def mirrored(search: Search, summary: StudySummary, html: Path) -> dict[str, str]:
    """Give W&B the study, in our own application; the line that tells where it is."""
    if not search.own:
        return {}
    config = typed(without_hydra(search.base))
    if config.tracking.name is not TrackingName.wandb:
        return {}
    folder, name = search.folder, search.place.name
    content: Any = OmegaConf.to_container(without_hydra(search.base), resolve=True, enum_to_str=True)
    content["search"] = {"n_trials": search.settings.n_trials, "space": search.space.describe()["distributions"]}
    place = WandbPlace(folder, run_id(search.uid, "study"), name, name, "study")
    described = mirror_study(config.tracking, place, summary, html, content)
    offline = [f"{RunDirectory(folder)}/{runs}" for runs in WANDB_RUNS if list(folder.glob(runs))]
    if offline:
        return {"W&B": f"offline; wandb sync {' '.join(offline)}"}
    return {} if described is None else {"W&B": described}


def metric_names(search: Search) -> list[str] | None:
    """The names of the objectives; None where the application has none."""
    if not search.own:
        return None
    metric = OmegaConf.to_container(search.base)["objective"]["metric"]  # type: ignore[index,call-overload]
    return list(metric) if isinstance(metric, list) else [str(metric)]


def notes(trial: "FrozenTrial", folder: Path) -> Notes:
    """What the ledger knows of `trial`."""
    directory = directory_of(trial)
    if directory is not None and directory.is_relative_to(folder.absolute()):
        directory = directory.relative_to(folder.absolute())
    return Notes(reason_of(trial), None if directory is None else str(directory))


def tally(summary: StudySummary) -> str:
    """How many trials there are of each state."""
    states = counts(row.state for row in summary.trials)
    return f"{plural(len(summary.trials), 'trial')}: {', '.join(f'{count} {state}' for state, count in states.items())}"


def values(summary: StudySummary, row: TrialRow) -> str:
    """The objectives of a complete trial with their names."""
    return ", ".join(
        f"{name} {number(value)}" for name, value in zip(summary.metric_names, row.values or [], strict=True)
    )


def parameters(row: TrialRow) -> str:
    """The parameters of a trial, short."""
    shown = {key: number(value) if isinstance(value, float) else str(value) for key, value in row.params.items()}
    return " ".join(f"{key.lstrip('+')}={value}" for key, value in shown.items())


def command(search: Search, row: TrialRow, overrides: Sequence[str]) -> str:
    """The command that runs a trial again by itself."""
    if not search.own:
        return shlex.join([*search.program(), *overrides])
    directory = RunDirectory(search.folder / (row.directory or ""))
    if directory.config.is_file():
        return HydraFiles.read(directory).command(without=("study=",))
    # Another host ran it, in a directory that is not seen from here.
    return shlex.join([*search.program(), *(word for word in overrides if not word.startswith("study="))])


def experiment(search: Search, overrides: list[str]) -> dict[str, str]:
    """Write the best trial as a config of its own; the line that tells its command, in our own application."""
    if not search.own:
        return {}
    folder = RunDirectory(search.folder)
    typed = f"python -m medbot_exp --config-dir={folder} +experiment=best"
    # Of a group of which nothing is chosen, as by benchmark=[], the composed config knows nothing.
    groups = {path.name for path in conf_directory().iterdir() if path.is_dir()} | {*search.base.hydra.runtime.choices}
    choices = {group for group in groups if group.partition("/")[0] != "hydra"}
    path = search.folder / "experiment" / "best.yaml"
    own = [word for word in expanded(overrides, search.composed) if not word.startswith("study=")]
    write_experiment(path, own, choices, [f"The best trial of the study {search.place.name}.   {typed}"])
    return {"as a config": typed}


def expanded(overrides: Sequence[str], composed: Callable[[Sequence[str]], DictConfig]) -> list[str]:
    """`overrides` with what a +sweep= sets for its trials in its place: a run by itself, and a grid, has no use for it.

    Read off what a trial composes, whichever of the preset, the overrides and an experiment prevails there.

    Args:
        composed: what overrides compose to, with Hydra's own node.
    """
    words = [word for word in overrides if not word.startswith("+sweep=")]
    if len(words) == len(overrides):
        return words
    whole = composed(overrides)
    chosen, before = choices_of(whole), choices_of(composed(words))
    words += [
        f"{'' if group in before else '+'}{group}={written(option)}"
        for group, option in chosen.items()
        if group != "sweep" and (group not in before or before[group] != option)
    ]
    values, known = (dict(leaves(contents)) for contents in map(plain_values, (whole, composed(words))))
    return words + [
        f"{'' if key in known else '++'}{key}={written(value)}"
        for key, value in values.items()
        if key not in known or known[key] != value
    ]


def choices_of(composed: DictConfig) -> dict[str, Any]:
    """The option of each config group of the application."""
    chosen: Any = OmegaConf.to_container(composed.hydra.runtime.choices)
    return {group: option for group, option in chosen.items() if group.partition("/")[0] != "hydra"}


def plain_values(composed: DictConfig) -> dict[str, Any]:
    """The application's own values, interpolations as they are written."""
    values: Any = OmegaConf.to_container(without_hydra(composed), enum_to_str=True)
    return values


def write_results(path: Path, summary: StudySummary) -> None:
    """Write optimization_results.yaml, as hydra-optuna-sweeper does."""
    content: dict[str, Any] = {"name": "optuna"}
    if len(summary.directions) > 1:
        content["solutions"] = [{"params": row.params, "values": row.values} for row in summary.best]
    elif summary.best and summary.best[0].values:
        content |= {"best_params": summary.best[0].params, "best_value": summary.best[0].values[0]}
    write_text(path, yaml.safe_dump(content, sort_keys=False))
