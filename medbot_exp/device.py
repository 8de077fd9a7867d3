"""What this machine computes on, in which arithmetic, and what it lacks for a config.

`refuse_lacking` looks at packages alone and is quick; `refuse_unfit` needs to know the device, so torch loads.
"""

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

from medbot_exp.config import Attention, BackendName, Dtype, OptimizerName, Precision, Quantization, RunConfig
from medbot_exp.errors import ConfigError

if TYPE_CHECKING:
    import torch


def find_device(gpu: int | None = None) -> "torch.device":
    """The CUDA GPU of the index `gpu`, or the first one; the CPU where there is none."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda") if gpu is None else torch.device("cuda", gpu)


def has_bf16() -> bool:
    """Whether the CUDA GPU computes in bfloat16 itself."""
    import torch

    return torch.cuda.is_bf16_supported(including_emulation=False)


def choose_dtype(dtype: Dtype, device: "torch.device") -> "torch.dtype":
    """The frozen weights' type: as asked, or the best that the device is fast with."""
    import torch

    if dtype is not Dtype.auto:
        return getattr(torch, dtype.name)
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if has_bf16() else torch.float16


def choose_precision(precision: Precision, device: "torch.device") -> Precision:
    """The arithmetic of the training step: as asked, or the best that the device has."""
    if precision is not Precision.auto:
        return precision
    if device.type != "cuda":
        return Precision.fp32
    return Precision.bf16 if has_bf16() else Precision.fp16


def step_dtype(precision: Precision) -> "torch.dtype":
    """The type that matrices are multiplied in under a chosen `precision`."""
    import torch

    return {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16, Precision.fp32: torch.float32}[precision]


def in_bitsandbytes(optimizer: OptimizerName) -> bool:
    """Whether transformers takes this optimizer from bitsandbytes."""
    return not re.fullmatch(r"adamw_torch(_fused)?|adafactor|sgd|adagrad|rmsprop", optimizer.name)


def refuse_lacking(config: RunConfig) -> None:
    """Raise a ConfigError for a package that `config` needs and that is not installed; nothing heavy is imported."""
    for package, (setting, install, instead) in needed_packages(config).items():
        if find_spec(package) is None:
            raise ConfigError(
                f"{setting} needs a CUDA GPU and the package {package}, which is not installed: "
                f"{install}, or use {instead}"
            )


def needed_packages(config: RunConfig) -> dict[str, tuple[str, str, str]]:
    """The packages beyond our own that `config` needs: what asks for each, how it is installed, what does without."""
    needed = {}
    if config.backend.name is BackendName.unsloth:
        needed["unsloth"] = ("backend=unsloth", 'pip install ".[unsloth]"', "backend=peft")
    if config.model.attention is Attention.flash_attention_2:
        needed["flash_attn"] = (
            "model.attention=flash_attention_2",
            "pip install flash-attn --no-build-isolation",
            "model.attention=sdpa",
        )
    if in_bitsandbytes(config.optimizer.name):
        setting = f"optimizer.name={config.optimizer.name.name}"
        needed["bitsandbytes"] = (setting, 'pip install ".[gpu]"', "optimizer=adamw")
    if config.model.quantization is Quantization.nf4:
        needed["bitsandbytes"] = ("model.quantization=nf4", 'pip install ".[gpu]"', "model.quantization=none")
    return needed


def refuse_unfit(config: RunConfig, device: "torch.device") -> None:
    """Raise a ConfigError for what `config` wants and `device` cannot do."""
    if device.type == "cuda" and config.trainer.precision is Precision.bf16 and not has_bf16():
        raise ConfigError("trainer.precision=bf16 needs an Ampere GPU or a newer one; use trainer.precision=auto")
    faults = [
        f"{setting} needs a CUDA GPU, but the device is {device.type}; use {instead}"
        for setting, instead in needs_cuda(config).items()
        if device.type != "cuda"
    ]
    if faults:
        raise ConfigError("\n".join(faults))


def needs_cuda(config: RunConfig) -> dict[str, str]:
    """What `config` asks for that no CPU does, each with what to use there."""
    wanted = {
        "backend=unsloth": (config.backend.name is BackendName.unsloth, "backend=peft"),
        "model.quantization=nf4": (config.model.quantization is Quantization.nf4, "model.quantization=none"),
        f"optimizer.name={config.optimizer.name.name}": (in_bitsandbytes(config.optimizer.name), "optimizer=adamw"),
        "trainer.precision=fp16": (config.trainer.precision is Precision.fp16, "trainer.precision=auto"),
        "model.attention=flash_attention_2": (
            config.model.attention is Attention.flash_attention_2,
            "model.attention=sdpa",
        ),
    }
    return {setting: instead for setting, (asked, instead) in wanted.items() if asked}
