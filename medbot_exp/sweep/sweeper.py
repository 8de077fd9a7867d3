"""The controller of a search: asks for trials, starts them, closes what they leave open, until n_trials are done."""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hydra.core.config_loader import ConfigLoader
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from medbot_exp.config import RunConfig
from medbot_exp.errors import ConfigError, StorageError, TrialError, disk_full
from medbot_exp.rules import metrics_of, typed
from medbot_exp.sweep import grid, launch_submitit
from medbot_exp.sweep.child import DISK_FULL_STATUS
from medbot_exp.sweep.constraints import Constraint, read_constraints
from medbot_exp.sweep.job import TrackedTask, reason
from medbot_exp.sweep.launch_batches import Batches
from medbot_exp.sweep.launch_local import Ended, Pool, end_group, slots_for, too_long, visible_gpus
from medbot_exp.sweep.outcome import Outcome
from medbot_exp.sweep.override_text import assignment, bare, plain
from medbot_exp.sweep.plan import plan_of
from medbot_exp.sweep.space import SearchSpace, read_space
from medbot_exp.sweep.space_check import fractions, nothing_searched, sample_points, telling_points, unknown_keys
from medbot_exp.sweep.storage import Address, address_of
from medbot_exp.sweep.study import UID, Ledger, Place, Settled, Ticket, counted, open_study, reason_of
from medbot_exp.tracking.wandb import decide_mode_for_trials

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

LOCAL = "hydra_plugins.medbot_exp.LocalLauncher"

# How often the study is looked at: for the display, and for jobs that died elsewhere.
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Settings:
    """hydra.sweeper: keys as in conf, of which README tells."""

    sampler: Any
    pruner: Any
    direction: Any
    storage: Any
    study_name: str | None
    n_trials: int
    n_jobs: int
    max_failure_rate: float
    max_retry: int
    timeout_seconds: float | None
    on_mismatch: str
    search_space: Any
    custom_search_space: str | None
    params: Any
    when: Any
    constraints: Any


class Workers(Protocol):
    """What runs trials: the Pool of launch_local, launch_submitit or launch_ray, or launch_batches.Batches."""

    running: list[Any]

    def free(self) -> int:
        """How many more trials may start."""

    def start(self, number: int, overrides: Sequence[str]) -> None:
        """Start a trial."""

    def ended(self, wait_seconds: float) -> list[Ended]:
        """Those that ended."""

    def stop(self) -> list[Ended]:
        """End all."""


class Display(Protocol):
    """Shows a person how the search goes."""

    def look(self, trials: "list[FrozenTrial]", left: int) -> None:
        """The trials as they are now, and how many are still to come."""

    def settled(self, settled: Settled) -> None:
        """A trial was closed by the controller."""

    def end(self) -> None:
        """The search is over, however it ended."""


@dataclass(frozen=True)
class Search:
    """A search that can begin: every part of the command made sense.

    Attributes:
        config: the controller's, without the storage's password.
        base: what the fixed overrides compose to.
    """

    settings: Settings
    config: DictConfig
    base: DictConfig
    space: SearchSpace
    directions: list[str]
    constraints: tuple[Constraint, ...]
    sampler: "BaseSampler"
    pruner: "BasePruner"
    place: Place
    study: "Study"

    @property
    def folder(self) -> Path:
        """The directory of the study."""
        return Path(str(self.config.hydra.sweep.dir))

    @property
    def uid(self) -> str:
        """What tells the study from every other, whatever its name."""
        return str(self.study._storage.get_study_system_attrs(self.study._study_id)[UID])

    def task(self, task_function: TaskFunction) -> TrackedTask:
        """`task_function`, ending its trials itself."""
        objectives = len(self.directions)
        return TrackedTask(task_function, self.place, self.sampler, self.pruner, objectives, self.constraints)

    def ledger(self) -> Ledger:
        """The study as this controller writes it."""
        settings = self.settings
        return Ledger(self.place, self.study, self.space, self.base, self.trials_asked(), settings.max_retry)

    def trials_asked(self) -> int:
        """How many trials the study is to have: a grid has no more than its points."""
        from optuna.samplers import GridSampler

        asked = self.settings.n_trials
        return min(asked, len(self.sampler._all_grids)) if isinstance(self.sampler, GridSampler) else asked


