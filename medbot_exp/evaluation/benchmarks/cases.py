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
from medbot_exp.data.sources import BUNDLED, choices, numbered_lines, read_file
from medbot_exp.errors import ConfigError
from medbot_exp.evaluation.item import Item
from medbot_exp.evaluation.rows import Row, distinct
from medbot_exp.evaluation.score import choice_log_likelihoods
from medbot_exp.evaluation.source import Source, asked
from medbot_exp.prompt import answer_tokens, prompt_tokens, render

FILE = "clinical_cases.jsonl"


def read(benchmark: BenchmarkConfig) -> list[Item]:
    """All cases of the part `benchmark.split`; specialties take turns, so the first of them are of all.

    Raises:
        ConfigError: as `rows`.
    """
    return distinct(rows(asked("cases", benchmark)), item)


def rows(source: Source) -> list[Row]:
    """The rows of the part `source.split`: validation is held out, train is what data=clinical_cases trains on.

    Raises:
        ConfigError: a place to read them from is given, or there is no such part.
    """
    if source.path is not None or source.hub is not None:
        raise ConfigError(
            f"the cases are in the package, but got {source.path_key}={source.path} and benchmark.cases.hub="
            f"{source.hub}; leave both null, or choose another benchmark"
        )
    every = [Row(f"{FILE}, line {number}", fields) for number, fields in numbered_lines(BUNDLED / FILE)]
    parts = sorted({row.fields["split"] for row in every})
    if source.split not in parts:
        raise ConfigError(
            f"`{source.split_key}` must be one of {', '.join(parts)}, but got {source.split_key}={source.split}"
        )
    seen: Counter[str] = Counter()
    turns = []
    for row in every:
        if row.fields["split"] == source.split:
            specialty = row.fields["specialty"]
            turns.append((seen[specialty], specialty, row))
            seen[specialty] += 1
    return [row for _, _, row in sorted(turns, key=lambda turn: turn[:2])]


def item(row: Row) -> Item:
    """The case in `row`."""
    fields = row.fields
    return Item(fields["id"], fields["question"], fields["options"], fields["label"], group=fields["specialty"])


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
