"""Training of one adapter: reproducible, resumable to the bit, and honest about losses that leave the numbers."""

import os
import signal
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from peft import load_peft_weights
from transformers import AutoModelForCausalLM, BioGptConfig

from medbot_exp import lora
from medbot_exp.config import Precision, Schedule
from medbot_exp.data.prepare import TokenizedRows
from medbot_exp.errors import ConfigError, DivergenceError
from medbot_exp.evaluation.score import held_out_loss
from medbot_exp.model import byte_tokenizer, random_llama
from medbot_exp.rundir import RunDirectory
from medbot_exp.tracking.record import Mirror, Record
from medbot_exp.training import solo
from medbot_exp.training.arguments import training_arguments
from medbot_exp.training.kernels import Choice, Kernels
from medbot_exp.whole_files import read_jsonl

PLAIN = Kernels(liger=Choice(False, ""), padding_free=Choice(False, ""))
SENTENCES = [f"The patient in bed {number} has a fever of {36 + number % 5} degrees." for number in range(24)]


class Quiet:
    """Progress that nobody watches; it raises a signal once `at` is logged, as a terminal's Ctrl-C would."""

    def __init__(self, at: int | None = None):
        self.at = at

    def begin(self, step: int, steps: int) -> None:
        self.steps = steps

    def update(self, step: int, metrics: dict[str, float]) -> None:
        if step == self.at and "train/loss" in metrics:
            signal.raise_signal(signal.SIGINT)

    def end(self) -> None:
        pass


@pytest.fixture
def config(compose):
    return compose(
        "model=tiny",
        "lora.r=4",
        "lora.dropout=0.1",
        "trainer.max_steps=8",
        "trainer.eval_steps=4",
        "trainer.checkpoint_steps=3",
        "optimizer.lr=1.0e-2",
    )


def rows(sentences: list[str]) -> TokenizedRows:
    """Tokenised sentences whose first ten tokens are the prompt."""
    tokenizer = byte_tokenizer()
    ids = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in sentences]
    return TokenizedRows(ids, [[0] * 10 + [1] * (len(row) - 10) for row in ids], 0, 0, False)


def fresh_model(config):
    torch.manual_seed(config.seed)
    model = random_llama(config.model.architecture, byte_tokenizer(), "sdpa")
    return lora.attach(model, config.lora)


def fit(config, path, progress=None, model=None, kernels=PLAIN):
    """Train on the sentences in `path`; (outcome, model, lines of metrics.jsonl)."""
    path.mkdir(exist_ok=True)
    directory = RunDirectory(path)
    model = model or fresh_model(config)
    training = solo.Training(
        model,
        byte_tokenizer(),
        rows(SENTENCES[4:]),
        rows(SENTENCES[:4]),
        config.trainer,
        config.optimizer,
        training_arguments(
            config.trainer, config.optimizer, Precision.fp32, config.seed, model.device, directory, kernels
        ),
        Precision.fp32,
    )
    outcome = solo.train(
        training,
        directory,
        Record(directory, Mirror()),
        progress or Quiet(),
        lambda step, loss: False,
    )
    return outcome, model, read_jsonl(directory.metrics)


def losses(lines):
    return [
        (line["step"], key, line[key]) for line in lines for key in ("train/loss", "validation/loss") if key in line
    ]


def test_same_seed_gives_the_same_losses_bit_for_bit(config, tmp_path):
    _, _, first = fit(config, tmp_path / "first")
    _, _, second = fit(config, tmp_path / "second")
    assert len(losses(first)) == 8 + 2
    assert losses(first) == losses(second)


def test_adapter_on_a_head_of_any_name_is_refused(config, tmp_path):
    torch.manual_seed(0)
    shape = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = AutoModelForCausalLM.from_config(BioGptConfig(intermediate_size=64, **shape))
    adapted = lora.attach(model, replace(config.lora, target_modules=["q_proj", "output_projection"]))
    with pytest.raises(ConfigError, match="must leave the head out, .*; use lora.target_modules=all-linear"):
        fit(config, tmp_path / "run", model=adapted)


def test_another_seed_gives_other_losses(config, tmp_path):
    _, _, first = fit(config, tmp_path / "first")
    _, _, second = fit(replace(config, seed=1), tmp_path / "second")
    assert losses(first) != losses(second)


@pytest.mark.parametrize("lr", [1.0e-2, 1.0e30])  # it ends, it diverges
def test_what_libraries_put_into_the_environment_ends_with_the_training(config, tmp_path, monkeypatch, lr):
    monkeypatch.setenv("SET_BEFORE", "as it was")
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    init = solo.Trainer.__init__

    def as_unsloths(trainer, *arguments, **keywords):
        init(trainer, *arguments, **keywords)
        os.environ.update(ACCELERATE_MIXED_PRECISION="bf16", SET_BEFORE="changed")

    monkeypatch.setattr(solo.Trainer, "__init__", as_unsloths)
    config.optimizer.lr = lr
    with nullcontext() if lr < 1 else pytest.raises(DivergenceError):
        fit(config, tmp_path / "run")
    assert "ACCELERATE_MIXED_PRECISION" not in os.environ and os.environ["SET_BEFORE"] == "as it was"


