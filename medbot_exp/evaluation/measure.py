"""What a model is asked before and after training, and where its answers go."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medbot_exp.config import Precision, PromptConfig, TrainerConfig
from medbot_exp.data.example import Example
from medbot_exp.data.prepare import TokenizedRows
from medbot_exp.errors import DivergenceError
from medbot_exp.evaluation.benchmarks import cases
from medbot_exp.evaluation.generate import Budget, write_replies
from medbot_exp.evaluation.score import held_out_loss, held_out_metrics
from medbot_exp.processes import Processes
from medbot_exp.prompt import prompt_tokens, render
from medbot_exp.tracking.record import Record


@dataclass(frozen=True)
class Exam:
    """The same questions, whenever they are asked; where there are several processes, all of them ask.

    Attributes:
        shots: worked examples that go in front of every question.
        held_out: tokenised rows for the loss.
        items: multiple-choice questions; empty where none were asked for.
        sampled: questions to answer in writing.
        precision: the arithmetic of the training step, which is that of the exam as well.
    """

    tokenizer: Any
    prompt: PromptConfig
    trainer: TrainerConfig
    shots: Sequence[Example]
    held_out: TokenizedRows
    items: Sequence[Example]
    sampled: Sequence[Example]
    record: Record
    precision: Precision
    processes: Processes

    def measure(self, model: Any, phase: str, loss: float | None = None) -> dict[str, float]:
        """Metrics of `model` as it is; its predictions go to predictions/cases.jsonl as `phase`.

        Args:
            loss: the held-out loss in nats per token, where it is known already.

        Raises:
            DivergenceError: the loss is no number.
        """
        if loss is None:
            batch_size, pad = self.trainer.eval_batch_size, self.tokenizer.pad_token_id
            loss = held_out_loss(model, self.held_out, batch_size, pad, self.precision, self.processes)
        if not math.isfinite(loss):
            remedy = "lower optimizer.lr" if phase == "after" else "try model.dtype=float32 trainer.precision=fp32"
            raise DivergenceError(f"the held-out loss must be finite, but was {loss} {phase} training; {remedy}")
        metrics = held_out_metrics(loss)
        if self.items:
            predictions = cases.predict(model, self.tokenizer, self.items, self.shots, self.prompt, self.precision)
            metrics |= {"eval/cases/accuracy": cases.accuracy(predictions), "eval/cases/n": len(predictions)}
            others = [row for row in self.record.predictions("cases") if row["phase"] != phase]
            answered = [{"phase": phase, **asdict(prediction)} for prediction in predictions]
            self.record.write_predictions("cases", others + answered)
        return metrics

    def write(self, model: Any, phase: str) -> list[dict[str, Any]]:
        """The rows of predictions/samples.jsonl, with the written answers of `model` as it is under `phase`."""
        thinking = self.trainer.sample_thinking_tokens if self.prompt.reasoning else 0
        answers = write_replies(
            model,
            self.tokenizer,
            [self.question_tokens(example) for example in self.sampled],
            [self.prompt.reasoning] * len(self.sampled),
            Budget(thinking, self.trainer.sample_answer_tokens),
            self.precision,
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
        rendered = render(example, self.shots, self.prompt, self.tokenizer)
        return prompt_tokens(rendered.prompt, self.prompt, self.tokenizer)
