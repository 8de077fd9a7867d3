"""The search space of a sweep: from Hydra's override syntax to Optuna's distributions, and back to overrides.

What may be searched (https://hydra.cc/docs/1.3/advanced/override_grammar/extended):

    a,b,c   choice(a,b,c)   glob(*)            one of them; whole lists and dicts too
    range(1,9)   range(0,1,0.25)               its numbers; the stop is excluded
    interval(0,1)                              floats, also between whole numbers: Hydra reads those as floats
    int(interval(1,64))                        whole numbers, both ends included
    tag(log,interval(1e-5,1e-2))               on a logarithmic scale; int(...) of it for whole numbers
    shuffle(range(1,9))                        its numbers as choices without an order

An import of this module loads Optuna.
"""

import difflib
import functools
import json
import logging
import math
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate
from numbers import Integral
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Sweep,
    Transformer,
)
from hydra.errors import HydraException
from omegaconf import Container, DictConfig, IntegerNode, ListConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from medbot_exp.errors import ConfigError, first_line

if TYPE_CHECKING:
    from optuna import Trial

log = logging.getLogger(__name__)

EXAMPLES = "lora.r=8,16,32, lora.r='int(interval(1,64))' or optimizer.lr='tag(log,interval(1e-5,1e-2))'"

# A grid is held in memory as a whole, and one that nobody lives to see the end of is a slip.
GRID_LIMIT = 1_000_000

CONDITION = re.compile(r"\s*(?P<key>[^\s=<>!]+)\s*(?P<operator>>=|<=|!=|=|>|<)\s*(?P<values>.*\S)\s*")

ABSENT = object()


@dataclass(frozen=True)
class Condition:
    """What must hold of the value under `key` for a parameter to be searched in a trial."""

    key: str
    operator: str
    values: tuple[Any, ...]  # of `=` any may match, of `!=` none; of the others it is one number

    def __str__(self) -> str:
        return f"{self.key}{self.operator}{','.join(map(written, self.values))}"

    def holds(self, value: Any) -> bool:
        """Whether `value`, as Hydra reads it, fulfils this; a value that is not there (ABSENT) never does."""
        if value is ABSENT:
            return False
        if self.operator in ("=", "!="):
            return any(equal(value, wanted) for wanted in self.values) == (self.operator == "=")
        if not is_number(value):
            return False
        bound = self.values[0]
        return {">=": value >= bound, "<=": value <= bound, ">": value > bound, "<": value < bound}[self.operator]


@dataclass(frozen=True)
class Searched:
    """A distribution, and of a categorical one what Hydra reads each choice from."""

    distribution: BaseDistribution
    texts: tuple[str, ...] = ()


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


