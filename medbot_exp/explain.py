"""Hydra's and OmegaConf's exceptions, said in this project's terms.

Hydra speaks of structs and object types; a user typed `lora.dropuot=0.1`. Each of their errors that a user
can cause becomes a ConfigError with the key as typed, the names there are, and the remedy.
"""

import difflib
import re
import traceback
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import get_args, get_origin

import yaml
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from medbot_exp.config import conf_directory
from medbot_exp.errors import ConfigError, MedbotError, first_line


def explain(error: BaseException) -> MedbotError | None:
    """The error that the user can act on; None where `error` is no matter of configuration."""
    reason: BaseException | None = error
    while reason is not None:
        if isinstance(reason, MedbotError):
            return reason
        reason = reason.__cause__ or reason.__context__
    if not from_composition(error):
        return None
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, yaml.YAMLError):
            return ConfigError(f"a config file must be valid YAML, but got:\n{cause}")
        if isinstance(cause, UnicodeDecodeError):
            return ConfigError(f"a config file must be UTF-8 text, but got: {cause}")
        if isinstance(cause, MissingConfigException):
            return ConfigError(missing_option(cause))
        if isinstance(cause, ConfigAttributeError | ConfigKeyError):
            return ConfigError(unknown_key(cause))
        if isinstance(cause, ValidationError) and not cause.full_key:
            return ConfigError(f"a config file must hold keys and values, but: {first_line(cause)}")
        if isinstance(cause, ValidationError) and "is not a subclass of" in str(cause):
            return ConfigError(f"`{cause.full_key}` cannot be added here; see the groups and keys: --help")
        if isinstance(cause, ValidationError):
            return ConfigError(f"`{cause.full_key}` has the wrong type: {first_line(cause)}")
    if isinstance(error, OverrideParseException):
        return ConfigError(f"an override must read key=value, but got {error.override!r}: {first_line(error)}")
    if isinstance(error, ValueError) and str(error).startswith("Config group override"):
        return ConfigError(f"a group takes the name of one of its options, group=option: {error}; see --help")
    if isinstance(error, ConfigCompositionException | HydraException | OmegaConfBaseException):
        return ConfigError(str(error).strip())
    return None


def from_composition(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf raised `error` while they read the config: below the door nothing else uses them."""
    kinds = (HydraException, OmegaConfBaseException, yaml.YAMLError)
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, kinds) or any("omegaconf" in name or "defaults_list" in name for name in frames)


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
    return no_such_key(key, names)


def no_such_key(key: str, names: list[str]) -> str:
    """What to say of `key` where its parent has `names`."""
    parent, _, last = key.rpartition(".")
    close = difflib.get_close_matches(last, names, n=1)
    hint = f"; did you mean {parent + '.' if parent else ''}{close[0]}?" if close else ""
    return f"`{key}` is no key; {parent or 'the config'} has: {', '.join(names)}{hint}"


def misspelt_override(words: list[str], schema: type) -> ConfigError | None:
    """The error for the first override whose key `schema` does not have; None where Hydra has to look itself.

    Hydra composes everything twice before it says the same: this answers in half the time.
    """
    for word in words:
        path = word.partition("=")[0]
        if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", path) or "=" not in word or path.split(".")[0] == "hydra":
            continue
        node: type | None = schema
        walked = ""
        for part in path.split("."):
            if node is None:
                break
            types = {field.name: field.type for field in fields(node)}
            walked = f"{walked}.{part}" if walked else part
            if part not in types and (conf_directory() / walked).is_dir():
                return ConfigError(f"`{walked}` is a group that must be added: +{word}")
            if part not in types:
                return ConfigError(no_such_key(walked, list(types)))
            kinds = get_args(types[part]) or (types[part],)
            node = next((kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind)), None)
            if get_origin(types[part]) is dict:
                node = None
    return None


def missing_option(error: MissingConfigException) -> str:
    """The group and the options that it has."""
    found = re.search(r"[Cc]ould not find '([^']+)'", str(error))
    wanted = found.group(1) if found else str(error.missing_cfg_file)
    group, _, option = wanted.rpartition("/")
    # Hydra lists no options where the choice was a list of them.
    options = sorted(error.options or [file.stem for file in (conf_directory() / group).glob("*.yaml")])
    if not group or not options:
        return first_line(error)
    close = difflib.get_close_matches(option, options, n=1)
    hint = f"; did you mean {group}={close[0]}?" if close else ""
    return f"`{group}={option}` is no option; {group} has: {', '.join(options)}{hint}"
