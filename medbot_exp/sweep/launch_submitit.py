"""Trials as jobs of Submitit: on Slurm, or by its local executor as processes of this host.

The options, and what a job does, are those of hydra-submitit-launcher. Waiting is not: it submits a batch, waits until
the queue has run all of it and raises the first failure. Here each trial is a job of its own, the next one is
submitted when one ends, and a job that fails, is preempted or runs out of its time is the matter of its trial alone.
"""

import faulthandler
import logging
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher

from medbot_exp.errors import ConfigError, disk_full, reason
from medbot_exp.sweep.child import DISK_FULL_STATUS
from medbot_exp.sweep.launch_batches import as_lost
from medbot_exp.sweep.launch_local import STOP_SECONDS, Ended, last_words, slots_for
from medbot_exp.sweep.outcome import Outcome

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
# Submitit asks Slurm less and less often, up to every ten minutes; a job that was killed leaves no other sign.
ASK_SECONDS = 30.0
# How long a network file system may take to show the result of a job that has ended.
RESULT_SECONDS = 15.0
# A submission that failed behind one that did not (slurmctld restarts, a limit of the queue) is tried again this often.
RETRY_SECONDS = 10.0
# A signal that follows another within this time is the same request: Slurm tells the step, and srun tells it again.
ECHO_SECONDS = 1.0

INTERRUPTED = "Slurm wanted its job to end: hydra.launcher.timeout_min, or a preemption"


@dataclass
class Running:
    """A trial that is submitted, or is to be.

    Attributes:
        job: Submitit's; None until the queue has taken it.
        asked: when the queue was last asked, or offered the job.
        over: when the job was first seen at its end without a result.
    """

    number: int
    overrides: Sequence[str]
    job: Any = None
    asked: float = 0.0
    over: float | None = None


