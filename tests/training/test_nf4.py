"""Weights of 4 bits come back as bitsandbytes has them, and train as PEFT trains on them."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from medbot_exp.training.lora_linear import fuse

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(4096, 14336), (96, 128), (256, 300)])
def test_weights_are_those_of_bitsandbytes(dtype, shape):
    functional = pytest.importorskip("bitsandbytes").functional
    from medbot_exp.training.nf4 import dequantize

    weight = torch.randn(*shape, device="cuda", dtype=dtype)
    packed, state = functional.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
    assert torch.equal(dequantize(packed, state), functional.dequantize_4bit(packed, state))


def test_a_layer_of_4_bits_trains_as_pefts_does():
    bitsandbytes = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    layer = bitsandbytes.nn.Linear4bit(512, 256, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    model = nn.Sequential(layer).to(torch.bfloat16).to("cuda")
    adapted = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=["0"], init_lora_weights=False))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    fused = copy.deepcopy(adapted)
    assert fuse(fused, torch.bfloat16) == 1
    x = torch.randn(64, 512, device="cuda", dtype=torch.bfloat16)
    outputs, gradients = [], []
    for each in (adapted, fused):
        with torch.autocast("cuda", torch.bfloat16):
            outputs.append(each(x))
        outputs[-1].float().square().sum().backward()
        gradients.append([p.grad for p in each.parameters() if p.requires_grad])
    torch.testing.assert_close(outputs[1], outputs[0], rtol=2e-2, atol=2e-1)
    for found, expected in zip(gradients[1], gradients[0], strict=True):
        assert (found - expected).norm() < 0.02 * expected.norm()
