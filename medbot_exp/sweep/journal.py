"""A study's file for network file systems: one JSON record a line, mended where a crash cut its last record."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from medbot_exp.errors import StorageError
from medbot_exp.sweep.patience import held_file

log = logging.getLogger(__name__)


class Journal:
    """A file of JSON records, one a line, for optuna.storages.JournalStorage: the same format as Optuna's own.

    Optuna's JournalFileBackend leaves a study unusable after a torn record and waits 30 s for a dead holder's lock;
    this one cuts what was torn and leaves it to the kernel to free the lock. A record is acknowledged once it is on
    the disk. Pickles as its path and a position.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # The number of a record and where it starts: reading goes on from the last place that was asked for.
        self.place = (0, 0)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Every record from number `log_number_from` on; a last one that is still being written is left out.

        Raises:
            StorageError: a record that has others behind it is damaged.
        """
        if log_number_from < self.place[0]:
            self.place = (0, 0)
        number, offset = self.place
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < offset:
                raise StorageError(
                    f"{self.path} must only grow, but it is shorter than when it was last read; "
                    "end the processes that use it and type the same again"
                )
            file.seek(offset)
            *lines, _unfinished = file.read().split(b"\n")
        skipped, wanted = lines[: log_number_from - number], lines[log_number_from - number :]
        records = []
        for position, line in enumerate(wanted):
            record = parsed(line)
            if record is None and position == len(wanted) - 1:
                break
            if record is None:
                raise damaged(self.path, log_number_from + position + 1)
            records.append(record)
        self.place = (number + len(skipped), offset + sum(len(line) + 1 for line in skipped))
        return records

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write `logs` through to the disk, all of them or none.

        Raises:
            OSError: they could not be written; the journal is as it was.
            StorageError: the journal is locked.
        """
        text = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in logs).encode()
        with held_file(Path(f"{self.path}.write.lock"), self.path):
            # Opened under the lock: that is when a network file system looks for what other hosts wrote.
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                size = self._cut(file)
                try:
                    written = 0
                    while written < len(text):
                        written += os.write(file, text[written:])
                    os.fsync(file)
                except BaseException:
                    os.ftruncate(file, size)
                    raise
            finally:
                os.close(file)

    def mend(self) -> None:
        """Make the file where there is none, and cut off a last record that a crash or a full disk left torn.

        Raises:
            StorageError: the record before it is damaged as well, or the journal is locked.
        """
        with held_file(Path(f"{self.path}.write.lock"), self.path):
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._cut(file)
            finally:
                os.close(file)

    def _cut(self, file: int) -> int:
        """The size of the journal behind its last sound record, which is where it ends now."""
        size = os.fstat(file).st_size
        last = last_line(file, size)
        if size == 0 or (last.endswith(b"\n") and parsed(last) is not None):
            return size
        sound = size - len(last)
        before = last_line(file, sound)
        if before and parsed(before) is None:
            # Two damaged records are no torn write; cutting one at each opening would eat the journal.
            raise damaged(self.path, os.pread(file, sound, 0).count(b"\n"))
        os.ftruncate(file, sound)
        os.fsync(file)
        log.warning(
            "%s ended in a record that was not written to its end: its %d bytes are cut off, %r is lost",
            self.path,
            len(last),
            last[:80].decode(errors="replace"),
        )
        return sound


def parsed(line: bytes) -> dict[str, Any] | None:
    """The record in a line of a journal; None where there is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def damaged(path: Path, number: int) -> StorageError:
    """The error for a record that cannot be read though others follow it."""
    return StorageError(
        f"each line of {path} must hold one JSON record, but line {number} does not\n"
        "Something else wrote into it: put its last good copy in its place, or take that line out (what it said is "
        "lost), or start a new study under another name"
    )


def last_line(file: int, end: int) -> bytes:
    """The last line of the first `end` bytes of `file`, with its newline where it has one."""
    start, tail = end, b""
    while start > 0 and b"\n" not in tail[:-1]:
        start = max(0, start - 65536)
        tail = os.pread(file, end - start, start)
    return tail[tail.rfind(b"\n", 0, -1) + 1 :]
