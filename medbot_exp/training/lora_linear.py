"""LoRA's linear layer as one function of its input: what `backend=peft` runs on a GPU in the place of PEFT's forward.

PEFT casts each layer's input to the adapter's float32 and back, and makes its update, the scaled update and the sum as
tensors of their own. Here the input stays as it is, seven layers keep it once, and the update is added in place. The
adapter stays PEFT's: its parameters, their type and what is saved.
"""

from importlib.util import find_spec
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn


class LoraLinear(torch.autograd.Function):
    """Wx + bias + s·B(Ax'), with W frozen, and x' the input after dropout (arXiv 2106.09685, section 4.1)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropped: Tensor | None, a: Tensor, b: Tensor, scaling: float, base: nn.Linear
    ) -> Tensor:
        """The layer's output.

        Args:
            x: (…, in) in the arithmetic of the step, which is that of `base`.
            dropped: x after dropout, of the same shape; None where it is x itself.
            a: (r, in) float32.
            b: (out, r) float32.
            scaling: s, alpha/r or alpha/sqrt(r).
            base: its weight (out, in), or 4-bit numbers of it.
        """
        source = x if dropped is None else dropped
        output = nn.functional.linear(x, frozen_weight(base), base.bias)
        low = flat(source) @ a.to(x.dtype).T
        flat(output).addmm_(low, b.to(x.dtype).T, alpha=scaling)
        ctx.save_for_backward(source, low, a, b)
        ctx.scaling, ctx.base, ctx.split = scaling, base, dropped is not None
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, x', A and B; W is made again where it is kept in 4 bits."""
        source, low, a, b = ctx.saved_tensors
        rows = flat(gradient)
        low_gradient = (rows @ b.to(rows.dtype)).mul_(ctx.scaling)
        a_gradient = (low_gradient.T @ flat(source)).to(a.dtype)
        b_gradient = (rows.T @ low).mul_(ctx.scaling).to(b.dtype)
        x_gradient = dropped_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = rows @ frozen_weight(ctx.base)
            if not ctx.split:
                x_gradient.addmm_(low_gradient, a.to(rows.dtype))
            x_gradient = x_gradient.view_as(source)
        if ctx.split and ctx.needs_input_grad[1]:
            dropped_gradient = (low_gradient @ a.to(rows.dtype)).view_as(source)
        return x_gradient, dropped_gradient, a_gradient, b_gradient, None, None


def flat(x: Tensor) -> Tensor:
    """(…, features) as (rows, features)."""
    return x.reshape(-1, x.shape[-1])


def frozen_weight(base: nn.Linear) -> Tensor:
    """(out, in), the weight of `base` in its arithmetic; made from its 4-bit numbers where it is kept in those."""
    state = getattr(base.weight, "quant_state", None)
    if state is None:
        return base.weight
    if state.nested and find_spec("triton") is not None:
        from medbot_exp.training.nf4 import dequantize

        return dequantize(base.weight.data, state)
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(base.weight.data, state)


def fuse(model: nn.Module, dtype: torch.dtype) -> int:
    """Have the LoRA layers of `model`, a PEFT model, that can run through LoraLinear do so; their number.

    Left as they are: DoRA and other variants, and layers whose frozen weight is not of `dtype`, that of the step.
    """
    layers = [layer for layer in lora_layers(model) if fits(layer, dtype)]
    for layer in layers:
        layer.forward = MethodType(forward, layer)
    return len(layers)


def lora_layers(model: nn.Module) -> list[Any]:
    """The modules of `model` that PEFT has put an adapter on."""
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def fits(layer: Any, dtype: torch.dtype) -> bool:
    """Whether LoraLinear computes what `layer` does, in `dtype`."""
    base = layer.get_base_layer()
    known = type(base) is nn.Linear or type(base).__name__ == "Linear4bit"
    return known and not layer.lora_variant and step_type(base) == dtype


def step_type(base: nn.Linear) -> torch.dtype:
    """The type that the weight of `base` is multiplied in."""
    state = getattr(base.weight, "quant_state", None)
    return base.weight.dtype if state is None else state.dtype


def forward(layer: Any, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
    """The forward of a PEFT layer: by LoraLinear while it trains, else PEFT's own."""
    (adapter,) = layer.active_adapters
    a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    if layer.disable_adapters or layer.merged or not torch.is_grad_enabled():
        return type(layer).forward(layer, x, *arguments, **options)
    # A norm that autocast runs in float32, as torch's LayerNorm, hands that on.
    x = x.to(step_type(layer.get_base_layer()))
    dropout = layer.lora_dropout[adapter]
    dropped = None if isinstance(dropout, nn.Identity) or not layer.training else dropout(x)
    return LoraLinear.apply(x, dropped, a, b, layer.scaling[adapter], layer.get_base_layer())
