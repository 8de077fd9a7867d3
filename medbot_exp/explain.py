"""Hydra's and OmegaConf's exceptions, said in this project's terms.

Hydra speaks of structs and object types; a user typed `lora.dropuot=0.1`. Each of their errors that a user
can cause becomes a ConfigError with the key as typed, the names there are, and the remedy.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import yaml
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from medbot_exp.errors import ConfigError, MedbotError


def explain(error: BaseException) -> MedbotError | None:
    """The error that the user can act on; None where `error` is no matter of configuration."""
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, MedbotError):
            return cause
    for cause in chain:
        if isinstance(cause, yaml.YAMLError):
            return ConfigError(f"a config file must be valid YAML, but got:\n{cause}")
        if isinstance(cause, MissingConfigException):
            return ConfigError(missing_option(cause))
        if isinstance(cause, ConfigAttributeError | ConfigKeyError):
            return ConfigError(unknown_key(cause))
        if isinstance(cause, ValidationError):
            return ConfigError(f"`{cause.full_key}` has the wrong type: {first_line(cause)}")
    if isinstance(error, OverrideParseException):
        return ConfigError(f"an override must read key=value, but got {error.override!r}: {first_line(error)}")
    if isinstance(error, ConfigCompositionException | HydraException | OmegaConfBaseException):
        return ConfigError(str(error).strip())
    return None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what it was raised from, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def unknown_key(error: OmegaConfBaseException) -> str:
    """The misspelt key and the names that its node has, closest first."""
    key, node = str(error.full_key), error.object_type
    if isinstance(node, type) and is_dataclass(node):
        names = [field.name for field in fields(node)]
    elif isinstance(error.parent_node, DictConfig):
        names = [str(name) for name in error.parent_node]
    else:
        return f"`{key}` is no key of this config: {first_line(error)}"
    close = difflib.get_close_matches(key.rpartition(".")[2], names, n=1)
    hint = f"; did you mean {key.removesuffix(key.rpartition('.')[2])}{close[0]}?" if close else ""
    return f"`{key}` is no key; {key.rpartition('.')[0] or 'the config'} has: {', '.join(names)}{hint}"


def missing_option(error: MissingConfigException) -> str:
    """The group and the options that it has."""
    found = re.search(r"[Cc]ould not find '([^']+)'", str(error))
    wanted = found.group(1) if found else str(error.missing_cfg_file)
    group, _, option = wanted.rpartition("/")
    options = sorted(error.options or [])
    if not options:
        return str(error).strip()
    close = difflib.get_close_matches(option, options, n=1)
    hint = f"; did you mean {group}={close[0]}?" if close else ""
    return f"`{group}={option}` is no option; {group} has: {', '.join(options)}{hint}"


def first_line(error: BaseException) -> str:
    """The first line of the text of `error`."""
    return str(error).strip().splitlines()[0]
