"""Trials as tasks of a Ray cluster: each in a fresh worker process, with the CPUs and GPUs that it was promised.

hydra-ray-launcher is not used: it asks for cloudpickle below 3, which knows no Python above 3.11, and for boto3; it
waits for a whole batch, and the first worker that dies ends it.
"""

import faulthandler
import logging
import os
import pickle
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from medbot_exp.errors import first_line
from medbot_exp.sweep import child
from medbot_exp.sweep.launch_local import STOP_SECONDS, Ended, last_words
from medbot_exp.sweep.outcome import Outcome

log = logging.getLogger(__name__)

# What a trial is told of this process's environment, where the cluster was started without it. As an argument of the
# task and not as Ray's runtime_env, which Ray writes into its logs: a password may be among them.
TOLD = ("MEDBOT_EXP_", "WANDB_", "HF_", "HYDRA_", "PG")


@dataclass
class Running:
    """A trial that Ray has.

    Attributes:
        stream: Ray's generator of what the task yields.
        began: when the task came to run; None while it waits for its CPUs and GPUs.
    """

    number: int
    stream: Any
    log: Path
    began: float | None = None
    timed_out: bool = False


class Pool:
    """Tasks of Ray, `n_jobs` at a time; the same interface as launch_local.Pool."""

    def __init__(
        self,
        context: HydraContext,
        config: DictConfig,
        task_function: TaskFunction,
        n_jobs: int,
        timeout_seconds: float | None,
        init: Mapping[str, Any],
        remote: Mapping[str, Any],
    ):
        """
        Args:
            init: the arguments of ray.init.
            remote: the options of a task; CPUs and GPUs that are null are shared out.
        """
        import ray

        self.context, self.config, self.task_function = context, config, task_function
        self.n_jobs, self.timeout_seconds = n_jobs, timeout_seconds
        self.logs = Path(str(config.hydra.sweep.dir)) / "logs"
        self.environment = {key: value for key, value in os.environ.items() if key.startswith(TOLD)}
        if not ray.is_initialized():
            ray.init(**{"log_to_driver": False, **init})
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        given = {key: value for key, value in remote.items() if value is not None}
        options = {**share(nodes, n_jobs), **given}
        tell_room(nodes, n_jobs, options)
        # Each in a process of its own, and never again by itself: a trial has one job.
        self.run = ray.remote(**{**options, "max_calls": 1, "max_retries": 0})(run)
        self.running: list[Running] = []

    def free(self) -> int:
        """How many more tasks may be given to Ray now."""
        return self.n_jobs - len(self.running)

    def start(self, number: int, overrides: Sequence[str]) -> None:
        """Give Ray the task function with `overrides`, as job `number`."""
        import cloudpickle

        self.logs.mkdir(parents=True, exist_ok=True)
        path = self.logs / f"{number}.log"
        surroundings = child.Surroundings(Singleton.get_state(), self.context, self.config)
        content = cloudpickle.dumps((surroundings, child.Job(number, list(overrides), self.task_function)))
        stream = self.run.remote(content, os.getcwd(), str(path.absolute()), self.environment)
        self.running.append(Running(number, stream, path))

    def ended(self, wait_seconds: float) -> list[Ended]:
        """Those that ended, waited for at most `wait_seconds`."""
        import ray

        until = time.monotonic() + wait_seconds
        ended: list[Ended] = []
        while self.running and not ended:
            left = max(0.0, until - time.monotonic())
            ready, _ = ray.wait([running.stream for running in self.running], timeout=left)
            for running in [running for running in self.running if running.stream in ready]:
                end = self._step(running)
                if end is not None:
                    self.running.remove(running)
                    ended.append(end)
            self._end_late()
            if time.monotonic() >= until:
                break
        return ended

    def stop(self) -> list[Ended]:
        """Ask all to end, as Ctrl-C does, and wait for them; kill those that do not."""
        import ray

        ended: list[Ended] = []
        for running in self.running:
            ray.cancel(running.stream, force=False)
        until = time.monotonic() + STOP_SECONDS
        try:
            while self.running and time.monotonic() < until:
                ended += self.ended(until - time.monotonic())
        finally:
            # A second Ctrl-C comes here as well.
            for running in self.running:
                ray.cancel(running.stream, force=True)
        while self.running:
            ended += self.ended(1.0)
        return ended

    def _end_late(self) -> None:
        import ray

        for running in self.running:
            limit, began = self.timeout_seconds, running.began
            if limit is not None and began is not None and not running.timed_out and time.monotonic() - began > limit:
                running.timed_out = True
                ray.cancel(running.stream, force=True)

    def _step(self, running: Running) -> Ended | None:
        """Take in what the task yielded: that it began, or its end."""
        import ray

        try:
            content = ray.get(next(running.stream))
        except (ray.exceptions.RayError, StopIteration) as error:
            return lost(running, error)
        if running.began is None:
            running.began = time.monotonic()
            return None
        seconds = time.monotonic() - running.began
        if content is None:
            return Ended(running.number, child.DISK_FULL_STATUS, False, seconds, None, running.log)
        return Ended(running.number, 0, False, seconds, pickle.loads(content), running.log)


def run(job: bytes, directory: str, log: str, environment: dict[str, str]) -> Any:
    """What a task of Ray runs: yields None when it begins, and what child.run makes of `job` when it has ended.

    Args:
        job: pickled, the arguments of child.run.
    """
    os.chdir(directory)
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    faulthandler.enable()
    # Ray's own makes SystemExit of it, which says that the trial failed, where its cluster or its controller ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield None
    yield child.run(*pickle.loads(job))


def lost(running: Running, error: BaseException) -> Ended:
    """A task that came to no end of its own."""
    import ray

    seconds = 0.0 if running.began is None else time.monotonic() - running.began
    if running.timed_out:
        return Ended(running.number, 1, True, seconds, None, running.log)
    if isinstance(error, ray.exceptions.RayTaskError):
        # What the worker raised before the trial began: no such directory there, a package that it lacks.
        outcome = Outcome("failed", reason=f"Ray's worker could not run it: {first_line(error.cause or error)}")
    else:
        outcome = Outcome(
            "died", reason=f"Ray lost its worker: {first_line(error).partition('. ')[0]}{last_words(running.log)}"
        )
    return Ended(running.number, 1, False, seconds, None, running.log, outcome)


def share(nodes: Sequence[Mapping[str, float]], n_jobs: int) -> dict[str, float]:
    """The CPUs and GPUs of each of `n_jobs` tasks: a part that fits on a node, and a GPU where there are any.

    Args:
        nodes: the resources of each node of the cluster.
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    # Ray hides the GPUs from a task that asked for none, and it would train on the CPU.
    gpus = sum(node.get("GPU", 0) for node in nodes)
    return {"num_cpus": max(1, min(sum(cpus) // n_jobs, max(cpus, default=1))), "num_gpus": 1 if gpus else 0}


def tell_room(nodes: Sequence[Mapping[str, float]], n_jobs: int, options: Mapping[str, Any]) -> None:
    """Warn where the cluster, as it is now, runs fewer tasks at a time than `n_jobs`."""
    room = [
        min(
            node.get(name, 0) // options[key]
            for name, key in (("CPU", "num_cpus"), ("GPU", "num_gpus"))
            if options[key]
        )
        for node in nodes
    ]
    if sum(room) < n_jobs:
        log.warning(
            "Ray has room for %d of hydra.sweeper.n_jobs=%d trials at a time, of %g CPUs and %g GPUs each; the others "
            "wait for it", sum(room), n_jobs, options["num_cpus"], options["num_gpus"],
        )  # fmt: skip
