"""What a training tells while it goes: losses to the record and the display, a wish to stop to the trainer."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import TrainerCallback

from medbot_exp.errors import DivergenceError
from medbot_exp.evaluation.score import held_out_metrics
from medbot_exp.processes import Processes
from medbot_exp.rundir import RunDirectory
from medbot_exp.tracking.record import Record

# A signal that follows another within this time is the same request. Terminals and queues tell a whole group of
# processes, and its parents pass it on.
ECHO_SECONDS = 1.0

# What TRL logs, under the names of our record; the rest repeats or belongs to the end.
METRICS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "entropy": "train/entropy",
    "mean_token_accuracy": "train/token_accuracy",
    "epoch": "train/epoch",
}


class Progress(Protocol):
    """Shows a person how the training goes."""

    def begin(self, step: int, steps: int) -> None:
        """Training starts (or goes on) behind `step` of `steps`."""

    def update(self, step: int, metrics: dict[str, float]) -> None:
        """Metrics of `step` were logged."""

    def end(self) -> None:
        """Training is over, however it ended."""


@dataclass
class Meter:
    """Tokens and seconds of training steps alone: evaluations and checkpoints do not count."""

    tokens: int = 0
    seconds: float = 0.0
    started: float = 0.0
    unread: list[tuple[Any, Any]] = field(default_factory=list)

    def note(self, loss: Any, tokens: Any) -> None:
        """Keep a micro-batch's loss, a tensor, and tokens, one or a number, for `read`: values are not waited for."""
        self.unread.append((loss.detach(), tokens))

    def read(self) -> tuple[float, float]:
        """Sum of the losses and of the tokens noted since the last time; waits until the device has them."""
        losses, tokens = zip(*self.unread, strict=True)
        self.unread.clear()
        return sum(loss.item() for loss in losses), sum(int(count) for count in tokens)

    def tokens_per_second(self) -> float:
        """Tokens of prompt and completion, padding left out, per second of training steps."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass
class Stop:
    """Whether the user asked to stop after the current step."""

    requested: bool = False


@dataclass
class Observer(TrainerCallback):
    """Carries what happens in the trainer to the record, the progress display and the checkpoints' marks."""

    record: Record
    progress: Progress
    directory: RunDirectory
    meter: Meter
    stop: Stop
    checkpoint_limit: int
    pruned_at: Callable[[int, float], bool]
    processes: Processes
    losses: dict[int, float] = field(default_factory=dict)
    pruned: bool = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.progress.begin(state.global_step, state.max_steps)
        if not self.processes.first:
            # Dropout's own numbers for each process; left alone, all would drop the same places of different rows.
            torch.manual_seed(args.seed + self.processes.rank)

    def on_step_begin(self, args, state, control, **kwargs):
        self.meter.started = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        loss, tokens = self.processes.sums(*self.meter.read())
        self.meter.seconds += time.perf_counter() - self.meter.started
        self.meter.tokens += int(tokens)
        # A loss that is no number in one process ends all of them at the same step, before its checkpoint.
        if not math.isfinite(loss):
            raise diverged("training", loss, state.global_step, args.learning_rate)
        if self.processes.any(self.stop.requested):
            self.stop.requested = control.should_save = control.should_training_stop = True
        return control

    def on_log(self, args, state, control, logs, **kwargs):
        if "eval_loss" in logs:
            self.losses[state.global_step] = logs["eval_loss"]
            metrics = held_out_metrics(logs["eval_loss"])
        elif "loss" in logs:
            metrics = {ours: float(logs[theirs]) for theirs, ours in METRICS.items() if theirs in logs}
            metrics["train/tokens_per_second"] = self.meter.tokens_per_second()  # since the start or a resumption
        else:
            return
        self.record.log(state.global_step, metrics)
        self.progress.update(state.global_step, metrics)

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        if self.pruned_at(state.global_step, metrics["eval_loss"]):
            self.pruned = control.should_training_stop = True
        return control

    def on_save(self, args, state, control, **kwargs):
        self.processes.wait()  # each process writes the state of its own generators
        if not self.processes.first:
            return
        self.directory.seal_checkpoint(state.global_step)
        # Older ones go only now that the new one is whole.
        best = state.best_model_checkpoint
        self.directory.prune_checkpoints(self.checkpoint_limit, Path(best).name if best else None)


def diverged(which: str, loss: float, step: int, lr: float) -> DivergenceError:
    """The error for a loss that left the numbers at `step`."""
    return DivergenceError(
        f"the {which} loss must stay finite, but was {loss} at step {step}\n"
        f"Lower optimizer.lr (now {lr:g}), or raise optimizer.warmup_ratio"
    )


@contextmanager
def stop_after_step(stop: Stop) -> Iterator[None]:
    """SIGINT and SIGTERM end the training after the current step, with a checkpoint; a later one ends it at once."""
    asked = 0.0
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets the main thread alone handle signals
        return

    def ask(number, frame):
        nonlocal asked
        if not stop.requested:
            asked = time.monotonic()
            stop.requested = True
        elif time.monotonic() - asked > ECHO_SECONDS:
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