def read_space(
    params: Mapping[str, Any] | None,
    search_space: Mapping[str, Any] | None,
    when: Mapping[str, Any] | None,
    custom_search_space: str | None,
    arguments: Sequence[str],
    config_loader: ConfigLoader | None,
) -> SearchSpace:
    """The search space that the sweeper's keys and the command line ask for together.

    Args:
        params: what stands before the equals sign of an override, and what stands behind it.
        search_space: what older versions of hydra-optuna-sweeper had for `params`, which wins over it.
        when: a searched key, and the condition or the list of conditions that it is searched under.
        custom_search_space: the dotted path of a function of the config and an optuna.Trial.
        arguments: overrides of the command line: they win over `params`, and a fixed value ends a search.
        config_loader: lists the options that glob() chooses from.

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
            entries[bare(override.get_key_element())] = override.get_key_element(), searched_or_fixed(override)
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
    if not faults and not searched and extend is None:
        faults.append(
            "`hydra.sweeper.params` must have something to search, but got "
            f"{' '.join(arguments) or 'nothing'}; for example {EXAMPLES}"
        )
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


def searched_or_fixed(override: Override) -> Searched | str:
    """How `override` is to be searched, or its text where it is one value; that of `~key` is empty.

    Raises:
        ValueError: it cannot be searched, or has no text.
    """
    if override.value_type is None:
        return ""
    value = override.value()
    if isinstance(value, Glob):
        names = list(override.sweep_iterator())
        if not names:
            raise ValueError(f"the group {override.key_or_group} has no option that matches {value.include}")
        return categorical(names)
    if not isinstance(value, Sweep):
        return written(value)
    if isinstance(value, IntervalSweep):
        return Searched(interval(value))
    if isinstance(value, RangeSweep):
        return searched_range(value)
    if "log" in value.tags:
        raise ValueError("tag(log,...) goes around an interval or a range")
    assert isinstance(value, ChoiceSweep)
    # A shuffled choice is left as it is: to Optuna choices have no order, and a resumed study needs them unchanged.
    return categorical(value.list)


def categorical(values: Sequence[Any]) -> Searched:
    """One of `values`; those that are no scalars, or that Optuna would confuse, are their override text to it."""
    choices = {written(value): value for value in map(plain, values)}
    if len(choices) < len(values):
        log.warning("choices that are there twice count once: %s", ",".join(written(plain(value)) for value in values))
    names = [text if isinstance(value, list | dict) else value for text, value in choices.items()]
    # 1, 1.0 and true are equal in Python, and Optuna looks choices up by equality.
    if len(set(names)) < len(names):
        names = list(choices)
    return Searched(CategoricalDistribution(names), tuple(choices))


def interval(sweep: IntervalSweep) -> IntDistribution | FloatDistribution:
    """Whole numbers where int() was written around it, else floats."""
    low, high, logarithmic = sweep.start, sweep.end, "log" in sweep.tags
    assert low is not None and high is not None
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=logarithmic)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"an interval must have finite ends, not {low} and {high}")
    return FloatDistribution(low, high, log=logarithmic)


def searched_range(sweep: RangeSweep) -> Searched:
    """The numbers of a range, without its stop."""
    numbers = numbers_of(sweep)
    if "log" in sweep.tags and not (isinstance(numbers, range) and abs(numbers.step) == 1):
        raise ValueError("a logarithmic scale has no steps; try tag(log,interval(<low>,<high>))")
    if sweep.shuffle:
        return categorical(numbers)
    low, high = min(numbers[0], numbers[-1]), max(numbers[0], numbers[-1])
    if isinstance(numbers, range):
        return Searched(IntDistribution(low, high, log="log" in sweep.tags, step=abs(numbers.step)))
    return Searched(FloatDistribution(low, high, step=abs(sweep.step)))


def numbers_of(sweep: RangeSweep) -> Sequence[Any]:
    """The numbers of `sweep`, a Python range where they are whole.

    Raises:
        ValueError: there are none, or endlessly many.
    """
    start, stop, step = sweep.start, sweep.stop, sweep.step
    assert start is not None and stop is not None
    if not all(map(math.isfinite, (start, stop, step))) or step == 0:
        raise ValueError(f"a range must end, not go from {start} to {stop} by {step}")
    numbers: Sequence[Any]
    if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
        numbers = range(start, stop, step)
    else:
        numbers = decimals(start, step, math.ceil((exact(stop) - exact(start)) / exact(step)))
    if not numbers:
        raise ValueError(f"a range must have a number, but from {start} to {stop} by {step} there is none")
    return numbers


def decimals(start: float, step: float, count: int) -> list[float]:
    """`count` numbers from `start` by `step`, as one counts on paper: 0, 0.1, 0.2, 0.3 and not 0.30000000000000004."""
    return [float(number) for number in accumulate([exact(step)] * (count - 1), initial=exact(start))][: max(count, 0)]


def exact(number: float) -> Decimal:
    """The number that was written."""
    return Decimal(repr(number))


def values_of(distribution: BaseDistribution) -> Sequence[Any]:
    """Every value of a distribution that can be counted."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    assert isinstance(distribution, FloatDistribution) and distribution.step is not None
    steps = (exact(distribution.high) - exact(distribution.low)) / exact(distribution.step)
    return decimals(distribution.low, distribution.step, round(steps) + 1)


