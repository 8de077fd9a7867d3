"""Trials as processes of this host: one fresh process each, so that none takes another down.

A process gets a share of the cores and a GPU of its own where there are GPUs, writes what it prints into a log file,
and outlives this one where that is killed.
"""

import io
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import spawn
from pathlib import Path
from typing import IO

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from medbot_exp.errors import ConfigError, TrialError
from medbot_exp.processes import forget_place
from medbot_exp.sweep.child import Job, Surroundings
from medbot_exp.sweep.outcome import Outcome

# Libraries that start a thread for each core, unless told not to before they load.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
POLL_SECONDS = 0.01
# How long a process that was asked to end may take: training ends behind its current step, with a checkpoint.
STOP_SECONDS = 120.0


@dataclass(frozen=True)
class Ended:
    """How the process of a trial ended.

    Attributes:
        status: as in subprocess.Popen.returncode: the exit status, or minus the number of the signal.
        timed_out: it was ended because it took longer than it may.
        returned: what the task function returned or raised; None where the process did not come so far.
        log: what it printed.
        outcome: what to make of it if it left no result, where the launcher knows better than the rest says.
    """

    number: int
    status: int
    timed_out: bool
    seconds: float
    returned: JobReturn | None
    log: Path
    outcome: Outcome | None = None

    def reason(self) -> str:
        """Why there is no result."""
        if self.timed_out:
            return too_long(self.seconds)
        last = last_words(self.log)
        if self.status >= 0:
            return f"its process left with exit status {self.status} and no result{last}"
        name = signal.Signals(-self.status).name
        hint = " (the system does that when memory runs out)" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}{last}"

    def killed(self) -> bool:
        """Whether somebody else ended it: the trial itself may be sound."""
        return not self.timed_out and -self.status in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Running:
    """A process at work."""

    number: int
    process: subprocess.Popen
    slot: int
    started: float
    answer: IO[bytes]
    log: Path
    timed_out: bool = False


class Pool:
    """Processes for trials, as many at a time as there are slots."""

    def __init__(
        self,
        context: HydraContext,
        config: DictConfig,
        task_function: TaskFunction,
        slots: Sequence[Mapping[str, str]],
        logs: Path,
        timeout_seconds: float | None,
    ):
        """
        Args:
            slots: the environment variables that a process gets beside ours, for each one that may run at a time.
            logs: the directory of the log files.
        """
        self.context, self.config, self.task_function = context, config, task_function
        self.slots, self.logs, self.timeout_seconds = slots, logs, timeout_seconds
        self.running: list[Running] = []

    @cached_property
    def surroundings(self) -> bytes:
        """What every job is given alike, pickled once: it is most of what there is to pickle."""
        import cloudpickle

        content: bytes = cloudpickle.dumps(Surroundings(Singleton.get_state(), self.context, self.config))
        return content

    def free(self) -> int:
        """How many more processes may start now."""
        return len(self.slots) - len(self.running)

    def start(self, number: int, overrides: Sequence[str]) -> None:
        """Run the task function with `overrides`, as job `number`, in a process of its own."""
        import cloudpickle

        slot = min(set(range(len(self.slots))) - {running.slot for running in self.running})
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{number}.log"
        job = Job(number, list(overrides), self.task_function)
        # As multiprocessing does: the child loads the program's main module under another name. It needs no key.
        program = {key: value for key, value in spawn.get_preparation_data("trial").items() if key != "authkey"}
        content = pickle.dumps(program) + self.surroundings + cloudpickle.dumps(job)
        environment = {**os.environ, **self.slots[slot]}
        forget_place(environment)
        answer = tempfile.TemporaryFile()  # noqa: SIM115 (open until the process ends)
        with tempfile.TemporaryFile() as question, log.open("ab") as output:
            question.write(content)
            question.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-c", "from medbot_exp.sweep.child import main; main()", str(answer.fileno())],
                stdin=question,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=[answer.fileno()],
                # Of its own group: a Ctrl-C is for this process, which passes it on.
                start_new_session=True,
            )
        self.running.append(Running(number, process, slot, time.monotonic(), answer, log))

    def ended(self, wait_seconds: float) -> list[Ended]:
        """Those that ended, waited for at most `wait_seconds`."""
        until = time.monotonic() + wait_seconds
        while True:
            self._end_late()
            over = [running for running in self.running if running.process.poll() is not None]
            if over or not self.running or time.monotonic() >= until:
                return [self._collect(running) for running in over]
            time.sleep(POLL_SECONDS)

    def stop(self) -> list[Ended]:
        """Ask all to end, as Ctrl-C does, and wait for them; kill those that do not."""
        for running in self.running:
            send(running.process, signal.SIGINT)
        ended: list[Ended] = []
        until = time.monotonic() + STOP_SECONDS
        try:
            while self.running and time.monotonic() < until:
                ended += self.ended(until - time.monotonic())
        finally:
            # A second Ctrl-C comes here as well.
            for running in self.running:
                send(running.process, signal.SIGKILL)
        while self.running:
            ended += self.ended(1.0)
        return ended

    def _end_late(self) -> None:
        for running in self.running:
            late = self.timeout_seconds is not None and time.monotonic() - running.started > self.timeout_seconds
            if late and not running.timed_out:
                running.timed_out = True
                send(running.process, signal.SIGKILL)

    def _collect(self, running: Running) -> Ended:
        self.running.remove(running)
        # What it started and left behind goes with it.
        send(running.process, signal.SIGKILL)
        running.answer.seek(0)
        content = running.answer.read()
        running.answer.close()
        seconds = time.monotonic() - running.started
        status = running.process.returncode
        returned = pickle.load(io.BytesIO(content)) if content else None
        return Ended(running.number, status, running.timed_out and status < 0, seconds, returned, running.log)


