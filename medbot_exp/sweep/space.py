"""The search space of a sweep: read from the sweeper's keys and the command line, it gives each trial its overrides."""

import importlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from medbot_exp.errors import ConfigError, first_line
from medbot_exp.override_text import assignment, bare, custom_text, plain, written
from medbot_exp.sweep.conditions import Condition, current, ordered, read_conditions
from medbot_exp.sweep.distributions import Searched, older, searched_or_fixed, values_of

if TYPE_CHECKING:
    from optuna import Trial

log = logging.getLogger(__name__)

EXAMPLES = "lora.r=8,16,32, lora.r='int(interval(1,64))' or optimizer.lr='tag(log,interval(1e-5,1e-2))'"

# A grid is held in memory as a whole, and one that nobody lives to see the end of is a slip.
GRID_LIMIT = 1_000_000


@dataclass(frozen=True)
class SearchSpace:
    """What the trials of a sweep have in common, and what they differ in.

    A key is what stands before the equals sign, with its `+` or `++` if any; it names the parameter in the study.
    """

    distributions: dict[str, BaseDistribution]  # no key comes before one that it is conditional on
    texts: dict[str, tuple[str, ...]]  # of the categorical keys: the override text of each choice
    fixed: dict[str, str]  # the override text of what is not searched
    conditions: dict[str, tuple[Condition, ...]]
    custom_search_space: str | None
    extend: "Callable[[DictConfig, Trial], None] | None"

    def suggest(self, trial: "Trial", config: DictConfig) -> list[str]:
        """The overrides of `trial`, the fixed ones last.

        Args:
            trial: asked for each parameter whose conditions hold; those that it was asked for before keep their value.
            config: what is composed without a trial's overrides: conditions on keys that no override sets look there.

        Raises:
            ConfigError: the custom search space suggests a key that has a fixed value.
        """
        overrides: dict[str, str] = {}
        known = {bare(key): text for key, text in self.fixed.items()}
        for key, distribution in self.distributions.items():
            conditions = self.conditions.get(key, ())
            if all(condition.holds(current(condition.key, known, config)) for condition in conditions):
                overrides[key] = known[bare(key)] = self._text(key, suggested(trial, key, distribution))
        if self.extend is not None:
            # By these, such a function finds out what is fixed (hydra-optuna-sweeper documents it).
            for key, text in self.fixed.items():
                trial.set_user_attr(key, text)
            self.extend(config, trial)
            own = {key: value for key, value in trial.params.items() if key not in overrides}
            fixed = {bare(key): f"{key}={text}" for key, text in self.fixed.items()}
            clashes = [fixed[bare(key)] for key in own if bare(key) in fixed]
            if clashes:
                raise ConfigError(
                    f"`hydra.sweeper.custom_search_space` must leave fixed keys alone, but {self.custom_search_space} "
                    f"suggests what is fixed by {' '.join(clashes)}; leave out one of the two"
                )
            overrides |= {key: custom_text(value) for key, value in own.items()}
        return [assignment(key, text) for key, text in (overrides | self.fixed).items()]

    def grid(self) -> dict[str, list[Any]]:
        """Every value of every parameter, for Optuna's GridSampler.

        Raises:
            ConfigError: a parameter is continuous or conditional, or is not known beforehand; or the grid is endless.
        """
        faults = [
            f"`sampler=grid` must have parameters that can be counted, but got {key} from {distribution.low} to "
            f"{distribution.high} without a step; try range(<start>,<stop>,<step>), or another sampler"
            for key, distribution in self.continuous().items()
        ]
        faults += [
            f"`sampler=grid` must have parameters that every trial has, but {key} is searched only when "
            f"{' and '.join(map(str, conditions))}; try hydra/sweeper/sampler=brute_force, which tries what is left"
            for key, conditions in self.conditions.items()
        ]
        if self.extend is not None:
            faults.append(
                "`sampler=grid` must know its parameters beforehand, but got "
                f"hydra.sweeper.custom_search_space={self.custom_search_space}; try hydra/sweeper/sampler=brute_force"
            )
        if faults:
            raise ConfigError("\n".join(faults))
        axes = {key: values_of(distribution) for key, distribution in self.distributions.items()}
        if math.prod(map(len, axes.values())) > GRID_LIMIT:
            raise ConfigError(
                f"`sampler=grid` must have at most {GRID_LIMIT:,} points, but got "
                f"{' x '.join(f'{len(axis):,} of {key}' for key, axis in axes.items())}; try fewer, or another sampler"
            )
        return {key: list(axis) for key, axis in axes.items()}

    def points(self) -> int | None:
        """How many points there are; None where they cannot be counted, or not beforehand."""
        if self.continuous() or self.conditions or self.extend is not None:
            return None
        return math.prod(len(values_of(distribution)) for distribution in self.distributions.values())

    def continuous(self) -> dict[str, FloatDistribution]:
        """The parameters whose values cannot be counted."""
        return {
            key: distribution
            for key, distribution in self.distributions.items()
            if isinstance(distribution, FloatDistribution) and distribution.step is None
        }

    def describe(self) -> dict[str, Any]:
        """Everything about this space as JSON: equal for two commands that search and fix the same."""
        return {
            "distributions": {
                key: json.loads(distribution_to_json(distribution))
                for key, distribution in sorted(self.distributions.items())
            },
            "texts": {key: list(texts) for key, texts in sorted(self.texts.items())},
            "fixed": dict(sorted(self.fixed.items())),
            "conditions": {key: sorted(map(str, conditions)) for key, conditions in sorted(self.conditions.items())},
            "custom_search_space": self.custom_search_space,
        }

    def _text(self, key: str, value: Any) -> str:
        if key not in self.texts:
            return written(value)
        return self.texts[key][int(self.distributions[key].to_internal_repr(value))]


