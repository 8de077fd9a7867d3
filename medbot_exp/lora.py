"""The adapter: LoRA (arXiv 2106.09685) by PEFT, from our config."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbot_exp.config import LoraConfig, LoraInit, is_targeted
from medbot_exp.errors import ConfigError, ModelError
from medbot_exp.override_text import equal

if TYPE_CHECKING:
    import peft
    import torch
    from transformers import PreTrainedModel

# Our keys of what adapter_config.json holds.
KEYS = {
    "r": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "use_rslora": "lora.rslora",
    "use_dora": "lora.dora",
    "init_lora_weights": "lora.init",
    "target_modules": "lora.target_modules",
}
# What else it holds and no answer depends on; all others are options of PEFT's that a run never sets.
IDLE = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
)


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

    return peft.LoraConfig(task_type="CAUSAL_LM", target_modules=lora.target_modules, **peft_values(lora))


def peft_values(lora: LoraConfig) -> dict[str, Any]:
    """The numbers and switches of `lora` under PEFT's names."""
    return {
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rslora,
        "use_dora": lora.dora,
        "init_lora_weights": True if lora.init is LoraInit.default else lora.init.name,
    }


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
    """Raise a ModelError where the adapter in `directory` is torn, or was not made with `lora`, by its two files.

    vLLM computes with what adapter_config.json says, and transformers with `lora`: they must say the same. What else
    may differ is seen by `restore`, which needs the model.
    """
    from safetensors import SafetensorError, safe_open

    path = directory / "adapter_model.safetensors"
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys() if ".lora_A." in name}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"an adapter must be whole safetensors, but {path} is not: {error}; restore it") from error
    ranks = {shape[0] for shape in shapes.values()}
    if ranks != {lora.r}:
        found = ", ".join(map(str, sorted(ranks))) or "none"
        raise ModelError(
            f"an adapter must fit the lora values of its run, but {path} has r={found} and the run lora.r={lora.r}; "
            "restore the run's own"
        )
    layers = [name.removeprefix("base_model.model.").partition(".lora_A.")[0] for name in shapes]
    unnamed = [layer for layer in layers if not is_targeted(layer, lora.target_modules)]
    if unnamed:
        raise ModelError(
            f"an adapter must fit the lora values of its run, but {path} has weights of {unnamed[0]}, which the run's "
            f"lora.target_modules={json.dumps(lora.target_modules)} does not name; restore the run's own"
        )
    check_saved_config(directory / "adapter_config.json", lora, layers)


def check_saved_config(path: Path, lora: LoraConfig, layers: Sequence[str]) -> None:
    """Raise a ModelError where `path`, an adapter_config.json, is no JSON object or says something else than `lora`.

    Args:
        layers: names of the linear layers that the adapter has weights for.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise not_json(path, str(error)) from error
    if not isinstance(saved, dict):
        raise not_json(path, f"it is a {type(saved).__name__}")
    expected = {"peft_type": "LORA", "bias": "none", **peft_values(lora)}
    differing = [
        (key, given(key, value, lora), value)
        for key, value in expected.items()
        if key not in saved or not equal(saved[key], value)
    ]
    others = saved.keys() - expected.keys() - set(IDLE) - {"target_modules"}
    differing += [
        (key, "nothing", {} if isinstance(saved[key], dict) else None)
        for key in sorted(others)
        if not (saved[key] is None or saved[key] is False or saved[key] in ("", [], {}))
    ]
    if not names_layers(saved.get("target_modules"), layers):
        wanted = lora.target_modules
        differing.append(("target_modules", given("target_modules", wanted, lora), wanted))
    if differing:
        found = [f"{key}={json.dumps(saved[key]) if key in saved else '(missing)'}" for key, _, _ in differing]
        mended = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, _, value in differing)
        raise ModelError(
            f"an adapter must be saved with the lora values of its run, but {path} has {' '.join(found)} and the run "
            f"{' '.join(told for _, told, _ in differing)}; restore the run's own file, or write {mended} there"
        )


def given(key: str, value: Any, lora: LoraConfig) -> str:
    """PEFT's `value` of `key` as our own config has it."""
    told = lora.init.name if key == "init_lora_weights" else value
    return f"{KEYS.get(key, key)}={told if isinstance(told, str) else json.dumps(told)}"


def not_json(path: Path, reason: str) -> ModelError:
    """The error for an adapter_config.json that cannot be read."""
    return ModelError(
        f"adapter_config.json must be a whole JSON object, but {path} is not: {reason}; restore it: "
        "the run's checkpoints/ hold the same file"
    )


def names_layers(target_modules: Any, layers: Sequence[str]) -> bool:
    """Whether `target_modules`, as PEFT saved it, names all of `layers`, and each of its names one of them.

    PEFT writes another value than it was given, one that names the same layers.
    """
    names = target_modules if isinstance(target_modules, list) else [target_modules]
    if not all(isinstance(name, str) for name in names):
        return False
    try:
        every = all(is_targeted(layer, target_modules) for layer in layers)
        return every and (isinstance(target_modules, str) or all(reached(layers, [name]) for name in names))
    except re.error:
        return False


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