def test_first_loss_is_the_mean_over_completion_tokens(config, tmp_path):
    config.lora.dropout = 0.0
    config.trainer.max_steps = 1
    config.trainer.batch_size = len(SENTENCES) - 4  # one batch holds every row, so its order does not matter
    expected = held_out_loss(
        fresh_model(config), rows(SENTENCES[4:]), batch_size=3, pad_token_id=0, precision=Precision.fp32
    )
    _, _, lines = fit(config, tmp_path / "run")
    assert lines[0]["train/loss"] == pytest.approx(expected, abs=1e-5)


def test_gradient_accumulation_equals_the_large_batch(config, tmp_path):
    config.lora.dropout = 0.0
    config.trainer.batch_size = 4
    _, _, large = fit(config, tmp_path / "large")
    config.trainer.batch_size, config.trainer.gradient_accumulation_steps = 2, 2
    _, _, accumulated = fit(config, tmp_path / "accumulated")
    for (step, key, one), (_, _, other) in zip(losses(large), losses(accumulated), strict=True):
        assert other == pytest.approx(one, abs=2e-5), (step, key)


@pytest.mark.parametrize("stop_at", [1, 4, 6])
def test_stopped_run_resumes_to_the_end_of_an_unbroken_one(config, tmp_path, stop_at):
    _, whole_model, whole = fit(config, tmp_path / "whole")
    outcome, _, _ = fit(config, tmp_path / "stopped", Quiet(at=stop_at))
    assert outcome.stopped and outcome.step in (stop_at, stop_at + 1)
    Record(RunDirectory(tmp_path / "stopped"), Mirror()).rewind(outcome.step)
    resumed, model, lines = fit(config, tmp_path / "stopped")
    assert not resumed.stopped and resumed.step == 8
    assert losses(lines) == losses(whole)
    for one, other in zip(whole_model.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_resumption_of_a_finished_training_trains_no_step_more(config, tmp_path):
    config.trainer.checkpoint_steps = 4
    _, whole, lines = fit(config, tmp_path / "run")
    outcome, model, again = fit(config, tmp_path / "run")
    assert (outcome.step, outcome.steps, outcome.kept_step, outcome.validation_loss) == (8, 8, 8, None)
    assert again == lines
    for one, other in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_checkpoint_that_was_not_written_to_its_end_does_not_count(config, tmp_path):
    fit(config, tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    assert directory.last_checkpoint().name == "checkpoint-8"
    (directory.checkpoints / "checkpoint-8" / "complete").unlink()
    assert directory.last_checkpoint().name == "checkpoint-6"


def test_only_the_newest_checkpoints_stay(config, tmp_path):
    config.trainer.checkpoint_steps, config.trainer.checkpoint_limit = 1, 2
    fit(config, tmp_path / "run")
    names = {path.name for path in (tmp_path / "run" / "checkpoints").glob("checkpoint-*")}
    assert names == {"checkpoint-7", "checkpoint-8"}


def test_early_stopping_keeps_the_best_adapter(config, tmp_path):
    # A rate that first helps and then harms: the evaluations get worse before max_steps.
    config.optimizer.lr, config.optimizer.schedule = 1.5, Schedule.constant
    config.trainer.max_steps = 40
    config.trainer.eval_steps = config.trainer.checkpoint_steps = 1
    config.trainer.early_stopping_patience = 2
    outcome, model, lines = fit(config, tmp_path / "run")
    measured = [line["validation/loss"] for line in lines if "validation/loss" in line]
    assert outcome.step < 40 and min(measured) < measured[-1]
    assert outcome.kept_step == measured.index(min(measured)) + 1
    assert outcome.validation_loss == min(measured)
    assert held_out_loss(model, rows(SENTENCES[:4]), 4, 0, Precision.fp32) == pytest.approx(min(measured), abs=1e-6)
    resumed, again, _ = fit(config, tmp_path / "run")
    assert (resumed.step, resumed.kept_step) == (outcome.step, outcome.kept_step)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_loss_that_is_no_number_ends_the_training_with_its_step(config, tmp_path):
    model = fresh_model(config)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name).fill_(float("nan"))
    with pytest.raises(DivergenceError, match="was nan at step 1"):
        fit(config, tmp_path / "run", model=model)


def test_checkpoints_hold_the_adapter_alone(config, tmp_path):
    fit(config, tmp_path / "run")
    weights = load_peft_weights(str(RunDirectory(tmp_path / "run").last_checkpoint()))
    assert weights and all("lora_" in name for name in weights)


def test_rows_laid_end_to_end_train_as_padded_ones(config, tmp_path):
    # FlashAttention is told where a row ends as the mask that keeps rows apart here is: by their positions.
    config = replace(config, lora=replace(config.lora, dropout=0.0))
    padded, _, expected = fit(config, tmp_path / "padded")
    joined, _, found = fit(config, tmp_path / "joined", kernels=replace(PLAIN, padding_free=Choice(True, "")))
    assert joined.meter.tokens == padded.meter.tokens
    for (step, key, loss), (*at, other) in zip(losses(found), losses(expected), strict=True):
        assert (step, key) == tuple(at) and loss == pytest.approx(other, abs=2e-4)


def test_adapter_on_quantised_weights_is_trained_in_float32(config, tmp_path):
    model = fresh_model(config)
    model.get_base_model().is_loaded_in_8bit = True  # as TRL and PEFT tell; 4 bits want bitsandbytes
    _, trained, lines = fit(config, tmp_path / "marked", model=model)
    assert {p.dtype for p in trained.parameters() if p.requires_grad} == {torch.float32}
    _, _, expected = fit(config, tmp_path / "plain")
    assert losses(lines) == losses(expected)
