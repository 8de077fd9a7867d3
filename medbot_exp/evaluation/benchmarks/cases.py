"""The bundled held-out cases: 45 of 180, three of each of 15 specialties, never trained on by default.

Address: medbot_exp/data/bundled/clinical_cases.jsonl, rows with split=validation. Licence: Apache-2.0.
One row: {"id": "cardiology-03", "specialty": "cardiology", "split": "validation", "question": "A …",
"reasoning": "…", "answer": "…", "options": {"A": "…", "B": "…", "C": "…", "D": "…"}, "label": "B", "basis": "…"}
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medbot_exp.config import BenchmarkConfig, Precision, PromptConfig
from medbot_exp.data.example import Example
from medbot_exp.data.sources import BUNDLED, choices, read_file
from medbot_exp.evaluation.score import choice_log_likelihoods
from medbot_exp.prompt import answer_tokens, prompt_tokens, render

FILE = "clinical_cases.jsonl"


@dataclass(frozen=True)
class Prediction:
    """One item, answered.

    Attributes:
        log_likelihoods: per option, nats per UTF-8 byte of its text.
        choice: index of the likeliest option.
    """

    id: str
    log_likelihoods: list[float]
    choice: int
    label: int
    correct: bool


def load(benchmark: BenchmarkConfig) -> list[Example]:
    """The held-out cases, the first `benchmark.limit` of them; specialties take turns, so a part has all of them."""
    items = []
    seen: Counter[str] = Counter()
    for row in read_file(BUNDLED / FILE):
        if row["split"] == "validation":
            options, label = choices(row, "options", "label", row["id"])
            item = Example(row["id"], row["question"], row["reasoning"], row["answer"], options, label)
            items.append((seen[row["specialty"]], row["specialty"], item))
            seen[row["specialty"]] += 1
    return [item for _, _, item in sorted(items, key=lambda entry: entry[:2])][: benchmark.limit]


def predict(
    model: Any,
    tokenizer: Any,
    items: Sequence[Example],
    shots: Sequence[Example],
    prompt: PromptConfig,
    precision: Precision,
) -> list[Prediction]:
    """The likeliest option of each item, asked with the run's own prompt at the place of the answer.

    An option's log-likelihood is divided by its length in bytes, as lm-evaluation-harness does for its
    `acc_norm`: a sum would favour short options, a mean over tokens the tokenizer's favourites.
    """
    predictions = []
    for item in items:
        assert item.label is not None
        rendered = render(item, shots, prompt, tokenizer)
        context = prompt_tokens(rendered.prompt, prompt, tokenizer)
        tokens = [answer_tokens(rendered.answer_slot, option, tokenizer) for option in item.options]
        ids, starts = zip(*tokens, strict=True)
        likelihoods = choice_log_likelihoods(model, context, ids, starts, precision)
        scores = [value / len(option.encode()) for value, option in zip(likelihoods, item.options, strict=True)]
        choice = max(range(len(scores)), key=scores.__getitem__)
        predictions.append(Prediction(item.id, scores, choice, item.label, choice == item.label))
    return predictions


def accuracy(predictions: Sequence[Prediction]) -> float:
    """Share of items answered right, 0 to 1."""
    return sum(prediction.correct for prediction in predictions) / len(predictions)
