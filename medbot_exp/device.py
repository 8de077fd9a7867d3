"""What this machine computes on, in which arithmetic, and what it lacks for a config.

`needs` is the table of settings that take a GPU or a package. `refuse_lacking` looks for packages first and is quick;
`refuse_unfit` needs to know the device, so torch loads.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import takewhile
from typing import TYPE_CHECKING

from medbot_exp.config import Attention, BackendName, Dtype, OptimizerName, Precision, Quantization, RunConfig
from medbot_exp.errors import ConfigError

if TYPE_CHECKING:
    import torch

DRIVER_DEVICES = ("/dev/nvidiactl", "/dev/nvhost-ctrl", "/dev/dxg")  # of a card, of Tegra, of Windows below Linux
GPU_EXTRA = 'pip install ".[gpu]"'  # bitsandbytes and Liger's kernels
GPU_NAME = re.compile(r"\d|GPU-|MIG-")  # how an index or a UUID begins


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


@dataclass(frozen=True)
class Need:
    """A setting that takes a CUDA GPU, and a package where one is named.

    Attributes:
        install: how the package comes here.
        instead: what does without.
    """

    setting: str
    instead: str
    package: str | None = None
    install: str | None = None


def needs(config: RunConfig) -> list[Need]:
    """What `config` asks for that no CPU does."""
    optimizer = f"optimizer.name={config.optimizer.name.name}"
    flash, flash_install = Attention.flash_attention_2, "pip install flash-attn --no-build-isolation"
    table = (
        (
            config.backend.name is BackendName.unsloth,
            Need("backend=unsloth", "backend=peft", "unsloth", 'pip install ".[unsloth]"'),
        ),
        (
            config.model.quantization is Quantization.nf4,
            Need("model.quantization=nf4", "model.quantization=none", "bitsandbytes", GPU_EXTRA),
        ),
        (in_bitsandbytes(config.optimizer.name), Need(optimizer, "optimizer=adamw", "bitsandbytes", GPU_EXTRA)),
        (
            config.model.attention is flash,
            Need(f"model.attention={flash.name}", "model.attention=sdpa", "flash_attn", flash_install),
        ),
        (config.trainer.precision is Precision.fp16, Need("trainer.precision=fp16", "trainer.precision=auto")),
    )
    return [need for asked, need in table if asked]


def needed_packages(config: RunConfig) -> list[str]:
    """The packages beyond our own that `config` needs, each once."""
    return list(dict.fromkeys(need.package for need in needs(config) if need.package is not None))


def refuse_lacking(config: RunConfig, elsewhere: bool = False) -> None:
    """Raise a ConfigError where a package is not installed that `config` needs; nothing heavy is imported.

    A GPU that is missing as well is told with it.

    Args:
        elsewhere: another machine runs it, whose GPU cannot be asked for.
    """
    if any(is_missing(package) for package in needed_packages(config)):
        raise ConfigError("\n".join(lacking(config, gpu=elsewhere or (has_driver() and bool(visible_gpus())))))


def refuse_unfit(config: RunConfig, device: "torch.device") -> None:
    """Raise a ConfigError for what `config` wants and this machine, which computes on `device`, does not have."""
    faults = lacking(config, gpu=device.type == "cuda")
    if device.type == "cuda" and config.trainer.precision is Precision.bf16 and not has_bf16():
        faults.append("trainer.precision=bf16 needs an Ampere GPU or a newer one; use trainer.precision=auto")
    if faults:
        raise ConfigError("\n".join(faults))


def lacking(config: RunConfig, gpu: bool) -> list[str]:
    """A line for each setting of `config` that lacks its package, or the GPU.

    Args:
        gpu: whether there is a CUDA GPU, as far as anybody knows.
    """
    lines = []
    for need in needs(config):
        absent = need.package is not None and is_missing(need.package)
        lacks = [] if gpu else ["a CUDA GPU, but there is none"]
        lacks += [f"the package {need.package}, which is not installed"] if absent else []
        if not lacks:
            continue
        if gpu:
            remedy = f"{need.install}, or use {need.instead}"
        else:
            remedy = f"use {need.instead}" + (f", or take a machine with a GPU and {need.install}" if absent else "")
        lines.append(f"{need.setting} needs {', and '.join(lacks)}; {remedy}")
    return lines


def is_missing(package: str) -> bool:
    """Whether `package` is not installed."""
    return find_spec(package) is None


def has_driver() -> bool:
    """Whether NVIDIA's driver is here, its device or its tool; CUDA_VISIBLE_DEVICES may be set without it."""
    return any(map(os.path.exists, DRIVER_DEVICES)) or shutil.which("nvidia-smi") is not None


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs that this process sees; torch is not loaded for it."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        # As the CUDA Programming Guide has it: what comes behind the first that is none is not seen either.
        return list(takewhile(GPU_NAME.match, map(str.strip, named.split(","))))
    try:
        found = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line for line in found.stdout.splitlines() if line.startswith("GPU ")] if found.returncode == 0 else []
    return [str(index) for index in range(len(lines))]
