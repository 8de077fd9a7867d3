"""One clinical question with everything that is known about it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Example:
    """A row, whatever file it came from.

    Attributes:
        id: unique within its source, and the same each time the source is read.
        reasoning: empty where the source has none.
        options: the choices of a multiple-choice question, else empty.
        label: index of the right option, counted from 0; None without options.
    """

    id: str
    question: str
    reasoning: str
    answer: str
    options: tuple[str, ...] = ()
    label: int | None = None


@dataclass(frozen=True)
class Split:
    """Rows to train on and rows held out; no id is in both."""

    train: list[Example]
    validation: list[Example]


def normalised(question: str) -> str:
    """`question` without its case and spacing: two that differ in nothing else are the same."""
    return " ".join(question.split()).lower()


def fingerprint(examples: Sequence[Example]) -> str:
    """sha256 of the rows in their order, as 64 hex digits."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(asdict(example), sort_keys=True).encode())
    return digest.hexdigest()