def prepare(settings: Settings, config: DictConfig, context: HydraContext, arguments: Sequence[str]) -> Search:
    """The search that `hydra.sweeper` and the command line ask for, its study opened.

    Raises:
        ConfigError: every fault that can be found before the first trial.
        StorageError: the storage cannot be used.
    """
    from medbot_exp.sweep.samplers import build_pruner, build_sampler, goes_through_all

    loader = context.config_loader
    faults = setting_faults(settings)
    if faults:
        raise ConfigError("\n".join(faults))
    space = read_space(
        settings.params,
        settings.search_space,
        settings.when,
        settings.custom_search_space,
        arguments,
        loader,
        with_stop=not goes_through_all(settings.sampler),
    )
    base = fixed_config(config, loader, space)
    own = OmegaConf.get_type(base) is RunConfig
    faults = unknown_keys(space, base) + fractions(space, base)
    if own:
        faults += nothing_searched(space)
    else:
        for words in nothing_searched(space):
            log.warning("%s: every trial is the same", words)
    if faults:
        raise ConfigError("\n".join(faults))
    directions = directions_of(settings.direction, base)
    constraints = read_constraints(plain(settings.constraints), metrics_known(base))
    sampler = build_sampler(settings.sampler, space, directions)
    pruner = build_pruner(settings.pruner, directions)
    points = sample_points(space, base)
    if own:
        grid.check([loader.load_sweep_config(config, point) for point in points])
        decide_mode_for_trials(typed(grid.without_hydra(base)).tracking)
    else:
        # What Hydra has to say of a key or an option, it says here instead of in the first trial that has it.
        for point in telling_points(points, base):
            loader.load_sweep_config(config, point)
    if settings.n_jobs > 1 and config.hydra.launcher._target_ == LOCAL:
        slots_for(settings.n_jobs, visible_gpus())
    folder = Path(str(config.hydra.sweep.dir))
    given = settings.storage
    storage = instantiate(given) if OmegaConf.is_config(given) or isinstance(given, Mapping) else given
    address = address_of(storage, folder / "study.db")
    hide_password(config, address)
    place = Place(address, settings.study_name or default_name(folder, own))
    plan = plan_of(space, base) | ({"constraints": list(map(str, constraints))} if constraints else {})
    try:
        study = open_study(place, directions, sampler, pruner, plan)
    except ConfigError:
        if settings.on_mismatch != "new":
            raise
        place, study = open_beside(config, place, folder, given is None, directions, sampler, pruner, plan)
    return Search(settings, config, base, space, directions, constraints, sampler, pruner, place, study)


def fixed_config(config: DictConfig, loader: ConfigLoader, space: SearchSpace) -> DictConfig:
    """What the fixed overrides of `space` compose to, with the first option of a group that must be given.

    Composed as Hydra composes for a multirun: a group that nothing but a custom search space chooses is left out.
    """
    choices = config.hydra.runtime.choices
    first = {key: texts[0] for key, texts in space.texts.items() if OmegaConf.is_missing(choices, bare(key))}
    overrides = [assignment(key, text) for key, text in (first | space.fixed).items()]
    base = loader.load_configuration(
        config.hydra.job.config_name, [*config.hydra.overrides.hydra, *overrides], RunMode.MULTIRUN
    )
    OmegaConf.copy_cache(from_config=config, to_config=base)
    return base


def setting_faults(settings: Settings) -> list[str]:
    """What to say of the numbers in hydra.sweeper that cannot be."""
    rules = [
        ("n_trials >= 1", settings.n_trials >= 1, "n_trials", "it counts trials"),
        ("n_jobs >= 1", settings.n_jobs >= 1, "n_jobs", "it counts trials at a time"),
        ("0 <= max_failure_rate <= 1", 0 <= settings.max_failure_rate <= 1, "max_failure_rate", "try 0.5"),
        ("max_retry >= 0", settings.max_retry >= 0, "max_retry", "0 tries none again"),
        (
            "timeout_seconds > 0",
            settings.timeout_seconds is None or settings.timeout_seconds > 0,
            "timeout_seconds",
            "null waits for ever",
        ),
        ("on_mismatch", settings.on_mismatch in ("refuse", "new"), "on_mismatch", "it is refuse or new"),
    ]
    return [
        f"`hydra.sweeper.{rule}` must hold, but got hydra.sweeper.{key}={getattr(settings, key)}; {remedy}"
        for rule, holds, key, remedy in rules
        if not holds
    ]


def directions_of(direction: Any, base: DictConfig) -> list[str]:
    """`minimize` or `maximize` of each objective."""
    if OmegaConf.get_type(base) is RunConfig:
        goals = typed(grid.without_hydra(base)).objective.goals().values()
        own = [goal.name for goal in goals]
        if direction is not None and directions_of(direction, OmegaConf.create()) != own:
            raise ConfigError(
                f"`hydra.sweeper.direction` follows from `objective.direction`, but got {direction} and {own}; "
                "leave it out"
            )
        return own
    if direction is None:
        return ["minimize"]
    several = OmegaConf.to_container(direction) if OmegaConf.is_config(direction) else direction
    names = [str(getattr(each, "name", each)) for each in (several if isinstance(several, list | tuple) else [several])]
    wrong = [name for name in names if name not in ("minimize", "maximize")]
    if wrong or not names:
        raise ConfigError(
            f"`hydra.sweeper.direction` must be minimize or maximize, or a list of them, but got {direction}; "
            "try hydra.sweeper.direction=minimize"
        )
    return names


