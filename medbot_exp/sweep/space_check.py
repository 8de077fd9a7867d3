"""A search space beside the config that it searches: keys that are not there, and types that do not fit."""

from omegaconf import DictConfig, IntegerNode, OmegaConf
from optuna.distributions import FloatDistribution

from medbot_exp.sweep.config_keys import choices_of, exists, meant, parent_of, within
from medbot_exp.sweep.override_text import bare
from medbot_exp.sweep.space import SearchSpace


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