def older(settings: Any) -> Searched:
    """What an entry of hydra.sweeper.search_space asks for.

    Raises:
        ValueError: a key is missing, unknown, or has a value that does not go with the others.
    """
    allowed = ("type", "low", "high", "log", "step", "choices")
    if not isinstance(settings, dict) or not set(settings) <= set(allowed):
        raise ValueError(f"its keys must be some of {', '.join(allowed)}")
    given: dict[str, Any] = dict.fromkeys(allowed) | settings
    kind = given["type"].name if isinstance(given["type"], Enum) else given["type"]
    low, high, step = given["low"], given["high"], given["step"]
    if kind == "categorical":
        if not isinstance(given["choices"], list) or not given["choices"]:
            raise ValueError("a categorical one must have a list of choices")
        return categorical(given["choices"])
    if kind not in ("int", "float"):
        raise ValueError("its type must be int, float or categorical")
    if not (is_number(low) and is_number(high)):
        raise ValueError("low and high must be numbers")
    logarithmic = bool(given["log"])
    if kind == "int":
        return Searched(IntDistribution(int(low), int(high), log=logarithmic, step=1 if step is None else int(step)))
    return Searched(FloatDistribution(low, high, log=logarithmic, step=step))


def read_conditions(
    when: Mapping[str, Any], entries: Mapping[str, tuple[str, Searched | str]], faults: list[str]
) -> dict[str, tuple[Condition, ...]]:
    """The conditions of each searched key; what is wrong with them is added to `faults`.

    Those of a key that the command line gives a value to are passed over, so that a sweep can be narrowed from there.
    """
    conditions: dict[str, tuple[Condition, ...]] = {}
    for name, texts in when.items():
        if bare(name) not in entries:
            close = difflib.get_close_matches(bare(name), entries, n=1)
            faults.append(
                f"`hydra.sweeper.when` must name what is searched, but got {name}; "
                f"{f'did you mean {close[0]}?' if close else f'add {name} to hydra.sweeper.params'}"
            )
            continue
        key, entry = entries[bare(name)]
        read = []
        for text in texts if isinstance(texts, list) else [texts]:
            try:
                read.append(read_condition(text))
            except (ValueError, HydraException) as error:
                faults.append(
                    f"`hydra.sweeper.when.{name}` must be conditions, but got {text}: {first_line(error)}; for example "
                    "optimizer=adamw, lora.r=16,32, lora.rslora=true, lora.r>=16 or a list of such"
                )
        if read and isinstance(entry, Searched):
            conditions[key] = tuple(read)
    try:
        ordered([key for key, _ in entries.values()], conditions)
    except CycleError as error:
        faults.append(
            "`hydra.sweeper.when` must have no circles, but got "
            f"{' when '.join(reversed(error.args[1]))}; leave out one of these conditions"
        )
    return conditions


def read_condition(text: Any) -> Condition:
    """The condition that `text` spells.

    Raises:
        ValueError, HydraException: none.
    """
    match = CONDITION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("it must be a key, one of = != >= <= > <, and a value")
    value = value_of(match["values"])
    if isinstance(value, Sweep | Glob) and not isinstance(value, ChoiceSweep):
        raise ValueError("it must compare with values")
    values = tuple(map(plain, value.list if isinstance(value, ChoiceSweep) else [value]))
    if match["operator"] not in ("=", "!=") and not (len(values) == 1 and is_number(values[0])):
        raise ValueError(f"{match['operator']} must compare with one number")
    condition = Condition(bare(match["key"]), match["operator"], values)
    str(condition)  # nested sweeps have no text
    return condition


def ordered(keys: Sequence[str], conditions: Mapping[str, tuple[Condition, ...]]) -> list[str]:
    """`keys`, each behind those that it is conditional on.

    Raises:
        CycleError: there is no such order.
    """
    by_bare = {bare(key): key for key in keys}
    before = {
        key: [by_bare[condition.key] for condition in conditions.get(key, ()) if condition.key in by_bare]
        for key in keys
    }
    return list(TopologicalSorter(before).static_order())


