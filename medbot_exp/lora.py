"""The adapter: LoRA (arXiv 2106.09685) by PEFT, from our config."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbot_exp.config import LoraConfig, LoraInit, RunConfig, is_targeted
from medbot_exp.errors import ConfigError
from medbot_exp.model_files import known_linears

if TYPE_CHECKING:
    import peft
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


def linear_layers(model: "PreTrainedModel") -> dict[str, tuple[int, int]]:
    """(in, out) of each linear layer of `model` by its name; GPT-2 has its own kind, which PEFT knows as well."""
    import torch
    from transformers.pytorch_utils import Conv1D

    found = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            found[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            found[name] = (module.nx, module.nf)
    return found


def check_targets(model: "PreTrainedModel", lora: LoraConfig) -> None:
    """Raise a ConfigError for a target that gets no adapter, or not the one that is asked for.

    PEFT passes over what names no linear layer while another target matches, and its OLoRA knows torch's own alone.
    """
    import torch

    names = list(linear_layers(model))
    refuse_absent(names, lora)
    odd = [name for name in names if not isinstance(model.get_submodule(name), torch.nn.Linear)]
    if odd and lora.init is LoraInit.olora and reached(odd, lora.target_modules):
        raise ConfigError(
            f"`lora.init` must be one for the model's layers, but got lora.init=olora, which PEFT has not for "
            f"{type(model.get_submodule(odd[0])).__name__} ({odd[0]}); use lora.init=default"
        )


def check_known_targets(config: RunConfig) -> None:
    """As `check_targets`, before the model is there, where its build is known."""
    names = known_linears(config.model, Path(config.cache_dir).expanduser())
    if names is not None:
        refuse_absent(names, config.lora)


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
