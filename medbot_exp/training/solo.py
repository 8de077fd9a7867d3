"""One adapter, trained by TRL's SFTTrainer on rows that we tokenised.

TRL and transformers do the training. Added here: the held-out loss as a mean over tokens, an end with the
step named when the loss leaves the numbers, checkpoints that count only when whole, and a clean stop.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from datasets import Dataset
from peft import load_peft_weights, set_peft_model_state_dict
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerState
from trl import SFTConfig, SFTTrainer

from medbot_exp.config import OptimizerConfig, Precision, TrainerConfig
from medbot_exp.data.prepare import TokenizedRows
from medbot_exp.errors import DivergenceError, unwritable
from medbot_exp.evaluation.score import held_out_loss, held_out_metrics
from medbot_exp.processes import ALONE, Processes
from medbot_exp.rundir import RunDirectory
from medbot_exp.tracking.record import Record
from medbot_exp.training.parallel import EpochOrder, blanks_for, data_parallel, with_blanks

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
        """Keep the loss and the tokens of a micro-batch, tensors both, for `read`: their values are not waited for."""
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


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        step: optimizer steps done, those before a resumption included.
        steps: optimizer steps of an unbroken run.
        kept_step: the step whose adapter is in the model now: the best one with early stopping, else the last.
        validation_loss: of the adapter that is in the model now, where it was measured; None otherwise.
        stopped: the user asked to stop before the end.
        pruned: the study ended it, as others do better.
    """

    step: int
    steps: int
    kept_step: int
    validation_loss: float | None
    meter: Meter
    stopped: bool
    pruned: bool = False


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


