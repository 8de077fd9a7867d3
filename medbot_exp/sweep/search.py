"""What a command asks of a search, looked at as a whole before its first trial: settings, space, storage, study."""

import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.types import HydraContext, RunMode, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from medbot_exp.config import RunConfig
from medbot_exp.device import visible_gpus
from medbot_exp.errors import ConfigError
from medbot_exp.objectives import measured_of
from medbot_exp.override_text import assignment, bare, plain
from medbot_exp.rules import typed
from medbot_exp.sweep import grid
from medbot_exp.sweep.constraints import Constraint, read_constraints
from medbot_exp.sweep.job import TrackedTask
from medbot_exp.sweep.launch_local import slots_for
from medbot_exp.sweep.plan import plan_of
from medbot_exp.sweep.pruning import warn_where_nothing_is_pruned
from medbot_exp.sweep.space import SearchSpace, read_space
from medbot_exp.sweep.space_check import fractions, nothing_searched, sample_points, telling_points, unknown_keys
from medbot_exp.sweep.storage import Address, address_of
from medbot_exp.sweep.study import UID, Ledger, Place, open_study
from medbot_exp.tracking.wandb import decide_mode_for_trials

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

log = logging.getLogger(__name__)

LOCAL = "hydra_plugins.medbot_exp.LocalLauncher"


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
    retry_failed: bool


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
    loader: ConfigLoader

    @property
    def own(self) -> bool:
        """Whether it is a search of our own application."""
        return OmegaConf.get_type(self.base) is RunConfig

    @property
    def folder(self) -> Path:
        """The directory of the study."""
        return Path(str(self.config.hydra.sweep.dir))

    @property
    def uid(self) -> str:
        """What tells the study from every other, whatever its name."""
        return str(self.study._storage.get_study_system_attrs(self.study._study_id)[UID])

    def composed(self, overrides: Sequence[str]) -> DictConfig:
        """What a run with `overrides` composes, whatever else the command says of the search."""
        # Its hydra.sweeper.* would be unknown to a run without the +sweep= that chooses the sweeper.
        found = [word for word in self.config.hydra.overrides.hydra if word.lstrip("+").startswith("hydra.searchpath=")]
        return self.loader.load_configuration(self.config.hydra.job.config_name, [*found, *overrides], RunMode.RUN)

    def again(self) -> str:
        """The command that goes on with the study."""
        key, names = ("study", self.base) if self.own else ("hydra.sweep.dir", self.config)
        given = OmegaConf.to_container(names, resolve=False)
        assert isinstance(given, dict)
        for part in key.split("."):
            given = given[part]
        # A name of the time of day would be another one by then.
        place = [f"{key}={self.folder.name if self.own else self.folder}"] if "${" in str(given) else []
        return shlex.join([*self.program(), *sys.argv[1:], *place])

    def program(self) -> list[str]:
        """How the application is started, without its overrides."""
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        if self.own:
            return ["python", "-m", "medbot_exp"]
        return ["python", sys.argv[0]] if spec is None else ["python", "-m", spec.name.removesuffix(".__main__")]

    def task(self, task_function: TaskFunction) -> TrackedTask:
        """`task_function`, ending its trials itself."""
        objectives = len(self.directions)
        return TrackedTask(task_function, self.place, self.sampler, self.pruner, objectives, self.constraints)

    def ledger(self) -> Ledger:
        """The study as this controller writes it."""
        from medbot_exp.sweep.samplers import seed_of

        seed, max_retry = seed_of(self.settings.sampler), self.settings.max_retry
        return Ledger(self.place, self.study, self.space, self.base, self.trials_asked(), max_retry, seed)

    def trials_asked(self) -> int:
        """How many trials the study is to have: of points that are gone through, no more than there are."""
        from medbot_exp.sweep.samplers import goes_through_all

        asked, points = self.settings.n_trials, self.space.points()
        return min(asked, points) if goes_through_all(self.settings.sampler) and points is not None else asked


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
        composed = [loader.load_sweep_config(config, point) for point in points]
        grid.check(composed)
        warn_where_nothing_is_pruned(pruner, base, composed)
        decide_mode_for_trials(typed(grid.without_hydra(base)).tracking)
    else:
        # What Hydra has to say of a key or an option, it says here instead of in the first trial that has it.
        for point in telling_points(points, base):
            loader.load_sweep_config(config, point)
    if config.hydra.launcher._target_ == LOCAL:
        slots_for(settings.n_jobs, visible_gpus())
        for key, default in (("n_jobs", 1), ("timeout_seconds", None)):
            if config.hydra.launcher[key] != default:
                log.warning("hydra.launcher.%s is for grids, and ignored: a search has hydra.sweeper.%s", key, key)
    folder = Path(str(config.hydra.sweep.dir))
    given = settings.storage
    storage = instantiate(given) if OmegaConf.is_config(given) or isinstance(given, Mapping) else given
    address = address_of(storage, folder / "study.db")
    if given is not None:
        hide_password(config, address)
    place = Place(address, settings.study_name or default_name(folder, own))
    plan = plan_of(space, base) | ({"constraints": list(map(str, constraints))} if constraints else {})
    try:
        study = open_study(place, directions, sampler, pruner, plan, folder)
    except ConfigError:
        if settings.on_mismatch != "new":
            raise
        place, study = open_beside(config, place, folder, given is None, directions, sampler, pruner, plan)
    return Search(settings, config, base, space, directions, constraints, sampler, pruner, place, study, loader)