def imported(path: str) -> "Callable[[DictConfig, Trial], None]":
    """The function at the dotted `path`.

    Raises:
        ConfigError: there is none.
    """
    rule = "`hydra.sweeper.custom_search_space` must be the dotted path of a function (cfg, trial)"
    try:
        found = pkgutil.resolve_name(path)
    # Whatever a user's module raises while it is imported.
    except Exception as error:
        raise ConfigError(
            f"{rule}, but got {path}: {type(error).__name__}: {first_line(error)}; mend it, or add its directory to "
            "PYTHONPATH"
        ) from error
    if not callable(found):
        raise ConfigError(f"{rule}, but {path} is of type {type(found).__name__}; name a function")
    return found


def suggested(trial: "Trial", key: str, distribution: BaseDistribution) -> Any:
    """The value of `key` in `trial`."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def custom_text(value: Any) -> str:
    """The override text of a value that a custom search space suggested.

    A text is an override value as it stands, which is how such a function can choose a list; it is quoted only where
    Hydra would read it as a sweep or not at all.
    """
    if isinstance(value, str):
        with suppress(HydraException):
            if not isinstance(value_of(value), Sweep | Glob):
                return value
    return written(value)


def written(value: Any) -> str:
    """The text that Hydra reads as exactly `value`, as one would type it behind an equals sign.

    Raises:
        ValueError: there is none, as for a sweep inside of a list.
    """
    text = literal(value)
    if isinstance(value, str | list | dict) and not equal(read_or_none(text), value):
        raise ValueError(f"no override can say {value!r}")
    return text


def literal(value: Any) -> str:
    """What `written` tries."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, str):
        # Without quotes, a backslash at the end would escape the bracket behind it, and an empty text would be lost in
        # a list and in `~key=`.
        simple = value and "\\" not in value and read_or_none(value) == value
        return value if simple else QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, list):
        return f"[{','.join(map(literal, value))}]"
    if isinstance(value, dict):
        # The grammar has no quotes around the keys of a dict.
        return f"{{{','.join(f'{Transformer.str(key)}:{literal(item)}' for key, item in value.items())}}}"
    if isinstance(value, Sweep | Glob):
        raise ValueError(
            "choice(), range(), interval() and glob() must go around a whole value, not stand inside of one"
        )
    raise ValueError(f"no override can say a {type(value).__name__}")


@functools.lru_cache(maxsize=4096)
def value_of(text: str) -> Any:
    """What Hydra reads behind an equals sign.

    Raises:
        HydraException: nothing.
    """
    return OverridesParser.create().parse_override(f"key={text}").value()


def read_or_none(text: str) -> Any:
    """What Hydra reads behind an equals sign; None also where it cannot."""
    try:
        return value_of(text)
    except HydraException:
        return None


def plain(value: Any) -> Any:
    """`value` without OmegaConf's containers and Hydra's quotes."""
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True)
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value


def equal(one: Any, other: Any) -> bool:
    """Whether two values are the same to a user: 1 and 1.0 are, 1 and true or 1 and '1' are not."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(map(equal, one.values(), other.values()))
    if is_number(one) and is_number(other):
        return one == other or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and one == other


def is_number(value: Any) -> bool:
    """Whether `value` is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def bare(key: str) -> str:
    """`key` without the plus signs that add it."""
    return key.lstrip("+")


def assignment(key: str, text: str) -> str:
    """The override that gives `key` the value `text`, or that takes it away."""
    return key if key.startswith("~") and not text else f"{key}={text}"


def current(key: str, known: Mapping[str, str], config: DictConfig) -> Any:
    """The value under `key`: its override in `known`, else the group's option or the value in `config`, else ABSENT."""
    if key in known:
        return value_of(known[key])
    groups = choices_of(config)
    if key in groups:
        return groups[key]
    if not exists(config, key):
        return ABSENT
    value = plain(OmegaConf.select(config, key))
    return value.name if isinstance(value, Enum) else value


