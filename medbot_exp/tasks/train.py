"""task=train: prepare, measure, train, measure again, record."""

import json
import logging
import secrets
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
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
    sampled: list[Example]
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
    resumed_from = None
    if config.trainer.resume is None:
        directory.claim(hydra_files)
    else:
        resumed_from = directory.resume(hydra_files)
    with directory.held():
        result, samples, mirror = recorded(config, directory, hydra_files, study, resumed_from)
    # The run is recorded: a reader that closed the pipe does not make it a failure.
    with suppress(BrokenPipeError):
        print_summary(Console(emoji=False), result, samples, str(directory), mirror.description, following(config))
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
    except (KeyboardInterrupt, Interrupted) as stop:
        log.info("stopped")
        record.mirror.finish(failed=False)
        raise Interrupted(f"{stop}\n{resume_hint(config, directory)}".strip()) from stop
    except BaseException as error:
        known = error if isinstance(error, MedbotError) else storage_error(error)
        log.debug("the run failed", exc_info=error)
        text = str(known) if known else f"{type(error).__name__}: {error}"
        try:
            record.finish({"status": "failed", "error": text, "seconds": clock.report()})
        except OSError as full:
            raise StorageError(f"the run failed, and its record could not be written: {full}\n{text}") from error
        if known is not None and known is not error:
            raise known from error
        raise
    finally:
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(handler)
        handler.close()
    return result, samples, record.mirror


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
        from medbot_exp.tracking.manifest import environment
        from medbot_exp.training.memory import keep_freed_memory, peak_memory_gib
        from medbot_exp.training.solo import choose_precision, train, training_arguments

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if device.type == "cpu":
            keep_freed_memory()
        cache_dir = Path(config.cache_dir).expanduser()
        arguments = training_arguments(config.trainer, config.optimizer, config.seed, device, directory)
        loaded = model.load(config.model, cache_dir, device)
        prepared = prepare(config, split, loaded, cache_dir)
        items = cases.load(config.benchmark["cases"]) if "cases" in config.benchmark else []
        run_id = run_identity(directory)
        write_manifest(directory, config, environment(), loaded.located, split, prepared, run_id)
        record.mirror = open_mirror(config, directory, hydra_files.resolved, run_id, study)
    log.info(
        "%s on %s in %s: %d trainable parameters",
        config.model.name,
        device.type,
        choose_precision(config.trainer.precision, device).name,
        prepared.trainable_parameters,
    )

    def measure(step: int, name: str, loss: float | None) -> dict[str, float]:
        """Held-out loss (unless known) and benchmark accuracy now, logged under `step`."""
        with clock.phase(name):
            metrics = measurements(config, prepared, items, directory, name, loss)
            record.log(step, metrics)
        return metrics

    before = {}
    if resumed_from is not None:
        record.rewind(resumed_from)
        before = record.known(0)
        log.info("going on behind step %d", resumed_from)
    if "validation/loss" not in before:
        log.info("measuring the model as it is")
        # The fresh adapter is part of it: it starts out as no change, whatever its initialisation.
        before = measure(0, "before", None)
        with clock.phase("before"):
            write_samples(config, prepared, directory, "before")
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
    after = measure(outcome.step, "after", outcome.validation_loss)
    with clock.phase("after"):
        samples = write_samples(config, prepared, directory, "after")
        prepared.model.save_pretrained(directory.adapter)
    with clock.phase("record"):
        names = ("id", "question", "reference", "before", "after")
        record.mirror.table("samples", names, [[sample[name] for name in names] for sample in samples])
        record.mirror.adapter(directory.adapter)
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
    record.finish(result)
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
        sampled=split.validation[: config.trainer.samples],
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def measurements(
    config: RunConfig,
    prepared: Prepared,
    items: list[Example],
    directory: rundir.RunDirectory,
    phase: str,
    loss: float | None,
) -> dict[str, float]:
    """Held-out loss and benchmark accuracy of the model as it is; the predictions go to their file."""
    from medbot_exp.evaluation.benchmarks import cases
    from medbot_exp.evaluation.score import held_out_loss, perplexity

    model, tokenizer = prepared.model, prepared.tokenizer
    if loss is None:
        loss = held_out_loss(model, prepared.held_out, config.trainer.eval_batch_size, tokenizer.pad_token_id)
    metrics = {"validation/loss": loss, "validation/perplexity": perplexity(loss)}
    if items:
        predictions = cases.predict(model, tokenizer, items, prepared.shots, config.prompt)
        metrics |= {"eval/cases/accuracy": cases.accuracy(predictions), "eval/cases/n": len(predictions)}
        path = directory.predictions("cases")
        others = [row for row in rundir.read_jsonl(path) if row["phase"] != phase]
        rundir.write_jsonl(path, others + [{"phase": phase, **asdict(prediction)} for prediction in predictions])
    return metrics


