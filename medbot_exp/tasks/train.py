"""task=train: a run from its command to its result: directory, record, how it ends."""

import logging
import shlex
from contextlib import nullcontext
from typing import Any

from medbot_exp import rundir
from medbot_exp.config import LoraConfig, LoraInit, RunConfig
from medbot_exp.errors import (
    Interrupted,
    MedbotError,
    RunDirectoryError,
    StorageError,
    TrialPruned,
    reason,
    resource_error,
)
from medbot_exp.objectives import is_developed
from medbot_exp.processes import Processes, launched
from medbot_exp.report.console import stdout_console
from medbot_exp.report.summary import print_summary
from medbot_exp.sweep.job import RunningTrial
from medbot_exp.tasks.phases import Clock, Job, perform
from medbot_exp.tasks.start import gather
from medbot_exp.tracking.record import Mirror, NoRecord, Record
from medbot_exp.whole_files import write_json

log = logging.getLogger(__name__)


def run(
    config: RunConfig,
    directory: rundir.RunDirectory,
    hydra_files: rundir.HydraFiles,
    study: str | None,
    trial: RunningTrial | None,
) -> float | list[float]:
    """Train one adapter as `config` says; the objective's value, or the values of several.

    Where a launcher started several processes, each calls this, and the first one's `directory` is the run's.

    Args:
        trial: what the run is to the study of a search; None outside of one.

    Raises:
        TrialPruned: the study ended it; result.json says `pruned`.
        MedbotError: the user can mend it; result.json says `failed` and why, once the directory was claimed.
        Interrupted: the user stopped the run; it can be resumed.
    """
    with launched().met() as processes:
        path = processes.of_first(lambda: str(directory.path.absolute()))
        own = directory if processes.first else rundir.RunDirectory(path)
        return run_together(config, own, hydra_files, study, trial, processes)


def run_together(
    config: RunConfig,
    directory: rundir.RunDirectory,
    hydra_files: rundir.HydraFiles,
    study: str | None,
    trial: RunningTrial | None,
    processes: Processes,
) -> float | list[float]:
    """`run`, once the processes have met and agreed on the directory."""
    clock = Clock()
    try:
        with clock.phase("load"):
            inputs = gather(config, processes)
    except Exception as error:
        if study is not None:  # a trial is looked for in its study, also one that could not start
            directory.claim(hydra_files)
            write_json(directory.result, failure(error, clock))
        raise
    job = Job(config, directory, hydra_files, study, inputs, clock, trial, processes)
    processes.wait()  # until none can fail any more for what it lacks: then nothing is left behind
    if config.trainer.resume is None:
        processes.of_first(lambda: directory.claim(hydra_files))
    with directory.held() if processes.first else nullcontext():
        resumed_from = processes.of_first(lambda: take_up(job))
        result, samples, mirror = recorded(job, resumed_from) if processes.first else unrecorded(job, resumed_from)
    if result["status"] == "pruned":
        raise TrialPruned(f"after step {result['steps']}")
    following = next_grid(hydra_files, config.lora) if study is None else None
    developed = any(is_developed(config, name) for name in config.benchmark)
    test = test_command(directory) if developed and study is None else None
    if processes.first:
        print_summary(stdout_console(), result, samples, directory, mirror.description, following, test)
    values = list(result["objective"].values())
    return values[0] if len(values) == 1 else values


def take_up(job: Job) -> int | None:
    """The step that the run goes on from, its own or that of the trial that it tries again; None where it begins."""
    if job.config.trainer.resume is not None:
        return job.directory.resume(job.hydra_files)
    others = () if job.trial is None else job.trial.predecessors
    steps = (job.directory.take_over(rundir.RunDirectory(other)) for other in others)
    return next((step for step in steps if step is not None), None)


def unrecorded(job: Job, resumed_from: int | None) -> tuple[dict[str, Any], list[dict[str, Any]], Mirror]:
    """`perform` in a process that leaves the record to the first one."""
    quiet = Mirror()
    return *perform(job, NoRecord(job.directory, quiet), resumed_from), quiet


def recorded(job: Job, resumed_from: int | None) -> tuple[dict[str, Any], list[dict[str, Any]], Mirror]:
    """`perform` with its log in run.log and its end, whichever it is, in result.json."""
    handler = job.directory.open_log()
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    record = Record(job.directory, Mirror())
    try:
        with job.processes.one_voice():
            result, samples = perform(job, record, resumed_from)
        record.finish(result)
        hand_over(record, result, samples)
    except KeyboardInterrupt as stop:
        log.info("stopped")
        record.tell(lambda mirror: mirror.finish(130))
        command = job.hydra_files.command(job.directory.override("trainer.resume"), without=("trainer.resume=",))
        raise Interrupted(f"{stop}\nTo go on: {job.processes.starting(command)}".strip()) from stop
    except RunDirectoryError:
        raise  # the resumption was refused: the record of the run that it is about stays as it is
    except BaseException as error:
        log.debug("the run failed", exc_info=error)
        failed = failure(error, job.clock)
        try:
            record.finish(failed)
        except OSError as full:
            raise StorageError(
                f"the run failed, and its record could not be written: {full}\n{failed['error']}"
            ) from error
        hand_over(record, failed, [])
        known = resource_error(error)
        if known is not None and not isinstance(error, MedbotError):
            raise known from error
        raise
    finally:
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(handler)
        handler.close()
    return result, samples, record.mirror


def failure(error: BaseException, clock: Clock) -> dict[str, Any]:
    """The content of result.json for a run that `error` ended."""
    return {"status": "failed", "error": reason(error), "seconds": clock.report()}


def hand_over(record: Record, result: dict[str, Any], samples: list[dict[str, Any]]) -> None:
    """Give the mirror what only the end of a run has, and close it; the record is written by now."""
    names = ("id", "question", "reference", "before", "after")
    rows = [[sample[name] for name in names] for sample in samples]
    if rows:
        record.tell(lambda mirror: mirror.table("samples", names, rows))
    leaks = record.leaks()
    if leaks:
        record.tell(lambda mirror: mirror.table("leaks", list(leaks[0]), [list(leak.values()) for leak in leaks]))
    if result["status"] == "complete":
        record.tell(lambda mirror: mirror.adapter(record.directory.adapter))
    record.tell(lambda mirror: mirror.summarize(result))
    if result["status"] != "complete":
        record.tell(lambda mirror: mirror.tag(result["status"]))
    record.tell(lambda mirror: mirror.finish(1 if result["status"] == "failed" else 0))


def test_command(directory: rundir.RunDirectory) -> str:
    """The command that reads the test of the run in `directory`."""
    return shlex.join(["python", "-m", "medbot_exp", "task=evaluate", directory.override("task.run")])


def next_grid(hydra_files: rundir.HydraFiles, lora: LoraConfig) -> str:
    """A command worth typing after a run: the neighbouring ranks."""
    step = 2 if lora.init is LoraInit.orthogonal else 1  # which takes even ranks alone
    ranks = sorted({max(step, lora.r // 2 // step * step), lora.r, lora.r * 2})
    dropped = ("lora.r=", "name=", "study=", "trainer.resume=", "trainer.sharding=")  # a trial is one process
    return hydra_files.command(f"lora.r={','.join(map(str, ranks))}", multirun=True, without=dropped)
