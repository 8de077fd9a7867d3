"""What a model is asked before and after training, and where its answers go."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medbot_exp.config import LoraConfig, Precision, PromptConfig, TrainerConfig
from medbot_exp.data.example import Example
from medbot_exp.data.prepare import TokenizedRows
from medbot_exp.errors import DivergenceError
from medbot_exp.evaluation.examine import Candidate, examine, plain
from medbot_exp.evaluation.generate import Budget, Transformers, Writer, write_replies
from medbot_exp.evaluation.metrics import paper_metrics
from medbot_exp.evaluation.paper import Paper
from medbot_exp.evaluation.prediction import Prediction
from medbot_exp.evaluation.score import held_out_loss, held_out_metrics, in_float32
from medbot_exp.evaluation.statistics import compare
from medbot_exp.lora import adds_to_base
from medbot_exp.processes import Processes
from medbot_exp.prompt import prompt_tokens, render
from medbot_exp.rundir import base_of
from medbot_exp.saved_adapter import digest
from medbot_exp.tracking.record import Record


@dataclass(frozen=True)
class Answers:
    """What a model made of a paper, and what that comes to, as a run records it: eval/<metric>/<name>."""

    predictions: list[Prediction]
    metrics: dict[str, float]

    def rows(self) -> list[dict[str, Any]]:
        """The predictions as JSON objects."""
        return [prediction.row() for prediction in self.predictions]


@dataclass(frozen=True)
class Examiner:
    """Puts papers to a run's model, base or tuned; several processes answer together.

    Attributes:
        shots: worked examples that the run's prompt puts in front of every question.
        lora, seed: of the adapter, and of what a fresh one is drawn from.
        weights: the identity of the base model, and of what computes with it.
        given_away: by metric, ids of items that a row gives away which is trained on.
    """

    tokenizer: Any
    prompt: PromptConfig
    shots: Sequence[Example]
    lora: LoraConfig
    seed: int
    weights: Mapping[str, Any]
    precision: Precision
    cache_dir: Path
    given_away: Mapping[str, frozenset[str]]
    processes: Processes

    def base(self, model: Any, paper: Paper, fresh: bool) -> Answers:
        """What the base `model` answers, with a `fresh` adapter or without one."""
        as_base = not fresh or adds_to_base(self.lora)
        return self.ask(
            self.writer(model), paper, None if as_base else {"fresh": plain(asdict(self.lora)), "seed": self.seed}
        )

    def tuned(self, model: Any, paper: Paper) -> Answers:
        """What `model` answers with its trained adapter."""
        return self.ask(self.writer(model), paper, self.adapter(digest(model)))

    def adapter(self, weights: str) -> dict[str, Any]:
        """The identity of a trained adapter of the digest `weights`."""
        return {"weights": weights, "lora": plain(asdict(self.lora))}

    def writer(self, model: Any) -> Transformers:
        """`model`, which is in memory, as it writes."""
        return Transformers(model, self.tokenizer, self.precision)

    def ask(self, writer: Writer, paper: Paper, adapter: Mapping[str, Any] | None) -> Answers:
        """What `writer` answers, whose adapter has the identity `adapter`."""
        identity = {**self.weights, "precision": self.precision.name, "adapter": adapter}
        candidate = Candidate(writer, self.tokenizer, self.prompt, self.shots, identity)
        predictions, seconds = examine(candidate, paper, self.cache_dir, self.processes)
        given_away = self.given_away.get(paper.metric, frozenset())
        return Answers(predictions, paper_metrics(paper, predictions, seconds, given_away))


def compared(base: Sequence[Prediction], tuned: Sequence[Prediction]) -> dict[str, Any]:
    """What the difference between a base model's and a tuned model's answers to one paper comes to."""
    return asdict(compare([each.answered() for each in base], [each.answered() for each in tuned]))


@dataclass(frozen=True)
class Exam:
    """The same questions, whenever they are asked; where there are several processes, all of them ask.

    Attributes:
        held_out: tokenised rows for the loss.
        papers: of the benchmarks; empty where none were asked for.
        sampled: questions to answer in writing.
        record: gets the answers, to papers in predictions/<metric>.jsonl and predictions/<metric>-base.jsonl.
    """

    examiner: Examiner
    trainer: TrainerConfig
    held_out: TokenizedRows
    papers: Sequence[Paper]
    sampled: Sequence[Example]
    record: Record

    def before(self, model: Any) -> dict[str, float]:
        """Metrics of `model` with its fresh adapter.

        Raises:
            DivergenceError: the loss is no number.
        """
        return self.measure(model, "before", self.loss(model))

    def after(self, model: Any, loss: float | None) -> dict[str, float]:
        """Metrics of the trained `model`.

        Args:
            loss: the held-out loss in nats per token, where it is known already.

        Raises:
            DivergenceError: the loss is no number.
        """
        return self.measure(model, "after", self.loss(model) if loss is None else loss)

    def loss(self, model: Any) -> float:
        """The held-out loss in nats per token."""
        examiner = self.examiner
        batch_size, pad = self.trainer.eval_batch_size, examiner.tokenizer.pad_token_id
        return held_out_loss(model, self.held_out, batch_size, pad, examiner.precision, examiner.processes)

    def measure(self, model: Any, phase: str, loss: float) -> dict[str, float]:
        """The metrics of `model` whose held-out loss is `loss`."""
        if not math.isfinite(loss):
            wider = "try model.dtype=float32 trainer.precision=fp32"
            if in_float32(model, self.examiner.precision):
                wider = "get the weights of the base model again"
            remedy = "lower optimizer.lr" if phase == "after" else wider
            raise DivergenceError(f"the held-out loss must be finite, but was {loss} {phase} training; {remedy}")
        metrics = held_out_metrics(loss)
        for paper in self.papers:
            before = phase == "before"
            answers = self.examiner.base(model, paper, fresh=True) if before else self.examiner.tuned(model, paper)
            self.record.write_predictions(base_of(paper.metric) if before else paper.metric, answers.rows())
            metrics |= answers.metrics
        return metrics

    def against_base(self) -> dict[str, Any]:
        """By metric, whether training made a difference, from the answers in the record."""
        return {
            paper.metric: compared(self.recorded(base_of(paper.metric)), self.recorded(paper.metric))
            for paper in self.papers
        }

    def recorded(self, name: str) -> list[Prediction]:
        """The predictions that the record has under `name`."""
        return [Prediction(**row) for row in self.record.predictions(name)]

    def write(self, model: Any, phase: str) -> list[dict[str, Any]]:
        """The rows of predictions/samples.jsonl, with the written answers of `model` as it is under `phase`."""
        examiner = self.examiner
        prompt = examiner.prompt
        thinking = self.trainer.sample_thinking_tokens if prompt.reasoning else 0
        answers = write_replies(
            examiner.writer(model),
            examiner.tokenizer,
            [self.question_tokens(example) for example in self.sampled],
            [prompt.reasoning] * len(self.sampled),
            Budget(thinking, self.trainer.sample_answer_tokens),
        )
        known = {row["id"]: row for row in self.record.predictions("samples")}
        rows = []
        for example, answer in zip(self.sampled, answers, strict=True):
            row = known.get(example.id, {"id": example.id, "question": example.question, "reference": example.answer})
            rows.append(row | {phase: answer.text, f"{phase}_forced": answer.forced, f"{phase}_ended": answer.ended})
        self.record.write_predictions("samples", rows)
        return rows

    def question_tokens(self, example: Example) -> list[int]:
        """The question of `example` as the run's own prompt puts it."""
        examiner = self.examiner
        rendered = render(example, examiner.shots, examiner.prompt, examiner.tokenizer)
        return prompt_tokens(rendered.prompt, examiner.prompt, examiner.tokenizer)
