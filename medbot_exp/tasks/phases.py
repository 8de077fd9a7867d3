"""The phases of a run: load, measure, train, measure again."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from medbot_exp import rundir
from medbot_exp.config import Precision, RunConfig, Sharding
from medbot_exp.data.example import Example
from medbot_exp.device import choose_precision
from medbot_exp.errors import Interrupted
from medbot_exp.evaluation.examine import with_room
from medbot_exp.evaluation.measure import Exam, Examiner
from medbot_exp.evaluation.paper import Paper, named
from medbot_exp.evaluation.score import held_out_metrics
from medbot_exp.model import Loaded, Outline, digest_meanwhile, locate, outline
from medbot_exp.model_files import positions_of
from medbot_exp.objectives import REPORTED
from medbot_exp.processes import Processes, share_of
from medbot_exp.report.console import stderr_console
from medbot_exp.report.progress import Lines, plural, progress_for
from medbot_exp.sweep.job import RunningTrial
from medbot_exp.tasks.memory_plan import explained, plan_memory
from medbot_exp.tasks.start import (
    Inputs,
    Prepared,
    Tokenized,
    base_identity,
    manifest_contents,
    prepare,
    quiet_libraries,
    tokenized,
)
from medbot_exp.tracking import manifest
from medbot_exp.tracking.record import Mirror, Record
from medbot_exp.tracking.wandb import Place, open_mirror
from medbot_exp.training import backend, kernels
from medbot_exp.training.allocator import free_host_bytes, keep_freed_memory, peak_memory_gib

if TYPE_CHECKING:
    from medbot_exp.training.solo import Outcome

log = logging.getLogger(__name__)


@dataclass
class Clock:
    """Wall time by phase, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the body as `name`."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun

    def report(self) -> dict[str, float]:
        """Every phase and the total, to the millisecond."""
        return {name: round(value, 3) for name, value in self.seconds.items()} | {
            "total": round(time.perf_counter() - self.started, 3)
        }


@dataclass(frozen=True)
class Job:
    """One invocation: what is asked, where it writes, what it starts from.

    Attributes:
        study: the study that the run is a trial of; None for a single run.
    """

    config: RunConfig
    directory: rundir.RunDirectory
    hydra_files: rundir.HydraFiles
    study: str | None
    inputs: Inputs
    clock: Clock
    trial: RunningTrial | None
    processes: Processes

    def pruned_at(self, step: int, loss: float) -> bool:
        """Report the held-out loss of `step` to the study of a search; whether the study ends the trial there."""
        goals = list(self.config.objective.goals())
        if self.trial is None or len(goals) > 1 or goals[0] not in REPORTED:
            return False
        self.trial.report(held_out_metrics(loss)[goals[0]], step)
        return self.trial.should_prune()


