"""task=evaluate: benchmarks put to the model of a run and to its base, or to a base model alone."""

import gc
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import OmegaConf

from medbot_exp import rundir
from medbot_exp.config import RunConfig, TrackingName
from medbot_exp.data import sources
from medbot_exp.data.example import Example, fingerprint
from medbot_exp.data.leaks import Audit, audit
from medbot_exp.device import choose_dtype, choose_precision, find_device, refuse_lacking, refuse_unfit
from medbot_exp.errors import ConfigError, DataError, Interrupted, MedbotError, RunDirectoryError, first_line
from medbot_exp.evaluation.examine import longest, plain
from medbot_exp.evaluation.generate import end_tokens
from medbot_exp.evaluation.measure import Answers, Examiner, compared
from medbot_exp.evaluation.paper import Paper, read_papers, read_tests
from medbot_exp.evaluation.vllm import Server, Vllm, answered_by_vllm, refuse_without_vllm
from medbot_exp.lora import check_saved, restore, saved_digest
from medbot_exp.model import Located, Outline, generation_config, locate, outline
from medbot_exp.processes import ALONE
from medbot_exp.report.console import stdout_console
from medbot_exp.report.evaluation import print_evaluation
from medbot_exp.rules import typed
from medbot_exp.rundir import base_of, read_jsonl, write_json, write_jsonl
from medbot_exp.tasks.leak_gate import asked_of, told_of, worked_audit
from medbot_exp.tasks.phases import papers_with_room
from medbot_exp.tasks.start import base_identity, benchmarks_told, quiet_libraries, refuse_conflicts
from medbot_exp.tracking import manifest
from medbot_exp.tracking.record import Mirror, Record, finite
from medbot_exp.tracking.wandb import Mode, Place, decide_mode, open_mirror
from medbot_exp.training import backend
from medbot_exp.training.allocator import keep_freed_memory

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

DEVELOPMENT_KEY = re.compile(r"\+*benchmark\.\w+\.development(?:_\w+)?=")
# What the command says itself; all else is the run's.
OWN = ("task", "benchmark", "tracking", "model.path", "cache_dir", "root", "name", "study")


@dataclass(frozen=True)
class Subject:
    """What is evaluated, and where its record is.

    Attributes:
        config: of the run, with the benchmarks that are asked now.
        manifest: of the run; None for a base model alone, which gets a record of its own.
        rows: that the model was trained on, of a base model those that its prompt shows; None where they are not known.
    """

    config: RunConfig
    directory: rundir.RunDirectory
    manifest: dict[str, Any] | None
    rows: Sequence[Example] | None


@dataclass(frozen=True)
class Evaluated:
    """The answers to one paper, and who wrote them; `tuned` is None for a base model alone."""

    paper: Paper
    writer: str
    base: Answers
    tuned: Answers | None


def run(config: RunConfig, directory: rundir.RunDirectory, hydra_files: rundir.HydraFiles) -> float:
    """Evaluate what `config` names and print what that came to; the accuracy on the first benchmark.

    Args:
        directory: for the record of a base model alone; a run has its own.

    Raises:
        MedbotError: the user can mend it; nothing is written.
        Interrupted: the user stopped it; the answers so far are kept.
    """
    subject = subject_of(config, directory, hydra_files)
    refuse_conflicts(subject.config, ALONE)
    refuse_lacking(subject.config)
    refuse_without_vllm(subject.config.benchmark)
    mode = decide_mode(config.tracking) if config.tracking.name is TrackingName.wandb else None
    device = find_device()
    refuse_unfit(subject.config, device)
    papers = papers_of(subject)
    found = held_against(subject, papers)
    logging.captureWarnings(True)  # the libraries' own are no news
    try:
        evaluated = perform(subject, papers, found, device)
    except KeyboardInterrupt as stop:
        raise Interrupted("the same command goes on behind the answers so far") from stop
    finally:
        logging.captureWarnings(False)
    if subject.manifest is None:
        subject.directory.claim(hydra_files)
    with subject.directory.held():
        evaluations = record(subject, evaluated, found, device)
        mirror = mirrored(subject, config, mode, evaluations)
    directory.discard_empty()
    print_evaluation(stdout_console(), evaluations, subject.directory, mirror.description)
    first = papers[0].metric
    return float((evaluations[first]["tuned"] or evaluations[first]["base"])[f"eval/{first}/accuracy"])


