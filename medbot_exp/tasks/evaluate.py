"""task=evaluate: benchmarks put to the model of a run and to its base, or to a base model alone."""

import gc
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from medbot_exp import rundir
from medbot_exp.config import RunConfig, TrackingName
from medbot_exp.data.leaks import Audit, audit
from medbot_exp.data.sources import check_file
from medbot_exp.device import choose_dtype, choose_precision, find_device, refuse_lacking, refuse_unfit
from medbot_exp.errors import Interrupted, RunDirectoryError
from medbot_exp.evaluation.examine import longest, plain
from medbot_exp.evaluation.generate import end_tokens
from medbot_exp.evaluation.measure import Answers, Examiner, compared
from medbot_exp.evaluation.paper import Paper, read_papers, read_tests
from medbot_exp.evaluation.vllm import Server, Vllm, answered_by_vllm, refuse_without_vllm
from medbot_exp.model import Located, Outline, generation_config, locate, outline
from medbot_exp.model_files import check_paths
from medbot_exp.processes import ALONE, refuse
from medbot_exp.report.console import stdout_console
from medbot_exp.report.evaluation import print_evaluation
from medbot_exp.rundir import base_of
from medbot_exp.saved_adapter import check_finite, check_fits, restore, saved_digest
from medbot_exp.tasks.leak_gate import asked_of, told_of, worked_audit
from medbot_exp.tasks.phases import papers_with_room
from medbot_exp.tasks.start import base_identity, benchmarks_told, quiet_libraries
from medbot_exp.tasks.subject import Subject, subject_of
from medbot_exp.tracking import manifest
from medbot_exp.tracking.record import Mirror, Record, finite
from medbot_exp.tracking.wandb import Mode, Place, decide_mode, open_mirror
from medbot_exp.training import backend
from medbot_exp.training.allocator import keep_freed_memory
from medbot_exp.whole_files import read_json, read_object, write_json, write_jsonl

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What gives away items of the papers.

    Attributes:
        rows: of the subject; None where they are not known.
        worked: examples of the benchmarks.
    """

    rows: Audit | None
    worked: Audit

    def given_away(self) -> dict[str, frozenset[str]]:
        """By metric, the ids of the items that something gives away."""
        rows, worked = ({} if each is None else each.given_away() for each in (self.rows, self.worked))
        none: frozenset[str] = frozenset()
        return {metric: rows.get(metric, none) | worked.get(metric, none) for metric in rows.keys() | worked.keys()}

    def counts(self, metric: str) -> dict[str, dict[str, int] | None]:
        """Leaks by kind, as the record of `metric` tells them: None of what was not there to be looked through."""
        rows = None if self.rows is None else self.rows.counts()[metric]
        return {"rows": rows, "worked": self.worked.counts().get(metric)}


@dataclass(frozen=True)
class Examinee:
    """The model that is asked, wherever it answers.

    Attributes:
        config: of its run.
        adapter: where its adapter is; None for a base model alone.
        examiner: puts papers to it.
        device: what computes its answers.
    """

    config: RunConfig
    outlined: Outline
    located: Located
    adapter: Path | None
    examiner: Examiner
    device: "torch.device"


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
    refuse(subject.config, ALONE)
    check_paths(subject.config.model)
    if subject.manifest is None:  # of a run that shows no rows, those that it was trained on may be gone
        check_file(subject.config.data)
    refuse_lacking(subject.config)
    refuse_without_vllm(subject.config.benchmark)
    tracking = subject.config.tracking
    mode = decide_mode(tracking) if tracking.name is TrackingName.wandb else None
    device = find_device()
    refuse_unfit(subject.config, device)
    papers = papers_of(subject)
    for paper in papers:
        tell_others(subject.directory, paper.metric)
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
        mirror = mirrored(subject, mode, evaluations)
    directory.discard_empty()
    print_evaluation(stdout_console(), evaluations, subject.directory, mirror.description)
    first = papers[0].metric
    return float((evaluations[first]["tuned"] or evaluations[first]["base"])[f"eval/{first}/accuracy"])


def papers_of(subject: Subject) -> list[Paper]:
    """What `subject` is asked; errors as of `read_papers` and `read_tests`."""
    if subject.manifest is None:
        tests, _ = read_papers(subject.config)
        return tests
    return read_tests(subject.config, frozenset(subject.manifest["chosen_by"]))


def held_against(subject: Subject, papers: Sequence[Paper]) -> Found:
    """What of `papers` the rows of `subject` give away, and their worked examples; the log tells of it."""
    asked = [replace(paper, others=()) for paper in papers]
    rows = None if subject.rows is None else audit(subject.rows, [each for paper in asked for each in asked_of(paper)])
    if rows is not None and rows.leaks:
        use = "the prompt shows and that" if subject.manifest is None else "were trained on and"
        log.warning("rows that %s give away an item of a benchmark: %s", use, told_of(rows))
    return Found(rows, worked_audit(asked))


def perform(subject: Subject, papers: Sequence[Paper], found: Found, device: "torch.device") -> list[Evaluated]:
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
        check_fits(subject.directory.adapter, config.lora, outlined.config)
        check_finite(subject.directory.adapter)
    examiner = Examiner(
        tokenizer=outlined.tokenizer,
        prompt=config.prompt,
        shots=shots,
        lora=config.lora,
        seed=config.seed,
        weights=base_identity(config, located.version, device, ALONE),
        precision=choose_precision(config.trainer.precision, device),
        cache_dir=cache_dir,
        given_away=found.given_away(),
        processes=ALONE,
    )
    is_tuned = subject.manifest is not None
    examinee = Examinee(config, outlined, located, subject.directory.adapter if is_tuned else None, examiner, device)
    served = answered_by_vllm(config, fitted, located, device.type == "cuda", is_tuned)
    others = [paper for paper in fitted if paper not in served]
    evaluated: dict[str, Evaluated] = {}
    # In turn, as each wants the GPU's memory for itself.
    if others:
        evaluated |= in_memory(examinee, others)
    if served:
        release_memory(device)
        evaluated |= by_vllm(examinee, served)
    return [evaluated[paper.metric] for paper in fitted]


def refuse_other_base(told: Mapping[str, Any], version: str, source: str) -> None:
    """Raise a RunDirectoryError where the base model is not the one in the manifest, whose `model` is `told`."""
    if told["version"] != version:
        raise RunDirectoryError(
            f"an adapter belongs to the base model that it was trained on, but the run's was {told['source']} "
            f"({told['version'][:12]}), and {source} is {version[:12]}; restore it, or give its place with model.path="
        )


def in_memory(examinee: Examinee, papers: Sequence[Paper]) -> dict[str, Evaluated]:
    """`papers` by metric, answered by the model in our own memory, without its adapter and with it."""
    config, examiner, device = examinee.config, examinee.examiner, examinee.device
    loaded = backend.load(config, examinee.outlined, examinee.located, device)
    base = {paper.metric: examiner.base(loaded.model, paper, fresh=False) for paper in papers}
    tuned: dict[str, Answers] = {}
    if examinee.adapter is not None:
        from transformers import set_seed

        set_seed(config.seed)  # some initialisations take the adapter out of the base weights first
        model = backend.attach(loaded, config, device)
        restore(model, examinee.adapter)
        tuned = {paper.metric: examiner.tuned(model, paper) for paper in papers}
    name = examiner.writer(loaded.model).name
    return {paper.metric: Evaluated(paper, name, base[paper.metric], tuned.get(paper.metric)) for paper in papers}


def release_memory(device: "torch.device") -> None:
    """Give back what a model held that nothing refers to any more."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def by_vllm(examinee: Examinee, papers: Sequence[Paper]) -> dict[str, Evaluated]:
    """As `in_memory`, by vLLM."""
    config, examiner, adapter = examinee.config, examinee.examiner, examinee.adapter
    directory, tokenizer = examinee.located.directory, examinee.outlined.tokenizer
    assert directory is not None, "answered_by_vllm"
    server = Server(
        directory=directory,
        dtype=str(choose_dtype(config.model.dtype, examinee.device)).removeprefix("torch."),
        length=max(longest(paper, config.prompt, examiner.shots, tokenizer) for paper in papers),
        rank=None if adapter is None else config.lora.r,
    )
    ends = end_tokens(generation_config(directory, examinee.outlined.config), tokenizer)
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


