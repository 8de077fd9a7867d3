"""An adapter that was saved: whether it is whole and that of its run, what it holds, and its way back into a model."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from medbot_exp.config import LoraConfig, LoraInit, is_targeted
from medbot_exp.errors import ModelError, first_line
from medbot_exp.lora import linear_layers, peft_config, peft_values, reached
from medbot_exp.override_text import equal
from medbot_exp.rundir import ADAPTER_FILES
from medbot_exp.whole_files import read_object

if TYPE_CHECKING:
    import peft
    import torch
    from transformers import PretrainedConfig

log = logging.getLogger(__name__)

CONFIG, WEIGHTS = ADAPTER_FILES
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
# What PEFT fills in itself by the model that it meets, as for experts that it joins.
PATTERNS = ("alpha_pattern", "fan_in_fan_out", "rank_pattern", "target_parameters")
# What else it holds and no answer depends on; all others are options of PEFT's that a run never sets.
IDLE = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
)


def check_saved(directory: Path, lora: LoraConfig) -> None:
    """Raise a ModelError where the adapter in `directory` is torn, or was not made with `lora`, by its two files.

    vLLM computes with what adapter_config.json says, and transformers with `lora`: they must say the same. What else
    may differ is seen by `check_fits`, which needs the model's shape.
    """
    from safetensors import SafetensorError, safe_open

    path = directory / WEIGHTS
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys() if ".lora_A." in name}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"an adapter must be whole safetensors, but {path} is not: {error}; restore it") from error
    ranks = {shape[0] for shape in shapes.values()}
    if lora.r not in ranks:  # of other ranks are the matrices that PEFT joins, as those of experts
        found = ", ".join(map(str, sorted(ranks))) or "none"
        raise ModelError(
            f"an adapter must fit the lora values of its run, but {path} has r={found} and the run lora.r={lora.r}; "
            "restore the run's own"
        )
    layers = (name.removeprefix("base_model.model.").partition(".lora_A.")[0] for name in shapes)
    unnamed = [layer for layer in layers if not is_targeted(layer, lora.target_modules)]
    if unnamed:
        raise ModelError(
            f"an adapter must fit the lora values of its run, but {path} has weights of {unnamed[0]}, which the run's "
            f"lora.target_modules={json.dumps(lora.target_modules)} does not name; restore the run's own"
        )
    check_saved_config(directory / CONFIG, lora)


def check_saved_config(path: Path, lora: LoraConfig) -> None:
    """Raise a ModelError where `path`, an adapter_config.json, is no JSON object or says something else than `lora`.

    Which layers it names is seen by `check_fits`: PEFT writes another value than it was given, one that names the same.
    """
    saved = read_config(path)
    expected = {"peft_type": "LORA", "bias": "none", **peft_values(lora)}
    differing = {key: value for key, value in expected.items() if key not in saved or not equal(saved[key], value)}
    for key in sorted(saved.keys() - expected.keys() - set(PATTERNS) - set(IDLE)):
        if not (saved[key] is None or saved[key] is False or saved[key] in ("", [], {})):
            differing[key] = {} if isinstance(saved[key], dict) else None
    if differing:
        refuse_other_values(path, saved, differing, lora)


def check_fits(directory: Path, lora: LoraConfig, shape: "PretrainedConfig") -> None:
    """Raise a ModelError where the adapter in `directory` is none that `lora` puts on a model of `shape`.

    As `restore`, without weights of the model: PEFT tells what it would make.
    """
    from safetensors import safe_open

    try:
        wanted, targeted, linears, patterns = outlined(lora, shape)
    except Exception as error:  # of model types that cannot be built without their weights; `restore` sees the rest
        log.info("the adapter is held against the model once that is loaded: %s", first_line(error))
        return
    with safe_open(directory / WEIGHTS, framework="numpy") as file:
        there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    refuse_other_weights(directory, there, wanted)
    saved = read_config(directory / CONFIG)
    if named_layers(saved.get("target_modules"), linears) != targeted:
        refuse_other_values(directory / CONFIG, saved, {"target_modules": lora.target_modules}, lora)
    differing = {key: value for key, value in patterns.items() if (ordered(saved.get(key)) or None) != (value or None)}
    if differing:
        refuse_other_values(directory / CONFIG, saved, differing, lora)


def outlined(
    lora: LoraConfig, shape: "PretrainedConfig"
) -> tuple[dict[str, tuple[int, ...]], set[str], list[str], dict[str, Any]]:
    """Of a fresh adapter by `lora` on a model of `shape`, as PEFT makes it.

    Its weights' shapes by their names, its layers, all layers that it could have, and PATTERNS.
    """
    import torch
    from peft import get_peft_model, get_peft_model_state_dict
    from peft.tuners.lora import ParamWrapper
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers import AutoModelForCausalLM

    plain = replace(lora, init=LoraInit.default)  # the others read the base weights, which are not there
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(shape)
        linears = linear_layers(base)
        model = get_peft_model(base, peft_config(plain))
    targeted = {
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer) and not isinstance(module, ParamWrapper)  # of target_parameters
    }
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    own = model.peft_config["default"].to_dict()
    return shapes, targeted, sorted({*linears, *targeted}), {key: ordered(own.get(key)) for key in PATTERNS}


def ordered(value: Any) -> Any:
    """`value` as JSON has it, names in one order: PEFT keeps some of them as sets."""
    return sorted(value) if isinstance(value, list | set) else value


def check_finite(directory: Path) -> None:
    """Raise a ModelError where a weight of the adapter in `directory` is no finite number: what it writes is noise."""
    import torch

    broken = sorted(name for name, tensor in read(directory).items() if not torch.isfinite(tensor).all())
    if broken:
        raise ModelError(
            f"an adapter must hold finite numbers, but {directory / WEIGHTS} has others in {len(broken)} of its "
            f"weights ({broken[0]}, …); restore it, or train the run again with a smaller optimizer.lr"
        )


def restore(model: "peft.PeftModel", directory: Path) -> None:
    """Give the fresh adapter of `model` the weights that were saved in `directory`.

    Raises:
        ModelError: they are damaged, or those of an adapter of another shape.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    saved = read(directory)
    fresh = get_peft_model_state_dict(model, save_embedding_layers=False)
    there, wanted = ({name: tuple(tensor.shape) for name, tensor in each.items()} for each in (saved, fresh))
    refuse_other_weights(directory, there, wanted)
    set_peft_model_state_dict(model, saved)