def write_samples(
    config: RunConfig, prepared: Prepared, directory: rundir.RunDirectory, phase: str
) -> list[dict[str, Any]]:
    """Held-out questions answered in writing by the model as it is, added to predictions/samples.jsonl as `phase`."""
    from medbot_exp.evaluation.generate import write_answers
    from medbot_exp.prompt import prompt_tokens, render

    prompts = [
        prompt_tokens(
            render(example, prepared.shots, config.prompt, prepared.tokenizer).prompt,
            config.prompt,
            prepared.tokenizer,
        )
        for example in prepared.sampled
    ]
    answers = write_answers(
        prepared.model,
        prepared.tokenizer,
        prompts,
        config.prompt.reasoning,
        config.trainer.sample_thinking_tokens,
        config.trainer.sample_answer_tokens,
    )
    path = directory.predictions("samples")
    known = {row["id"]: row for row in rundir.read_jsonl(path)}
    rows = []
    for example, answer in zip(prepared.sampled, answers, strict=True):
        row = known.get(example.id, {"id": example.id, "question": example.question, "reference": example.answer})
        rows.append(row | {phase: answer.text, f"{phase}_forced": answer.forced, f"{phase}_ended": answer.ended})
    rundir.write_jsonl(path, rows)
    return rows


def run_identity(directory: rundir.RunDirectory) -> str:
    """The W&B id of the run: an earlier attempt's, which the manifest holds, or a new one."""
    if directory.manifest.is_file():
        return json.loads(directory.manifest.read_text(encoding="utf-8"))["run_id"]
    return secrets.token_hex(4)


def write_manifest(
    directory: rundir.RunDirectory,
    config: RunConfig,
    environment: dict[str, Any],
    located: Any,
    split: Split,
    prepared: Prepared,
    run_id: str,
) -> None:
    """manifest.json: what the run is made of. A resumed run keeps the first one and adds its own environment."""
    if directory.manifest.is_file():
        manifest = json.loads(directory.manifest.read_text(encoding="utf-8"))
        manifest["resumed"] = [*manifest.get("resumed", []), environment]
    else:
        manifest = {
            "run_id": run_id,
            **environment,
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
    rundir.write_json(directory.manifest, manifest)


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


def resume_hint(config: RunConfig, directory: rundir.RunDirectory) -> str:
    """The command that goes on with this run."""
    words = [word for word in sys.argv[1:] if not word.startswith("trainer.resume=")]
    command = shlex.join(["python", "-m", "medbot_exp", *words, f"trainer.resume={directory}"])
    return f"To go on: {command}"


def following(config: RunConfig) -> str:
    """A command worth typing after this run: the neighbouring ranks."""
    ranks = f"{max(1, config.lora.r // 2)},{config.lora.r},{config.lora.r * 2}"
    words = [word for word in sys.argv[1:] if not word.startswith(("lora.r=", "name=", "trainer.resume=", "-m"))]
    return shlex.join(["python", "-m", "medbot_exp", "-m", *words, f"lora.r={ranks}"])