def record(
    subject: Subject, evaluated: Sequence[Evaluated], found: Found, device: "torch.device"
) -> dict[str, dict[str, Any]]:
    """Write evaluations/ of the run, and the record of a base model alone; the evaluations by metric."""
    directory = subject.directory
    told = benchmarks_told([each.paper for each in evaluated])
    evaluations = {}
    for each in evaluated:
        metric = each.paper.metric
        evaluations[metric] = {
            "benchmark": each.paper.name,
            "settings": plain(asdict(each.paper.benchmark)),
            "writer": each.writer,
            **told[metric],
            "too_long": list(each.paper.too_long),
            "base": each.base.metrics,
            "tuned": each.tuned.metrics if each.tuned else None,
            "against_base": compared(each.base.predictions, each.tuned.predictions) if each.tuned else None,
            "leaks": found.counts(metric),
            "environment": manifest.environment(),
        }
        tell_replaced(directory, metric, evaluations[metric])
        write_jsonl(directory.evaluated(base_of(metric)), each.base.rows())
        if each.tuned:
            write_jsonl(directory.evaluated(metric), each.tuned.rows())
        write_json(directory.evaluation(metric), finite(evaluations[metric]))
    if subject.manifest is None:
        record_base(subject, evaluations, device)
    return evaluations