class Trainer(SFTTrainer):
    """SFTTrainer that measures the held-out loss per token and ends when the training loss is no number."""

    def __init__(
        self,
        *args: Any,
        held_out: TokenizedRows,
        eval_batch_size: int,
        precision: Precision,
        meter: Meter,
        processes: Processes,
        blanks: int,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.processes = processes
        self.blanks = blanks
        self.held_out = held_out
        self.eval_batch_size = eval_batch_size
        self.precision = precision
        self.meter = meter

    def training_step(self, model, inputs, *args, **kwargs):
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.meter.note(loss, tokens_of(inputs))
        return loss

    def _get_train_sampler(self, *args, **kwargs):
        if self.processes.count == 1:
            return super()._get_train_sampler(*args, **kwargs)
        rows = len(self.train_dataset) - self.blanks
        together = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.processes.count
        steps = math.ceil(rows / together)
        return EpochOrder(rows, self.blanks, self.args.seed, lambda: self.state.global_step // steps)

    def _wrap_model(self, model, *args, **kwargs):
        if self.processes.count == 1:
            return super()._wrap_model(model, *args, **kwargs)
        # accelerate adds its autocast; its own DDP would send the frozen weights around, and refuses divided ones.
        return data_parallel(self.accelerator.prepare_model(model, device_placement=False, evaluation_mode=True))

    def create_model_card(self, *args, **kwargs):
        """Write no card: TRL's for a checkpoint is a form with empty fields."""

    def _save_checkpoint(self, model, trial):
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            # torch.save turns a full disk into whichever message its zip writer was at.
            raise unwritable(error) from error

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        pad = self.processing_class.pad_token_id
        loss = held_out_loss(self.model, self.held_out, self.eval_batch_size, pad, self.precision, self.processes)
        if not math.isfinite(loss):
            raise diverged("held-out", loss, self.state.global_step, self.args.learning_rate)
        metrics = {f"{metric_key_prefix}_loss": loss}
        self.log(metrics)
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def train(
    model: Any,
    tokenizer: Any,
    rows: TokenizedRows,
    held_out: TokenizedRows,
    trainer: TrainerConfig,
    optimizer: OptimizerConfig,
    arguments: SFTConfig,
    precision: Precision,
    directory: RunDirectory,
    record: Record,
    progress: Progress,
    pruned_at: Callable[[int, float], bool],
    processes: Processes = ALONE,
) -> Outcome:
    """Train the adapter in `model` on `rows`; checkpoints, metrics and progress go where they belong.

    Several processes each train on a share of every step's rows, and end alike.

    Goes on from the last whole checkpoint in `directory`, if there is one.

    Args:
        arguments: what `training_arguments` made of this process's share of `trainer`, and of `optimizer`.
        pruned_at: told the held-out loss of each step where it is measured; whether the training ends there.

    Raises:
        DivergenceError: the loss became NaN or infinite.
    """
    meter, stop = Meter(), Stop()
    observer = Observer(record, progress, directory, meter, stop, trainer.checkpoint_limit, pruned_at, processes)
    callbacks: list[TrainerCallback] = [observer]
    early_stopping = trainer.early_stopping_patience is not None
    if early_stopping:
        callbacks.append(EarlyStoppingCallback(trainer.early_stopping_patience, trainer.early_stopping_min_delta))
    blanks = 0 if processes.count == 1 else blanks_for(len(rows), arguments.train_batch_size * processes.count)
    engine = Trainer(
        model=model,
        args=arguments,
        train_dataset=dataset(with_blanks(rows, blanks)),
        eval_dataset=dataset(held_out),
        processing_class=tokenizer,
        callbacks=callbacks,
        optimizers=(lora_plus(model, arguments, optimizer), None),
        held_out=held_out,
        eval_batch_size=trainer.eval_batch_size,
        precision=precision,
        meter=meter,
        processes=processes,
        blanks=blanks,
    )
    # Our observer prints and records; TRL's own printer would print dictionaries as well.
    for callback in list(engine.callback_handler.callbacks):
        if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
            engine.remove_callback(callback)
    checkpoint = processes.of_first(directory.last_checkpoint)
    ended = None if checkpoint is None else ended_state(checkpoint, trainer)
    if checkpoint is not None and ended is not None:
        # Asked to go on from the last step, transformers would train one step more.
        best = ended.best_model_checkpoint if early_stopping else None
        kept = directory.checkpoints / Path(best).name if best else checkpoint  # the run may have been moved
        set_peft_model_state_dict(model, load_peft_weights(str(kept), device=str(model.device)))
        kept_step = int(kept.name.rpartition("-")[2])
        return Outcome(ended.global_step, ended.max_steps, kept_step, None, meter, stopped=False)
    with stop_after_step(stop):
        try:
            engine.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        finally:
            progress.end()
    state = engine.state
    measured_at = state.best_global_step if early_stopping and state.best_global_step else state.global_step
    return Outcome(
        step=state.global_step,
        steps=state.max_steps,
        kept_step=measured_at,
        validation_loss=observer.losses.get(measured_at),
        meter=meter,
        stopped=stop.requested and state.global_step < state.max_steps and not observer.pruned,
        pruned=observer.pruned and state.global_step < state.max_steps,
    )


def ended_state(checkpoint: Path, trainer: TrainerConfig) -> TrainerState | None:
    """The state in a checkpoint with which training was over already; None for any other."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    stopping = state.stateful_callbacks.get("EarlyStoppingCallback", {})
    waited = stopping.get("attributes", {}).get("early_stopping_patience_counter", 0)
    patience = trainer.early_stopping_patience
    over = state.global_step >= state.max_steps or (patience is not None and waited >= patience)
    return state if over else None


def training_arguments(
    trainer: TrainerConfig,
    optimizer: OptimizerConfig,
    precision: Precision,
    seed: int,
    device: torch.device,
    directory: RunDirectory,
    liger: bool,
) -> SFTConfig:
    """TRL's configuration for ours, for one device.

    Args:
        liger: run the model's layers and its loss through Liger's kernels.
    """
    early_stopping = trainer.early_stopping_patience is not None
    arguments = SFTConfig(
        output_dir=str(directory.checkpoints),
        num_train_epochs=trainer.epochs or 1.0,
        max_steps=trainer.max_steps or -1,  # -1 leaves it to the epochs
        per_device_train_batch_size=trainer.batch_size,
        per_device_eval_batch_size=trainer.eval_batch_size,
        gradient_accumulation_steps=trainer.gradient_accumulation_steps,
        learning_rate=optimizer.lr,
        lr_scheduler_type=optimizer.schedule.name,
        warmup_steps=optimizer.warmup_ratio,  # below 1 it is a share
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.max_grad_norm,
        optim=optimizer.name.name,
        bf16=precision is Precision.bf16,
        fp16=precision is Precision.fp16,
        use_cpu=device.type == "cpu",
        gradient_checkpointing=trainer.gradient_checkpointing,
        use_liger_kernel=liger,
        logging_steps=trainer.logging_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=trainer.eval_steps,
        save_strategy="steps",
        save_steps=trainer.checkpoint_steps,
        save_total_limit=None,  # Observer.on_save removes old checkpoints, once the new one is whole
        load_best_model_at_end=early_stopping,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        seed=seed,
        completion_only_loss=True,
        max_length=None,  # rows come truncated
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
    )
    # Where a process sees several GPUs, transformers would spread each batch over them and multiply its size.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def lora_plus(model: Any, arguments: SFTConfig, optimizer: OptimizerConfig) -> torch.optim.Optimizer | None:
    """The optimizer of LoRA+ (arXiv 2402.12354): B matrices learn `lora_plus_ratio` times faster; None without it."""
    if optimizer.lora_plus_ratio is None:
        return None
    from peft.optimizers import create_loraplus_optimizer

    # PEFT sets the decay per group from its own argument and passes over the optimizer's.
    kind, options = SFTTrainer.get_optimizer_cls_and_kwargs(arguments, model)
    return create_loraplus_optimizer(
        model=model,
        optimizer_cls=kind,
        loraplus_lr_ratio=optimizer.lora_plus_ratio,
        loraplus_weight_decay=optimizer.weight_decay,
        **options,
    )


def tokens_of(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | int:
    """The number of tokens of prompt and completion in a batch; padding and blank rows do not count."""
    padded = inputs.get("attention_mask")
    if padded is None:  # rows that are joined without padding, as Unsloth has them
        return inputs["input_ids"].numel()
    return (padded * (inputs["labels"] != -100).any(1, keepdim=True)).sum()


def dataset(rows: TokenizedRows) -> Dataset:
    """`rows` as TRL takes them: tokenised, so it does not touch them, the mask deciding what counts."""
    return Dataset.from_dict({"input_ids": rows.input_ids, "completion_mask": rows.completion_mask})


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
