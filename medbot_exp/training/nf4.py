"""4-bit NormalFloat weights with double quantisation (QLoRA, arXiv 2305.14314, section 3) as one Triton kernel.

bitsandbytes makes a weight in three launches, from Python each: the absolute maxima of the blocks, their mean added,
the numbers. A training step of Llama 8B does it for 672 layers, and small batches wait for the launches.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BYTES_PER_PROGRAM = 1024


@triton.jit
def dequantize_kernel(  # type: ignore[no-untyped-def]  # Triton reads annotations itself
    packed,  # uint8, two numbers each, the first in the upper four bits
    output,
    levels,  # float32, the 16 numbers that four bits stand for
    maxima,  # uint8, one per block of numbers
    maxima_levels,  # float32, the 256 numbers that a byte of `maxima` stands for
    maxima_maxima,  # float32, one per block of `maxima`
    mean,  # float32, one number, added to all maxima
    count,  # bytes of `packed`
    BLOCK: tl.constexpr,  # bytes per block
    MAXIMA_BLOCK: tl.constexpr,
    BYTES: tl.constexpr,
):
    places = tl.program_id(0).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    inside = places < count
    pair = tl.load(packed + places, mask=inside, other=0).to(tl.int32)
    block = places // BLOCK
    level = tl.load(maxima + block, mask=inside, other=0).to(tl.int32)
    maximum = tl.load(maxima_levels + level) * tl.load(maxima_maxima + block // MAXIMA_BLOCK, mask=inside, other=0.0)
    maximum += tl.load(mean)
    first = tl.load(levels + (pair >> 4)) * maximum
    second = tl.load(levels + (pair & 15)) * maximum
    both = tl.interleave(first, second)
    targets = tl.program_id(0).to(tl.int64) * 2 * BYTES + tl.arange(0, 2 * BYTES)
    tl.store(output + targets, both.to(output.dtype.element_ty), mask=targets < 2 * count)


def dequantize(packed: Tensor, state: Any) -> Tensor:
    """The weight (out, in) of a bitsandbytes Params4bit, in the type that `state` names.

    Args:
        packed: uint8, the numbers.
        state: bitsandbytes' QuantState of nf4 or fp4, its absolute maxima quantised.
    """
    output = torch.empty(state.shape, dtype=state.dtype, device=packed.device)
    nested = state.state2
    dequantize_kernel[(triton.cdiv(packed.numel(), BYTES_PER_PROGRAM),)](
        packed,
        output,
        state.code,
        state.absmax,
        nested.code,
        nested.absmax,
        state.offset,
        packed.numel(),
        BLOCK=state.blocksize // 2,
        MAXIMA_BLOCK=nested.blocksize,
        BYTES=BYTES_PER_PROGRAM,
        enable_fp_fusion=False,  # a product and its sum rounded apart, as bitsandbytes has them
    )
    return output