def subject_of(config: RunConfig, directory: rundir.RunDirectory, hydra_files: rundir.HydraFiles) -> Subject:
    """What `config` asks to be evaluated.

    Raises:
        RunDirectoryError: `task.run` has no run, no adapter, or is of another version.
        ConfigError: something else than benchmarks is to be other than in the run.
    """
    if config.task.run is None:
        rows = sources.load(config.data).train[: config.prompt.shots] if config.prompt.shots else []
        if len(rows) < config.prompt.shots:
            raise DataError(f"prompt.shots={config.prompt.shots} must be rows, but data has {len(rows)}; show fewer")
        return Subject(config, directory, None, rows)
    trained = rundir.RunDirectory(Path(config.task.run).expanduser())
    trained.require_adapter("task.run")
    refuse_others(hydra_files.task_overrides())
    own = config_of(trained)
    check_saved(trained.adapter, own.lora)
    asked = any(word.lstrip("+").startswith("benchmark") for word in hydra_files.task_overrides())
    benchmarks = config.benchmark if asked else own.benchmark
    moved = own.model if config.model.path is None else replace(own.model, path=config.model.path)
    evaluated = replace(
        own,
        task=config.task,
        model=moved,
        benchmark=benchmarks,
        tracking=config.tracking,
        cache_dir=config.cache_dir,
    )
    if not benchmarks:
        none = "got benchmark=[]" if asked else f"{trained} has none"
        raise ConfigError(f"an evaluation needs a benchmark, but {none}; give some, as benchmark=[medqa]")
    told = json.loads(trained.manifest.read_text(encoding="utf-8"))
    if "chosen_by" not in told:
        raise other_version(trained, f"{trained.manifest} does not say what it was chosen by")
    return Subject(evaluated, trained, told, trained_rows(evaluated, trained, told))


def papers_of(subject: Subject) -> list[Paper]:
    """What `subject` is asked; errors as of `read_papers` and `read_tests`."""
    if subject.manifest is None:
        tests, _ = read_papers(subject.config)
        return tests
    return read_tests(subject.config, frozenset(subject.manifest["chosen_by"]))


def refuse_others(overrides: Sequence[str]) -> None:
    """Raise a ConfigError where the command changes what is the run's own."""
    developing = [word for word in overrides if DEVELOPMENT_KEY.match(word)]
    if developing:
        raise ConfigError(
            "a run is evaluated without the items that it was chosen by, which it has in its record, but got "
            f"{' '.join(developing)}; leave that out"
        )
    others = [word for word in overrides if not word.lstrip("+").partition("=")[0].startswith(OWN)]
    if others:
        raise ConfigError(
            "a run is evaluated with its own model, prompt and adapter, but got "
            f"{' '.join(others)}; leave that out, or train a run with it"
        )


def config_of(directory: rundir.RunDirectory) -> RunConfig:
    """The config that the run in `directory` was made with.

    Raises:
        RunDirectoryError: it is not one of this version.
    """
    content = OmegaConf.load(directory.config)
    try:
        return typed(OmegaConf.merge(OmegaConf.structured(RunConfig), content))  # type: ignore[arg-type]
    except Exception as error:  # OmegaConf's, or ours for keys that an older config lacks
        raise other_version(directory, f"{directory.config} does not fit it: {first_line(error)}") from error


def other_version(directory: rundir.RunDirectory, reason: str) -> RunDirectoryError:
    """The error for a run that was made by another version, which `reason` tells."""
    return RunDirectoryError(
        f"`task.run` must name a run of this version, but {reason}; evaluate {directory} with the version in its "
        "manifest.json"
    )


def trained_rows(config: RunConfig, directory: rundir.RunDirectory, told: Mapping[str, Any]) -> list[Example] | None:
    """The rows that the run in `directory` was trained on; None, with a word in the log, where they are not to be had.

    Raises:
        DataError: they are not to be had, and the run's prompt shows some.
    """
    try:
        every = sources.load(config.data).train
    except MedbotError as error:
        reason = first_line(error)
    else:
        leaks = read_jsonl(directory.leaks) if told["leaks"]["policy"] == "drop" else []
        dropped = {leak["row"] for leak in leaks if leak["part"] == "train"}
        rows = [row for row in every if row.id not in dropped]
        if fingerprint(rows) == told["data"]["train"]:
            return rows
        reason = "they have changed since"
    if config.prompt.shots:
        raise DataError(f"the run's prompt shows {config.prompt.shots} of its rows, which must be there, but: {reason}")
    log.warning("the rows that the run was trained on are not held against the benchmarks: %s", reason)
    return None