def choices_of(config: DictConfig) -> dict[str, Any]:
    """The option that each group of `config` was composed from."""
    return plain(OmegaConf.select(config, "hydra.runtime.choices")) or {}


def exists(config: DictConfig, key: str) -> bool:
    """Whether the dotted `key` is in `config`, whatever its value."""
    parent, last = parent_of(config, key)
    if isinstance(parent, ListConfig):
        return last.isdecimal() and int(last) < len(parent)
    return isinstance(parent, DictConfig) and last in parent.keys()  # noqa: SIM118 (`in` misses what is None)


def parent_of(config: DictConfig, key: str) -> tuple[Any, str]:
    """What holds the dotted `key`, and its last part."""
    path, _, last = key.rpartition(".")
    return OmegaConf.select(config, path) if path else config, last


def unknown_keys(space: SearchSpace, config: DictConfig) -> list[str]:
    """What to say of the keys of `space`, and of its conditions, that are not in the composed `config`.

    Keys that one of its groups may bring are taken for granted: a trial's own composition looks at those.
    """
    choices = choices_of(config)
    keys = [*space.distributions, *space.fixed]
    added = {bare(key) for key in keys if key.startswith("+")}
    groups = {bare(key) for key in keys} & (set(choices) | added)
    # What is added at the top may be an option of a group, which may add keys anywhere.
    anywhere = any("." not in key and key not in choices and not exists(config, key) for key in added)

    def unknown(key: str) -> bool:
        return not (anywhere or key in choices or exists(config, key) or within(key, groups))

    faults = [
        f"`{key}` must be a key of the config, but there is none{meant(key, config)}; +{key} adds one"
        for key in keys
        if not key.startswith(("+", "~")) and unknown(key)
    ]
    searched = groups & {bare(key) for key in space.distributions}
    for name, conditions in space.conditions.items():
        rule = f"`hydra.sweeper.when.{name}` must look at a value that is known before the trial"
        for key in [condition.key for condition in conditions]:
            if key in choices or key in map(bare, keys):
                continue
            if within(key, searched):
                faults.append(f"{rule}, but {key} follows from a group that is searched; make it a condition on that")
            elif unknown(key):
                faults.append(f"{rule}, but {key} is no key{meant(key, config)}; look at one that is there")
            elif exists(config, key) and OmegaConf.is_interpolation(*parent_of(config, key)):
                faults.append(f"{rule}, but {key} follows from other keys; make it a condition on those")
    return faults


def fractions(space: SearchSpace, config: DictConfig) -> list[str]:
    """What to say of keys that are whole numbers in `config` and that `space` searches as floats."""
    faults = []
    for key, distribution in space.distributions.items():
        if not isinstance(distribution, FloatDistribution) or not exists(config, bare(key)):
            continue
        parent, last = parent_of(config, bare(key))
        if isinstance(parent, DictConfig) and isinstance(parent._get_node(last), IntegerNode):
            low, high = distribution.low, distribution.high
            faults.append(
                f"`{key}` must be a whole number, but floats from {low} to {high} are searched; "
                f"try {key}='int(interval({low:g},{high:g}))'"
            )
    return faults


def within(key: str, groups: Iterable[str]) -> bool:
    """Whether `key` is in the package of one of `groups`."""
    return any(key.startswith(f"{group.replace('/', '.')}.") for group in groups)


def meant(key: str, config: DictConfig) -> str:
    """A question for the key that was meant, if one is close."""
    close = difflib.get_close_matches(key, dotted(config), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def dotted(node: Container, path: str = "") -> list[str]:
    """Every key of `node` but those below hydra."""
    keys: list[str] = []
    if isinstance(node, DictConfig):
        for name in map(str, node.keys()):
            if path or name != "hydra":
                keys.append(f"{path}{name}")
                child = node._get_node(name)
                keys += dotted(child, f"{path}{name}.") if isinstance(child, DictConfig) else []
    return keys
