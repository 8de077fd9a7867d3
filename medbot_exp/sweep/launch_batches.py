"""Trials through any launcher of Hydra's that has no file here: joblib, or one after the other in this process.

Such a launcher takes a batch and comes back when all of it has ended.
"""

import os
import re
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import TaskFunction
from omegaconf import DictConfig

from medbot_exp.device import visible_gpus
from medbot_exp.errors import ConfigError, first_line
from medbot_exp.sweep.launch_local import Ended
from medbot_exp.sweep.outcome import Outcome

Trial = tuple[int, Sequence[str]]


class Batches:
    """Collects trials for `launcher` and starts them together; the same interface as launch_local.Pool.

    Joblib's workers share one fate: where one dies, all are killed, and nobody can say whose doing it was. So all of
    that batch are tried again at no cost to them, one by one: then it shows.
    """

    def __init__(self, launcher: Any, n_jobs: int):
        self.launcher, self.n_jobs = launcher, n_jobs
        self.running: list[Trial] = []
        self.suspects = 0  # how many of the next trials may be the one that broke a batch
        if is_joblib(launcher):
            prepare_joblib(launcher, n_jobs)
            task = InWorker(launcher.task_function)
            launcher.setup(hydra_context=launcher.hydra_context, task_function=task, config=launcher.config)

    def free(self) -> int:
        """How many more trials the next batch takes."""
        return self.n_jobs - len(self.running)

    def start(self, number: int, overrides: Sequence[str]) -> None:
        """Take the trial into the next batch."""
        self.running.append((number, overrides))

    def ended(self, wait_seconds: float) -> list[Ended]:
        """Run the batch; the time is the launcher's."""
        ended = [end for group in self.groups() for end in self.launch(group)]
        self.running = []
        return ended

    def stop(self) -> list[Ended]:
        """The launcher has been interrupted, and ended what it ran."""
        ended = [Ended(number, 130, False, 0.0, None, Path()) for number, _ in self.running]
        self.running = []
        return ended

    def groups(self) -> list[list[Trial]]:
        """The batch in parts that the launcher takes at once."""
        batch = sorted(self.running)
        groups = [[trial] for trial in batch] if self.suspects else in_a_row(batch)
        self.suspects = max(0, self.suspects - len(batch))
        return groups

    def launch(self, group: Sequence[Trial]) -> list[Ended]:
        """Run `group`, and say of each trial how it ended."""
        began = time.monotonic()
        try:
            # A job's number names its directory, so it must be the trial's: launchers count on from the first.
            returns = self.launcher.launch([overrides for _, overrides in group], initial_job_idx=group[0][0])
        except (Exception, SystemExit) as error:  # a job's sys.exit() comes out of joblib as it is
            self.suspects += len(group)
            if len(group) == 1:
                return [as_lost(group[0][0], Outcome("died", reason=f"its launcher broke down: {said(error)}"))]
            reason = f"one of {len(group)} trials broke their launcher down, so each is tried alone: {said(error)}"
            return [as_lost(number, Outcome("stopped", reason=reason)) for number, _ in group]
        seconds = time.monotonic() - began
        return [as_ended(number, job, seconds) for (number, _), job in zip(group, returns, strict=True)]


def as_ended(number: int, job: JobReturn, seconds: float) -> Ended:
    """`job` as the process of a trial that ended."""
    return Ended(number, 0 if job.status is JobStatus.COMPLETED else 1, False, seconds, job, Path())


def as_lost(number: int, outcome: Outcome) -> Ended:
    """A trial of which its launcher knows no more than `outcome`."""
    return Ended(number, 1, False, 0.0, None, Path(), outcome)


def said(error: BaseException) -> str:
    """What `error` says, short; of joblib's page of hints, how its workers ended."""
    codes = re.search(r"exit codes of the workers are \{(.*?)\}", str(error))
    return f"{type(error).__name__}: {codes.group(1) if codes else first_line(error)}"


def in_a_row(trials: Sequence[Trial]) -> list[list[Trial]]:
    """`trials`, sorted, in groups whose numbers follow each other."""
    groups: list[list[Trial]] = []
    for trial in trials:
        if groups and groups[-1][-1][0] + 1 == trial[0]:
            groups[-1].append(trial)
        else:
            groups.append([trial])
    return groups


def is_joblib(launcher: Launcher) -> bool:
    """Whether `launcher` is that of hydra-joblib-launcher, which need not be installed."""
    return type(launcher).__module__.startswith("hydra_plugins.hydra_joblib_launcher")


def prepare_joblib(launcher: Any, n_jobs: int) -> None:
    """Have joblib run `n_jobs` at a time, in processes of their own, where the user did not say how many.

    Raises:
        ConfigError: there are GPUs: all trials would be on the first of them.
    """
    if launcher.joblib["n_jobs"] == -1:
        # Its default, one for each core, leaves one thread to each. And a single one it would run in this process,
        # which a crash of the trial would end.
        launcher.joblib["n_jobs"] = max(2, n_jobs)
    together = min(n_jobs, launcher.joblib["n_jobs"])
    if together > 1 and visible_gpus():
        raise ConfigError(
            f"each trial must have a GPU of its own, but joblib gives all {together} that run at a time the first one; "
            "use hydra/launcher=local, or hydra.sweeper.n_jobs=1, or CUDA_VISIBLE_DEVICES= for the CPU"
        )


class InWorker:
    """A task function for joblib's workers, which wait for ever for the next one of a controller that was killed."""

    def __init__(self, task_function: TaskFunction):
        self.task_function = task_function
        self.controller = os.getpid()

    def __call__(self, cfg: DictConfig) -> Any:
        if os.getpid() == self.controller:  # a single job at a time
            return self.task_function(cfg)
        busy = ends_behind(self.controller)
        busy.set()
        try:
            return self.task_function(cfg)
        finally:
            busy.clear()


@cache
def ends_behind(controller: int) -> threading.Event:
    """Let this process end when its parent `controller` has, but not while the event that is returned is set."""
    busy = threading.Event()

    def watch() -> None:
        while os.getppid() == controller or busy.is_set():
            time.sleep(1.0)
        os._exit(0)

    threading.Thread(target=watch, name="watch", daemon=True).start()
    return busy
