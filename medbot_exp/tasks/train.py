"""task=train: prepare, measure, train, measure again, record."""

import logging
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from medbot_exp import rundir
from medbot_exp.config import BackendName, RunConfig, TrackingName
from medbot_exp.data import sources
from medbot_exp.data.example import Example, Split, fingerprint
from medbot_exp.data.prepare import TokenizedRows, tokenize
from medbot_exp.errors import ConfigError, DataError, Interrupted, MedbotError, StorageError, storage_error
from medbot_exp.report.progress import progress_for, stderr_console
from medbot_exp.report.summary import print_summary
from medbot_exp.tracking.record import Mirror, Record

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
class Prepared:
    """Everything that training and evaluation need, in memory."""

    model: Any
    tokenizer: Any
    shots: list[Example]
    rows: TokenizedRows
    held_out: TokenizedRows
    trainable_parameters: int


def run(
    config: RunConfig, directory: rundir.RunDirectory, hydra_files: rundir.HydraFiles, study: str | None
) -> float | None:
    """Train one adapter as `config` says; the objective's value.

    Raises:
        MedbotError: the user can mend it; result.json says `failed` and why, once the directory was claimed.
        Interrupted: the user stopped the run; it can be resumed.
    """
    check_backend(config)
    if config.trainer.resume is None:
        directory.claim(hydra_files)
    with directory.held():
        resumed_from = None if config.trainer.resume is None else directory.resume(hydra_files)
        result, samples, mirror = recorded(config, directory, hydra_files, study, resumed_from)
    # The run is recorded: a reader that closed the pipe does not make it a failure.
    with suppress(BrokenPipeError):
        following = next_grid(hydra_files, config.lora.r) if study is None else None
        print_summary(Console(emoji=False), result, samples, str(directory), mirror.description, following)
    return result["objective"][config.objective.metric]


def recorded(
    config: RunConfig,
    directory: rundir.RunDirectory,
    hydra_files: rundir.HydraFiles,
    study: str | None,
    resumed_from: int | None,
) -> tuple[dict[str, Any], list[dict[str, Any]], Mirror]:
    """`perform` with its log in run.log and its end, whichever it is, in result.json."""
    handler = directory.open_log()
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    record = Record(directory, Mirror())
    clock = Clock()
    try:
        result, samples = perform(config, directory, record, clock, hydra_files, study, resumed_from)
        record.finish(result)
        hand_over(record, result, samples)
    except KeyboardInterrupt as stop:
        log.info("stopped")
        record.mirror.finish(failed=False)
        raise Interrupted(f"{stop}\n{resume_hint(hydra_files, directory)}".strip()) from stop
    except BaseException as error:
        known = error if isinstance(error, MedbotError) else storage_error(error)
        log.debug("the run failed", exc_info=error)
        text = str(known) if known else f"{type(error).__name__}: {error}"
        failed = {"status": "failed", "error": text, "seconds": clock.report()}
        try:
            record.finish(failed)
        except OSError as full:
            raise StorageError(f"the run failed, and its record could not be written: {full}\n{text}") from error
        hand_over(record, failed, [])
        if known is not None and known is not error:
            raise known from error
        raise
    finally:
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(handler)
        handler.close()
    return result, samples, record.mirror


def hand_over(record: Record, result: dict[str, Any], samples: list[dict[str, Any]]) -> None:
    """Give the mirror what only the end of a run has, and close it.

    The record is written by now: whatever goes wrong with its copy is told, and changes nothing.
    """
    mirror = record.mirror
    try:
        if samples:
            names = ("id", "question", "reference", "before", "after")
            mirror.table("samples", names, [[sample[name] for name in names] for sample in samples])
        if result["status"] == "complete":
            mirror.adapter(record.directory.adapter)
        mirror.summarize(result)
        mirror.finish(failed=result["status"] == "failed")
    except Exception as error:  # a mirror is somebody else's service: it may fail in any way
        log.warning("the mirror is not whole: %s: %s", type(error).__name__, error)