def tell_replaced(directory: rundir.RunDirectory, metric: str, evaluation: Mapping[str, Any]) -> None:
    """Log how the evaluation of `metric` that `evaluation` takes the place of was another one, where it was."""
    path = directory.evaluation(metric)
    if not path.is_file():
        return
    try:
        old = read_object(path)
    except ValueError as error:
        log.warning("%s, which is no JSON, is replaced: %s", path, error)
        return
    key = f"benchmark.{evaluation['benchmark']}"
    told = [("written by", old["writer"], evaluation["writer"])]
    told += [(f"{key}.{name}", old["settings"].get(name), now) for name, now in evaluation["settings"].items()]
    differing = [f"{name} {'null' if was is None else was} before, {now} now" for name, was, now in told if was != now]
    if old["asked"] != evaluation["asked"]:
        differing.append(f"{old['items']} items before, {evaluation['items']} now, and not the same")
    if differing:
        log.warning("%s and its answers are replaced by those of another evaluation: %s", path, "; ".join(differing))


def tell_others(directory: rundir.RunDirectory, metric: str) -> None:
    """Log which other trials of the study of the run in `directory` were asked `metric`, where some were."""
    others = rundir.others_evaluated(directory, metric)
    if others:
        log.warning(
            "%s is read for %s, and was for %s of the same study: it is no test of one that is chosen among them by it",
            metric,
            directory.path.name,
            ", ".join(each.path.name for each in others),
        )


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


def mirrored(subject: Subject, mode: Mode | None, evaluations: Mapping[str, Mapping[str, Any]]) -> Mirror:
    """The W&B run of the subject, its own where it has one, with what `evaluations` came to."""
    if mode is None:
        return Mirror()
    log.info("W&B is %s: %s", mode.name, mode.reason)
    directory = subject.directory
    told = read_json(directory.manifest)
    kind = "evaluate" if subject.manifest is None else "train" if told["study"] is None else "trial"
    place = Place(directory.path, told["run_id"], told["name"], told["study"], kind)
    files = Record(
        directory, open_mirror(subject.config.tracking, mode, place, yaml.safe_load(directory.config.read_text()))
    )
    for metric, each in evaluations.items():
        summary = {"metrics": each["tuned"] or each["base"]}
        if each["tuned"]:
            summary |= {"base": each["base"], "against_base": {metric: each["against_base"]}}
        files.tell(lambda mirror, summary=summary: mirror.summarize(summary))  # type: ignore[misc]
    files.tell(lambda mirror: mirror.finish(0))
    return files.mirror