def suggested(trial: "Trial", key: str, distribution: BaseDistribution) -> Any:
    """The value of `key` in `trial`."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def read_space(
    params: Mapping[str, Any] | None,
    search_space: Mapping[str, Any] | None,
    when: Mapping[str, Any] | None,
    custom_search_space: str | None,
    arguments: Sequence[str],
    config_loader: ConfigLoader | None,
    with_stop: bool,
) -> SearchSpace:
    """The search space that the sweeper's keys and the command line ask for together.

    Args:
        params: what stands before the equals sign of an override, and what stands behind it.
        search_space: what older versions of hydra-optuna-sweeper had for `params`, which wins over it.
        when: a searched key, and the condition or the list of conditions that it is searched under.
        custom_search_space: the dotted path of a function of the config and an optuna.Trial.
        arguments: overrides of the command line: they win over `params`, and a fixed value ends a search.
        config_loader: lists the options that glob() chooses from.
        with_stop: a range goes up to its stop.

    Raises:
        ConfigError: all faults, a line each.
    """
    if params and search_space:
        log.warning("hydra.sweeper.search_space is ignored, as hydra.sweeper.params is given, which replaces it")
    elif search_space:
        log.warning("hydra.sweeper.search_space is deprecated: write hydra.sweeper.params, for example %s", EXAMPLES)
    faults: list[str] = []
    entries: dict[str, tuple[str, Searched | str]] = {}  # by bare key: the key, and how it is searched or its text
    if not params:
        for name, settings in plain(search_space or {}).items():
            try:
                key = OverridesParser.create().parse_override(f"{name}=0").get_key_element()
                entries[bare(key)] = key, older(settings)
            except (ValueError, TypeError, HydraException) as error:
                faults.append(
                    f"`hydra.sweeper.search_space.{name}` must be a distribution, but got {settings}: "
                    f"{first_line(error)}; write it under hydra.sweeper.params, for example {EXAMPLES}"
                )
    parser = OverridesParser.create(config_loader)
    for text in [*assignments(plain(params or {}), faults), *arguments]:
        try:
            override = parser.parse_override(text)
            override.config_loader = config_loader
            entries[bare(override.get_key_element())] = (
                override.get_key_element(),
                searched_or_fixed(override, with_stop),
            )
        except (ValueError, TypeError, HydraException) as error:
            reason = first_line(error).rstrip(".")
            faults.append(f"`{text}` must be a value or what to search, but: {reason}; for example {EXAMPLES}")
    conditions = read_conditions(plain(when or {}), entries, faults)
    extend = None
    if custom_search_space:
        try:
            extend = imported(custom_search_space)
        except ConfigError as error:
            faults.append(str(error))
    searched = {key: entry for key, entry in entries.values() if isinstance(entry, Searched)}
    if faults:
        raise ConfigError("\n".join(faults))
    return SearchSpace(
        distributions={key: searched[key].distribution for key in ordered(list(searched), conditions)},
        texts={key: entry.texts for key, entry in searched.items() if entry.texts},
        fixed={key: entry for key, entry in entries.values() if isinstance(entry, str)},
        conditions=conditions,
        custom_search_space=custom_search_space or None,
        extend=extend,
    )


def assignments(params: Mapping[str, Any], faults: list[str]) -> list[str]:
    """Overrides from what YAML made of them: a text is an override value, anything else the value itself."""
    texts = []
    for key, value in params.items():
        if isinstance(value, dict):
            faults.append(
                f"`hydra.sweeper.params` must have keys as on the command line, but {key} holds the keys "
                f"{', '.join(map(str, value))}; write them with a dot, as in {key}.{next(iter(value), '<key>')}: 1,2"
            )
        else:
            texts.append(f"{key}={value if isinstance(value, str) else written(value)}")
    return texts


def imported(path: str) -> "Callable[[DictConfig, Trial], None]":
    """The function at the dotted `path`.

    Raises:
        ConfigError: there is none.
    """
    rule = "`hydra.sweeper.custom_search_space` must be the dotted path of a function (cfg, trial)"
    try:
        found = located(path)
    # Whatever a user's module raises while it is imported.
    except Exception as error:
        raise ConfigError(
            f"{rule}, but got {path}: {type(error).__name__}: {first_line(error)}; mend it, or add its directory to "
            "PYTHONPATH"
        ) from error
    if not callable(found):
        raise ConfigError(f"{rule}, but {path} is of type {type(found).__name__}; name a function")
    return found


def located(path: str) -> Any:
    """What is at the dotted `path`; the first dot of a relative one means nothing, as to older versions of Hydra.

    Not pkgutil.resolve_name, which takes no module with a hyphen in its name.

    Raises:
        ImportError, AttributeError: nothing; and whatever a module raises while it is imported.
    """
    first, *others = path.removeprefix(".").split(".")
    found: Any = importlib.import_module(first)
    name = first
    for part in others:
        name = f"{name}.{part}"
        # An import makes a module an attribute of its package.
        if hasattr(found, "__path__") and not hasattr(found, part):
            importlib.import_module(name)
        found = getattr(found, part)
    return found
