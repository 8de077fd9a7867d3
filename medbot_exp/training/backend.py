"""Who loads the weights, attaches the adapter and runs the training step: PEFT alone, or Unsloth."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbot_exp import lora, model
from medbot_exp.config import BackendName, RunConfig
from medbot_exp.device import choose_precision
from medbot_exp.errors import ConfigError
from medbot_exp.training import kernels, unsloth

if TYPE_CHECKING:
    import torch

# What Unsloth changes as it is imported.
PATCHED = ("transformers", "peft", "trl")


def begin(backend: BackendName, cache_dir: Path) -> None:
    """Import Unsloth, where it is the backend, before the libraries that it changes; each run has them its own way.

    Raises:
        ConfigError: this process has them in the other's way, as a run before this one was of the other backend.
    """
    changed = "unsloth" in sys.modules
    loaded = [name for name in PATCHED if name in sys.modules]
    if backend is BackendName.unsloth and not changed:
        if loaded:
            raise other_way(backend, f"{', '.join(loaded)} without it")
        unsloth.begin(cache_dir)
    if backend is BackendName.peft and changed:
        raise other_way(backend, "Unsloth's changes to them")


def other_way(backend: BackendName, has: str) -> ConfigError:
    """The error for a process that an earlier run of another backend has left unfit."""
    return ConfigError(
        f"`backend` must be the same for all runs of one process, as Unsloth changes {', '.join(PATCHED)} for good, "
        f"but got backend={backend.name} in a process that has {has}; give each a process: hydra/launcher=local"
    )


def load(config: RunConfig, outlined: model.Outline, located: model.Located, device: "torch.device") -> model.Loaded:
    """The model of `config` on `device`, as its backend wants it; arguments and errors as of model.load_by."""
    read = unsloth.reader(config) if config.backend.name is BackendName.unsloth else model.read_weights
    return model.load_by(read, config.model, outlined, located, device)


def attach(loaded: model.Loaded, config: RunConfig, device: "torch.device") -> Any:
    """The loaded model with the adapter of `config` on it, to be trained on `device`; errors as of lora.attach."""
    if config.backend.name is BackendName.unsloth:
        return unsloth.attach(loaded.model, config)
    model = lora.attach(loaded.model, config.lora)
    kernels.fuse_lora(model, choose_precision(config.trainer.precision, device), device)
    return model
