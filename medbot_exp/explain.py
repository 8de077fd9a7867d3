"""Hydra's and OmegaConf's exceptions, said in this project's terms.

Hydra speaks of structs and object types; a user typed `lora.dropuot=0.1`. Each of their errors that a user
can cause becomes a ConfigError with the key as typed, the names there are, and the remedy.
"""

import difflib
import re
import shlex
import traceback
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args, get_origin

import yaml
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from medbot_exp.errors import ConfigError, MedbotError, first_line
from medbot_exp.rules import no_such_key, options

# Options of Hydra's own groups that other packages bring.
PLUGINS = {
    "hydra/launcher/joblib": "hydra-joblib-launcher",
    "hydra/launcher/submitit_local": "hydra-submitit-launcher",
    "hydra/launcher/submitit_slurm": "hydra-submitit-launcher",
}


def explain(error: BaseException) -> MedbotError | None:
    """The error that the user can act on; None where `error` is no matter of configuration."""
    composed = from_composition(error)
    # Composition loses the cause of what a resolver of ours raised; elsewhere an error while one of ours was
    # handled is another error.
    chain = list(causes(error, contexts=composed))
    for cause in chain:
        if isinstance(cause, MedbotError):
            return cause
    if not composed:
        return None
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
            return ConfigError(wrong_type(cause))
    ambiguous = re.match(r"Ambiguous value for argument '((.+?)=(.+))'", str(error))
    if isinstance(error, ConfigCompositionException) and ambiguous:
        override, key, values = ambiguous.groups()
        grid = f"`{key}` takes one value, but got {override}\nFor a grid: python -m medbot_exp -m {override}"
        takes_one = options(key) and key != "benchmark"  # the group of which a run may have several
        return ConfigError(grid if takes_one else f"{grid}\nFor a list: {key}=[{values}]")
    if isinstance(error, OverrideParseException):
        return ConfigError(
            f"an override must read key=value, but got {error.override!r}: {first_line(error)}\n"
            f"A value with blanks, braces, brackets, commas, quotes or = goes in quotes of its own: {as_text(error)}"
        )
    if isinstance(error, ConfigCompositionException | HydraException | OmegaConfBaseException | ValueError):
        return ConfigError(str(error).strip())
    return None


def as_text(error: OverrideParseException) -> str:
    """The override that `error` is about as a shell takes it, its value a text; in general terms where it is none."""
    key, equals, value = error.override.partition("=")
    structured = value.startswith("[") or value.startswith("{") and ":" in value  # else the first of a template's names
    if not equals or not value or structured:
        return "'key=\"…\"'"
    return shlex.quote(f"{key}={QuotedString(value, Quote.double).with_quotes()}")


