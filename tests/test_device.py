"""What the machine computes on, in which arithmetic, and what is refused for want of it."""

from importlib.util import find_spec

import pytest
import torch

from medbot_exp.config import Dtype, OptimizerName, Precision
from medbot_exp.device import choose_dtype, choose_precision, in_bitsandbytes, refuse_lacking, refuse_unfit
from medbot_exp.errors import ConfigError

CPU = torch.device("cpu")

without_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is here")


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


@without_bitsandbytes
@pytest.mark.parametrize(
    "override, instead",
    [("optimizer=adamw_8bit", "optimizer=adamw"), ("model.quantization=nf4", "model.quantization=none")],
)
def test_package_that_is_missing_is_named_with_the_way_around(compose, override, instead):
    with pytest.raises(ConfigError, match=f"bitsandbytes, which is not installed: pip install.*or use {instead}"):
        refuse_lacking(compose(override))


@pytest.mark.parametrize(
    "override, instead",
    [
        ("optimizer=adamw_8bit", "optimizer=adamw"),
        ("model.quantization=nf4", "model.quantization=none"),
        ("trainer.precision=fp16", "trainer.precision=auto"),
    ],
)
def test_what_needs_a_gpu_is_refused_on_a_cpu(compose, override, instead):
    with pytest.raises(ConfigError, match=f"needs a CUDA GPU, but the device is cpu; use {instead}"):
        refuse_unfit(compose(override), CPU)
    refuse_unfit(compose(), CPU)


def test_all_that_a_device_cannot_do_is_told_at_once(compose):
    with pytest.raises(ConfigError) as caught:
        refuse_unfit(compose("+experiment=medbot", "backend=peft", "trainer.precision=fp16"), CPU)
    assert len(str(caught.value).splitlines()) == 3
