"""Hydra's plugins of this package: thin classes; what they do is imported when they do it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import MISSING, DictConfig, OmegaConf

from medbot_exp.errors import ConfigError, first_line
from medbot_exp.sweep.foreign import told_plainly
from medbot_exp.sweep.options import PRUNERS, SAMPLERS, PrunerConf, SamplerConf

log = logging.getLogger(__name__)


@dataclass
class GridConf:
    """hydra/sweeper=grid, with the keys of Hydra's own."""

    _target_: str = "hydra_plugins.medbot_exp.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


@dataclass
class OptunaConf:
    """hydra/sweeper=optuna: the keys of hydra-optuna-sweeper with its defaults, and those behind them."""

    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}, {"pruner": "none"}])
    _target_: str = "hydra_plugins.medbot_exp.OptunaSweeper"
    _recursive_: bool = False  # sampler and pruner are built once the search space is known
    sampler: SamplerConf = MISSING
    direction: Any = None  # minimize; in our own application what conf/objective says
    storage: Any = None
    study_name: str | None = None
    n_trials: int = 20
    n_jobs: int = 2
    max_failure_rate: float = 0.0
    search_space: dict[str, Any] | None = field(default_factory=dict)
    params: Any = None  # a dict; untyped, so that a command line can give it as a whole
    custom_search_space: str | None = None
    pruner: PrunerConf = MISSING
    max_retry: int = 1
    timeout_seconds: float | None = None
    on_mismatch: str = "refuse"
    when: Any = None  # likewise
    constraints: Any = None
    retry_failed: bool = False


@dataclass
class LocalConf:
    """hydra/launcher=local: one fresh process per trial; an Optuna sweep says itself how many at a time."""

    _target_: str = "hydra_plugins.medbot_exp.LocalLauncher"
    n_jobs: int = 1
    timeout_seconds: float | None = None


@dataclass
class RayOptions:
    """Arguments of ray.init, and of ray.remote for a trial, whose CPUs and GPUs are shared out where they are null."""

    init: dict[str, Any] = field(default_factory=lambda: {"address": None})
    remote: dict[str, Any] = field(default_factory=lambda: {"num_cpus": None, "num_gpus": None})


@dataclass
class RayConf:
    """hydra/launcher=ray, with the keys of hydra-ray-launcher: one task of a Ray cluster per trial."""

    _target_: str = "hydra_plugins.medbot_exp.RayLauncher"
    ray: RayOptions = field(default_factory=RayOptions)


STORE = ConfigStore.instance()
STORE.store(group="hydra/sweeper", name="grid", node=GridConf, provider="medbot_exp")
STORE.store(group="hydra/sweeper", name="optuna", node=OptunaConf, provider="medbot_exp")
STORE.store(group="hydra/launcher", name="local", node=LocalConf, provider="medbot_exp")
STORE.store(group="hydra/launcher", name="ray", node=RayConf, provider="medbot_exp")
for option, sampler in SAMPLERS.items():
    STORE.store(group="hydra/sweeper/sampler", name=option, node=sampler, provider="medbot_exp")
for option, pruner in PRUNERS.items():
    STORE.store(group="hydra/sweeper/pruner", name=option, node=pruner, provider="medbot_exp")


class GridSweeper(BasicSweeper):
    """Hydra's grid, each point checked before the first one runs, summed up in a table when the last one has."""

    @told_plainly
    def sweep(self, arguments: list[str]) -> Sequence[Sequence[JobReturn]]:
        from medbot_exp.report.grid import print_grid
        from medbot_exp.sweep import grid

        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        loader = self.hydra_context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*self._parse_config(), *arguments])
        batches = self.split_arguments(overrides, self.max_batch_size)
        points = [point for batch in batches for point in batch]
        study = Path(self.config.hydra.sweep.dir)
        grid.check([loader.load_sweep_config(self.config, list(point)) for point in points])
        grid.claim(study, self.config)
        results: list[Sequence[JobReturn]] = []
        try:
            for batch in batches:
                results.append(self.launcher.launch(batch, initial_job_idx=sum(map(len, results))))
        except RuntimeError as error:  # a trial's own stands in its result: this is joblib's or Submitit's
            raise grid.broken(error) from error
        finally:
            print_grid(study, len(points))
        grid.raise_failures(study, [result for batch in results for result in batch])
        return results


