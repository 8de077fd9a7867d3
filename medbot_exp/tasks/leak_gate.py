"""The gate between rows and benchmarks: no row that gives away an item is trained on, or chosen by, unseen.

Held-out rows choose: the step that is kept, the trial that is pruned, under objective=loss the winner. So what holds of
training rows holds of them, as to tests; what a run is chosen by anyhow, its development parts, they may give away.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from medbot_exp.config import OnLeak, RunConfig
from medbot_exp.data.example import Example, Split
from medbot_exp.data.leaks import Asked, Audit, audit
from medbot_exp.errors import DataError
from medbot_exp.evaluation.item import Item
from medbot_exp.evaluation.order import published_id
from medbot_exp.evaluation.paper import Paper
from medbot_exp.objectives import is_developed

log = logging.getLogger(__name__)

SHOWN = 3  # leaks that a message names


@dataclass(frozen=True)
class Passed:
    """What came through the gate.

    Attributes:
        split: rows to train on and rows held out, those taken out that had to be.
        audit: what was looked for and found among the training rows.
        held_out: likewise among those held out.
        worked: likewise among the benchmarks' worked examples.
        policy: what became of it.
    """

    split: Split
    audit: Audit
    held_out: Audit
    worked: Audit
    policy: OnLeak

    def dropped(self) -> int:
        """How many rows are not trained on."""
        return self.audit.rows - len(self.split.train)

    def given_away(self, papers: Sequence[Paper]) -> dict[str, frozenset[str]]:
        """By metric, the ids of items of `papers` that what is used all the same gives away."""
        used = [self.worked, *([self.audit, self.held_out] if self.policy is OnLeak.report else [])]
        found = {(leak.benchmark, leak.item) for each in used for leak in each.leaks}
        return {
            paper.metric: frozenset(item for item in ids_of(paper) if (paper.metric, item) in found) for paper in papers
        }

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
            "held_out": {
                "rows": self.held_out.rows,
                "dropped": self.held_out.rows - len(self.split.validation),
                "leaked": self.held_out.leaked_items(),
            },
            "worked": {"rows": self.worked.rows, "leaked": self.worked.leaked_items()},
        }

    def rows(self) -> list[dict[str, Any]]:
        """The leaks as lines of leaks.jsonl."""
        parts = (("train", self.audit), ("validation", self.held_out), ("worked", self.worked))
        return [
            {
                "part": part,
                "row": leak.row,
                "benchmark": leak.benchmark,
                "item": leak.item,
                "kind": leak.kind.value,
                "share": round(leak.share, 4),
            }
            for part, found in parts
            for leak in found.leaks
        ]


def unseen(config: RunConfig, tests: Sequence[Paper]) -> frozenset[str]:
    """The metrics of those `tests` that held-out rows must not give away.

    The held-out part of the bundled cases is what the benchmark `cases` asks: it is a test of runs that are chosen by
    cases set apart, and of others another look at their held-out rows.
    """
    bundled = config.data.path is None and config.data.bundled is not None
    held_out = {"cases"} if bundled and "cases" in config.benchmark and not is_developed(config, "cases") else set()
    return frozenset(paper.metric for paper in tests if paper.name not in held_out)


def pass_gate(split: Split, papers: Sequence[Paper], policy: OnLeak, unseen: Collection[str]) -> Passed:
    """`split` as `policy` lets it be trained on and chosen by, where `papers` are asked later.

    Args:
        unseen: metrics of the papers whose items held-out rows must not give away.

    Raises:
        DataError: a row gives away an item, and `policy` is error; or no row is left.
    """
    sought = [asked for paper in papers for asked in asked_of(paper)]
    found = audit([*split.train, *(split.validation if unseen else ())], sought)
    trained = found.about(split.train, [paper.metric for paper in papers])
    held_out = found.about(split.validation, unseen)
    worked = worked_audit(papers)
    if worked.leaks and policy is OnLeak.error:
        raise DataError(
            f"no worked example may give away an item of a benchmark, but {told_of(worked)}; draw others with "
            "benchmark.<name>.seed, or show them all the same with data.on_leak=drop, which scores the other items "
            "apart"
        )
    kept = Split(
        let_through(split.train, trained, policy, "training", "train on"),
        let_through(split.validation, held_out, policy, "held-out", "choose by"),
    )
    return Passed(kept, trained, held_out, worked, policy)


def let_through(rows: Sequence[Example], found: Audit, policy: OnLeak, part: str, use: str) -> list[Example]:
    """Those of `rows` that `policy` lets be used.

    Args:
        part: what they are called, and `use` what is done with them.

    Raises:
        DataError: one gives away an item, and `policy` is error; or no row is left.
    """
    leaking = {leak.row for leak in found.leaks}
    kept = [row for row in rows if policy is OnLeak.report or row.id not in leaking]
    if not leaking:
        return kept
    told = told_of(found)
    if policy is OnLeak.error or not kept:
        others = "drop them with data.on_leak=drop, or " if kept else "take other rows, or "
        raise DataError(
            f"no {part} row may give away an item of a benchmark, but {told}; {others}{use} them all the same "
            "with data.on_leak=report, which scores the other items apart"
        )
    done = "kept all the same" if policy is OnLeak.report else "dropped"
    log.warning("%s rows that give away an item of a benchmark: %s; %s (leaks.jsonl)", part, told, done)
    return kept


def worked_audit(papers: Sequence[Paper]) -> Audit:
    """What the worked examples of `papers` give away of what they are shown in front of; the log tells of it."""
    audits = [
        audit([Example(item.id, item.question, "", "", tuple(item.options.values())) for item in paper.worked], sought)
        for paper in papers
        if paper.worked and (sought := list(asked_of(paper)))
    ]
    items = {name: count for each in audits for name, count in each.items.items()}
    found = Audit(sum(each.rows for each in audits), items, [leak for each in audits for leak in each.leaks])
    if found.leaks:
        log.warning("worked examples that give away an item of a benchmark: %s; it is scored apart", told_of(found))
    return found


def asked_of(paper: Paper) -> Iterator[Asked]:
    """What gives away the items of `paper`, also those that its limit leaves out, each once whatever its orders."""
    items: dict[str, Item] = {published_id(item.id): item for item in (*paper.items, *paper.others)}
    for name, item in items.items():
        options = tuple(item.options.values())
        yield Asked(paper.metric, name, item.question, options)
        if item.context:
            yield Asked(paper.metric, name, f"{item.context}\n\n{item.question}", options)


def ids_of(paper: Paper) -> set[str]:
    """The ids that the items which `paper` asks were published under."""
    return {published_id(item.id) for item in paper.items}


def told_of(found: Audit) -> str:
    """How many rows give away an item, and the plainest of them."""
    plainest = (
        f"row {leak.row} gives away item {leak.item} of {leak.benchmark}: {leak.kind.value}, {leak.share:.0%}"
        for leak in found.examples(SHOWN)
    )
    return f"{len({leak.row for leak in found.leaks})} of {found.rows} do ({'; '.join(plainest)})"
