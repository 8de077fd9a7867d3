"""Which fused kernels the training step of backend=peft runs through, and why."""

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from medbot_exp.config import BackendName, Precision
from medbot_exp.device import step_dtype

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """Whether something is used, and what decided it."""

    use: bool
    reason: str


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


def fuse_lora(model: "PeftModel", precision: Precision) -> None:
    """Run the LoRA layers of `model` by our own function where it is on a GPU; what is done is logged.

    Args:
        precision: the arithmetic of the training step, chosen.
    """
    if model.device.type != "cuda":
        log.info("LoRA's layers are PEFT's own: fused ones are for a CUDA GPU, and the device is %s", model.device.type)
        return
    from medbot_exp.training.lora_linear import fuse, lora_layers

    fused, layers = fuse(model, step_dtype(precision)), len(lora_layers(model))
    rest = "" if fused == layers else f", {layers - fused} are PEFT's own: DoRA, or weights of another type"
    log.info("LoRA's layers are fused: %d of %d%s", fused, layers, rest)
