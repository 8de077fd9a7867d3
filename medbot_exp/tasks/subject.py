"""What task=evaluate is about: a run, its own values and the rows it was trained on, or a base model alone."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from medbot_exp import rundir
from medbot_exp.config import RunConfig, TrackingConfig
from medbot_exp.data import sources
from medbot_exp.data.example import Example, fingerprint
from medbot_exp.errors import ConfigError, DataError, MedbotError, RunDirectoryError, first_line
from medbot_exp.rules import typed
from medbot_exp.saved_adapter import check_saved
from medbot_exp.whole_files import read_json, read_jsonl

log = logging.getLogger(__name__)

DEVELOPMENT_KEY = re.compile(r"\+*benchmark\.\w+\.development(?:_\w+)?=")
# What the command may say itself; all else is the run's.
OWN = ("task", "benchmark", "tracking", "model.path", "cache_dir", "root", "name", "study")


@dataclass(frozen=True)
class Subject:
    """What is evaluated, and where its record is.

    Attributes:
        config: of the run, with the benchmarks that are asked now.
        manifest: of the run; None for a base model alone, which gets a record of its own.
        rows: that the model was trained on, of a base model those that its prompt shows; None where they are not known.
    """

    config: RunConfig
    directory: rundir.RunDirectory
    manifest: dict[str, Any] | None
    rows: Sequence[Example] | None


def subject_of(config: RunConfig, directory: rundir.RunDirectory, hydra_files: rundir.HydraFiles) -> Subject:
    """What `config` asks to be evaluated.

    Raises:
        RunDirectoryError: `task.run` has no run, no adapter, or is of another version.
        ConfigError: something else than benchmarks is to be other than in the run.
    """
    if config.task.run is None:
        rows = sources.load(config.data).train[: config.prompt.shots] if config.prompt.shots else []
        if len(rows) < config.prompt.shots:
            raise DataError(f"prompt.shots={config.prompt.shots} must be rows, but data has {len(rows)}; show fewer")
        return Subject(config, directory, None, rows)
    trained = rundir.RunDirectory(Path(config.task.run).expanduser())
    trained.require_adapter("task.run")
    refuse_others(hydra_files.task_overrides())
    own = config_of(trained, config)
    check_saved(trained.adapter, own.lora)
    asked = any(word.lstrip("+").startswith("benchmark") for word in hydra_files.task_overrides())
    benchmarks = config.benchmark if asked else own.benchmark
    moved = own.model if config.model.path is None else replace(own.model, path=config.model.path)
    evaluated = replace(
        own,
        task=config.task,
        model=moved,
        benchmark=benchmarks,
        tracking=tracking_of(own.tracking, config.tracking, hydra_files.task_overrides()),
        cache_dir=config.cache_dir,
    )
    if not benchmarks:
        none = "got benchmark=[]" if asked else f"{trained} has none"
        raise ConfigError(f"an evaluation needs a benchmark, but {none}; give some, as benchmark=[medqa]")
    told = read_json(trained.manifest)
    if "chosen_by" not in told:
        raise other_version(trained, f"{trained.manifest} does not say what it was chosen by")
    return Subject(evaluated, trained, told, trained_rows(evaluated, trained, told))


def tracking_of(own: TrackingConfig, given: TrackingConfig, overrides: Sequence[str]) -> TrackingConfig:
    """The run's `own` tracking with what of `given` the command says: an option of the group, or single values."""
    keys = {word.lstrip("+").partition("=")[0] for word in overrides}
    if "tracking" in keys:
        return given
    return replace(
        own, **{each.name: getattr(given, each.name) for each in fields(own) if f"tracking.{each.name}" in keys}
    )


def refuse_others(overrides: Sequence[str]) -> None:
    """Raise a ConfigError where the command changes what is the run's own."""
    developing = [word for word in overrides if DEVELOPMENT_KEY.match(word)]
    if developing:
        raise ConfigError(
            "a run is evaluated without the items that it was chosen by, which it has in its record, but got "
            f"{' '.join(developing)}; leave that out"
        )
    others = [word for word in overrides if not word.lstrip("+").partition("=")[0].startswith(OWN)]
    if others:
        raise ConfigError(
            "a run is evaluated with its own model, prompt and adapter, but got "
            f"{' '.join(others)}; leave that out, or train a run with it"
        )


def config_of(directory: rundir.RunDirectory, asking: RunConfig) -> RunConfig:
    """The config that the run in `directory` was made with, but for its task, which is that of `asking`.

    Raises:
        RunDirectoryError: it is not one of this version.
    """
    try:
        content = OmegaConf.load(directory.config)
        parts = (OmegaConf.structured(RunConfig), content, {"task": OmegaConf.structured(asking.task)})
        return typed(OmegaConf.merge(*parts))  # type: ignore[arg-type]
    except Exception as error:  # OmegaConf's, or ours for keys that an older config lacks
        reason = first_line(error).partition(": add ")[0]
        raise other_version(directory, f"{directory.config} does not fit it: {reason}") from error


def other_version(directory: rundir.RunDirectory, reason: str) -> RunDirectoryError:
    """The error for a run that was made by another version, which `reason` tells."""
    return RunDirectoryError(
        f"`task.run` must name a run of this version, but {reason}; evaluate {directory} with the version in its "
        "manifest.json"
    )


def trained_rows(config: RunConfig, directory: rundir.RunDirectory, told: Mapping[str, Any]) -> list[Example] | None:
    """The rows that the run in `directory` was trained on; None, with a word in the log, where they are not to be had.

    Raises:
        DataError: they are not to be had, and the run's prompt shows some.
    """
    try:
        every = sources.load(config.data).train
    except MedbotError as error:
        reason = first_line(error)
    else:
        leaks = read_jsonl(directory.leaks) if told["leaks"]["policy"] == "drop" else []
        dropped = {leak["row"] for leak in leaks if leak["part"] == "train"}
        rows = [row for row in every if row.id not in dropped]
        if fingerprint(rows) == told["data"]["train"]:
            return rows
        reason = "they have changed since"
    if config.prompt.shots:
        raise DataError(f"the run's prompt shows {config.prompt.shots} of its rows, which must be there, but: {reason}")
    log.warning("the rows that the run was trained on are not held against the benchmarks: %s", reason)
    return None