def held_against(subject: Subject, papers: Sequence[Paper]) -> Audit:
    """What of `papers` the rows of `subject` give away, and their worked examples; the log tells of it."""
    asked = [replace(paper, others=()) for paper in papers]
    rows = subject.rows or ()
    sought = [each for paper in asked for each in asked_of(paper)]
    found = audit(rows, sought) if rows else Audit(0, {paper.metric: len(paper.items) for paper in asked}, [])
    if found.leaks:
        use = "the prompt shows and that" if subject.manifest is None else "were trained on and"
        log.warning("rows that %s give away an item of a benchmark: %s", use, told_of(found))
    return replace(found, leaks=[*found.leaks, *worked_audit(asked).leaks])


def perform(subject: Subject, papers: Sequence[Paper], found: Audit, device: "torch.device") -> list[Evaluated]:
    """Load the model, ask it, attach its adapter, ask it again.

    Raises:
        ModelError: the base is another than that of the run, or the adapter does not fit it.
    """
    config = subject.config
    cache_dir = Path(config.cache_dir).expanduser()
    backend.begin(config.backend.name, cache_dir)
    quiet_libraries()
    if device.type == "cpu":
        keep_freed_memory()
    outlined = outline(config.model, cache_dir)
    shots = list(subject.rows or ())[: config.prompt.shots]
    fitted = papers_with_room(config, papers, shots, outlined)
    located = locate(config.model, cache_dir)
    if subject.manifest is not None:
        refuse_other_base(subject.manifest["model"], located.version, located.source)
    examiner = Examiner(
        tokenizer=outlined.tokenizer,
        prompt=config.prompt,
        shots=shots,
        lora=config.lora,
        seed=config.seed,
        weights=base_identity(config, located.version, device, ALONE),
        precision=choose_precision(config.trainer.precision, device),
        cache_dir=cache_dir,
        given_away={name: items for name, items in found.given_away().items() if items},
        processes=ALONE,
    )
    is_tuned = subject.manifest is not None
    served = answered_by_vllm(config, fitted, located, device.type == "cuda", is_tuned)
    others = [paper for paper in fitted if paper not in served]
    adapter = subject.directory.adapter if is_tuned else None
    evaluated: dict[str, Evaluated] = {}
    # In turn, as each wants the GPU's memory for itself.
    if others:
        evaluated |= in_memory(config, adapter, examiner, others, outlined, located, device)
    if served:
        release_memory(device)
        evaluated |= by_vllm(config, adapter, examiner, served, outlined, located, device)
    return [evaluated[paper.metric] for paper in fitted]


def in_memory(
    config: RunConfig,
    adapter: Path | None,
    examiner: Examiner,
    papers: Sequence[Paper],
    outlined: Outline,
    located: Located,
    device: "torch.device",
) -> dict[str, Evaluated]:
    """`papers` by metric, answered by the model in our own memory, without its `adapter` and with it."""
    loaded = backend.load(config, outlined, located, device)
    base = {paper.metric: examiner.base(loaded.model, paper, fresh=False) for paper in papers}
    tuned: dict[str, Answers] = {}
    if adapter is not None:
        from transformers import set_seed

        set_seed(config.seed)  # some initialisations take the adapter out of the base weights first
        model = backend.attach(loaded, config, device)
        restore(model, adapter)
        tuned = {paper.metric: examiner.tuned(model, paper) for paper in papers}
    name = examiner.writer(loaded.model).name
    return {paper.metric: Evaluated(paper, name, base[paper.metric], tuned.get(paper.metric)) for paper in papers}


def by_vllm(
    config: RunConfig,
    adapter: Path | None,
    examiner: Examiner,
    papers: Sequence[Paper],
    outlined: Outline,
    located: Located,
    device: "torch.device",
) -> dict[str, Evaluated]:
    """As `in_memory`, by vLLM."""
    assert located.directory is not None, "answered_by_vllm"
    server = Server(
        directory=located.directory,
        dtype=str(choose_dtype(config.model.dtype, device)).removeprefix("torch."),
        length=max(longest(paper, config.prompt, examiner.shots, outlined.tokenizer) for paper in papers),
        rank=None if adapter is None else config.lora.r,
    )
    ends = end_tokens(generation_config(located.directory, outlined.config), outlined.tokenizer)
    base, tuned = Vllm(server, None, ends), Vllm(server, adapter, ends)
    identity = None if adapter is None else examiner.adapter(saved_digest(adapter))
    return {
        paper.metric: Evaluated(
            paper,
            base.name,
            examiner.ask(base, paper, None),
            None if identity is None else examiner.ask(tuned, paper, identity),
        )
        for paper in papers
    }


