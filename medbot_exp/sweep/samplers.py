"""Optuna's sampler and pruner, from the nodes hydra/sweeper/sampler and hydra/sweeper/pruner.

A node is a config with a `_target_` (options.py has ours; any other class will do), or what Hydra made of one: an
object, or a functools.partial of GridSampler. What hydra-optuna-sweeper 1.3 passed and Optuna 5 has no use for is
left out here. An import of this module loads Optuna.
"""

import difflib
import functools
import importlib.util
import inspect
import logging
import pkgutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import BaseSampler, BruteForceSampler, CmaEsSampler, GridSampler
from optuna.samplers._lazy_random_state import LazyRandomState

from medbot_exp.errors import ConfigError, first_line
from medbot_exp.sweep.space import SearchSpace

log = logging.getLogger(__name__)

SAMPLER = "hydra.sweeper.sampler"
PRUNER = "hydra.sweeper.pruner"

# What Optuna imports only when it samples or prunes: without this the study would begin, and then break.
PACKAGES = {
    "CmaEsSampler": ("cmaes",),
    "GPSampler": ("scipy", "torch"),
    "QMCSampler": ("scipy",),
    "WilcoxonPruner": ("scipy",),
}

# Arguments that Optuna 5 does nothing with, and the values of them that never meant anything.
WITHOUT_EFFECT: dict[str, dict[str, tuple[Any, ...]]] = {
    "TPESampler": {"consider_prior": (True, None), "warn_independent_sampling": (True, False, None)},
    "CmaEsSampler": {"restart_strategy": (None,), "inc_popsize": (2, -1)},
}

# Arguments that Optuna 5 obeys, but warns of even where they have its own default.
DEPRECATED: dict[str, dict[str, Any]] = {
    "TPESampler": {"prior_weight": 1.0, "consider_magic_clip": True, "consider_endpoints": False},
}


def build_sampler(sampler: Any, space: SearchSpace, directions: Sequence[str]) -> BaseSampler:
    """The sampler that `sampler` describes, for the parameters of `space` and as many objectives as `directions`.

    Raises:
        ConfigError: there is no such sampler, or it does not take these arguments, lacks a package, cannot search
            `space`, or not for so many objectives.
    """
    if not isinstance(sampler, BaseSampler):
        node = modern(described(sampler, SAMPLER), SAMPLER)
        if node["_target_"].endswith(".GridSampler"):
            sampler = built(node | {"_partial_": True}, SAMPLER)(space.grid())
        else:
            sampler = built(node, SAMPLER)
    if not isinstance(sampler, BaseSampler):
        raise ConfigError(f"`{SAMPLER}` must be one of Optuna's, but got {sampler}; try hydra/sweeper/sampler=tpe")
    faults = [*lacking(type(sampler), SAMPLER), *unfit(sampler, space, directions)]
    if faults:
        raise ConfigError("\n".join(faults))
    return sampler


def seed_of(sampler: Any) -> int | None:
    """The seed that `sampler`, as `build_sampler` takes it, gives; None where it gives none."""
    return None if isinstance(sampler, BaseSampler) else described(sampler, SAMPLER).get("seed")


def reseed(sampler: BaseSampler, seed: int, number: int) -> None:
    """Let `sampler` draw trial `number` with random numbers that follow from `seed` and the number alone.

    Each command builds its sampler anew: with the seed alone, a study that goes on or that has several controllers
    would draw the same points again.
    """
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    for part in vars(sampler).values():
        # Optuna's own reseed_rng() goes to the same places, with a seed of its choice.
        if isinstance(part, LazyRandomState):
            part.rng.seed(own)
        elif isinstance(part, BaseSampler):
            reseed(part, seed, number)


def goes_through_all(sampler: Any) -> bool:
    """Whether the sampler that `sampler` describes tries every point, as a grid does."""
    if isinstance(sampler, BaseSampler):
        return isinstance(sampler, GridSampler | BruteForceSampler)
    return described(sampler, SAMPLER)["_target_"].endswith((".GridSampler", ".BruteForceSampler"))


def build_pruner(pruner: Any, directions: Sequence[str]) -> BasePruner:
    """The pruner that `pruner` describes; one that never prunes for None.

    Raises:
        ConfigError: there is no such pruner, or it does not take these arguments, lacks a package, or would have to
            prune by several objectives.
    """
    if pruner is None:
        return NopPruner()
    if not isinstance(pruner, BasePruner):
        pruner = built(modern(described(pruner, PRUNER), PRUNER), PRUNER)
    if not isinstance(pruner, BasePruner):
        raise ConfigError(f"`{PRUNER}` must be one of Optuna's, but got {pruner}; try hydra/sweeper/pruner=median")
    faults = lacking(type(pruner), PRUNER)
    if len(directions) > 1 and not isinstance(pruner, NopPruner):
        faults.append(
            f"`{PRUNER}` must be none where there are several objectives, as Optuna prunes by one, but got "
            f"{type(pruner).__name__} and {len(directions)} directions; try hydra/sweeper/pruner=none"
        )
    if faults:
        raise ConfigError("\n".join(faults))
    return pruner


def unfit(sampler: BaseSampler, space: SearchSpace, directions: Sequence[str]) -> Iterator[str]:
    """What to say where `sampler` cannot search `space`, or not for so many objectives."""
    if isinstance(sampler, CmaEsSampler):
        if len(directions) > 1:
            yield (
                f"`{SAMPLER}=cmaes` must have one objective, but got {len(directions)} directions; "
                "try hydra/sweeper/sampler=tpe or nsgaii"
            )
        kinds = [type(distribution) for distribution in space.distributions.values()]
        if space.extend is None and all(kind is CategoricalDistribution for kind in kinds):
            yield (
                f"`{SAMPLER}=cmaes` must have a number to search, but got choices alone: "
                f"{', '.join(space.distributions)}; try hydra/sweeper/sampler=tpe"
            )
    if isinstance(sampler, BruteForceSampler):
        for key, distribution in space.continuous().items():
            yield (
                f"`{SAMPLER}=brute_force` must have parameters that can be counted, but got {key} from "
                f"{distribution.low} to {distribution.high} without a step; try range(<start>,<stop>,<step>)"
            )