def too_long(seconds: float) -> str:
    """Why a process was ended that took `seconds`."""
    return f"it was ended after {seconds:.0f} s: hydra.sweeper.timeout_seconds"


def end_group(pid: int) -> bool:
    """Kill the process `pid` and those that it started; whether it was one that leads a group, as a Pool's do."""
    try:
        if os.getpgid(pid) != pid:
            return False
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def send(process: subprocess.Popen, number: int) -> None:
    """Send signal `number` to a process and to those that it started."""
    with suppress(ProcessLookupError, PermissionError):  # none of them is left
        os.killpg(process.pid, number)


def slots_for(n_jobs: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """The environment of each of `n_jobs` processes at a time: a GPU of its own, a share of the cores.

    Args:
        gpus: what CUDA_VISIBLE_DEVICES calls them.

    Raises:
        ConfigError: there are GPUs, but fewer than processes.
    """
    if n_jobs < 1:
        raise ConfigError(f"`n_jobs >= 1` must hold, but got n_jobs={n_jobs}; it counts processes at a time")
    if gpus and n_jobs > len(gpus):
        raise ConfigError(
            f"each trial must have a GPU of its own, but got n_jobs={n_jobs} and {len(gpus)} of them; "
            f"use hydra.sweeper.n_jobs={len(gpus)}, or CUDA_VISIBLE_DEVICES= for the CPU"
        )
    threads = max(1, cores() // n_jobs)
    # Who set one knows better, and the libraries take the first one's number where theirs is not set.
    share = (
        {} if any(name in os.environ for name in THREAD_VARIABLES) else dict.fromkeys(THREAD_VARIABLES, str(threads))
    )
    return [{**share, **({"CUDA_VISIBLE_DEVICES": gpus[slot]} if gpus else {})} for slot in range(n_jobs)]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def last_words(log: Path) -> str:
    """The last line that a process printed, to be put behind its reason."""
    try:
        lines = log.read_bytes()[-4096:].decode(errors="replace").split("\n")
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    return f": {said[-1][:200]}" if said else ""


def run_all(pool: Pool, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run a job for each of `job_overrides`, numbered from `first`; what each returned, in order."""
    waiting = list(enumerate(job_overrides, first))
    returned: dict[int, JobReturn] = {}
    try:
        while waiting or pool.running:
            while waiting and pool.free():
                pool.start(*waiting.pop(0))
            for ended in pool.ended(1.0):
                lost = JobReturn(status=JobStatus.FAILED, _return_value=TrialError(ended.reason()))
                returned[ended.number] = ended.returned or lost
    except BaseException:
        pool.stop()
        raise
    return [returned[number] for number in sorted(returned)]
