"""The ledger of a case: one line for every intent and outcome, appended by whichever process has it.

Lines are written with O_APPEND in one call, so a kill leaves whole lines. Times are CLOCK_MONOTONIC, which all
processes of a host share.
"""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Where the ledger is: processes inherit it, which also tells whose they are.
VARIABLE = "FAULTS_LEDGER"


@dataclass(frozen=True)
class Event:
    """A line.

    Attributes:
        kind: begin, report, end (of a trial); start, kill, left (of a command).
        seconds: when, on the host's monotonic clock.
    """

    kind: str
    seconds: float
    pid: int
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The trial that it is about."""
        return int(self.fields["number"])


def note(kind: str, path: Path | None = None, **fields: Any) -> None:
    """Append a line; where no ledger is meant, do nothing."""
    where = path or os.environ.get(VARIABLE)
    if where is None:
        return
    line = json.dumps({"kind": kind, "seconds": time.monotonic(), "pid": os.getpid(), **fields}) + "\n"
    file = os.open(where, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def read(path: Path) -> list[Event]:
    """All lines so far."""
    if not path.is_file():
        return []
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [Event(line.pop("kind"), line.pop("seconds"), line.pop("pid"), line) for line in found]
