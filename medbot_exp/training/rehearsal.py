"""How long a training will take, from the same training step on models of two and of six of its layers.

Layers are alike, so time grows by the same amount with each: t(L) = t(2) + (t(6) - t(2)) / 4 · (L - 2). The small
models have random weights and go the way of a whole run: files, backend, adapter, trainer.
"""

import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbot_exp.config import ModelKind, RunConfig
from medbot_exp.data.prepare import TokenizedRows
from medbot_exp.device import choose_precision
from medbot_exp.evaluation.score import held_out_loss
from medbot_exp.model import Located, Outline
from medbot_exp.rundir import RunDirectory
from medbot_exp.tracking.record import Mirror, Record
from medbot_exp.training import backend, footprint, kernels
from medbot_exp.training.footprint import Longest, Setting

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

LAYERS = (2, 6)
STEPS = 6
WARM_UP = 2  # steps that compile and choose kernels
# What processes on a CPU took at most, as what is freed is kept: this many times what is planned for the logits.
CPU_LOGITS = 1.5


@dataclass(frozen=True)
class Pace:
    """Seconds of an optimizer step of average rows, and of the held-out loss of all held-out rows."""

    step: float
    held_out: float


@dataclass(frozen=True)
class Taken:
    """Bytes of the GPU, and of the machine's memory."""

    gpu: float
    host: float


