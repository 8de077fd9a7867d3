"""A grid: what is looked at before its first trial, and how it ends."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, open_dict

from medbot_exp.errors import ConfigError, MedbotError, RunDirectoryError, TrialError
from medbot_exp.rules import typed
from medbot_exp.rundir import trials_of


def check(study: Path, points: Sequence[DictConfig]) -> None:
    """Raise what is wrong with any of the composed `points`, or with the directory that is to hold their trials.

    Raises:
        ConfigError: every fault of every point, each fault once.
        RunDirectoryError: `study` holds trials already.
    """
    if trials_of(study):
        raise RunDirectoryError(f"a study must be new, but {study} holds trials; choose another name: study=<name>")
    faults: dict[str, None] = {}  # as an ordered set
    for point in points:
        with open_dict(point):
            point.pop("hydra")
        try:
            config = typed(point)
        except ConfigError as error:
            faults |= dict.fromkeys(str(error).splitlines())
            continue
        if config.trainer.resume is not None:
            faults["`trainer.resume` goes on with one run, so it goes without -m; resume the trials one by one"] = None
    if faults:
        raise ConfigError("\n".join(faults))


def raise_failures(study: Path, results: Sequence[JobReturn]) -> None:
    """Raise what ended a trial by a fault of ours, else a TrialError where any trial failed."""
    failed = [result for result in results if result.status is JobStatus.FAILED]
    for result in failed:
        if not isinstance(result._return_value, MedbotError):
            result.return_value  # noqa: B018  # Hydra raises it here
    if failed:
        raise TrialError(
            f"every trial must end, but {len(failed)} of {len(results)} failed; each one's reason stands above and in "
            f"{study}/<trial>/result.json"
        )
