"""What the machine computes on, in which arithmetic, and what is refused for want of it."""

import pytest
import torch

from medbot_exp import device
from medbot_exp.config import Dtype, OptimizerName, Precision
from medbot_exp.device import (
    choose_dtype,
    choose_precision,
    in_bitsandbytes,
    refuse_lacking,
    refuse_unfit,
    visible_gpus,
)
from medbot_exp.errors import ConfigError

CPU = torch.device("cpu")


def test_a_cpu_computes_in_32_bits_unless_told_otherwise():
    assert choose_precision(Precision.auto, CPU) is Precision.fp32
    assert choose_precision(Precision.bf16, CPU) is Precision.bf16
    assert choose_dtype(Dtype.auto, CPU) is torch.float32
    assert choose_dtype(Dtype.bfloat16, CPU) is torch.bfloat16


@pytest.mark.parametrize("name", list(OptimizerName))
def test_optimizers_are_transformers_own_and_those_of_bitsandbytes_are_known(name):
    from transformers.training_args import OptimizerNames

    assert name.name in [known.value for known in OptimizerNames]
    theirs = any(part in name.name for part in ("8bit", "bnb", "paged", "lion", "ademamix"))
    assert in_bitsandbytes(name) is theirs


@pytest.fixture
def installed(monkeypatch):
    """installed(*packages): have these installed, of those beyond our own, and no others."""

    def only(*packages):
        monkeypatch.setattr(device, "find_spec", lambda name: object() if name in packages else None)

    return only


@pytest.mark.parametrize(
    "override, package, instead",
    [
        ("optimizer=adamw_8bit", "bitsandbytes", "optimizer=adamw"),
        ("model.quantization=nf4", "bitsandbytes", "model.quantization=none"),
        ("model.attention=flash_attention_2", "flash_attn", "model.attention=sdpa"),
        ("backend=unsloth", "unsloth", "backend=peft"),
    ],
)
def test_package_that_is_missing_is_named_with_the_way_around(
    compose, installed, monkeypatch, tmp_path, override, package, instead
):
    installed()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    (tmp_path / "nvidia-smi").touch(0o755)  # as where there is a driver
    monkeypatch.setenv("PATH", str(tmp_path))
    config = compose("model=directory", "model.path=model", override)
    lacks = rf"needs the package {package}, which is not installed; pip install.*or use {instead}$"
    with pytest.raises(ConfigError, match=lacks):
        refuse_lacking(config)
    installed(package)
    refuse_lacking(config)


@pytest.mark.parametrize("visible", ["", "0", "GPU-5"])
def test_all_that_is_missing_is_told_at_once(compose, installed, monkeypatch, tmp_path, visible):
    installed()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("PATH", str(tmp_path))  # no driver, whatever the variable says
    monkeypatch.setattr("medbot_exp.device.DRIVER_DEVICES", ())
    config = compose("+experiment=medbot", "backend=peft", "trainer.precision=fp16")
    with pytest.raises(ConfigError) as caught:
        refuse_lacking(config)
    lines = str(caught.value).splitlines()
    assert [line.partition(" ")[0] for line in lines] == [
        "model.quantization=nf4",
        "optimizer.name=adamw_8bit",
        "trainer.precision=fp16",
    ]
    assert all(" needs a CUDA GPU, but there is none" in line for line in lines)
    assert ["the package bitsandbytes, which is not installed" in line for line in lines] == [True, True, False]
    with pytest.raises(ConfigError) as caught:  # of another machine the GPU is not known
        refuse_lacking(config, elsewhere=True)
    assert len(str(caught.value).splitlines()) == 2 and "GPU, but" not in str(caught.value)


@pytest.mark.parametrize(
    "override, instead",
    [
        ("optimizer=adamw_8bit", "optimizer=adamw"),
        ("model.quantization=nf4", "model.quantization=none"),
        ("trainer.precision=fp16", "trainer.precision=auto"),
    ],
)
def test_what_needs_a_gpu_is_refused_on_a_cpu(compose, installed, override, instead):
    installed("bitsandbytes")
    with pytest.raises(ConfigError, match=f"needs a CUDA GPU, but there is none; use {instead}$"):
        refuse_unfit(compose(override), CPU)
    refuse_unfit(compose(), CPU)


def test_all_that_a_device_cannot_do_is_told_at_once(compose):
    with pytest.raises(ConfigError) as caught:
        refuse_unfit(compose("+experiment=medbot", "backend=peft", "trainer.precision=fp16"), CPU)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    "named, gpus",
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1, GPU-5", ["1", "GPU-5"]),
        ("MIG-5", ["MIG-5"]),
        ("0,-1,1", ["0"]),
        ("0,,1", ["0"]),
    ],
)
def test_gpus_are_those_that_the_environment_names(monkeypatch, named, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == gpus
