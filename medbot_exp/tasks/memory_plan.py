"""Whether a run fits into a GPU's memory, and what would make it fit: told before it starts, and where it did not."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medbot_exp.config import BackendName, Dtype, Precision, RunConfig
from medbot_exp.device import choose_dtype, choose_precision
from medbot_exp.errors import OutOfMemoryError, first_line
from medbot_exp.model import Outline
from medbot_exp.training import footprint
from medbot_exp.training.footprint import GIB, Footprint, Longest, Setting, Transformer
from medbot_exp.training.kernels import choose_liger
from medbot_exp.training.savings import changes_that_fit

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryPlan:
    """What a run takes, part by part, and how it could take less.

    Attributes:
        config: as the user gave it, for all processes together.
        free: bytes that the GPU has left; None on a CPU, or where the GPU is elsewhere.
    """

    config: RunConfig
    model: Transformer
    rows: Longest
    setting: Setting
    free: float | None

    def footprint(self) -> Footprint:
        """Bytes by part."""
        return footprint.estimate(self.config, self.model, self.rows, self.setting)

    def free_gib(self) -> float:
        """GiB that the GPU has left; infinite where nobody knows."""
        return float("inf") if self.free is None else self.free / GIB

    def fits(self) -> bool:
        """Whether the GPU has that much left."""
        return self.footprint().gib() <= self.free_gib()

    def advice(self, free: float) -> str:
        """A line for each change that brings the run below `free` bytes."""
        changes = changes_that_fit(self.config, self.model, self.rows, self.setting, free)
        if not changes:
            place = "GPU" if self.setting.cuda else "machine"
            return f"None of our changes makes it fit: take a smaller model or a {place} with more memory"
        lines = [f"  {change.overrides}  ({change.footprint.gib():.1f} GiB)" for change in changes]
        return "\n".join(["What would fit, each by itself:" if len(lines) > 1 else "What would fit:", *lines])

    def shortage(self, free: float) -> str | None:
        """How a CPU's run takes more than the `free` bytes of the machine's memory, and what takes less.

        None where it does not, and for a run on a GPU.
        """
        if self.setting.cuda or self.footprint().total() <= free:
            return None
        return f"{free / GIB:.2f} GiB of the machine's memory are free\n{self.advice(free)}"

    def refuse(self) -> None:
        """Raise an OutOfMemoryError where the run will not fit, unless `trainer.ignore_memory_plan` is set."""
        if self.free is None or self.fits() or self.config.trainer.ignore_memory_plan:
            return
        raise OutOfMemoryError(
            f"the run must fit into the GPU's memory, but takes about {self.footprint().gib():.1f} GiB of "
            f"{self.free_gib():.1f} that are free\n{self.advice(self.free)}\n"
            "To try all the same: trainer.ignore_memory_plan=true"
        )


@contextmanager
def explained(plan: MemoryPlan | None) -> Iterator[None]:
    """Where the body runs out of the GPU's memory, raise what would take less."""
    try:
        yield
    except Exception as error:
        if plan is None or plan.free is None or "CUDA out of memory" not in str(error):
            raise
        # It was to fit, or was not to be asked: what is advised is clearly smaller.
        free = min(plan.free, 0.85 * plan.footprint().total())
        # Torch goes on to say who has how much, and how its allocator could be set up.
        what = first_line(error).partition(" GPU ")[0]
        raise OutOfMemoryError(f"the run must fit into the GPU's memory, but: {what}\n{plan.advice(free)}") from error


def plan_memory(
    config: RunConfig, outlined: Outline, rows: Longest, device: "torch.device", processes: int = 1
) -> MemoryPlan | None:
    """The plan of a run on this machine's `device`; None, with a word in the log, for a model of unknown build.

    Args:
        processes: that share the rows of a step, each on a device of its own.
    """
    model = transformer_of(outlined)
    if model is None:
        return None
    setting = Setting(
        precision=choose_precision(config.trainer.precision, device),
        weight_bytes=choose_dtype(config.model.dtype, device).itemsize,
        cuda=device.type == "cuda",
        liger=choose_liger(config.backend.name, device, outlined.config.model_type).use,
        processes=processes,
    )
    return MemoryPlan(config, model, rows, setting, free_bytes(device))


def plan_elsewhere(config: RunConfig, outlined: Outline, rows: Longest) -> MemoryPlan | None:
    """As `plan_memory`, for a GPU that this machine does not have: one with bf16 and, for backend=peft, Liger."""
    model = transformer_of(outlined)
    if model is None:
        return None
    setting = Setting(
        precision=precision_elsewhere(config.trainer.precision),
        weight_bytes=4 if config.model.dtype is Dtype.float32 else 2,
        cuda=True,
        liger=config.backend.name is BackendName.peft,
    )
    return MemoryPlan(config, model, rows, setting, free=None)


def precision_elsewhere(precision: Precision) -> Precision:
    """The arithmetic on a GPU that this machine does not have."""
    return Precision.bf16 if precision is Precision.auto else precision


def transformer_of(outlined: Outline) -> Transformer | None:
    """The outlined model's shape; None, with a word in the log, where it is built in a way that we do not know."""
    try:
        return footprint.transformer(outlined.config)
    except (AttributeError, ValueError, TypeError) as error:
        log.info("no memory plan for a model of type %s: %s", outlined.config.model_type, first_line(error))
        return None


def free_bytes(device: "torch.device") -> float | None:
    """Bytes that a GPU has left for this process; None for a CPU."""
    import torch

    if device.type != "cuda":
        return None
    # What an earlier run of this process let go, torch keeps for the next.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept
