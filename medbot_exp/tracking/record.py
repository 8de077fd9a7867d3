"""The record of a run in its own files, and the mirror that gets a copy of every line.

The files are the source: everything that reads runs reads them. The mirror (W&B, or nothing) is for looking.
"""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medbot_exp.rundir import RunDirectory
from medbot_exp.whole_files import read_jsonl, write_json, write_jsonl

log = logging.getLogger(__name__)


class Mirror:
    """Where copies go: this one drops them (tracking=none)."""

    description: str | None = None  # where a person finds the copies
    starts_empty = True  # whether a resumed run's earlier lines have to be told again

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one step."""

    def summarize(self, result: Mapping[str, Any]) -> None:
        """Take what result.json holds."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Take a table of texts."""

    def adapter(self, directory: Path) -> None:
        """Take the trained adapter."""

    def tag(self, name: str) -> None:
        """Take a label that runs are filtered by."""

    def finish(self, exit_code: int) -> None:
        """Close with the run's exit code, 130 for a stopped one; nothing is taken afterwards."""


class Record:
    """metrics.jsonl, predictions/ and result.json of one run."""

    def __init__(self, directory: RunDirectory, mirror: Mirror):
        self.directory = directory
        self.mirror = mirror

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append `metrics` of optimizer step `step`, one JSON line, handed to the system before this returns."""
        with self.directory.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **finite(metrics)}) + "\n")
        self.tell(lambda mirror: mirror.log(step, metrics))

    def tell(self, action: Callable[[Mirror], None]) -> None:
        """Let the mirror take something. One that fails is told of once and given up: the files go on."""
        try:
            action(self.mirror)
        except Exception as error:  # a mirror is somebody else's service: it may fail in any way
            log.warning("the mirror is given up, the files go on: %s: %s", type(error).__name__, error)
            self.mirror = Mirror()

    def rewind(self, step: int) -> None:
        """Forget lines after `step`: a resumed run writes them again."""
        write_jsonl(self.directory.metrics, [row for row in self.lines() if row["step"] <= step])

    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl so far."""
        return read_jsonl(self.directory.metrics)

    def known(self, step: int) -> dict[str, Any]:
        """All metrics that were logged for `step`, in one dict."""
        merged: dict[str, Any] = {}
        for row in self.lines():
            if row["step"] == step:
                merged |= row
        merged.pop("step", None)
        return merged

    def predictions(self, benchmark: str) -> list[dict[str, Any]]:
        """The items of `benchmark` that were answered so far."""
        return read_jsonl(self.directory.predictions(benchmark))

    def write_predictions(self, benchmark: str, rows: list[dict[str, Any]]) -> None:
        """Put `rows` in the place of the answers to `benchmark`."""
        write_jsonl(self.directory.predictions(benchmark), rows)

    def leaks(self) -> list[dict[str, Any]]:
        """The training rows that give away items."""
        return read_jsonl(self.directory.leaks)

    def write_leaks(self, rows: list[dict[str, Any]]) -> None:
        """Put `rows`, the training rows that give away items, into leaks.jsonl."""
        write_jsonl(self.directory.leaks, rows)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write result.json: from here on the run has ended."""
        write_json(self.directory.result, finite(result))


class NoRecord(Record):
    """What a process has that leaves the record to another: nothing is written, and nothing was."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Drop the metrics."""

    def rewind(self, step: int) -> None:
        """Forget nothing."""

    def lines(self) -> list[dict[str, Any]]:
        """No lines."""
        return []

    def predictions(self, benchmark: str) -> list[dict[str, Any]]:
        """No answers."""
        return []

    def write_predictions(self, benchmark: str, rows: list[dict[str, Any]]) -> None:
        """Drop the answers."""

    def write_leaks(self, rows: list[dict[str, Any]]) -> None:
        """Drop the leaks."""

    def finish(self, result: Mapping[str, Any]) -> None:
        """Drop the result."""


def finite(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with NaN and infinite numbers as text, at any depth: JSON has no other way to hold them."""
    return {
        key: finite(value)
        if isinstance(value, Mapping)
        else str(value)
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for key, value in content.items()
    }
