"""One study in one directory: its commands, the kills, and the verdict."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from campaign import ledger
from campaign.contestants import Contestant, Setup, complete_now, read_rows
from campaign.judge import Violation, judge, recoveries
from medbot_exp.errors import first_line

# How long what ended its work may take to be gone.
GRACE_SECONDS = 5.0
# A command that takes longer hangs.
COMMAND_SECONDS = 150.0


@dataclass
class Command:
    """A command that was typed."""

    process: subprocess.Popen
    killed: bool = False


@dataclass
class Verdict:
    """What became of a case.

    Attributes:
        name: says how to run it alone.
        recovered: seconds of each recovery.
    """

    name: str
    violations: list[Violation]
    recovered: list[float]
    kills: int
    folder: Path


@dataclass
class Case:
    """A study that is run, killed, repeated and judged.

    Attributes:
        name: unique among the cases of a campaign; says how to run it alone.
        starved: a command may fail now: it has no disk to write to.
    """

    name: str
    contestant: Contestant
    setup: Setup
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    seen: dict[int, float] = field(default_factory=dict)
    kills: int = 0
    typed: int = 0
    starved: bool = False

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.ledger = self.folder / "ledger.jsonl"

    def start(
        self, prefix: Sequence[str] = (), preexec: Callable[[], None] | None = None, more: int = 0, **environment: str
    ) -> None:
        """Type the command, as many times at once as the contestant needs and as do not run yet.

        Args:
            prefix: comes before the command, as `unshare --uts` does.
            preexec: is called in the process before it becomes the command.
            more: how many besides.
        """
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("FAULTS_", "WANDB_"))}
        env = {
            **inherited,
            "OMP_NUM_THREADS": "1",
            ledger.VARIABLE: str(self.ledger),
            **self.environment,
            **environment,
        }
        preparation = self.contestant.preparation(self.setup)
        if preparation is not None:
            subprocess.run(preparation, cwd=self.folder, env=env, capture_output=True, preexec_fn=preexec)
        for _ in range(self.contestant.processes(self.setup) - len(self.alive()) + more):
            ledger.note("start", self.ledger, repeated=self.typed > 0)
            with (self.folder / "output.log").open("ab") as output:
                process = subprocess.Popen(
                    [*prefix, *self.contestant.command(self.setup, self.folder)],
                    cwd=self.folder,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    preexec_fn=preexec,
                )
            self.commands.append(Command(process))
        self.typed += 1

    def alive(self) -> list[Command]:
        """The commands that run; what those left that do not is noted."""
        for command in self.commands:
            status = command.process.poll()
            if status is None:
                continue
            ledger.note("left", self.ledger, status=status)
            if status != 0 and not (command.killed and status == -signal.SIGKILL) and not self.starved:
                self.violations.append(Violation("command failed", f"status {status}: {self.last_words()}"))
        self.commands = [command for command in self.commands if command.process.returncode is None]
        return self.commands

    def last_words(self) -> str:
        """The last error that the commands printed, else their last line."""
        lines = (self.folder / "output.log").read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if "Error: " in line and not line.startswith(" ")]
        return "".join((errors or lines)[-1:])

    def wait(self, seconds: float) -> bool:
        """Whether all commands are done within `seconds`."""
        return self.wait_for(lambda: not self.alive(), seconds)

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether `condition` came to hold within `seconds`."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    def processes(self, role: str | None = None) -> list[int]:
        """The living processes of this case: all, or those of trials, of controllers, of others."""
        return processes_below(self.folder, role)

    def kill(self, target: str) -> int:
        """Send SIGKILL to the controllers, to the trials, or to both; how many processes that were."""
        roles = {"controller": ["controller"], "trial": ["trial"], "both": ["controller", "trial"]}[target]
        pids = [pid for role in roles for pid in self.processes(role)]
        return self.kill_all(target, pids)

    def kill_all(self, target: str, pids: list[int]) -> int:
        """Send SIGKILL to `pids`; how many there were."""
        if not pids:
            return 0
        for command in self.commands:
            command.killed |= command.process.pid in pids
        ledger.note("kill", self.ledger, target=target, pids=pids)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kills += 1
        for command in self.commands:
            if command.killed:
                command.process.wait()
        self.alive()
        self.seen |= complete_now(self.contestant, self.setup, self.folder)
        return len(pids)

    def finish(self, attempts: int = 3) -> None:
        """Type the command until it is done with status 0, and see to it that nothing is left running."""
        for _ in range(attempts):
            before = len(self.violations)
            self.start()
            if not self.wait(COMMAND_SECONDS):
                self.violations.append(Violation("hangs", f"no end within {COMMAND_SECONDS:g} s: {self.last_words()}"))
                self.kill_all("both", self.processes())
            if len(self.violations) == before:
                break
        self.wait_for(lambda: not self.processes(), GRACE_SECONDS)
        left = self.processes()
        if left:
            self.violations.append(Violation("orphan process", f"still there after the end: {left}"))
            self.kill_all("both", left)

    def verdict(self) -> Verdict:
        """The judgement, once the study is finished."""
        events = ledger.read(self.ledger)
        results = self.contestant.results(self.folder)
        try:
            rows = read_rows(self.contestant, self.setup, self.folder)
        except Exception as error:  # whatever a storage makes of its own ruins
            found = [Violation("unreadable study", f"{type(error).__name__}: {first_line(error)}")]
        else:
            of_records = self.contestant.events(self.folder)
            found = judge(rows, events + of_records, self.setup.trials, self.seen, results)
            found += self.contestant.report_faults(self.folder, rows)
        return Verdict(self.name, self.violations + found, recoveries(events), self.kills, self.folder)


def processes_below(folder: Path, role: str | None = None) -> list[int]:
    """The living processes whose ledger lies below `folder`."""
    mark = f"\0{ledger.VARIABLE}={folder}/".encode()
    found = []
    for entry in Path("/proc").iterdir():
        # One that is no process, is gone meanwhile, or of another user.
        with suppress(OSError):
            ours = mark in b"\0" + (entry / "environ").read_bytes()
            if ours and role in (None, role_of((entry / "cmdline").read_bytes())):
                found.append(int(entry.name))
    return found


def end_all(folder: Path) -> None:
    """End what a case left running that could not be judged."""
    for pid in processes_below(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def role_of(words: bytes) -> str:
    """Of which kind the process with this command line is."""
    if b"medbot_exp.sweep.child" in words:
        return "trial"
    return "controller" if any(name in words for name in (b"toy.py", b"bare.py", b"\0medbot_exp\0")) else "other"


def told(verdict: Verdict, keep: Path | None) -> str:
    """A failed case for a person: what it broke, and how to run it alone."""
    lines = [f"VIOLATION in {verdict.name}", *(f"  {found.kind}: {found.text}" for found in verdict.violations)]
    return "\n".join([*lines, f"  kept: {verdict.folder}"] if keep else lines)


def discard(verdict: Verdict, keep: Path | None) -> None:
    """Remove the directory of a case, but that of a failed one if it is to be kept."""
    if keep is None or not verdict.violations:
        shutil.rmtree(verdict.folder.parent, ignore_errors=True)