def metrics_known(base: DictConfig) -> list[str] | None:
    """The metrics that every trial ends with; None where only the task function knows."""
    return metrics_of(typed(grid.without_hydra(base))) if OmegaConf.get_type(base) is RunConfig else None


def default_name(folder: Path, own: bool) -> str:
    """The name of a study that was given none: its directory's, in our `own` application."""
    # Elsewhere that is the time of day, in a directory of the date: in a storage for many studies it comes again.
    return folder.name if own else str(Path(*folder.parts[-2:]))


def hide_password(config: DictConfig, address: Address) -> None:
    """Put `address`, which has no password, where Hydra, the manifest and W&B write what the user gave."""

    def hidden(words: Sequence[str]) -> list[str]:
        own = "hydra.sweeper.storage="
        return [f"{own}'{address.url}'" if word.lstrip("+").startswith(own) else word for word in words]

    with open_dict(config):
        if isinstance(config.hydra.sweeper.storage, str) and not OmegaConf.is_interpolation(
            config.hydra.sweeper, "storage"
        ):
            config.hydra.sweeper.storage = address.url
        config.hydra.overrides.hydra = hidden(config.hydra.overrides.hydra)
    sys.argv[1:] = hidden(sys.argv[1:])


def open_beside(
    config: DictConfig,
    place: Place,
    folder: Path,
    default: bool,
    directions: list[str],
    sampler: "BaseSampler",
    pruner: "BasePruner",
    plan: Mapping[str, Any],
) -> tuple[Place, "Study"]:
    """The first study beside `place`, <name>-2 and so on, that is new or has this plan."""
    for count in range(2, 1000):
        name, beside = f"{place.name}-{count}", folder.with_name(f"{folder.name}-{count}")
        address = address_of(None, beside / "study.db") if default else place.address
        with suppress(ConfigError):
            study = open_study(Place(address, name), directions, sampler, pruner, plan)
            with open_dict(config):
                config.hydra.sweep.dir = str(beside)
                config.hydra.overrides.hydra = [*config.hydra.overrides.hydra, f"hydra.sweep.dir='{beside}'"]
            log.info("The study %s differs from this command: this is %s, in %s", place.name, name, beside)
            return Place(address, name), study
    raise ConfigError(f"a new study needs a free name, but {place.name}-2 to {place.name}-999 exist; choose another")


def run(search: Search, task: TrackedTask, workers: Workers, display: Display) -> None:
    """Run trials until the study has all that it is to have.

    Raises:
        TrialError: more trials failed than `max_failure_rate` lets.
        KeyboardInterrupt: the user stopped it; trials that were running are enqueued again.
    """
    controller = Controller(search, task, workers, display)
    try:
        controller.work()
    except BaseException:
        controller.stop()
        raise
    finally:
        display.end()


