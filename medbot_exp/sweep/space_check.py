"""A search space beside the config that it searches: keys that are not there, types that do not fit, trials to try."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, IntegerNode, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FixedTrial

from medbot_exp.override_text import assignment, bare
from medbot_exp.sweep.config_keys import choices_of, exists, meant, parent_of, within
from medbot_exp.sweep.space import EXAMPLES, SearchSpace


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


def nothing_searched(space: SearchSpace) -> list[str]:
    """What to say of a space in which all trials are alike."""
    if space.distributions or space.extend is not None:
        return []
    fixed = " ".join(assignment(key, text) for key, text in space.fixed.items())
    return [
        f"`hydra.sweeper.params` must have something to search, but got {fixed or 'nothing'}; for example {EXAMPLES}"
    ]


def sample_points(space: SearchSpace, base: DictConfig) -> list[list[str]]:
    """Overrides of trials that together have each choice, and each end of a range; none of a custom search space."""
    if space.extend is not None:
        return []
    ends: dict[str, list[Any]] = {
        key: list(each.choices) if isinstance(each, CategoricalDistribution) else [each.low, each.high]  # type: ignore[attr-defined]
        for key, each in space.distributions.items()
    }
    first = {key: values[0] for key, values in ends.items()}
    points = [first] + [{**first, key: value} for key, values in ends.items() for value in values[1:]]
    return [space.suggest(FixedTrial(point), base) for point in points]  # type: ignore[arg-type]


def telling_points(points: Sequence[list[str]], base: DictConfig) -> list[list[str]]:
    """Those of `points` that bring a key, or an option of a group, that none before has: composition is by these."""
    choices = choices_of(base)

    def told_by(word: str) -> str:
        key = word.partition("=")[0]
        # What is added may be a group as well.
        return word if key.startswith("+") or bare(key) in choices else key

    seen: set[str] = set()
    telling = []
    for point in points:
        words = set(map(told_by, point))
        if not words <= seen:
            telling.append(point)
            seen |= words
    return telling