class OptunaSweeper(Sweeper):
    """A search by Optuna whose trials and study survive the death of any process."""

    def __init__(self, **settings: Any) -> None:
        from medbot_exp.rules import no_such_key
        from medbot_exp.sweep.search import Settings

        names = [each.name for each in fields(Settings)]
        unknown = [no_such_key(f"hydra.sweeper.{key}", names) for key in settings if key not in names]
        if unknown:
            raise ConfigError("\n".join(unknown))
        self.settings = Settings(**settings)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    @told_plainly
    def sweep(self, arguments: list[str]) -> None:
        assert self.config is not None and self.hydra_context is not None and self.task_function is not None
        from medbot_exp.report.console import stderr_console, stdout_console
        from medbot_exp.report.live import display_for
        from medbot_exp.report.results import front, metric_names, report, winner
        from medbot_exp.sweep import sweeper
        from medbot_exp.sweep.search import prepare
        from medbot_exp.sweep.winner import front_facts, test_facts

        # Before the study is made: a launcher that lacks its packages says so.
        launcher = Plugins.instance().instantiate_launcher(self.hydra_context, self.task_function, self.config)
        search = prepare(self.settings, self.config, self.hydra_context, arguments)
        task = search.task(self.task_function)
        launcher.setup(hydra_context=self.hydra_context, task_function=task, config=search.config)
        workers = sweeper.workers(search, launcher)
        metrics = metric_names(search) or ["value"] * len(search.directions)
        display = display_for(stderr_console(), search.directions, metrics, self.settings.n_jobs)
        try:
            sweeper.run(search, task, workers, display)
        except BaseException:
            try:
                report(search, stdout_console(), {})
            except Exception as error:  # the first one is to be told: this may well be of the same cause
                log.warning("the study's files could not be written: %s: %s", type(error).__name__, first_line(error))
            raise
        best, several = winner(search), front(search)
        test = front_facts(several) if several else {} if best is None else test_facts(best)
        report(search, stdout_console(), test)


class LocalLauncher(Launcher):
    """One fresh process per job, `n_jobs` at a time."""

    def __init__(self, n_jobs: int, timeout_seconds: float | None) -> None:
        self.n_jobs, self.timeout_seconds = n_jobs, timeout_seconds

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def pool(self, n_jobs: int, timeout_seconds: float | None) -> Any:
        """Processes for this launcher's task, `n_jobs` at a time."""
        from medbot_exp.device import visible_gpus
        from medbot_exp.sweep.launch_local import Pool, slots_for

        slots = slots_for(n_jobs, visible_gpus())
        logs = Path(str(self.config.hydra.sweep.dir)) / "logs"
        return Pool(self.hydra_context, self.config, self.task_function, slots, logs, timeout_seconds)

    @told_plainly
    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from medbot_exp.sweep.launch_local import run_all

        return run_all(self.pool(self.n_jobs, self.timeout_seconds), job_overrides, initial_job_idx)


class RayLauncher(Launcher):
    """One task of a Ray cluster per job."""

    def __init__(self, ray: Any) -> None:
        if find_spec("ray") is None:
            raise ConfigError(
                "`hydra/launcher=ray` must have its package, but Ray is not installed\nRun: pip install ray"
            )
        self.options: Any = OmegaConf.to_container(ray, resolve=True) if OmegaConf.is_config(ray) else ray

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def pool(self, n_jobs: int, timeout_seconds: float | None) -> Any:
        """Tasks for this launcher's task function, `n_jobs` at a time."""
        from medbot_exp.sweep.launch_ray import Pool

        return Pool(self.hydra_context, self.config, self.task_function, n_jobs, timeout_seconds, **self.options)

    @told_plainly
    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from medbot_exp.sweep.launch_local import run_all

        return run_all(self.pool(len(job_overrides), None), job_overrides, initial_job_idx)