def release_memory(device: "torch.device") -> None:
    """Give back what a model held that nothing refers to any more."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def refuse_other_base(told: Mapping[str, Any], version: str, source: str) -> None:
    """Raise a RunDirectoryError where the base model is not the one in the manifest, whose `model` is `told`."""
    if told["version"] != version:
        raise RunDirectoryError(
            f"an adapter belongs to the base model that it was trained on, but the run's was {told['source']} "
            f"({told['version'][:12]}), and {source} is {version[:12]}; restore it, or give its place with model.path="
        )


def record(
    subject: Subject, evaluated: Sequence[Evaluated], found: Audit, device: "torch.device"
) -> dict[str, dict[str, Any]]:
    """Write evaluations/ of the run, and the record of a base model alone; the evaluations by metric."""
    directory = subject.directory
    told = benchmarks_told([each.paper for each in evaluated])
    evaluations = {}
    for each in evaluated:
        metric = each.paper.metric
        write_jsonl(directory.evaluated(base_of(metric)), each.base.rows())
        if each.tuned:
            write_jsonl(directory.evaluated(metric), each.tuned.rows())
        evaluations[metric] = {
            "benchmark": each.paper.name,
            "settings": plain(asdict(each.paper.benchmark)),
            "writer": each.writer,
            **told[metric],
            "too_long": list(each.paper.too_long),
            "base": each.base.metrics,
            "tuned": each.tuned.metrics if each.tuned else None,
            "against_base": compared(each.base.predictions, each.tuned.predictions) if each.tuned else None,
            "leaks": None if subject.rows is None else found.counts()[metric],
            "environment": manifest.environment(),
        }
        write_json(directory.evaluation(metric), finite(evaluations[metric]))
    if subject.manifest is None:
        record_base(subject, evaluations, device)
    return evaluations


def record_base(subject: Subject, evaluations: Mapping[str, Any], device: "torch.device") -> None:
    """Write manifest.json and result.json of the evaluation of a base model alone."""
    config = subject.config
    located = locate(config.model, Path(config.cache_dir).expanduser())
    manifest.write(
        subject.directory,
        {
            "name": config.name,
            "study": None,
            "precision": choose_precision(config.trainer.precision, device).name,
            "model": {"name": config.model.name, "source": located.source, "version": located.version},
            "benchmarks": {
                metric: {key: each[key] for key in ("fingerprint", "asked", "worked")}
                for metric, each in evaluations.items()
            },
            "seeds": {"seed": config.seed},
        },
    )
    metrics = {key: value for each in evaluations.values() for key, value in each["base"].items()}
    ended = {"status": "complete", "objective": {}, "metrics": metrics, "adapter": None, "error": None}
    write_json(subject.directory.result, ended)


def mirrored(
    subject: Subject, config: RunConfig, mode: Mode | None, evaluations: Mapping[str, Mapping[str, Any]]
) -> Mirror:
    """The W&B run of the subject, its own where it has one, with what `evaluations` came to."""
    if mode is None:
        return Mirror()
    log.info("W&B is %s: %s", mode.name, mode.reason)
    directory = subject.directory
    told = json.loads(directory.manifest.read_text(encoding="utf-8"))
    kind = "evaluate" if subject.manifest is None else "train" if told["study"] is None else "trial"
    place = Place(directory.path, told["run_id"], told["name"], told["study"], kind)
    files = Record(directory, open_mirror(config.tracking, mode, place, yaml.safe_load(directory.config.read_text())))
    for metric, each in evaluations.items():
        summary = {"metrics": each["tuned"] or each["base"]}
        if each["tuned"]:
            summary |= {"base": each["base"], "against_base": {metric: each["against_base"]}}
        files.tell(lambda mirror, summary=summary: mirror.summarize(summary))  # type: ignore[misc]
    files.tell(lambda mirror: mirror.finish(0))
    return files.mirror