def fixed_config(config: DictConfig, loader: ConfigLoader, space: SearchSpace) -> DictConfig:
    """What the fixed overrides of `space` compose to, with the first choice of a group or value that must be given.

    Composed as Hydra composes for a multirun: a group that nothing but a custom search space chooses is left out.
    """
    choices = config.hydra.runtime.choices
    first = {key: texts[0] for key, texts in space.texts.items() if OmegaConf.is_missing(choices, bare(key))}

    def composed() -> DictConfig:
        overrides = [assignment(key, text) for key, text in (first | space.fixed).items()]
        return loader.load_configuration(
            config.hydra.job.config_name, [*config.hydra.overrides.hydra, *overrides], RunMode.MULTIRUN
        )

    base = composed()
    wanting = {key: texts[0] for key, texts in space.texts.items() if must_be_given(base, bare(key))}
    if wanting:
        first |= wanting
        base = composed()
    OmegaConf.copy_cache(from_config=config, to_config=base)
    return base


def must_be_given(config: DictConfig, key: str) -> bool:
    """Whether the value of `key` in `config` is ???, which waits for another."""
    try:
        OmegaConf.select(config, key, throw_on_missing=True)
    except OmegaConfBaseException as error:  # a default that cannot be resolved is no matter: a trial has a value
        return isinstance(error, MissingMandatoryValue)
    return False


def setting_faults(settings: Settings) -> list[str]:
    """What to say of the values in hydra.sweeper that cannot be."""
    own = "hydra.sweeper"
    mappings = [
        (
            f"`{own}.{key}` must be a mapping",
            value is None or isinstance(value, Mapping),
            key,
            f"write '{own}.{key}={{{example}}}'",
        )
        for key, value, example in (
            ("params", settings.params, 'lora.r: "8,16"'),
            ("when", settings.when, 'optimizer.lora_plus_ratio: "lora.r>=16"'),
        )
    ]
    rules = [
        *mappings,
        (f"`{own}.n_trials >= 1` must hold", settings.n_trials >= 1, "n_trials", "it counts trials"),
        (f"`{own}.n_jobs >= 1` must hold", settings.n_jobs >= 1, "n_jobs", "it counts trials at a time"),
        (
            f"`0 <= {own}.max_failure_rate <= 1` must hold",
            0 <= settings.max_failure_rate <= 1,
            "max_failure_rate",
            "try 0.5",
        ),
        (f"`{own}.max_retry >= 0` must hold", settings.max_retry >= 0, "max_retry", "0 tries none again"),
        (
            f"`{own}.timeout_seconds > 0` must hold",
            settings.timeout_seconds is None or settings.timeout_seconds > 0,
            "timeout_seconds",
            "null waits for ever",
        ),
        (
            f"`{own}.on_mismatch` must be refuse or new",
            settings.on_mismatch in ("refuse", "new"),
            "on_mismatch",
            "new begins another study beside it",
        ),
    ]
    return [
        f"{rule}, but got {own}.{key}={getattr(settings, key)}; {remedy}"
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
    return measured_of(typed(grid.without_hydra(base))) if OmegaConf.get_type(base) is RunConfig else None


def default_name(folder: Path, own: bool) -> str:
    """The name of a study that was given none: its directory's, in our `own` application."""
    # Elsewhere that is the time of day, in a directory of the date: in a storage for many studies it comes again.
    return folder.name if own else str(Path(*folder.parts[-2:]))


def hide_password(config: DictConfig, address: Address) -> None:
    """Put `address`, which has no password, where Hydra, the manifest and W&B write what the user gave."""
    own = "hydra.sweeper.storage"
    bare = f"{own}='{address.url}'"
    both = next((word for word in sys.argv[1:] if word.lstrip("+~").startswith("hydra.sweeper={")), None)
    if both is not None:
        # Not its text: it may hold the password.
        raise ConfigError(
            "`hydra.sweeper.storage` must have a word of its own, so that its password stays out of records, but got "
            f"hydra.sweeper={{…}}; write {own}=<url>, and each other key likewise"
        )

    def others(words: Sequence[str]) -> list[str]:
        return [word for word in words if not word.lstrip("+~").startswith((f"{own}=", f"{own}.", f"{own}@"))]

    with open_dict(config):
        config.hydra.sweeper.storage = address.url
        # A trial composes its config anew, from the config files and these: the last one prevails.
        config.hydra.overrides.hydra = [*others(config.hydra.overrides.hydra), bare]
    typed_words = sys.argv[1:]
    if others(typed_words) != typed_words:
        sys.argv[1:] = [*others(typed_words), bare]


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
            study = open_study(Place(address, name), directions, sampler, pruner, plan, beside)
            with open_dict(config):
                config.hydra.sweep.dir = str(beside)
                config.hydra.overrides.hydra = [*config.hydra.overrides.hydra, f"hydra.sweep.dir='{beside}'"]
            log.info("The study %s differs from this command: this is %s, in %s", place.name, name, beside)
            return Place(address, name), study
    raise ConfigError(f"a new study needs a free name, but {place.name}-2 to {place.name}-999 exist; choose another")