def refuse_other_weights(
    directory: Path, there: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise a ModelError where the weights of the adapter in `directory` are not those that a model wants.

    Args:
        there, wanted: their shapes by their names.
    """
    lacking, foreign = sorted(wanted.keys() - there.keys()), sorted(there.keys() - wanted.keys())
    reshaped = sorted(name for name in wanted.keys() & there.keys() if wanted[name] != there[name])
    told = []
    if lacking:
        told.append(f"lacks {len(lacking)} of the {len(wanted)} weights that the model wants ({lacking[0]}, …)")
    if foreign:
        told.append(f"has {len(foreign)} of {len(there)} for layers that the model does not have ({foreign[0]}, …)")
    if reshaped:
        first = reshaped[0]
        told.append(
            f"has {len(reshaped)} of {len(there)} of another shape ({first}: {there[first]}, the model {wanted[first]})"
        )
    if told:
        base = read_config(directory / CONFIG).get("base_model_name_or_path")
        named = f" ({base}, as its {CONFIG} says)" if base else ""
        other = f"; it is that of another base model{named}" if reshaped or not wanted.keys() & there.keys() else ""
        raise ModelError(
            f"an adapter must fit the model and the lora values of its run, but {directory} {', and '.join(told)}"
            f"{other}; restore the run's own"
        )


def refuse_other_values(
    path: Path, saved: Mapping[str, Any], expected: Mapping[str, Any], lora: LoraConfig
) -> NoReturn:
    """Raise the ModelError for `path`, an adapter_config.json, which has other values of the keys of `expected`."""
    found = [f"{key}={json.dumps(saved[key]) if key in saved else '(missing)'}" for key in expected]
    own = [given(key, value, lora) for key, value in expected.items()]
    mended = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in expected.items())
    raise ModelError(
        f"an adapter must be saved with the lora values of its run, but {path} has {' '.join(found)} and the run "
        f"{' '.join(own)}; restore the run's own file, or write {mended} there"
    )


def given(key: str, value: Any, lora: LoraConfig) -> str:
    """PEFT's `value` of `key` as our own config has it."""
    if not value and key not in KEYS:
        return f"no {key}"
    told = lora.init.name if key == "init_lora_weights" else value
    return f"{KEYS.get(key, key)}={told if isinstance(told, str) else json.dumps(told)}"


def named_layers(target_modules: Any, layers: Sequence[str]) -> set[str] | None:
    """Those of `layers` that `target_modules` names; None where it is no such value, or a name of it is no layer's."""
    names = target_modules if isinstance(target_modules, list) else [target_modules]
    if not all(isinstance(name, str) for name in names):
        return None
    try:
        if isinstance(target_modules, list) and not all(reached(layers, [name]) for name in names):
            return None
        return {layer for layer in layers if is_targeted(layer, target_modules)}
    except re.error:
        return None


def read_config(path: Path) -> dict[str, Any]:
    """The content of `path`, an adapter_config.json.

    Raises:
        ModelError: it is no JSON object.
    """
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{CONFIG} must be a whole JSON object, but {path} is not: {error}; restore it: the run's checkpoints/ "
            "hold the same file"
        ) from error


def read(directory: Path) -> dict[str, "torch.Tensor"]:
    """The weights of the adapter in `directory`, by name.

    Raises:
        ModelError: they are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = directory / WEIGHTS
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