def perform(
    config: RunConfig,
    directory: rundir.RunDirectory,
    record: Record,
    clock: Clock,
    hydra_files: rundir.HydraFiles,
    study: str | None,
    resumed_from: int | None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The phases of a run; the content of result.json and of predictions/samples.jsonl."""
    split = sources.load(config.data)
    with clock.phase("load"):
        quiet_libraries()
        import torch

        from medbot_exp import model
        from medbot_exp.evaluation.benchmarks import cases
        from medbot_exp.evaluation.measure import Exam
        from medbot_exp.tracking import manifest
        from medbot_exp.training.memory import keep_freed_memory, peak_memory_gib
        from medbot_exp.training.solo import choose_precision, train, training_arguments

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if device.type == "cpu":
            keep_freed_memory()
        cache_dir = Path(config.cache_dir).expanduser()
        precision = choose_precision(config.trainer.precision, device)
        arguments = training_arguments(config.trainer, config.optimizer, config.seed, device, directory)
        loaded = model.load(config.model, cache_dir, device)
        prepared = prepare(config, split, loaded, cache_dir)
        exam = Exam(
            tokenizer=prepared.tokenizer,
            prompt=config.prompt,
            trainer=config.trainer,
            shots=prepared.shots,
            held_out=prepared.held_out,
            items=cases.load(config.benchmark["cases"]) if "cases" in config.benchmark else [],
            sampled=split.validation[: config.trainer.samples],
            directory=directory,
        )
        refuse_overlap(split.train, exam.items)
        run_id = manifest.write(directory, contents(config, loaded.located, split, prepared, precision.name))
        record.mirror = open_mirror(config, directory, hydra_files.resolved, run_id, study)
    log.info(
        "%s on %s in %s: %d trainable parameters",
        config.model.name,
        device.type,
        precision.name,
        prepared.trainable_parameters,
    )

    before = {}
    if resumed_from is not None:
        record.rewind(resumed_from)
        before = record.known(0)
        if record.mirror.starts_empty:
            for line in record.lines():
                record.mirror.log(line["step"], {key: value for key, value in line.items() if key != "step"})
        log.info("going on behind step %d", resumed_from)
    if "validation/loss" not in before:
        log.info("measuring the model as it is")
        # The fresh adapter is part of it: it starts out as no change, whatever its initialisation.
        with clock.phase("before"):
            exam.write(prepared.model, "before")
            before = exam.measure(prepared.model, "before")
        # Logged last: a resumption that finds this line finds the answers as well.
        record.log(0, before)
    log.info("held-out loss %.4f before training", before["validation/loss"])

    with clock.phase("train"):
        outcome = train(
            prepared.model,
            prepared.tokenizer,
            prepared.rows,
            prepared.held_out,
            config.trainer,
            config.optimizer,
            arguments,
            directory,
            record,
            progress_for(stderr_console()),
        )
    if outcome.stopped:
        raise Interrupted(f"after step {outcome.step} of {outcome.steps}, with a checkpoint")
    log.info("measuring the trained model")
    with clock.phase("after"):
        after = exam.measure(prepared.model, "after", outcome.validation_loss)
        samples = exam.write(prepared.model, "after")
        prepared.model.save_pretrained(directory.adapter)
    record.log(outcome.step, after)
    result = {
        "status": "complete",
        "objective": {config.objective.metric: after[config.objective.metric]},
        "metrics": after,
        "before": before,
        "steps": outcome.step,
        "resumed_from": resumed_from,
        "tokens": outcome.meter.tokens,
        "tokens_per_second": round(outcome.meter.tokens_per_second(), 1),
        "peak_memory_gib": round(peak_memory_gib(device), 3),
        "trainable_parameters": prepared.trainable_parameters,
        "seconds": clock.report(),
        "adapter": directory.adapter.name,
        "error": None,
    }
    return result, samples


def check_backend(config: RunConfig) -> None:
    """Raise a ConfigError for a backend that this machine has not; nothing heavy is imported to find out."""
    if config.backend.name is not BackendName.unsloth:
        return
    if find_spec("unsloth") is None:
        raise ConfigError(
            'backend=unsloth needs the package unsloth, which is not installed: pip install "medbot-exp[unsloth]", '
            "or use backend=peft"
        )
    raise ConfigError("backend=unsloth composes but cannot train in this version; use backend=peft")


def quiet_libraries() -> None:
    """Keep the training libraries' own chatter off the terminal; their warnings go to run.log."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_default_handler()
    transformers.utils.logging.enable_propagation()


def prepare(config: RunConfig, split: Split, loaded: Any, cache_dir: Path) -> Prepared:
    """Rows and adapter for the loaded model."""
    from transformers import set_seed

    from medbot_exp import lora

    shots, training = split.train[: config.prompt.shots], split.train[config.prompt.shots :]
    if not training:
        raise DataError(
            f"`prompt.shots` must leave rows to train on, but got prompt.shots={config.prompt.shots} "
            f"of {len(split.train)} rows; lower it"
        )
    held_out = split.validation[: config.trainer.eval_limit]
    common = (shots, config.prompt, config.data, config.model.max_length, loaded.tokenizer, cache_dir)
    rows = tokenize("train", training, *common)
    held_out_rows = tokenize("validation", held_out, *common)
    # The adapter's random initialisation follows from the seed, whatever was drawn before.
    set_seed(config.seed)
    model = lora.attach(loaded.model, config.lora)
    return Prepared(
        model=model,
        tokenizer=loaded.tokenizer,
        shots=shots,
        rows=rows,
        held_out=held_out_rows,
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def contents(config: RunConfig, located: Any, split: Split, prepared: Prepared, precision: str) -> dict[str, Any]:
    """What the manifest says of model, arithmetic, data and seed."""
    return {
        "precision": precision,
        "model": {"name": config.model.name, "source": located.source, "version": located.version},
        "data": {
            "name": config.data.name,
            "train": fingerprint(split.train),
            "validation": fingerprint(split.validation),
            "rows": {"train": len(split.train), "validation": len(split.validation)},
        },
        "tokenized": {
            name: {"fingerprint": rows.fingerprint, "dropped": rows.dropped, "shortened": rows.shortened}
            for name, rows in (("train", prepared.rows), ("validation", prepared.held_out))
        },
        "seeds": {"seed": config.seed},
    }


def open_mirror(
    config: RunConfig, directory: rundir.RunDirectory, resolved: str, run_id: str, study: str | None
) -> Mirror:
    """W&B where the config wants it, told why it is online or not."""
    if config.tracking.name is TrackingName.none:
        return Mirror()
    from medbot_exp.tracking.wandb import WandbMirror, decide_mode

    mode = decide_mode(config.tracking)
    log.info("W&B is %s: %s", mode.name, mode.reason)
    name = config.name if study is None else directory.path.name
    content = yaml.safe_load(resolved)
    return WandbMirror(config.tracking, mode, directory.path, run_id, name, content, study)


def refuse_overlap(training: list[Example], items: Sequence[Example]) -> None:
    """Raise a DataError where a benchmark's question is among the training rows: its score would mean nothing."""
    asked = {" ".join(item.question.split()).lower(): item.id for item in items}
    both = [asked[text] for row in training if (text := " ".join(row.question.split()).lower()) in asked]
    if both:
        raise DataError(
            f"no benchmark question may be trained on, but {len(both)} of {len(items)} are among the training rows "
            f"({', '.join(both[:3])}); hold them out with data.columns.split, or use benchmark=[]"
        )


def resume_hint(hydra_files: rundir.HydraFiles, directory: rundir.RunDirectory) -> str:
    """The command that goes on with this run: a trial's own overrides, where it is one of a grid."""
    words = [word for word in hydra_files.task_overrides() if not word.startswith("trainer.resume=")]
    return "To go on: " + shlex.join(["python", "-m", "medbot_exp", *words, f"trainer.resume={directory}"])


def next_grid(hydra_files: rundir.HydraFiles, r: int) -> str:
    """A command worth typing after a run: the neighbouring ranks."""
    ranks = ",".join(str(rank) for rank in sorted({max(1, r // 2), r, r * 2}))
    dropped = ("lora.r=", "name=", "study=", "trainer.resume=")
    words = [word for word in hydra_files.task_overrides() if not word.startswith(dropped)]
    return shlex.join(["python", "-m", "medbot_exp", "-m", *words, f"lora.r={ranks}"])