def described(node: Any, path: str) -> dict[str, Any]:
    """`node` as a dict with a `_target_`.

    Raises:
        ConfigError: it is nothing of that kind, or lacks a value.
    """
    if isinstance(node, functools.partial):
        return {"_target_": f"{node.func.__module__}.{node.func.__qualname__}", **node.keywords}
    plain: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if not isinstance(plain, Mapping) or not isinstance(plain.get("_target_"), str):
        raise ConfigError(
            f"`{path}` must be a config with a _target_, but got {plain}; try {path.replace('.', '/')}=..."
        )
    missing = [key for key, value in plain.items() if value == "???"]
    if missing:
        raise ConfigError("\n".join(f"`{path}.{key}` must be given: add {path}.{key}=<value>" for key in missing))
    return dict(plain)


def modern(node: Mapping[str, Any], path: str) -> dict[str, Any]:
    """`node`, and every node in it, with the target and the arguments that Optuna 5 has.

    Raises:
        ConfigError: there is no such target, or it does not take these arguments, or lacks a package.
    """
    node = {
        key: modern(described(value, f"{path}.{key}"), f"{path}.{key}")
        if isinstance(value, Mapping) and "_target_" in value
        else value
        for key, value in node.items()
    }
    if node["_target_"] == "optuna.samplers.MOTPESampler":
        log.info("%s: Optuna's TPESampler takes the place of MOTPESampler, which it replaces", path)
        renamed = {"n_ehvi_candidates": "n_ei_candidates"}
        node = {renamed.get(key, key): value for key, value in node.items()} | {
            "_target_": "optuna.samplers.TPESampler"
        }
    try:
        target = pkgutil.resolve_name(node["_target_"])
    # Whatever a user's module raises while it is imported.
    except Exception as error:
        raise ConfigError(
            f"`{path}._target_` must be the dotted path of a class, but got {node['_target_']}: "
            f"{type(error).__name__}: {first_line(error)}; mend it, or choose an option: {path.replace('.', '/')}=..."
        ) from error
    if not (inspect.isclass(target) and target.__module__.startswith("optuna.")):
        return node
    faults = [*lacking(target, path), *misnamed(target, node, path)]
    if faults:
        raise ConfigError("\n".join(faults))
    if target is HyperbandPruner:
        # It makes pruners of these arguments, and so finds them wrong, only when it prunes.
        inner = {key: node[key] for key in ("min_resource", "reduction_factor", "bootstrap_count") if key in node}
        built({"_target_": "optuna.pruners.SuccessiveHalvingPruner", "min_resource": 1} | inner, path)
    return without_leftovers(target.__name__, node, path)


def misnamed(target: type, node: Mapping[str, Any], path: str) -> Iterator[str]:
    """What to say of the arguments in `node` that `target` does not take."""
    names = [name for name in inspect.signature(target).parameters if name != "search_space"]
    for key in node:
        if key == "search_space":
            yield f"`{path}.{key}` must be left out, as the grid is that of hydra.sweeper.params; drop it"
        elif key not in names and not (key.startswith("_") and key.endswith("_")):
            close = difflib.get_close_matches(key, names, n=1)
            yield (
                f"`{path}.{key}` is no argument of {target.__name__}, which has: {', '.join(names) or 'none'}"
                f"{f'; did you mean {close[0]}?' if close else ''}"
            )


def without_leftovers(name: str, node: Mapping[str, Any], path: str) -> dict[str, Any]:
    """`node` without the arguments that Optuna's class `name` would ignore, or warn of for nothing."""
    inert, deprecated = WITHOUT_EFFECT.get(name, {}), DEPRECATED.get(name, {})
    for key, harmless in inert.items():
        if key in node and node[key] not in harmless:
            log.warning("%s.%s=%s has no effect: Optuna 5 ignores it", path, key, node[key])
    return {
        key: value
        for key, value in node.items()
        if key not in inert and not (key in deprecated and value in (None, deprecated[key]))
    }


def lacking(target: type, path: str) -> list[str]:
    """What to say of the packages that `target` needs and that are not installed."""
    wanted = [package for base in target.__mro__ for package in PACKAGES.get(base.__name__, ())]
    return [
        f"`{path}` must have its packages, but {target.__name__} needs {package}; try pip install {package}"
        for package in wanted
        if importlib.util.find_spec(package) is None
    ]


def built(node: Mapping[str, Any], path: str) -> Any:
    """What `node` describes. Optuna's deprecations are logged; that a class is experimental was the user's choice.

    Raises:
        ConfigError: the class refuses its arguments.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = instantiate(dict(node), _convert_="all")
        except (HydraException, ValueError, TypeError) as error:
            cause = error.__cause__ or error
            values = " ".join(f"{key}={value}" for key, value in node.items() if not key.startswith("_"))
            raise ConfigError(
                f"`{path}` must have arguments that {node['_target_'].rpartition('.')[2]} takes, but got "
                f"{values or 'none'}: {first_line(cause).rstrip('.')}; see https://optuna.readthedocs.io/en/stable/reference"
            ) from error
    for message in dict.fromkeys(str(w.message) for w in caught if not issubclass(w.category, ExperimentalWarning)):
        log.warning("%s: %s", path, message)
    return result
