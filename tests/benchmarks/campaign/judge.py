"""What must hold once a study has recovered: the same for every contestant."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from campaign.ledger import Event

# From the start of a repeated command, or from the death of a trial whose controller lives, to the next progress: the
# next trial begins, or the command is done.
RECOVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Row:
    """A trial as its study has it.

    Attributes:
        retry_of: the number of the trial whose parameters it tries again.
    """

    number: int
    state: str
    value: float | None
    retry_of: int | None


@dataclass(frozen=True)
class Violation:
    """An invariant that did not hold; `kind` is what tables count."""

    kind: str
    text: str


def judge(
    rows: Sequence[Row], events: Sequence[Event], planned: int, seen: Mapping[int, float], results: Mapping[int, float]
) -> list[Violation]:
    """Every invariant that the end of a study breaks.

    Args:
        planned: how many trials the study was to have.
        seen: values by number of the trials that the study called complete at some time before.
        results: values by number that trials left complete in their own directory.
    """
    return [
        *numbering(rows),
        *completeness(rows, planned),
        *keeping(rows, {**results, **seen}),
        *agreement(rows, events),
        *separation(events),
    ]


def numbering(rows: Sequence[Row]) -> list[Violation]:
    """Numbers go from 0 without a gap."""
    numbers = [row.number for row in rows]
    return [] if numbers == list(range(len(rows))) else [Violation("gap", f"the numbers are {numbers}")]


def completeness(rows: Sequence[Row], planned: int) -> list[Violation]:
    """As many trials are finished as were planned, and none is left open."""
    open_ones = [Violation("left open", f"trial {r.number} is {r.state}") for r in rows if r.state in OPEN]
    again = {row.retry_of for row in rows}
    complete = sum(row.state == "COMPLETE" for row in rows if row.number not in again)
    if complete != planned:
        kind = "too many" if complete > planned else "too few"
        states = ", ".join(f"{row.number} {row.state}" for row in rows)
        open_ones.append(Violation(kind, f"{complete} trials are complete, {planned} were planned: {states}"))
    return open_ones


OPEN = ("RUNNING", "WAITING")


def keeping(rows: Sequence[Row], finished: Mapping[int, float]) -> list[Violation]:
    """A result that was there stays as it was, and its trial is not run again."""
    by_number = {row.number: row for row in rows}
    found = []
    for number, value in finished.items():
        row = by_number.get(number)
        if row is None or row.state != "COMPLETE" or row.value != value:
            found.append(Violation("result lost", f"trial {number} was complete with {value}, and is {row}"))
    for row in rows:
        if row.retry_of is not None and by_number[row.retry_of].state == "COMPLETE":
            found.append(Violation("run again", f"trial {row.number} tries the complete trial {row.retry_of} again"))
    return found


def agreement(rows: Sequence[Row], events: Sequence[Event]) -> list[Violation]:
    """Each number has one result, that of the process that ran it."""
    ends: dict[int, list[float]] = defaultdict(list)
    for event in events:
        if event.kind == "end":
            ends[event.number].append(event.fields["value"])
    found = [
        Violation("two results", f"trial {n} ended with {values}") for n, values in ends.items() if len(values) > 1
    ]
    for row in rows:
        if row.state == "COMPLETE" and row.value not in ends[row.number]:
            found.append(Violation("wrong result", f"trial {row.number} has {row.value}, it ended {ends[row.number]}"))
    return found


def separation(events: Sequence[Event]) -> list[Violation]:
    """No directory is written by two processes, no number is run twice, and each has one run id of its own."""
    found = []
    for key, of_what in (("directory", "directory written twice"), ("number", "run twice"), ("run_id", "run id")):
        begun: dict[Any, list[tuple[int, int]]] = defaultdict(list)
        for event in events:
            if event.kind == "begin" and key in event.fields:
                begun[event.fields[key]].append((event.number, event.pid))
        found += [Violation(of_what, f"{key} {n}: (trial, pid) {by}") for n, by in begun.items() if len(by) > 1]
    return found


def recoveries(events: Sequence[Event]) -> list[float]:
    """Seconds from each repeated command, and from each kill of trials alone, to the next progress.

    Progress is a trial that begins, or a command that is done with status 0. What was killed again before it came so
    far is not counted.
    """
    found = []
    since: float | None = None
    for event in sorted(events, key=lambda event: event.seconds):
        repeated = event.kind == "start" and event.fields["repeated"]
        killed_alone = event.kind == "kill" and event.fields["target"] == "trial" and since is None
        if repeated or killed_alone:
            since = event.seconds
        elif event.kind == "kill" and event.fields["target"] != "trial":
            since = None
        elif since is not None and (event.kind == "begin" or (event.kind == "left" and event.fields["status"] == 0)):
            found.append(event.seconds - since)
            since = None
    return found
