"""One adapter, trained by TRL's SFTTrainer on rows that we tokenised.

TRL and transformers do the training. Added here: the held-out loss as a mean over tokens, an end with the
step named when the loss leaves the numbers, checkpoints that count only when whole, and a clean stop.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import load_peft_weights, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerState
from trl import SFTConfig, SFTTrainer

from medbot_exp.config import OptimizerConfig, Precision, TrainerConfig
from medbot_exp.data.prepare import TokenizedRows
from medbot_exp.errors import ConfigError, unwritable
from medbot_exp.evaluation.score import held_out_loss
from medbot_exp.processes import ALONE, Processes
from medbot_exp.rundir import RunDirectory
from medbot_exp.tracking.record import Record
from medbot_exp.training.arguments import lora_plus
from medbot_exp.training.observer import Meter, Observer, Progress, Stop, diverged, stop_after_step
from medbot_exp.training.parallel import EpochOrder, blanks_for, data_parallel, with_blanks


@dataclass(frozen=True)
class Training:
    """An adapter, what it is trained on, and how.

    Attributes:
        model: with the adapter on it, the only part that is trained.
        rows: to train on.
        arguments: what `training_arguments` made of this process's share of `trainer`, and of `optimizer`.
        precision: the arithmetic of the step, chosen.
    """

    model: Any
    tokenizer: Any
    rows: TokenizedRows
    held_out: TokenizedRows
    trainer: TrainerConfig
    optimizer: OptimizerConfig
    arguments: SFTConfig
    precision: Precision


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        step: optimizer steps done, those before a resumption included.
        steps: optimizer steps of an unbroken run.
        kept_step: the step whose adapter is in the model now: the best one with early stopping, else the last.
        validation_loss: of the adapter that is in the model now, where it was measured; None otherwise.
        stop_asked: the user asked to stop, be it in the last step.
        stopped: the user asked to stop before the end.
        pruned: the study ended it, as others do better.
    """

    step: int
    steps: int
    kept_step: int
    validation_loss: float | None
    meter: Meter
    stop_asked: bool
    stopped: bool
    pruned: bool = False


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


@contextmanager
def environment_kept() -> Iterator[None]:
    """Have the process's environment as it was before the body.

    Unsloth's trainer puts its precision there (ACCELERATE_MIXED_PRECISION), where the next run's would find it.
    """
    kept = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - kept.keys():
            del os.environ[name]
        os.environ.update(kept)


@environment_kept()
def train(
    training: Training,
    directory: RunDirectory,
    record: Record,
    progress: Progress,
    pruned_at: Callable[[int, float], bool],
    processes: Processes = ALONE,
) -> Outcome:
    """Carry out `training`; checkpoints, metrics and progress go where they belong.

    Several processes each train on a share of every step's rows, and end alike.

    Goes on from the last whole checkpoint in `directory`, if there is one.

    Args:
        pruned_at: told the held-out loss of each step where it is measured; whether the training ends there.

    Raises:
        DivergenceError: the loss became NaN or infinite.
        ConfigError: the adapter is on the model's head.
    """
    refuse_adapted_head(training.model)
    model, trainer, arguments = training.model, training.trainer, training.arguments
    meter, stop = Meter(), Stop()
    observer = Observer(record, progress, directory, meter, stop, trainer.checkpoint_limit, pruned_at, processes)
    callbacks: list[TrainerCallback] = [observer]
    early_stopping = trainer.early_stopping_patience is not None
    if early_stopping:
        callbacks.append(EarlyStoppingCallback(trainer.early_stopping_patience, trainer.early_stopping_min_delta))
    rows = training.rows
    blanks = 0 if processes.count == 1 else blanks_for(len(rows), arguments.train_batch_size * processes.count)
    with types_kept(model):
        engine = Trainer(
            model=model,
            args=arguments,
            train_dataset=dataset(with_blanks(rows, blanks)),
            eval_dataset=dataset(training.held_out),
            processing_class=training.tokenizer,
            callbacks=callbacks,
            optimizers=(lora_plus(model, arguments, training.optimizer), None),
            held_out=training.held_out,
            eval_batch_size=trainer.eval_batch_size,
            precision=training.precision,
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
        return Outcome(ended.global_step, ended.max_steps, kept_step, None, meter, stop_asked=False, stopped=False)
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
        stop_asked=stop.requested,
        stopped=stop.requested and state.global_step < state.max_steps and not observer.pruned,
        pruned=observer.pruned and state.global_step < state.max_steps,
    )


def refuse_adapted_head(model: Any) -> None:
    """Raise a ConfigError where the head has an adapter, which TRL's loss passes over, whatever the head is called."""
    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise ConfigError(
            "`lora.target_modules` must leave the head out, as the loss would pass over an adapter on it, but names "
            "it; use lora.target_modules=all-linear, which does"
        )


@contextmanager
def types_kept(model: Any) -> Iterator[None]:
    """Have the trainable parameters of `model` as they were before the body.

    On 4-bit weights TRL makes an adapter bfloat16: that loses small updates, and fp16's scaler refuses its gradients.
    """
    kept = {parameter: parameter.data for parameter in model.parameters() if parameter.requires_grad}
    yield
    for parameter, data in kept.items():
        parameter.data = data.to(parameter.device)


def ended_state(checkpoint: Path, trainer: TrainerConfig) -> TrainerState | None:
    """The state in a checkpoint with which training was over already; None for any other."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    stopping = state.stateful_callbacks.get("EarlyStoppingCallback", {})
    waited = stopping.get("attributes", {}).get("early_stopping_patience_counter", 0)
    patience = trainer.early_stopping_patience
    over = state.global_step >= state.max_steps or (patience is not None and waited >= patience)
    return state if over else None


def tokens_of(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | int:
    """The number of tokens of prompt and completion in a batch; padding and blank rows do not count."""
    padded = inputs.get("attention_mask")
    if padded is None:  # rows that are joined without padding, as Unsloth has them
        return inputs["input_ids"].numel()
    return (padded * (inputs["labels"] != -100).any(1, keepdim=True)).sum()


def dataset(rows: TokenizedRows) -> Dataset:
    """`rows` as TRL takes them: tokenised, so it does not touch them, the mask deciding what counts."""
    return Dataset.from_dict({"input_ids": rows.input_ids, "completion_mask": rows.completion_mask})
