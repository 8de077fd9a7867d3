"""The fused LoRA layer gives the outputs and gradients of PEFT's own, and of the formula."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from medbot_exp.training.lora_linear import LoraLinear, fuse


class Block(nn.Module):
    """Two layers that share an input, and one behind them."""

    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(12, 20), nn.Linear(12, 20, bias=False), nn.Linear(20, 12)

    def forward(self, x):
        return self.down(torch.nn.functional.silu(self.gate(x)) * self.up(x))


def adapted(dtype=torch.float64, **options):
    """A block of random weights with an adapter whose B is not zero, in `dtype`."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["gate", "up", "down"], **options)
    model = get_peft_model(Block(), config).to(dtype)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return model


def gradients(model, x):
    """The output of `model`, and the gradients of its input and of its adapter by name."""
    torch.manual_seed(1)  # of dropout
    x = x.clone().requires_grad_()
    output = model(x)
    output.square().sum().backward()
    return output, {"x": x.grad} | {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("options", [{}, {"lora_dropout": 0.3}, {"use_rslora": True}])
@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12)])
def test_it_computes_what_peft_does(options, shape):
    model = adapted(**options)
    fused = copy.deepcopy(model)
    assert fuse(fused, torch.float64) == 3
    x = torch.randn(*shape, dtype=torch.float64)
    (expected, wanted), (output, found) = gradients(model, x), gradients(fused, x)
    assert len(wanted) == 7
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(found, wanted)


def test_its_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    base = nn.Linear(6, 5, dtype=torch.float64).requires_grad_(False)
    sizes = ((3, 6), (3, 6), (2, 6), (5, 2))
    x, dropped, a, b = (torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in sizes)
    for source in (None, dropped):
        assert torch.autograd.gradcheck(lambda x, s, a, b: LoraLinear.apply(x, s, a, b, 0.7, base), (x, source, a, b))


def test_without_gradients_or_adapter_it_is_pefts_own():
    model = adapted()
    fused = copy.deepcopy(model)
    fuse(fused, torch.float64)
    x = torch.randn(4, 12, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(fused(x), model(x))
    with fused.disable_adapter(), model.disable_adapter():
        assert torch.equal(fused(x), model(x))
    fused.merge_adapter()
    torch.testing.assert_close(fused(x), model(x))


@pytest.mark.parametrize("options, dtype", [({"use_dora": True}, torch.float32), ({}, torch.bfloat16)])
def test_layers_that_it_cannot_compute_are_left(options, dtype):
    assert fuse(adapted(torch.float32, **options), dtype) == 0


def test_layers_that_share_an_input_keep_it_once():
    model = adapted(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    kept = {}
    x = torch.randn(64, 12, dtype=torch.bfloat16, requires_grad=True)
    for each in (model, copy.deepcopy(model)):
        fused = fuse(each, torch.bfloat16) if kept else 0
        saved = {}

        def note(tensor, saved=saved):
            if tensor.shape == x.shape:
                saved[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), torch.autocast("cpu"):
            each(x)
        kept[fused] = len(saved)
    assert kept[3] == 1 < kept[0]


def test_an_input_in_float32_is_brought_to_the_arithmetic_of_the_step():
    fused = adapted(torch.bfloat16)
    fuse(fused, torch.bfloat16)
    x = torch.randn(8, 12, requires_grad=True)
    with torch.autocast("cpu"):
        output = fused(x)
    output.float().sum().backward()
    assert output.dtype is torch.bfloat16 and x.grad.dtype is torch.float32 and x.grad.abs().sum() > 0