class Controller:
    """One process that runs trials of a study."""

    def __init__(self, search: Search, task: TrackedTask, workers: Workers, display: Display):
        self.search, self.task, self.workers, self.display = search, task, workers, display
        self.ledger = search.ledger()
        self.failures: list[tuple[int, Outcome]] = []
        self.mine: set[int] = set()
        self.looked = -LOOK_SECONDS

    def work(self) -> None:
        """Until nothing is left to do, here or elsewhere."""
        self.look()
        while True:
            self.start_all()
            if not self.workers.running:
                # Others' trials are waited for: one whose process dies comes back here.
                if not any(trial.state.name in ("RUNNING", "WAITING") for trial in self.ledger.trials()):
                    break
                time.sleep(LOOK_SECONDS)
            for ended in self.workers.ended(LOOK_SECONDS):
                self.close(ended)
            if time.monotonic() - self.looked > LOOK_SECONDS:
                self.look()
        self.look()

    def start_all(self) -> None:
        """Start trials while there is room and work."""
        while self.workers.free():
            ticket = self.ledger.next()
            if ticket is None:
                return
            self.start(ticket)

    def start(self, ticket: Ticket) -> None:
        """Start the trial of `ticket`."""
        self.mine.add(ticket.number)
        self.task.tickets = {**self.still_needed(), ticket.number: ticket}
        self.workers.start(ticket.number, ticket.overrides)

    def still_needed(self) -> dict[int, Ticket]:
        """The tickets of trials that a batch has yet to start."""
        return {number: ticket for number, ticket in self.task.tickets.items() if number in self.mine}

    def close(self, ended: Ended) -> None:
        """See to it that the study knows how the trial ended.

        Raises:
            StorageError: for want of room; its parameters are enqueued again.
        """
        settled = self.ledger.ended(ended.number, outcome_of(ended))
        self.mine.discard(ended.number)
        if settled is not None:
            self.display.settled(settled)
        if disk_was_full(ended):
            raise StorageError(
                f"a trial must find room to write, but the disk was full in trial {ended.number}\n"
                "Free some space and type the same again: it goes on"
            )
        self.look()
        error = None if ended.returned is None else ended.returned._return_value
        self.note_failure(ended.number, error if isinstance(error, BaseException) else None)

    def note_failure(self, number: int, error: BaseException | None) -> None:
        """Count the trial where it failed for good, by `error` if that is known.

        Raises:
            TrialError: that was one too many.
        """
        trials = self.ledger.trials()
        trial = trials[number]
        if trial.state.name != "FAIL" or trial not in counted(trials):
            return
        self.failures.append((number, Outcome("failed", reason=reason_of(trial))))
        allowed = self.search.settings.max_failure_rate * self.ledger.n_trials
        if len(self.failures) > allowed:
            raise TrialError(
                f"`hydra.sweeper.max_failure_rate` lets {allowed:g} of {self.ledger.n_trials} trials fail, but "
                f"{len(self.failures)} did: {told(self.failures)}\n"
                "Mend the cause and type the same again, or raise hydra.sweeper.max_failure_rate"
            ) from error

    def end_late(self) -> None:
        """End the processes of a dead controller that take longer than they may; this one's own its Pool ends."""
        allowed = self.search.settings.timeout_seconds
        if allowed is None or not isinstance(self.workers, Pool):
            return
        for number, owner in self.ledger.jobs(self.mine):
            seconds = owner.seconds()
            if seconds is not None and seconds > allowed and end_group(owner.pid):
                settled = self.ledger.ended_for(owner, number, Outcome("failed", reason=too_long(seconds)))
                if settled is not None:
                    self.display.settled(settled)

    def look(self) -> None:
        """Close what died elsewhere, and show how things stand."""
        self.end_late()
        for settled in self.ledger.settle(self.mine):
            self.display.settled(settled)
        trials = self.ledger.trials()
        self.display.look(trials, self.ledger.n_trials - len(counted(trials)))
        self.looked = time.monotonic()

    def stop(self) -> None:
        """End the trials that run, and keep what they did."""
        for ended in self.workers.stop():
            settled = self.ledger.ended(ended.number, outcome_of(ended, asked=True))
            if settled is not None:
                self.display.settled(settled)


def outcome_of(ended: Ended, asked: bool = False) -> Outcome:
    """What to make of a process that left no result.

    Args:
        asked: it was asked to end.
    """
    if asked and not ended.timed_out:
        return Outcome("stopped", reason="stopped by the user")
    if ended.outcome is not None:
        return ended.outcome
    if disk_was_full(ended):
        return Outcome("stopped", reason="the disk was full")
    error = None if ended.returned is None else ended.returned._return_value
    if isinstance(error, BaseException):
        return Outcome("failed", reason=reason(error))
    if ended.killed():
        return Outcome("died", reason=ended.reason())
    return Outcome("failed", reason=ended.reason())


def disk_was_full(ended: Ended) -> bool:
    """Whether the process ended for want of room to write: that is no fault of its trial."""
    error = None if ended.returned is None else ended.returned._return_value
    return ended.status == DISK_FULL_STATUS or (isinstance(error, BaseException) and disk_full(error))


def told(failures: Sequence[tuple[int, Outcome]]) -> str:
    """The failures of one reason together, the first line of it."""
    groups: dict[str, list[int]] = {}
    for number, outcome in failures:
        groups.setdefault((outcome.reason or "").partition("\n")[0], []).append(number)
    return "; ".join(f"trial {', '.join(map(str, numbers))}: {text}" for text, numbers in groups.items())


def workers(search: Search, launcher: Launcher) -> Workers:
    """What runs the trials of `search` by `launcher`: the next starts when one ends, or a batch when all of one has."""
    settings = search.settings
    if hasattr(launcher, "pool"):
        pool: Workers = launcher.pool(settings.n_jobs, settings.timeout_seconds)
        return pool
    if settings.timeout_seconds is not None:
        log.warning(
            "hydra.sweeper.timeout_seconds is for hydra/launcher=local and ray; Submitit has hydra.launcher.timeout_min"
        )
    if launch_submitit.is_submitit(launcher):
        return launch_submitit.Pool(launcher, settings.n_jobs)
    return Batches(launcher, settings.n_jobs)
