"""Override values as text: what one types behind an equals sign for a value, and which value Hydra reads from it."""

import functools
import math
from collections.abc import Mapping
from contextlib import suppress
from numbers import Integral
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Quote, QuotedString, Sweep, Transformer
from hydra.errors import HydraException
from omegaconf import OmegaConf


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
