"""Training shared among processes: the rows of a step, the gradients of the adapter, the frozen weights.

Data parallel: every process runs its share of a step's rows, and the adapter's gradients are averaged (DDP, arXiv
2006.15704). With trainer.sharding=full each keeps a part of the frozen weights, and a layer is put together when it
runs (FSDP, arXiv 2304.11277, as torch's fully_shard). The adapter stays whole everywhere: it is small, and so the
optimizer, its clipping and the checkpoints are those of one process.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from medbot_exp.config import Dtype, RunConfig
from medbot_exp.data.prepare import TokenizedRows
from medbot_exp.device import choose_dtype


class EpochOrder(Sampler[int]):
    """Row numbers in the order of a training in one process, then those of the blank rows behind them.

    Args:
        rows: how many there are to train on.
        blanks: how many blank ones follow them in the data set.
        epoch: the number of the epoch that begins.
    """

    def __init__(self, rows: int, blanks: int, seed: int, epoch: Callable[[], int]):
        self.rows, self.blanks, self.epoch = rows, blanks, epoch
        self.shuffled = SeedableRandomSampler(range(rows), data_seed=seed)

    def __iter__(self) -> Iterator[int]:
        self.shuffled.set_epoch(self.epoch())
        yield from self.shuffled
        yield from range(self.rows, len(self))

    def __len__(self) -> int:
        return self.rows + self.blanks


def blanks_for(rows: int, together: int) -> int:
    """How many blank rows fill up `rows`, so that micro-batches of all processes, `together` rows, divide an epoch."""
    return -rows % together


def with_blanks(rows: TokenizedRows, blanks: int) -> TokenizedRows:
    """`rows` and behind them blank ones: of a real row's first tokens, none of which counts for the loss."""
    blank = rows.input_ids[0][:2]
    return replace(
        rows,
        input_ids=rows.input_ids + [blank] * blanks,
        completion_mask=rows.completion_mask + [[0] * len(blank)] * blanks,
    )


def data_parallel(model: Any) -> DistributedDataParallel:
    """`model`, averaging the gradients of its trainable parameters over all processes in each backward pass."""
    # Frozen weights and buffers are the same everywhere already, or divided: neither is sent around.
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    buffers = [name for name, _ in model.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen + buffers)
    return DistributedDataParallel(model)


def on_host(config: RunConfig, device: torch.device) -> RunConfig:
    """`config` with the weights' type as on `device`, for reading them into the host's memory before they go there."""
    dtype = str(choose_dtype(config.model.dtype, device)).removeprefix("torch.")
    return replace(config, model=replace(config.model, dtype=Dtype[dtype]))


def shard(model: Any, device: torch.device) -> None:
    """Divide the frozen weights of `model`, a PeftModel in the host's memory, among the processes' devices.

    A layer at a time is whole on the device, while it is divided and while it runs.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    adapter = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for parameter in adapter:
        parameter.data = parameter.data.to(device)
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    units = model.get_base_model()._no_split_modules or ()
    for module in list(model.modules()):
        if type(module).__name__ in units:
            fully_shard(module, mesh=mesh, ignored_params=adapter & set(module.parameters()))
    fully_shard(model, mesh=mesh, ignored_params=adapter)
    # The root's own weights, the embeddings, are put together for `forward` alone, unless told.
    register_fsdp_forward_method(model, "generate")
