"""A multiple-choice question, whichever benchmark it is of."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from medbot_exp.data.example import normalised

TURN = "~"  # stands between an item's id and the number of the turn that it is asked in


@dataclass(frozen=True)
class Item:
    """A question with its options, one of which is right.

    Attributes:
        id: unique within its benchmark, and the same each time it is read.
        context: what is to be read before the question (PubMedQA's abstract); empty where there is nothing.
        options: the text of each by its key, in the order that they are shown in: A, B, C, D, or yes, no, maybe.
        label: the key of the right one.
        group: items of one group (a subject) vary together; None where the item stands alone.
        tags: what is to be told apart in the results: negated, all_of_the_above, same_options, multi.
    """

    id: str
    question: str
    options: dict[str, str]
    label: str
    context: str = ""
    group: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def listed(self) -> str:
        """The options as most prompts show them, a line each: A. Atropine."""
        return "\n".join(f"{key}. {option}" for key, option in self.options.items())

    @property
    def hash(self) -> str:
        """sha256 of what is asked and what is right, as 64 hex digits: the same item in the same order of options."""
        asked = [self.context, self.question, list(self.options.items()), self.label]
        return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()

    @property
    def content_hash(self) -> str:
        """sha256 of question and options, as 16 hex digits: the same under another id, in another file or order."""
        texts = [normalised(self.question), sorted(map(normalised, self.options.values()))]
        return hashlib.sha256(json.dumps(texts, ensure_ascii=False).encode()).hexdigest()[:16]


def fingerprint(items: Sequence[Item]) -> str:
    """sha256 of the items in their order, as 64 hex digits."""
    digest = hashlib.sha256()
    for item in items:
        told = [item.id, item.context, item.question, list(item.options.items()), item.label, item.group, item.tags]
        digest.update(json.dumps(told, ensure_ascii=False).encode())
    return digest.hexdigest()
