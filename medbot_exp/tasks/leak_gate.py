"""The gate between training rows and benchmarks: no row that gives away an item is trained on unseen."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from medbot_exp.config import OnLeak
from medbot_exp.data.example import Split
from medbot_exp.data.leaks import Asked, Audit, audit
from medbot_exp.errors import DataError
from medbot_exp.evaluation.order import published_id
from medbot_exp.evaluation.paper import Paper

log = logging.getLogger(__name__)

SHOWN = 3  # leaks that a message names


@dataclass(frozen=True)
class Passed:
    """What came through the gate.

    Attributes:
        split: rows to train on and rows held out, those taken out that had to be.
        audit: what was looked for and found.
        policy: what became of it.
    """

    split: Split
    audit: Audit
    policy: OnLeak

    def dropped(self) -> int:
        """How many rows are not trained on."""
        return self.audit.rows - len(self.split.train)

    def given_away(self) -> dict[str, frozenset[str]]:
        """By metric, the ids of items that a row gives away which is trained on all the same."""
        return self.audit.given_away() if self.policy is OnLeak.report else {}

    def report(self) -> dict[str, Any]:
        """It as the manifest tells it."""
        kinds, leaked = self.audit.counts(), self.audit.leaked_items()
        return {
            "policy": self.policy.name,
            "rows": self.audit.rows,
            "dropped": self.dropped(),
            "benchmarks": {
                name: {"items": items, "leaked": leaked[name], **kinds[name]}
                for name, items in self.audit.items.items()
            },
        }

    def rows(self) -> list[dict[str, Any]]:
        """The leaks as lines of leaks.jsonl."""
        return [
            {
                "row": leak.row,
                "benchmark": leak.benchmark,
                "item": leak.item,
                "kind": leak.kind.value,
                "share": round(leak.share, 4),
            }
            for leak in self.audit.leaks
        ]


def pass_gate(split: Split, papers: Sequence[Paper], policy: OnLeak) -> Passed:
    """`split` as `policy` lets it be trained on, where `papers` are asked later.

    Raises:
        DataError: a row gives away an item, and `policy` is error; or no row is left.
    """
    found = audit(split.train, [asked for paper in papers for asked in asked_of(paper)])
    leaking = {leak.row for leak in found.leaks}
    kept = [row for row in split.train if policy is OnLeak.report or row.id not in leaking]
    if not leaking:
        return Passed(split, found, policy)
    told = told_of(found)
    if policy is OnLeak.error or not kept:
        others = "drop them with data.on_leak=drop, or " if kept else "take other rows, or "
        raise DataError(
            f"no training row may give away an item of a benchmark, but {told}; {others}train on them all the same "
            "with data.on_leak=report, which scores the other items apart"
        )
    done = "trained on all the same" if policy is OnLeak.report else "dropped"
    log.warning("training rows that give away an item of a benchmark: %s; %s (leaks.jsonl)", told, done)
    return Passed(Split(kept, split.validation), found, policy)


def asked_of(paper: Paper) -> Iterator[Asked]:
    """What gives away the items of `paper`, each once whatever the orders that it is asked in."""
    for item in {published_id(item.id): item for item in paper.items}.values():
        options = tuple(item.options.values())
        yield Asked(paper.metric, published_id(item.id), item.question, options)
        if item.context:
            yield Asked(paper.metric, published_id(item.id), f"{item.context}\n\n{item.question}", options)


def told_of(found: Audit) -> str:
    """How many rows give away an item, and the plainest of them."""
    plainest = (
        f"row {leak.row} gives away item {leak.item} of {leak.benchmark}: {leak.kind.value}, {leak.share:.0%}"
        for leak in found.examples(SHOWN)
    )
    return f"{len({leak.row for leak in found.leaks})} of {found.rows} do ({'; '.join(plainest)})"