class Stopwatch:
    """Notes when each step was logged: what solo.train shows its progress to."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def begin(self, step: int, steps: int) -> None:
        """Training starts."""
        self.times.append(time.perf_counter())

    def update(self, step: int, metrics: dict[str, float]) -> None:
        """A step was logged, its loss read: the device has ended it."""
        if "train/loss" in metrics:
            self.times.append(time.perf_counter())

    def end(self) -> None:
        """Training is over."""

    def step_seconds(self) -> float:
        """The quickest step, as other work of the machine only makes one slower; those that warm up left out."""
        return min([later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)][WARM_UP:])


def rehearse(
    config: RunConfig, outlined: Outline, rows: TokenizedRows, held_out: TokenizedRows, device: "torch.device"
) -> Pace:
    """The pace of a training of `config` on `device`, timed on few of its layers.

    Raises:
        MedbotError: the small models do not run, as the whole one would not.
        KeyboardInterrupt: the user stopped it.
    """
    paces = [pace_of(config, outlined, layers, rows, held_out, device) for layers in LAYERS]
    layers = outlined.config.get_text_config().num_hidden_layers
    return Pace(
        step=extrapolated([pace.step for pace in paces], layers),
        held_out=extrapolated([pace.held_out for pace in paces], layers),
    )


def taken(
    config: RunConfig, outlined: Outline, rows: TokenizedRows, held_out: TokenizedRows, setting: Setting
) -> Taken:
    """The memory that `rehearse` takes itself: that of a training of its larger model on the rows that are timed."""
    some, few = timed_rows(config, rows, held_out)
    model = footprint.transformer(shallow(outlined.config, max(LAYERS)))
    timed = Longest(longest(some), longest(few), len(some), len(few))
    parts = footprint.estimate(config, model, timed, setting)
    if setting.cuda:
        return Taken(gpu=parts.total(), host=float(model.parameters * setting.weight_bytes))
    training = sum(parts.training.values()) + (CPU_LOGITS - 1) * parts.training["logits"]
    return Taken(gpu=0, host=sum(parts.resident.values()) + max(training, parts.evaluation))


def extrapolated(seconds: list[float], layers: int) -> float:
    """Seconds with `layers` layers, from those with LAYERS; a layer that seems to cost nothing costs nothing."""
    (few, more), (fewer, larger) = LAYERS, seconds
    return fewer + max(0.0, larger - fewer) / (more - few) * (layers - few)


def pace_of(
    config: RunConfig,
    outlined: Outline,
    layers: int,
    rows: TokenizedRows,
    held_out: TokenizedRows,
    device: "torch.device",
) -> Pace:
    """The pace with `layers` layers."""
    from medbot_exp.training.arguments import training_arguments
    from medbot_exp.training.solo import Training, train

    some, few = timed_rows(config, rows, held_out)
    precision = choose_precision(config.trainer.precision, device)
    stopwatch = Stopwatch()
    with scratch_below(Path(config.cache_dir).expanduser()) as folder, quietly():
        small = short(config, folder / "model")
        write_model(outlined, layers, folder / "model", device)
        loaded = backend.load(small, outlined, Located(folder / "model", "random weights", ""), device)
        chosen = kernels.choose(small, device, loaded.model.config.model_type)
        model = backend.attach(loaded, small, device)
        directory = RunDirectory(folder / "run")
        directory.path.mkdir()
        arguments = training_arguments(small.trainer, small.optimizer, precision, small.seed, device, directory, chosen)
        training = Training(model, outlined.tokenizer, some, few, small.trainer, small.optimizer, arguments, precision)
        outcome = train(training, directory, Record(directory, Mirror()), stopwatch, lambda step, loss: False)
        if outcome.stop_asked:
            raise KeyboardInterrupt
        measured = []
        for _ in range(3):
            began = time.perf_counter()
            held_out_loss(model, few, config.trainer.eval_batch_size, outlined.tokenizer.pad_token_id, precision)
            measured.append(time.perf_counter() - began)
    return Pace(stopwatch.step_seconds(), min(measured) * tokens(held_out) / tokens(few))


@contextmanager
def scratch_below(cache_dir: Path) -> Iterator[Path]:
    """A folder in `cache_dir`, which has room for models, for the body alone; those of killed processes are removed."""
    from filelock import FileLock, Timeout

    cache_dir.mkdir(parents=True, exist_ok=True)
    # One process at a time makes, removes or looks for folders: one without a living owner has a lock that can be had.
    in_turn = FileLock(cache_dir / "rehearsals.lock")
    with in_turn:
        for left in cache_dir.glob("rehearsal-*"):
            with suppress(Timeout), FileLock(left / ".lock", timeout=0):
                shutil.rmtree(left)
        folder = Path(tempfile.mkdtemp(dir=cache_dir, prefix="rehearsal-"))
        alive = FileLock(folder / ".lock")
        alive.acquire()
    try:
        yield folder
    finally:
        with in_turn:
            shutil.rmtree(folder)
            alive.release()


def short(config: RunConfig, directory: Path) -> RunConfig:
    """`config` for a few steps on the model in `directory`, measured at their end alone."""
    trainer = replace(
        config.trainer,
        max_steps=STEPS,
        epochs=None,
        logging_steps=1,
        eval_steps=STEPS + 1,
        checkpoint_steps=STEPS + 1,
        early_stopping_patience=None,
    )
    model = replace(config.model, kind=ModelKind.directory, path=str(directory), architecture=None, wheel=None)
    return replace(config, trainer=trainer, model=model)


def write_model(outlined: Outline, layers: int, directory: Path, device: "torch.device") -> None:
    """A model of the outlined shape with `layers` layers and random weights, as a directory of safetensors."""
    import torch
    from transformers import AutoModelForCausalLM

    shape = shallow(outlined.config, layers)
    shape.dtype = torch.bfloat16
    with torch.random.fork_rng(), torch.device(device):
        model = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
    model.save_pretrained(directory)
    outlined.tokenizer.save_pretrained(directory)


def shallow(config: "PretrainedConfig", layers: int) -> "PretrainedConfig":
    """`config` with so many layers."""
    shape = deepcopy(config)
    text = shape.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    return shape


def timed_rows(config: RunConfig, rows: TokenizedRows, held_out: TokenizedRows) -> tuple[TokenizedRows, TokenizedRows]:
    """Those of a step, and those of a batch of the held-out loss; no more than there are."""
    per_step = config.trainer.batch_size * config.trainer.gradient_accumulation_steps
    return typical(rows, min(per_step, len(rows))), typical(
        held_out, min(config.trainer.eval_batch_size, len(held_out))
    )


def typical(rows: TokenizedRows, count: int) -> TokenizedRows:
    """`count` rows as different in length as `rows` are: the middle one of each of `count` equal parts."""
    order = sorted(range(len(rows)), key=lambda index: len(rows.input_ids[index]))
    chosen = [order[int((place + 0.5) / count * len(order))] for place in range(count)]
    parts: dict[str, Any] = {
        "input_ids": [rows.input_ids[index] for index in chosen],
        "completion_mask": [rows.completion_mask[index] for index in chosen],
    }
    return TokenizedRows(**parts, dropped=0, shortened=0, from_cache=False)


def longest(rows: TokenizedRows) -> int:
    """Tokens of the longest of `rows`."""
    return max(map(len, rows.input_ids))


def tokens(rows: TokenizedRows) -> int:
    """Tokens of all `rows`."""
    return sum(map(len, rows.input_ids))


@contextmanager
def quietly() -> Iterator[None]:
    """Keep what a run logs of itself, and its libraries' warnings, off the terminal: it is no run."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
