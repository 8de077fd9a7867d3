"""Memory of the training process: what is left for it, what it took at most, keeping what the allocator was given."""

import ctypes
import logging
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

# glibc's mallopt(3) parameters.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LIMIT_BYTES = 2**31 - 1  # mallopt takes an int
# What a container may use and what it uses, by cgroups v2 and v1, and what of that is files that make room.
CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


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


def free_host_bytes() -> float:
    """Bytes of the machine's memory that are left, or of what its container may use."""
    import psutil

    free = float(psutil.virtual_memory().available)
    for limit, used, statistics, files in CGROUP_FILES:
        with suppress(OSError, ValueError, KeyError):  # none of that kind, or one without a limit
            lines = (CGROUP / statistics).read_text().splitlines()
            cached = int(dict(line.split() for line in lines)[files])
            free = min(free, int((CGROUP / limit).read_text()) - int((CGROUP / used).read_text()) + cached)
    return free


def peak_memory_gib(device: Any) -> float:
    """The most memory this process held so far, in GiB: of the GPU's where there is one, else resident."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 2**30