def perform(job: Job, record: Record, resumed_from: int | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The phases of a run; the content of result.json and of predictions/samples.jsonl."""
    config, clock, device, processes = job.config, job.clock, job.inputs.device, job.processes
    with clock.phase("load"):
        cache_dir = Path(config.cache_dir).expanduser()
        cache_dir.mkdir(parents=True, exist_ok=True)
        with digest_meanwhile(config.model, cache_dir) if processes.local_rank == 0 else nullcontext():
            backend.begin(config.backend.name, cache_dir)
            quiet_libraries()
        if device.type == "cpu":
            keep_freed_memory()
        with processes.local_first():
            outlined = outline(config.model, cache_dir)
            rows = tokenized(config, job.inputs.split, outlined, cache_dir)
            papers = papers_with_room(config, job.inputs.papers, rows.shots, outlined)
        # How much of divided weights is whole at a time is not planned.
        planned = config.trainer.sharding is Sharding.none
        plan = plan_memory(config, outlined, rows.longest(), device, processes.count) if planned else None
        if plan is not None and plan.free is not None:
            log.info("memory plan: %.2f GiB at most of %.2f free", plan.footprint().gib(), plan.free_gib())
            plan.refuse()
        elif plan is not None and (shortage := plan.shortage(free_host_bytes())) is not None:
            log.warning("the run takes about %.2f GiB, but %s", plan.footprint().gib(), shortage)
    with explained(plan):
        return train_and_measure(job, record, resumed_from, outlined, rows, papers)


def papers_with_room(
    config: RunConfig, papers: Sequence[Paper], shots: Sequence[Example], outlined: Outline
) -> list[Paper]:
    """`papers` with the items that the model has room for; errors as of paper.fitting."""
    positions = positions_of(outlined.config.get_text_config().to_dict())
    if positions is None:
        return list(papers)
    fitted = [with_room(paper, config.prompt, shots, outlined.tokenizer, positions) for paper in papers]
    for paper in fitted:
        if paper.too_long:
            log.warning(
                "%s: %d of %d items are left out, as they do not fit into the model's %d tokens: %s",
                paper.metric,
                len(paper.too_long),
                len(paper.too_long) + len(paper.items),
                positions,
                named(paper.too_long),
            )
    return fitted


def train_and_measure(
    job: Job,
    record: Record,
    resumed_from: int | None,
    outlined: Outline,
    rows: Tokenized,
    papers: Sequence[Paper],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`perform` from the weights on: nothing before them takes much memory."""
    config, directory, clock, device = job.config, job.directory, job.clock, job.inputs.device
    processes = job.processes
    precision = choose_precision(config.trainer.precision, device)
    with clock.phase("load"):
        from medbot_exp.training.arguments import training_arguments
        from medbot_exp.training.parallel import shard
        from medbot_exp.training.solo import Training, train

        loaded = load(job, outlined)
        chosen = kernels.choose(config, device, loaded.model.config.model_type, processes.count)
        share = share_of(config.trainer, processes.count)
        arguments = training_arguments(share, config.optimizer, precision, config.seed, device, directory, chosen)
        prepared = prepare(config, loaded, rows, device)
        if config.trainer.sharding is Sharding.full:
            shard(prepared.model, device)
        examiner = Examiner(
            tokenizer=prepared.tokenizer,
            prompt=config.prompt,
            shots=prepared.shots,
            lora=config.lora,
            seed=config.seed,
            weights=base_identity(config, loaded.located.version, device, processes),
            precision=precision,
            cache_dir=Path(config.cache_dir).expanduser(),
            given_away=job.inputs.passed.given_away(papers),
            processes=processes,
        )
        exam = Exam(
            examiner=examiner,
            trainer=config.trainer,
            held_out=prepared.held_out,
            papers=papers,
            sampled=job.inputs.split.validation[: config.trainer.samples],
            record=record,
        )
        processes.of_first(lambda: begin_record(job, record, loaded, prepared, papers, precision))
    log.info(
        "%s on %s in %s: %d trainable parameters",
        config.model.name,
        device.type,
        precision.name,
        prepared.trainable_parameters,
    )
    if processes.count > 1:
        own = share.batch_size * share.gradient_accumulation_steps
        log.info("%d processes, each with %s of a step", processes.count, plural(own, "row"))

    before = {} if resumed_from is None else processes.of_first(lambda: taken_up(job, record, resumed_from))
    if "validation/loss" not in before:
        log.info("measuring the model as it is")
        # The fresh adapter is part of it: it starts out as no change, whatever its initialisation.
        with clock.phase("before"):
            exam.write(prepared.model, "before")
            before = exam.before(prepared.model)
        # Logged last: a resumption that finds this line finds the answers as well.
        record.log(0, before)
    log.info("held-out loss %.4f before training", before["validation/loss"])

    training = Training(
        model=prepared.model,
        tokenizer=prepared.tokenizer,
        rows=prepared.rows,
        held_out=prepared.held_out,
        trainer=config.trainer,
        optimizer=config.optimizer,
        arguments=arguments,
        precision=precision,
    )
    with clock.phase("train"):
        progress = progress_for(stderr_console()) if processes.first else Lines()
        outcome = train(training, directory, record, progress, job.pruned_at, processes)
    done = {
        "steps": outcome.step,
        "adapter_step": outcome.kept_step,
        "resumed_from": resumed_from,
        "tokens": outcome.meter.tokens,
        "tokens_per_second": round(outcome.meter.tokens_per_second(), 1),
        "trainable_parameters": prepared.trainable_parameters,
    }
    if outcome.pruned:
        return pruned_result(job, record, outcome, before, done), []
    if outcome.stopped:
        raise Interrupted(f"after step {outcome.step} of {outcome.steps}, with a checkpoint")
    return measured_result(job, record, prepared.model, exam, outcome, before, done)


def pruned_result(
    job: Job, record: Record, outcome: "Outcome", before: dict[str, Any], done: dict[str, Any]
) -> dict[str, Any]:
    """The content of result.json for a run that its study ended.

    Args:
        before: the metrics before training.
        done: what the training took.
    """
    log.info("pruned after step %d of %d", outcome.step, outcome.steps)
    metrics = {key: value for key, value in record.known(outcome.step).items() if key.startswith("validation/")}
    done = done | {"peak_memory_gib": round(peak_memory_gib(job.inputs.device), 3)}
    if job.trial is not None:
        # Without these, a sampler takes a pruned trial that is too large for one that keeps its bounds. The
        # held-out metrics are not told: they are those of a training that has not ended.
        job.trial.measured(done)
    ended = {"status": "pruned", "objective": {}, "metrics": metrics, "before": before}
    return ended | done | {"seconds": job.clock.report(), "adapter": None, "error": None}


def measured_result(
    job: Job,
    record: Record,
    model: Any,
    exam: Exam,
    outcome: "Outcome",
    before: dict[str, Any],
    done: dict[str, Any],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure the trained `model` and save its adapter; arguments as of `pruned_result`, results as of `perform`."""
    directory = job.directory
    if outcome.step < outcome.steps:
        log.info("stopped early at step %d of %d: no improvement", outcome.step, outcome.steps)
    if outcome.kept_step != outcome.step:
        log.info("keeping the adapter of step %d, the best evaluated", outcome.kept_step)
    log.info("measuring the trained model")
    with job.clock.phase("after"):
        after = exam.after(model, outcome.validation_loss)
        samples = exam.write(model, "after")
        job.processes.of_first(lambda: save_adapter(model, directory))
    # The last step's evaluation has its line already; what the end adds gets one more.
    added = {key: value for key, value in after.items() if key not in record.known(outcome.step)}
    if added:
        record.log(outcome.step, added)
    done = done | {"peak_memory_gib": round(peak_memory_gib(job.inputs.device), 3)}  # of the evaluation as well
    if job.trial is not None:
        job.trial.measured(after | done)  # before the result is written: from there on the trial counts
    result = {
        "status": "complete",
        "objective": {metric: (after | done)[metric] for metric in job.config.objective.goals()},
        "metrics": after,
        "before": before,
        "against_base": exam.against_base() if job.processes.first else {},
        **done,
        "seconds": job.clock.report(),
        "adapter": directory.adapter.name,
        "error": None,
    }
    return result, samples


def load(job: Job, outlined: Outline) -> Loaded:
    """The model of the job, on this process's device, or in the host's memory where it is to be divided.

    It is fetched, converted and hashed by one process of a host; the others find it in the cache.
    """
    with job.processes.local_first():
        located = locate(job.config.model, Path(job.config.cache_dir).expanduser())
    if job.config.trainer.sharding is Sharding.none:
        return backend.load(job.config, outlined, located, job.inputs.device)
    import torch

    from medbot_exp.training.parallel import on_host

    return backend.load(on_host(job.config, job.inputs.device), outlined, located, torch.device("cpu"))


def begin_record(
    job: Job, record: Record, loaded: Loaded, prepared: Prepared, papers: Sequence[Paper], precision: Precision
) -> None:
    """Write the manifest, and open the mirror."""
    directory = job.directory
    name = job.config.name if job.study is None else directory.path.name
    contents = manifest_contents(job.config, name, job.study, job.inputs, loaded, prepared, papers, precision.name)
    if job.trial is not None:
        contents["run_id"] = job.trial.run_id
    written = manifest.write(directory, contents)
    leaks = job.inputs.passed.rows()
    if leaks:
        record.write_leaks(leaks)
    directory.result.unlink(missing_ok=True)  # of an attempt that failed; this one writes its own
    record.mirror = mirror_of(job, written["run_id"], written["name"], written["study"])


def save_adapter(model: Any, directory: rundir.RunDirectory) -> None:
    """Write the adapter in PEFT's format."""
    # Else PEFT adds the weights below an adapter of the head: they are the base model's.
    model.save_pretrained(directory.adapter, save_embedding_layers=False)
    (directory.adapter / "README.md").unlink(missing_ok=True)  # PEFT's model card is a form with empty fields


def taken_up(job: Job, record: Record, resumed_from: int) -> dict[str, Any]:
    """The metrics of step 0 of a run that goes on after step `resumed_from`; its later lines are forgotten.

    A trial that is tried again tells its study what an unbroken one would have told by now.
    """
    record.rewind(resumed_from)
    for line in record.lines():
        if line["step"] > 0 and "validation/loss" in line:
            # Asked after each one, as pruners note a rung when they are asked: told of the last alone, successive
            # halving would compare it with what fresh trials had at its first rung. The answers come too late.
            job.pruned_at(line["step"], line["validation/loss"])
    if record.mirror.starts_empty:
        for line in record.lines():
            record.tell(methodcaller("log", line.pop("step"), line))
    log.info("resuming after step %d", resumed_from)
    return record.known(0)


def mirror_of(job: Job, run_id: str, name: str, study: str | None) -> Mirror:
    """W&B where the config wants it, under the id, name and study of the run's first attempt."""
    if job.inputs.mode is None:
        return Mirror()
    log.info("W&B is %s: %s", job.inputs.mode.name, job.inputs.mode.reason)
    content = yaml.safe_load(job.hydra_files.resolved)
    place = Place(job.directory.path, run_id, name, study, "train" if study is None else "trial")
    return open_mirror(job.config.tracking, job.inputs.mode, place, content)
