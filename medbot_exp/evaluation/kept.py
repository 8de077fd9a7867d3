"""Rows that are computed batch by batch into a file: what is there is not computed again, whatever ended it.

A folder is named by the sha256 of all that the rows depend on. A batch is written by one append, so that at most the
one at work is lost, and the file is, byte for byte, that of an unbroken computation.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from medbot_exp.whole_files import read_jsonl, write_json

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """The folder of one computation.

    Attributes:
        identity: all that its rows depend on.
    """

    directory: Path
    identity: dict[str, Any]

    @classmethod
    def below(cls, cache_dir: Path, identity: dict[str, Any]) -> "Kept":
        """The folder for `identity` below `cache_dir`."""
        return cls(cache_dir / "evaluations" / digest(identity), identity)

    @property
    def rows_file(self) -> Path:
        """One JSON object a row, in the order in which they were computed."""
        return self.directory / "predictions.jsonl"

    @property
    def times_file(self) -> Path:
        """Seconds that each batch took, apart from the rows, as these are the same each time."""
        return self.directory / "seconds.jsonl"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from the folder: one that wants the same rows waits, and finds them."""
        from filelock import FileLock, Timeout

        self.directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.directory / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another process evaluates the same; it is waited for")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def begin(self, sizes: Sequence[int]) -> int:
        """How many of the batches with `sizes` rows are there; a torn one is removed.

        A folder whose identity is another, as no sha256 makes it, is begun anew.
        """
        marker = self.directory / "identity.json"
        if not marker.is_file() or json.loads(marker.read_text(encoding="utf-8")) != self.identity:
            self.rows_file.unlink(missing_ok=True)
            self.times_file.unlink(missing_ok=True)
            write_json(marker, self.identity)
        have, whole, batches = ended_lines(self.rows_file), 0, 0
        for size in sizes:
            if whole + size > have:
                break
            whole, batches = whole + size, batches + 1
        keep_lines(self.rows_file, whole)
        keep_lines(self.times_file, batches)
        return batches

    def add(self, rows: Sequence[Row], seconds: float) -> None:
        """Append the rows of a batch, and what it took."""
        append(self.times_file, json.dumps({"seconds": round(seconds, 3)}) + "\n")
        append(self.rows_file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def rows(self) -> list[Row]:
        """All that is there."""
        return read_jsonl(self.rows_file)

    def seconds(self) -> float:
        """What the rows took, over all processes that computed some."""
        return sum(row["seconds"] for row in read_jsonl(self.times_file))


def computed(kept: Kept, batches: Sequence[Sequence[T]], answer: Callable[[Sequence[T]], list[Row]]) -> None:
    """Have the rows of all `batches` in `kept`: `answer` gives those of a batch that is not there."""
    for number in range(kept.begin([len(batch) for batch in batches]), len(batches)):
        began = time.perf_counter()
        rows = answer(batches[number])
        kept.add(rows, time.perf_counter() - began)


def digest(identity: dict[str, Any]) -> str:
    """sha256 of `identity`, as 64 hex digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def append(path: Path, text: str) -> None:
    """Add `text` to the end of `path`, on the disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def ended_lines(path: Path) -> int:
    """How many lines of `path` were written to their ends."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def keep_lines(path: Path, count: int) -> None:
    """Cut `path` behind its first `count` lines."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        for _ in range(count):
            file.readline()
        file.truncate(file.tell())
