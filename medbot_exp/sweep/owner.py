"""Who works at a trial: a process, and whether it still lives.

A number alone does not name a process: it is given again to another, and means something else on another host or in
another container. Hosts whose processes cannot be looked at are known by their beats, counters in the storage.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

# Owners beat this often; one elsewhere that did not for the second is dead.
BEAT_SECONDS = 10.0
STALE_SECONDS = 90.0


@dataclass(frozen=True)
class Owner:
    """A process.

    Attributes:
        place: where its number means something: host, boot, and the namespace of process numbers.
        started: when it began, in the kernel's own count: wall clocks jump.
    """

    place: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> "Owner":
        """The process that asks."""
        return cls(place(), os.getpid(), started(os.getpid()) or "")

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Owner":
        """The owner that `content` was made of."""
        return cls(**content)

    def content(self) -> dict[str, Any]:
        """This owner as JSON."""
        return asdict(self)

    def lives(self) -> bool | None:
        """Whether the process runs; None where it cannot be seen from here."""
        return started(self.pid) == self.started if self.place == place() else None

    def seconds(self) -> float | None:
        """How long the process has run, by the kernel's clock; None where it does not run, or cannot be seen."""
        if not self.lives() or "." in self.started:
            return None
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - int(self.started) / os.sysconf("SC_CLK_TCK")


@cache
def place() -> str:
    """Host, boot and process namespace of this process."""
    parts = [socket.gethostname()]
    try:
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    except OSError:
        parts.append("no /proc")
    return " ".join(parts)


def started(pid: int) -> str | None:
    """When process `pid` began; None where there is none, or where it ended and waits to be collected."""
    try:
        # The name, which may hold anything, stands in parentheses: behind the last one are fields 3 and following.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else started_elsewhere(pid)
    return None if fields[0] in "ZXx" else fields[19]


def started_elsewhere(pid: int) -> str | None:
    """`started` where there is no /proc."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None


@contextmanager
def beating(beat: Callable[[int], None]) -> Iterator[None]:
    """Call `beat` with a count every BEAT_SECONDS, in a thread, while the body runs. It must not raise."""
    over = threading.Event()

    def work() -> None:
        count = 0
        while not over.wait(BEAT_SECONDS):
            count += 1
            beat(count)

    thread = threading.Thread(target=work, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=1)


class Watch:
    """How long counters have stood still, by this process's own clock: those of other hosts may be wrong."""

    def __init__(self) -> None:
        self.seen: dict[Any, tuple[Any, float]] = {}

    def still(self, name: Any, value: Any) -> float:
        """Seconds for which the counter `name` was seen at `value`."""
        now = time.monotonic()
        if name not in self.seen or self.seen[name][0] != value:
            self.seen[name] = (value, now)
        return now - self.seen[name][1]
