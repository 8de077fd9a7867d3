"""The other end of launch_local: what runs in the process of a trial."""

import faulthandler
import os
import pickle
import signal
import sys
from dataclasses import dataclass
from multiprocessing import spawn
from typing import Any

# Exit status where there was no room to write: then neither log nor answer may have come through. EX_IOERR.
DISK_FULL_STATUS = 74


@dataclass(frozen=True)
class Surroundings:
    """What all jobs of one launcher are given alike.

    Attributes:
        singletons: Hydra's own state.
    """

    singletons: dict[Any, Any]
    context: Any
    config: Any


@dataclass(frozen=True)
class Job:
    """What one job is given."""

    number: int
    overrides: list[str]
    task_function: Any


def main() -> None:
    """Run the job on stdin and write its JobReturn to the file whose number is the first argument."""
    faulthandler.enable()
    # A job is asked to end in either way, and ends as at Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    answer = int(sys.argv[1])
    os.set_inheritable(answer, False)
    try:
        spawn.prepare(pickle.load(sys.stdin.buffer))
        content = run(pickle.load(sys.stdin.buffer), pickle.load(sys.stdin.buffer))
    except KeyboardInterrupt as stop:
        print(f"stopped {stop}".strip(), file=sys.stderr)
        sys.exit(130)
    if content is None:
        sys.exit(DISK_FULL_STATUS)
    with os.fdopen(answer, "wb") as file:
        file.write(content)


def run(surroundings: Surroundings, job: Job) -> bytes | None:
    """The pickled JobReturn of `job`; None where the disk was full."""
    import cloudpickle
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.singleton import Singleton
    from hydra.core.utils import JobReturn, run_job, setup_globals
    from omegaconf import open_dict

    from medbot_exp.errors import disk_full

    setup_globals()
    Singleton.set_state(surroundings.singletons)
    composed = surroundings.context.config_loader.load_sweep_config(surroundings.config, job.overrides)
    with open_dict(composed):
        composed.hydra.job.id = f"{composed.hydra.job.name}_{job.number}"
        composed.hydra.job.num = job.number
    HydraConfig.instance().set_config(composed)
    try:
        returned = run_job(
            hydra_context=surroundings.context,
            task_function=job.task_function,
            config=composed,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    except OSError as error:  # before its task began: Hydra writes files of its own
        if not disk_full(error):
            raise
        return None
    if isinstance(returned._return_value, BaseException) and disk_full(returned._return_value):
        return None
    try:
        content = cloudpickle.dumps(returned)
        pickle.loads(content)  # an exception may pickle, and not be made again: its class wants other arguments
        return content
    except Exception:  # what a task function returns or raises may hold anything; its text is enough
        value = returned._return_value
        text = RuntimeError(f"{type(value).__name__}: {value}")
        kept = text if isinstance(value, BaseException) else repr(value)
        return cloudpickle.dumps(JobReturn(overrides=returned.overrides, status=returned.status, _return_value=kept))