class Job:
    """What a job of the queue runs: one trial.

    It is never queued again by itself: the controller goes on with its work in a new trial, from the last checkpoint.
    """

    def __init__(self, launcher: Any):
        self.launcher = launcher
        self.stopped: float | None = None  # when it was asked to end
        self.interrupted: Path | None = None  # the directory of the trial that the queue wants ended

    def __call__(self, number: int, overrides: list[str], singletons: dict[Any, Any]) -> Ended:
        """Run trial `number`; how it ended."""
        from submitit import JobEnvironment

        faulthandler.enable()
        # In place of Submitit's own handlers, which leave SIGTERM unheard and queue the job again.
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, self.stop)
        signal.signal(signal.Signals[f"SIG{JobEnvironment.USR_SIG}"], self.interrupt)
        try:
            returned = self.launcher(overrides, "hydra.sweep.dir", number, f"job_id_for_{number}", singletons)
        except KeyboardInterrupt:
            if self.interrupted is not None:
                Outcome("died", reason=INTERRUPTED).write(self.interrupted)
            # No exception: Submitit would leave no result, and takes a preempted job without one for queued again.
            return as_lost(number, Outcome("died", reason="its job was asked to end"))
        error = returned._return_value
        if isinstance(error, BaseException) and disk_full(error):
            return Ended(number, DISK_FULL_STATUS, False, 0.0, None, Path())
        # The text alone: an error may not pickle.
        why = reason(error) if returned.status is JobStatus.FAILED else "its job ended without a result"
        return as_lost(number, Outcome("failed", reason=why))

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, but not while the trial writes down its end because of another."""
        now = time.monotonic()
        if self.stopped is None or now - self.stopped > ECHO_SECONDS:
            self.stopped = now
            raise KeyboardInterrupt

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """End the trial as Ctrl-C does: training ends behind its current step, with a checkpoint."""
        if HydraConfig.initialized():
            self.interrupted = Path(HydraConfig.get().runtime.output_dir)
        signal.raise_signal(signal.SIGINT)


class Pool:
    """Jobs of a queue, `n_jobs` at a time; the same interface as launch_local.Pool."""

    def __init__(self, launcher: Any, n_jobs: int):
        """
        Raises:
            ConfigError: there is no such queue here, or `hydra.launcher` asks for what it does not have.
        """
        self.launcher, self.n_jobs = launcher, n_jobs
        self.cluster: str = launcher._EXECUTOR
        refuse_unfit(launcher.params, self.cluster, n_jobs)
        self.executor = build_executor(launcher.params, self.cluster)
        # On Slurm the job's own allocation is its share.
        self.environment = slots_for(n_jobs, [])[0] if self.cluster == "local" else {}
        self.running: list[Running] = []
        self.works = False  # the queue has taken a job
        self.stopping = False

    def free(self) -> int:
        """How many more jobs may be submitted now."""
        return self.n_jobs - len(self.running)

    def start(self, number: int, overrides: Sequence[str]) -> None:
        """Submit the trial.

        Raises:
            ConfigError: the queue does not take it, nor has it taken any.
        """
        running = Running(number, overrides)
        self.running.append(running)
        self.submit(running)

    def ended(self, wait_seconds: float) -> list[Ended]:
        """Those that ended, waited for at most `wait_seconds`."""
        until = time.monotonic() + wait_seconds
        while True:
            for running in self.running:
                if running.job is None and time.monotonic() - running.asked > RETRY_SECONDS:
                    self.submit(running)
            over = [running for running in self.running if self.is_over(running)]
            if over or not self.running or time.monotonic() >= until:
                self.running = [running for running in self.running if running not in over]
                return [as_ended(running) for running in over]
            time.sleep(1.0 if self.stopping else POLL_SECONDS)

    def stop(self) -> list[Ended]:
        """Ask all to end, as Ctrl-C does, and wait for them; cancel those that do not."""
        self.stopping = True
        submitted = [running for running in self.running if running.job is not None]
        ended = [as_lost(running.number, Outcome("stopped")) for running in self.running if running.job is None]
        self.running = submitted
        self.cancel(softly=True)
        until = time.monotonic() + STOP_SECONDS
        try:
            while self.running and time.monotonic() < until:
                ended += self.ended(1.0)
        finally:
            # A second Ctrl-C comes here as well.
            self.cancel(softly=False)
        return ended + [as_lost(running.number, Outcome("stopped")) for running in self.running]

    def submit(self, running: Running) -> None:
        """Offer the trial to the queue; where it does not take it now, it is offered again later."""
        from submitit.helpers import environment_variables

        running.asked = time.monotonic()
        job = (running.number, list(running.overrides), Singleton.get_state())
        self.executor.update_parameters(name=f"{self.launcher.params['name']}-{running.number}")
        try:
            with environment_variables(**self.environment):
                running.job = self.executor.submit(Job(self.launcher), *job)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:  # as Submitit passes sbatch's errors on
            said = last_line(error)
            if not self.works:
                raise ConfigError(
                    f"the queue must take a job, but: {said}\nMend hydra.launcher.*: see sbatch"
                ) from error
            log.warning("trial %d is submitted again in %.0f s: %s", running.number, RETRY_SECONDS, said)
        else:
            self.works = True

    def is_over(self, running: Running) -> bool:
        """Whether nothing more is to come from the job."""
        job, now = running.job, time.monotonic()
        if job is None or job.paths.result_pickle.exists():
            return job is not None
        ask = self.stopping or now - running.asked > ASK_SECONDS
        if ask:
            running.asked = now
        # Submitit does not take preempted ones for ended, as it would have them queued again.
        if not job.done(force_check=ask) and not job.state.startswith("PREEMPTED"):
            return False
        running.over = running.over or now
        return self.cluster == "local" or self.stopping or now - running.over > RESULT_SECONDS

    def cancel(self, softly: bool) -> None:
        """End what runs.

        Args:
            softly: as Ctrl-C does; what waits in the queue is cancelled.
        """
        if self.cluster == "local":
            for running in self.running:
                running.job.cancel(check=False)
        elif self.running:
            jobs = [running.job.job_id for running in self.running]
            for how in [["--state=PENDING"], ["--signal=INT"]] if softly else [[]]:
                subprocess.run(["scancel", *how, *jobs], check=False)


def is_submitit(launcher: Launcher) -> bool:
    """Whether `launcher` is that of hydra-submitit-launcher, which need not be installed."""
    return type(launcher).__module__.startswith("hydra_plugins.hydra_submitit_launcher")


def refuse_unfit(params: dict[str, Any], cluster: str, n_jobs: int) -> None:
    """Raise a ConfigError where `hydra.launcher` asks for what a trial cannot use."""
    faults = [
        f"`hydra.launcher.{key}=1` must hold, as a trial is one process, but got hydra.launcher.{key}={params[key]}"
        for key in ("nodes", "tasks_per_node")
        if params[key] != 1
    ]
    if cluster == "local" and params["gpus_per_node"] and n_jobs > 1:
        faults.append(
            "each trial must have a GPU of its own, but submitit_local gives all the same ones; "
            "use hydra/launcher=local, or hydra.sweeper.n_jobs=1"
        )
    if params.get("max_num_timeout"):
        faults.append(
            "`hydra.launcher.max_num_timeout=0` must hold, as a job that runs out of its time goes on in a new one up "
            f"to hydra.sweeper.max_retry times, but got hydra.launcher.max_num_timeout={params['max_num_timeout']}"
        )
    if faults:
        raise ConfigError("\n".join(faults))


def build_executor(params: dict[str, Any], cluster: str) -> Any:
    """Submitit's executor for the options of hydra-submitit-launcher.

    Raises:
        ConfigError: there is no such queue here, or it does not know an option.
    """
    import submitit
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

    shared = {field.name for field in fields(BaseQueueConf)}
    options = {
        key if key in shared else f"{cluster}_{key}": value
        for key, value in params.items()
        if key not in ("submitit_folder", "max_num_timeout")
    }
    if cluster == "slurm":
        # Slurm would run a preempted job again from its beginning, and nobody here would learn of it.
        options["slurm_additional_parameters"] = {"no-requeue": True, **(params["additional_parameters"] or {})}
    try:
        executor = submitit.AutoExecutor(folder=params["submitit_folder"], cluster=cluster)
        executor.update_parameters(**options)
    except (RuntimeError, ValueError, NameError, AssertionError) as error:
        raise ConfigError(
            f"`hydra/launcher=submitit_{cluster}` must fit this host, but: {last_line(error)}\n"
            "Slurm's sbatch and srun must be on the path; hydra/launcher=submitit_local does without"
        ) from error
    return executor


def as_ended(running: Running) -> Ended:
    """What is known of a trial whose job ended, beside what the job told the study."""
    from submitit.core.utils import pickle_load

    job = running.job
    if job.paths.result_pickle.exists():
        kind, content = pickle_load(job.paths.result_pickle)
        if kind == "success":
            return content
        return as_lost(running.number, Outcome("failed", reason=str(content).strip().splitlines()[-1]))
    why = f"its job {job.job_id} ended ({job.state}){last_words(job.paths.stderr)}"
    return as_lost(running.number, Outcome("died", reason=why))


def last_line(error: BaseException) -> str:
    """The last line of what `error` says: sbatch's own, behind those of Submitit."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")]
    return lines[-1] if lines else type(error).__name__
