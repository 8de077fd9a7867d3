"""A grid: what is looked at before its first trial, and how it ends."""

import copy
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict

from medbot_exp.data.sources import check_file
from medbot_exp.device import refuse_lacking
from medbot_exp.errors import ConfigError, MedbotError, RunDirectoryError, TrialError, first_line
from medbot_exp.model import check_paths
from medbot_exp.rules import typed


def check(points: Sequence[DictConfig]) -> None:
    """Raise what can be found wrong with any of the composed `points` in no time.

    Raises:
        ConfigError: every fault of every point, each fault once.
    """
    faults: dict[str, None] = {}  # as an ordered set
    for point in points:
        try:
            config = typed(without_hydra(point))
            if config.trainer.resume is not None:
                raise ConfigError(
                    "`trainer.resume` goes on with one run, so it goes without -m; resume the trials one by one"
                )
            refuse_lacking(config)
            check_paths(config.model)
            check_file(config.data)
        except MedbotError as error:
            faults |= dict.fromkeys(str(error).splitlines())
    if faults:
        raise ConfigError("\n".join(faults))


def without_hydra(point: DictConfig) -> DictConfig:
    """A copy of `point` with our own keys alone."""
    own = copy.deepcopy(point)
    with open_dict(own):
        del own["hydra"]
    return own


def claim(study: Path, config: DictConfig) -> None:
    """Make `study` the directory of this grid alone, with Hydra's own multirun.yaml in it.

    Raises:
        RunDirectoryError: it exists.
    """
    try:
        study.mkdir(parents=True)
    except FileExistsError as error:
        raise RunDirectoryError(
            f"a study must be new, but {study} exists; choose another name: study=<name>"
        ) from error
    OmegaConf.save(config, study / "multirun.yaml")


def broken(error: RuntimeError) -> TrialError:
    """The error for a launcher that broke down, as joblib does where one of its workers dies."""
    return TrialError(
        f"the launcher must bring every trial to an end, but broke down: {type(error).__name__}: {first_line(error)}\n"
        "Use hydra/launcher=local, where trials do not share one fate; the table above says which of them ended"
    )


def raise_failures(study: Path, results: Sequence[JobReturn]) -> None:
    """Raise what ended a trial by a fault of ours, else a TrialError where any trial failed."""
    failed = [result for result in results if result.status is JobStatus.FAILED]
    for result in failed:
        # Not return_value, which raises: a fault that the user can mend was told when it happened.
        if not isinstance(result._return_value, MedbotError):
            raise result._return_value
    if failed:
        raise TrialError(
            f"every trial must end, but {len(failed)} of {len(results)} failed; each one's reason stands above and in "
            f"{study}/<trial>/result.json"
        )
