"""A grid: what is looked at before its first trial, and how it ends."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict

from medbot_exp.config import BenchmarkConfig, ModelConfig, RunConfig
from medbot_exp.data.sources import check_file
from medbot_exp.device import find_device, needs, refuse_lacking, refuse_unfit
from medbot_exp.errors import ConfigError, MedbotError, RunDirectoryError, TrialError, first_line
from medbot_exp.evaluation.paper import read_papers
from medbot_exp.lora import check_known_targets
from medbot_exp.model_files import check_length, check_paths
from medbot_exp.processes import ALONE, refuse
from medbot_exp.rules import typed

# Launchers whose trials run on this machine, by the end of their classes' names.
LAUNCHERS_HERE = (".BasicLauncher", ".LocalLauncher", ".JoblibLauncher")


def check(points: Sequence[DictConfig]) -> None:
    """Raise what can be found wrong with any of the composed `points` before the first of them runs.

    Raises:
        ConfigError: every fault of every point, each fault once.
    """
    faults: dict[str, None] = {}  # as an ordered set

    def told(check: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return check(*arguments)
        except MedbotError as error:
            faults.update(dict.fromkeys(str(error).splitlines()))

    models: list[ModelConfig] = []  # those that were looked at
    targets: list[tuple[ModelConfig, Any]] = []
    benchmarks: list[dict[str, BenchmarkConfig]] = []
    for point in points:
        config = told(typed, without_hydra(point))
        if config is None:
            continue
        told(refuse_resumed, config)
        told(refuse, config, ALONE)
        here = point.hydra.launcher._target_.endswith(LAUNCHERS_HERE)
        told(refuse_machine, config, here)
        told(check_file, config.data)
        if config.model not in models:
            models.append(config.model)
            told(check_paths, config.model)
            told(check_length, config.model, Path(config.cache_dir).expanduser())
        if (config.model, config.lora.target_modules) not in targets:
            targets.append((config.model, config.lora.target_modules))
            told(check_known_targets, config)
        if here and config.benchmark not in benchmarks:  # elsewhere there may be other files, or a network
            benchmarks.append(config.benchmark)
            told(read_papers, config)
    if faults:
        raise ConfigError("\n".join(faults))


def refuse_resumed(config: RunConfig) -> None:
    """Raise a ConfigError where `config` is to go on with a run."""
    if config.trainer.resume is not None:
        raise ConfigError("`trainer.resume` goes on with one run, so it goes without -m; resume the trials one by one")


def refuse_machine(config: RunConfig, here: bool) -> None:
    """Raise a ConfigError for packages that a trial of `config` lacks and, where it runs `here`, for the GPU."""
    refuse_lacking(config, elsewhere=not here)
    if here and needs(config):  # torch loads for it
        refuse_unfit(config, find_device())


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
