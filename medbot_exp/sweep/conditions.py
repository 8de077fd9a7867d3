"""hydra.sweeper.when: the conditions under which a trial has a parameter, and the values that they look at."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from graphlib import CycleError, TopologicalSorter
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, Sweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from medbot_exp.errors import first_line
from medbot_exp.override_text import bare, equal, is_number, plain, value_of, written
from medbot_exp.rundir import leaves
from medbot_exp.sweep.config_keys import choices_of, exists
from medbot_exp.sweep.distributions import Searched

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


def read_conditions(
    when: Mapping[str, Any], entries: Mapping[str, tuple[str, Searched | str]], faults: list[str]
) -> dict[str, tuple[Condition, ...]]:
    """The conditions of each searched key; what is wrong with them is added to `faults`.

    Those of a key that the command line gives a value to are passed over, so that a sweep can be narrowed from there.
    """
    conditions: dict[str, tuple[Condition, ...]] = {}
    # +hydra.sweeper.when.lora.dropout=... makes dicts of the dots.
    for name, texts in leaves(dict(when)) if when else ():
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