def from_composition(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf raised `error` while they read the config: below the door nothing else uses them."""
    kinds = (HydraException, OmegaConfBaseException, yaml.YAMLError)
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    flags = isinstance(error, ValueError) and bool(frames) and Path(frames[-1]).parent.name == "_internal"  # Hydra's
    return flags or isinstance(error, kinds) or any("omegaconf" in name or "defaults_list" in name for name in frames)


def causes(error: BaseException | None, contexts: bool) -> Iterator[BaseException]:
    """`error` and what it was raised from, outermost first; with `contexts` also what it was raised during."""
    while error is not None:
        yield error
        error = error.__cause__ or (error.__context__ if contexts else None)


def unknown_key(error: OmegaConfBaseException) -> str:
    """The misspelt key and the names that its node has, closest first."""
    key, node = str(error.full_key), error.object_type
    if isinstance(node, type) and is_dataclass(node):
        names = [field.name for field in fields(node)]
    elif isinstance(error.parent_node, DictConfig):
        names = [str(name) for name in error.parent_node]
    else:
        return f"`{key}` is no key of this config: {first_line(error)}"
    # Hydra's own of a node that it makes an object of, and those of its defaults list, are not for a command line.
    return no_such_key(key, [name for name in names if name != "defaults" and not name.startswith("_")])


def misspelt_override(words: list[str], schema: type) -> ConfigError | None:
    """The error for the first override that cannot mean anything here; None where Hydra has to look itself.

    Hydra composes everything twice before it says the same, or says it without the names.
    """
    for word in words:
        deleted = re.match(r"~([A-Za-z_][\w.]*)", word)
        if deleted and not deleted.group(1).startswith("hydra"):
            return ConfigError(
                f"a key cannot be taken out, but got {word}; set it to null where it may be empty, "
                "benchmark=[] for no benchmark"
            )
        path, equals, value = word.partition("=")
        if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", path) or not equals or path.split(".")[0] == "hydra":
            continue
        if value in ("", "null") and options(path):
            several = ", or a list of them, benchmark=[] for none" if path == "benchmark" else ""
            return ConfigError(
                f"`{path}` must be one of its options: {path}=<{'|'.join(options(path))}>{several}, but got {word}"
            )
        node: type | None = schema
        walked = ""
        for part in path.split("."):
            if node is None:
                break
            types = {field.name: field.type for field in fields(node)}
            walked = f"{walked}.{part}" if walked else part
            if part not in types and options(walked):
                return ConfigError(f"`{walked}` is a group that must be added: +{word}")
            if part not in types:
                return ConfigError(no_such_key(walked, list(types)))
            kinds = get_args(types[part]) or (types[part],)
            node = next((kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind)), None)
            if get_origin(types[part]) is dict:
                node = None
    return None


def wrong_type(error: ValidationError) -> str:
    """What the key takes, and what it got."""
    key, text = error.full_key, first_line(error)
    if "is not Optional" in text or "Incompatible value 'None'" in text:
        return f"`{key}` must have a value, but got null; see --help for its default"
    choice = re.fullmatch(r"Invalid value (.+), expected one of \[(.+)\]", text)
    if choice:
        return f"`{key}` must be one of {choice.group(2)}, but got {choice.group(1)}"
    converted = re.fullmatch(r"Value (.+) of type '\w+' could not be converted to (\w+)", text)
    kinds = {"Integer": "a whole number", "Float": "a number"}
    if converted and converted.group(2) in kinds:
        null = " or null" if takes_null(error) else ""
        return f"`{key}` must be {kinds[converted.group(2)]}{null}, but got {converted.group(1)}"
    boolean = re.fullmatch(r"Value (.+) is not a valid bool.*", text)
    if boolean:
        return f"`{key}` must be true or false, but got {boolean.group(1)}"
    if "ListConfig" in text:
        return f"`{key}` must be a list: {key}=[a,b]"
    return f"`{key}` has the wrong type: {text}"


def takes_null(error: ValidationError) -> bool:
    """Whether the key that got a wrong type may be empty."""
    node, key = error.object_type, str(error.full_key).rpartition(".")[2]
    types = {field.name: field.type for field in fields(node)} if is_dataclass(node) else {}
    return type(None) in get_args(types.get(key))


def missing_option(error: MissingConfigException) -> str:
    """The group and the options that it has, or the package that brings the option."""
    found = re.search(r"[Cc]ould not find '([^']+)'", str(error))
    wanted = found.group(1) if found else str(error.missing_cfg_file)
    if wanted in PLUGINS:
        return (
            f"`{'='.join(wanted.rsplit('/', 1))}` must have its package, but {PLUGINS[wanted]} is not installed\n"
            f"Run: pip install {PLUGINS[wanted]}"
        )
    group, _, option = wanted.rpartition("/")
    # Hydra lists no options where the choice was a list of them.
    names = sorted(error.options or options(group))
    if not group or not names:
        return first_line(error)
    close = difflib.get_close_matches(option, names, n=1)
    hint = f"; did you mean {group}={close[0]}?" if close else ""
    listed = [name.strip() for name in option.split(",")]
    if group == "benchmark" and len(listed) > 1 and set(listed) <= set(names):
        hint = f"; several are a list: benchmark=[{','.join(listed)}]"
    empty = "; benchmark=[] takes none" if group == "benchmark" else ""
    return f"`{group}={option}` is no option; {group} has: {', '.join(names)}{hint or empty}"
