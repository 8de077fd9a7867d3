"""The adapter: LoRA (arXiv 2106.09685) by PEFT, from our config."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medbot_exp.config import LoraConfig, LoraInit, is_targeted
from medbot_exp.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import peft
    import torch
    from transformers import PreTrainedModel


def attach(model: "PreTrainedModel", lora: LoraConfig) -> "peft.PeftModel":
    """`model` with its weights frozen and fresh low-rank updates on the target modules.

    A linear layer's output Wx becomes Wx + s·B(Ax), A (r, in) and B (out, r), where s is alpha/r, or
    alpha/sqrt(r) with `lora.rslora`. Whatever `lora.init`, the model starts out computing what it did before.

    Raises:
        ConfigError: a target module that the model does not have.
    """
    import peft

    check_targets(model, lora)
    return peft.get_peft_model(model, peft_config(lora))


def peft_config(lora: LoraConfig) -> "peft.LoraConfig":
    """PEFT's own config for `lora`."""
    import peft

    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        init_lora_weights=True if lora.init is LoraInit.default else lora.init.name,
    )


def adds_to_base(lora: LoraConfig) -> bool:
    """Whether a tuned model is its base and, added to it, the updates of the saved adapter.

    DoRA scales the sum of both, and other initialisations take the adapter out of the base weights first.
    """
    return lora.init in (LoraInit.default, LoraInit.gaussian) and not lora.dora


def restore(model: "peft.PeftModel", directory: Path) -> None:
    """Give the fresh adapter of `model` the weights that were saved in `directory`.

    Raises:
        ModelError: they are damaged, or those of an adapter of another shape.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    saved = read(directory)
    fresh = get_peft_model_state_dict(model, save_embedding_layers=False)
    differing = sorted(
        name
        for name in saved.keys() | fresh.keys()
        if name not in saved or name not in fresh or saved[name].shape != fresh[name].shape
    )
    if differing:
        raise ModelError(
            f"an adapter must fit the model and the lora values of its run, but {directory} differs from them in "
            f"{len(differing)} of {len(fresh)} weights ({differing[0]}, …); restore the run's own"
        )
    set_peft_model_state_dict(model, saved)


def check_saved(directory: Path, lora: LoraConfig) -> None:
    """Raise a ModelError where the adapter in `directory` is torn, or of another rank than `lora`, by its header.

    What else may differ is seen by `restore`, which needs the model.
    """
    from safetensors import SafetensorError, safe_open

    path = directory / "adapter_model.safetensors"
    try:
        with safe_open(path, framework="numpy") as file:
            ranks = {file.get_slice(name).get_shape()[0] for name in file.keys() if ".lora_A." in name}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"an adapter must be whole safetensors, but {path} is not: {error}; restore it") from error
    if ranks != {lora.r}:
        found = ", ".join(map(str, sorted(ranks))) or "none"
        raise ModelError(
            f"an adapter must fit the lora values of its run, but {path} has r={found} and the run lora.r={lora.r}; "
            "restore the run's own"
        )


def read(directory: Path) -> dict[str, "torch.Tensor"]:
    """The weights of the adapter in `directory`, by name.

    Raises:
        ModelError: they are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = directory / "adapter_model.safetensors"
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"an adapter must be whole safetensors, but {path} is not: {error}; restore it") from error


def digest(model: "peft.PeftModel") -> str:
    """sha256 of the adapter's weights, as 64 hex digits: the same once it is saved and loaded again."""
    from peft import get_peft_model_state_dict

    return digest_of(get_peft_model_state_dict(model, save_embedding_layers=False))


def saved_digest(directory: Path) -> str:
    """As `digest`, of the adapter that was saved in `directory`; errors as of `read`."""
    return digest_of(read(directory))


def digest_of(weights: Mapping[str, "torch.Tensor"]) -> str:
    """sha256 of names, types, shapes and bytes."""
    import torch

    found = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return found.hexdigest()


def check_targets(model: "PreTrainedModel", lora: LoraConfig) -> None:
    """Raise a ConfigError for a target that names no linear layer; PEFT passes over it while another one matches."""
    import torch

    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    refuse_absent(names, lora)


def refuse_absent(names: Sequence[str], lora: LoraConfig) -> None:
    """Raise a ConfigError for a target that is none of `names`, the linear layers of a model."""
    pattern = isinstance(lora.target_modules, str)
    rules = [lora.target_modules] if isinstance(lora.target_modules, str) else [[name] for name in lora.target_modules]
    try:
        absent = [rule if isinstance(rule, str) else rule[0] for rule in rules if not reached(names, rule)]
    except re.error as error:
        raise ConfigError(
            f"`lora.target_modules` must be a regular expression, but got {lora.target_modules!r}: {error}; "
            "a list takes names: [q_proj,v_proj]"
        ) from error
    if absent:
        hint = f"; a list takes names: [{lora.target_modules}]" if pattern else ""
        suffixes = sorted({name.rpartition(".")[2] for name in names} - {"lm_head"})
        raise ConfigError(
            f"`lora.target_modules` must name linear layers of the model, but it has no {', '.join(absent)}; "
            f"it has: {', '.join(suffixes)}{hint}"
        )


def reached(names: Sequence[str], target_modules: str | list[str]) -> bool:
    """Whether any of `names` gets an adapter."""
    return any(is_targeted(name, target_modules) for name in names)
