"""Memory of the training process: what it took at most, and keeping what the allocator was given."""

import ctypes
import logging
import resource
import sys
from typing import Any

log = logging.getLogger(__name__)

# glibc's mallopt(3) parameters.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LIMIT_BYTES = 2**31 - 1  # mallopt takes an int


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks instead of handing each back to the kernel.

    By default every tensor above 32 MiB is its own mmap: each step faults in all of its logits and
    activations anew, zeroed page by page. Elsewhere than on Linux with glibc nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not (mallopt(M_MMAP_THRESHOLD, LIMIT_BYTES) and mallopt(M_TRIM_THRESHOLD, LIMIT_BYTES)):
        log.debug("the C library keeps its own allocation thresholds")


def peak_memory_gib(device: Any) -> float:
    """The most memory this process held so far, in GiB: of the GPU's where there is one, else resident."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 2**30
