"""Which fused kernels, and which layout of its batches, the training step of backend=peft runs through, and why."""

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from medbot_exp.config import Attention, BackendName, Precision, RunConfig
from medbot_exp.device import step_dtype

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

log = logging.getLogger(__name__)
# transformers' types of models that compute joined rows as rows by themselves: tests/training/test_kernels.py.
ROWS_APART = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3")


@dataclass(frozen=True)
class Choice:
    """Whether something is used, and what decided it."""

    use: bool
    reason: str


@dataclass(frozen=True)
class Kernels:
    """What a training step runs through besides the model's own layers.

    Attributes:
        padding_free: rows laid end to end, which FlashAttention's kernels for rows of several lengths take; None
            leaves the choice to Unsloth.
    """

    liger: Choice
    padding_free: Choice | None


def choose(config: RunConfig, device: "torch.device", model_type: str, processes: int = 1) -> Kernels:
    """What the training step of `config` runs through on `device`; it is logged, on a GPU for a person to read.

    Args:
        processes: that share the rows of a step.
    """
    kernels = Kernels(
        choose_liger(config.backend.name, device, model_type), choose_padding_free(config, model_type, processes)
    )
    level = logging.INFO if device.type == "cuda" else logging.DEBUG
    for name, choice in (("Liger's kernels are", kernels.liger), ("batches without padding are", kernels.padding_free)):
        if choice is not None:
            log.log(level, "%s %s: %s", name, "used" if choice.use else "not used", choice.reason)
    return kernels


def choose_padding_free(config: RunConfig, model_type: str, processes: int) -> Choice | None:
    """Whether the rows of a batch are laid end to end instead of being filled up to the longest of them.

    FlashAttention's kernels for rows of several lengths keep each row's attention to itself; others would compute
    the attention of every row to every other one, and throw it away. Not every model hands on where its rows end,
    and a recurrent layer carries its state across: those that are known to keep rows apart are ROWS_APART.
    """
    if config.backend.name is BackendName.unsloth:
        return None
    if config.model.attention is not Attention.flash_attention_2:
        return Choice(False, f"they need model.attention=flash_attention_2, and it is {config.model.attention.name}")
    if model_type not in ROWS_APART:
        return Choice(False, f"a model of type {model_type} is not known to keep joined rows apart")
    if config.trainer.batch_size == 1:
        return Choice(False, "trainer.batch_size=1 has nothing to pad")
    if processes > 1:
        return Choice(False, "several processes fill up their batches with blank rows")
    return Choice(True, "model.attention=flash_attention_2 keeps rows apart")


def choose_liger(backend: BackendName, device: "torch.device", model_type: str) -> Choice:
    """Whether Liger's kernels (https://github.com/linkedin/Liger-Kernel) take the place of the model's own layers.

    Its loss is made from the hidden states in pieces, so that the logits of a batch, of a Llama of 8B parameters
    half a gigabyte for each thousand tokens, are never whole.
    """
    if backend is BackendName.unsloth:
        return Choice(False, "Unsloth has kernels of its own")
    if device.type != "cuda":
        return Choice(False, f"they are for a CUDA GPU, and the device is {device.type}")
    if find_spec("liger_kernel") is None:
        return Choice(False, "liger_kernel is not installed: pip install liger-kernel")
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    if model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        return Choice(False, f"they have none for a model of type {model_type}")
    return Choice(True, "liger_kernel is installed")


def fuse_lora(model: "PeftModel", precision: Precision, device: "torch.device") -> None:
    """Run the LoRA layers of `model` by our own function where it trains on a GPU; what is done is logged.

    Args:
        precision: the arithmetic of the training step, chosen.
        device: where it trains; weights that will be divided are in the host's memory until then.
    """
    if device.type != "cuda":
        log.debug("LoRA's layers are PEFT's own: fused ones are for a CUDA GPU, and the device is %s", device.type)
        return
    from medbot_exp.training.lora_linear import fuse, lora_layers

    fused, layers = fuse(model, step_dtype(precision)), len(lora_layers(model))
    rest = "" if fused == layers else f", {layers - fused} are PEFT's own: DoRA, or weights of another type"
    log.info("LoRA's layers are fused: %d of %d%s", fused, layers, rest)
