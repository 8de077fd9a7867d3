"""What a model is asked before and after training, and where its answers go."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medbot_exp.config import LoraConfig, LoraInit, Precision, PromptConfig, TrainerConfig
from medbot_exp.data.example import Example
from medbot_exp.data.prepare import TokenizedRows
from medbot_exp.errors import DivergenceError
from medbot_exp.evaluation.examine import Candidate, examine, plain
from medbot_exp.evaluation.generate import Budget, write_replies
from medbot_exp.evaluation.metrics import paper_metrics
from medbot_exp.evaluation.paper import Paper
from medbot_exp.evaluation.prediction import Prediction
from medbot_exp.evaluation.score import held_out_loss, held_out_metrics
from medbot_exp.evaluation.statistics import compare
from medbot_exp.lora import digest
from medbot_exp.processes import Processes
from medbot_exp.prompt import prompt_tokens, render
from medbot_exp.rundir import base_of
from medbot_exp.tracking.record import Record


@dataclass(frozen=True)
class Examiner:
    """Puts papers to a run's model, base or tuned, and keeps what it answers; several processes answer together.

    Attributes:
        shots: worked examples that the run's prompt puts in front of every question.
        lora: of the adapter.
        weights: the identity of the base model, and of what computes with it.
        given_away: by metric, ids of items that a row gives away which is trained on.
    """

    tokenizer: Any
    prompt: PromptConfig
    shots: Sequence[Example]
    lora: LoraConfig
    weights: Mapping[str, Any]
    precision: Precision
    cache_dir: Path
    given_away: Mapping[str, frozenset[str]]
    record: Record
    processes: Processes

    def base(self, model: Any, paper: Paper, fresh: bool) -> dict[str, float]:
        """The metrics of the base model; its predictions go to predictions/<metric>-base.jsonl.

        Args:
            model: the base model, with a `fresh` adapter or without one.
        """
        # A fresh adapter adds nothing, but for the initialisations that take it out of the base weights first.
        as_base = not fresh or (self.lora.init in (LoraInit.default, LoraInit.gaussian) and not self.lora.dora)
        predictions, seconds = self.ask(model, paper, None if as_base else {"fresh": plain(asdict(self.lora))})
        self.keep(base_of(paper.metric), predictions)
        return paper_metrics(paper, predictions, seconds, self.given_away.get(paper.metric, frozenset()))

    def tuned(self, model: Any, paper: Paper) -> dict[str, float]:
        """The metrics of `model` with its trained adapter; its predictions go to predictions/<metric>.jsonl."""
        adapter = {"weights": digest(model), "lora": plain(asdict(self.lora))}
        predictions, seconds = self.ask(model, paper, adapter)
        self.keep(paper.metric, predictions)
        return paper_metrics(paper, predictions, seconds, self.given_away.get(paper.metric, frozenset()))

    def ask(self, model: Any, paper: Paper, adapter: Mapping[str, Any] | None) -> tuple[list[Prediction], float]:
        """What `model` answers, and the seconds that this took."""
        identity = {**self.weights, "adapter": adapter}
        candidate = Candidate(model, self.tokenizer, self.prompt, self.shots, self.precision, identity)
        return examine(candidate, paper, self.cache_dir, self.processes)

    def keep(self, name: str, predictions: Sequence[Prediction]) -> None:
        """Write `predictions` into the run's record."""
        self.record.write_predictions(name, [prediction.row() for prediction in predictions])

    def against_base(self, paper: Paper) -> dict[str, Any]:
        """What the record's answers of the tuned and of the base model to `paper` come to, as compared."""
        base, tuned = (
            [Prediction(**row).answered() for row in self.record.predictions(name)]
            for name in (base_of(paper.metric), paper.metric)
        )
        return asdict(compare(base, tuned))


@dataclass(frozen=True)
class Exam:
    """The same questions, whenever they are asked; where there are several processes, all of them ask.

    Attributes:
        held_out: tokenised rows for the loss.
        papers: of the benchmarks; empty where none were asked for.
        sampled: questions to answer in writing.
    """

    examiner: Examiner
    trainer: TrainerConfig
    held_out: TokenizedRows
    papers: Sequence[Paper]
    sampled: Sequence[Example]

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
            remedy = "lower optimizer.lr" if phase == "after" else "try model.dtype=float32 trainer.precision=fp32"
            raise DivergenceError(f"the held-out loss must be finite, but was {loss} {phase} training; {remedy}")
        metrics = held_out_metrics(loss)
        for paper in self.papers:
            if phase == "before":
                metrics |= self.examiner.base(model, paper, fresh=True)
            else:
                metrics |= self.examiner.tuned(model, paper)
        return metrics

    def against_base(self) -> dict[str, Any]:
        """By metric, whether training made a difference."""
        return {paper.metric: self.examiner.against_base(paper) for paper in self.papers}

    def write(self, model: Any, phase: str) -> list[dict[str, Any]]:
        """The rows of predictions/samples.jsonl, with the written answers of `model` as it is under `phase`."""
        examiner = self.examiner
        prompt = examiner.prompt
        thinking = self.trainer.sample_thinking_tokens if prompt.reasoning else 0
        answers = write_replies(
            model,
            examiner.tokenizer,
            [self.question_tokens(example) for example in self.sampled],
            [prompt.reasoning] * len(self.sampled),
            Budget(thinking, self.trainer.sample_answer_tokens),
            examiner.precision,
        )
        known = {row["id"]: row for row in examiner.record.predictions("samples")}
        rows = []
        for example, answer in zip(self.sampled, answers, strict=True):
            row = known.get(example.id, {"id": example.id, "question": example.question, "reference": example.answer})
            rows.append(row | {phase: answer.text, f"{phase}_forced": answer.forced, f"{phase}_ended": answer.ended})
        examiner.record.write_predictions("samples", rows)
        return rows

    def question_tokens(self, example: Example) -> list[int]:
        """The question of `example` as the run's own prompt puts it."""
        examiner = self.examiner
        rendered = render(example, examiner.shots, examiner.prompt, examiner.tokenizer)
        return prompt_tokens(rendered.prompt, examiner.prompt, examiner.tokenizer)
