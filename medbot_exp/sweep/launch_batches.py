"""Trials through any launcher of Hydra's: joblib, Submitit, Ray, or one after the other in this process.

Such a launcher takes a batch and comes back when all of it has ended.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from medbot_exp.sweep.launch_local import Ended


class Batches:
    """Collects trials for `launcher` and starts them together; the same interface as launch_local.Pool."""

    def __init__(self, launcher: Launcher, n_jobs: int):
        self.launcher, self.n_jobs = launcher, n_jobs
        self.running: list[tuple[int, Sequence[str]]] = []

    def free(self) -> int:
        """How many more trials the next batch takes."""
        return self.n_jobs - len(self.running)

    def start(self, number: int, overrides: Sequence[str]) -> None:
        """Take the trial into the next batch."""
        self.running.append((number, overrides))

    def ended(self, wait_seconds: float) -> list[Ended]:
        """Run the batch; the time is the launcher's."""
        ended: list[Ended] = []
        for group in in_a_row(sorted(self.running)):
            began = time.monotonic()
            # A job's number names its directory, so it must be the trial's: launchers count on from the first.
            returns = self.launcher.launch([overrides for _, overrides in group], initial_job_idx=group[0][0])
            seconds = time.monotonic() - began
            ended += [as_ended(number, job, seconds) for (number, _), job in zip(group, returns, strict=True)]
        self.running = []
        return ended

    def stop(self) -> list[Ended]:
        """The launcher has been interrupted, and ended what it ran."""
        ended = [Ended(number, 130, False, 0.0, None, Path()) for number, _ in self.running]
        self.running = []
        return ended


def as_ended(number: int, job: JobReturn, seconds: float) -> Ended:
    """`job` as the process of a trial that ended."""
    return Ended(number, 0 if job.status is JobStatus.COMPLETED else 1, False, seconds, job, Path())


def in_a_row(trials: Sequence[tuple[int, Sequence[str]]]) -> list[list[tuple[int, Sequence[str]]]]:
    """`trials`, sorted, in groups whose numbers follow each other."""
    groups: list[list[tuple[int, Sequence[str]]]] = []
    for trial in trials:
        if groups and groups[-1][-1][0] + 1 == trial[0]:
            groups[-1].append(trial)
        else:
            groups.append([trial])
    return groups
