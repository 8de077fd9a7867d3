"""Which keys a composed config has, and which option each of its groups."""

import difflib
from collections.abc import Iterable
from typing import Any

from omegaconf import Container, DictConfig, ListConfig, OmegaConf

from medbot_exp.override_text import plain


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
