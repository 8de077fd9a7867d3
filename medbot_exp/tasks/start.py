"""What a run starts from: looked at before anything is written (`gather`), then made (`prepare`)."""

import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbot_exp.config import RunConfig, Sharding, TrackingName
from medbot_exp.data import sources
from medbot_exp.data.example import Example, Split, fingerprint, normalised
from medbot_exp.data.prepare import TokenizedRows, tokenize
from medbot_exp.device import find_device, refuse_lacking, refuse_unfit
from medbot_exp.errors import DataError
from medbot_exp.evaluation.paper import Paper, questions_of, read_papers
from medbot_exp.lora import check_known_targets
from medbot_exp.model import Loaded, Outline
from medbot_exp.model_files import check_length, check_paths, refuse_too_long
from medbot_exp.processes import Processes, refuse
from medbot_exp.tasks.leak_gate import Passed, pass_gate, unseen
from medbot_exp.tracking.wandb import Mode, decide_mode
from medbot_exp.training import backend
from medbot_exp.training.footprint import Longest

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """Rows, benchmarks, device, and whether W&B goes online; None without W&B, or where another has it.

    Attributes:
        passed: the rows, as the gate between them and the benchmarks lets them be trained on.
        papers: what is asked before and after training, as far as the model has room for it.
    """

    passed: Passed
    papers: Sequence[Paper]
    device: "torch.device"
    mode: Mode | None

    @property
    def split(self) -> Split:
        """The rows to train on, and those held out."""
        return self.passed.split


@dataclass(frozen=True)
class Tokenized:
    """The worked examples of a prompt, and the rows to train on and to hold out."""

    shots: list[Example]
    train: TokenizedRows
    held_out: TokenizedRows

    def longest(self) -> Longest:
        """What decides the memory of a training on them."""
        return Longest(
            training=max(map(len, self.train.input_ids)),
            held_out=max(map(len, self.held_out.input_ids)),
            training_rows=len(self.train),
            held_out_rows=len(self.held_out),
        )


@dataclass(frozen=True)
class Prepared:
    """Everything that training and evaluation need, in memory."""

    model: Any
    tokenizer: Any
    shots: list[Example]
    rows: TokenizedRows
    held_out: TokenizedRows
    trainable_parameters: int


def gather(config: RunConfig, processes: Processes) -> Inputs:
    """What a run of `config` starts from, found without writing into a run directory or loading a model.

    Raises:
        MedbotError: a package, a device, a key, a file or a row that the run would miss later.
    """
    refuse(config, processes)
    check_paths(config.model)
    check_length(config.model, Path(config.cache_dir).expanduser())
    check_known_targets(config)
    sources.check_file(config.data)
    refuse_lacking(config)
    watched = processes.first and config.tracking.name is TrackingName.wandb
    mode = decide_mode(config.tracking) if watched else None
    device = find_device(processes.gpu)
    refuse_unfit(config, device)
    with processes.local_first():
        passed, papers = read_questions(config)
    return Inputs(passed, papers, device, mode)


def read_questions(config: RunConfig) -> tuple[Passed, list[Paper]]:
    """The rows to train on and those held out, before they are tokenised, and what is asked of the benchmarks.

    A run that is chosen by a part of a benchmark is asked that part, and the rest once it has been chosen; the gate
    knows all of it.

    Raises:
        ConfigError, DataError: a file, a column or a row that is not as it should be, none left to train on, or one of
            those that are asked among those.
    """
    split = sources.load(config.data)
    refuse_overlap(split.train, split.validation)
    tests, developments = read_papers(config)
    passed = pass_gate(split, [*tests, *developments], config.data.on_leak, unseen(config, tests))
    split = passed.split
    if len(split.train) <= config.prompt.shots:
        raise DataError(
            f"`prompt.shots` must leave rows to train on, but got prompt.shots={config.prompt.shots} "
            f"of {len(split.train)} rows; lower it"
        )
    later = {paper.name for paper in developments}
    return passed, [*developments, *(paper for paper in tests if paper.name not in later)]


def refuse_overlap(training: Sequence[Example], held_out: Sequence[Example]) -> None:
    """Raise a DataError where a question that is held out is among the training rows: its loss would mean nothing."""
    trained = {normalised(row.question) for row in training}
    both = [row.id for row in held_out if normalised(row.question) in trained]
    if both:
        raise DataError(
            f"no held-out question may be trained on, but {len(both)} of {len(held_out)} are among the training rows "
            f"({', '.join(both[:3])}); take them out of one part of the file"
        )


def base_identity(config: RunConfig, version: str, device: "torch.device", processes: Processes) -> dict[str, Any]:
    """All that answers of the base model depend on besides what it is asked.

    Args:
        version: of the weights, as in the manifest.
        processes: that the weights may be divided among.
    """
    import torch

    return {
        "model": version,
        "dtype": config.model.dtype.name,
        "quantization": config.model.quantization.name,
        "attention": config.model.attention.name,
        "pad_token": config.model.pad_token,
        "backend": config.backend.name.name,
        "shares": processes.count if config.trainer.sharding is Sharding.full else 1,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
    }


def tokenized(config: RunConfig, split: Split, outlined: Outline, cache_dir: Path) -> Tokenized:
    """The rows of `split` as the tokenizer of the `outlined` model cuts them.

    Raises:
        ConfigError: they may be longer than the model is made for.
        DataError: as of `tokenize`.
    """
    refuse_too_long(config.model, outlined.config)
    shots, training = split.train[: config.prompt.shots], split.train[config.prompt.shots :]
    held_out = split.validation[: config.trainer.eval_limit]
    common = (shots, config.prompt, config.data, config.model.max_length, outlined.tokenizer, cache_dir)
    rows = tokenize("train", training, *common)
    everything = len(split.validation)
    part = f"validation ({len(held_out)} of {everything})" if len(held_out) < everything else "validation"
    return Tokenized(shots, rows, tokenize(part, held_out, *common))


def prepare(config: RunConfig, loaded: Loaded, rows: Tokenized, device: "torch.device") -> Prepared:
    """The loaded model with its adapter, to be trained on `device`, and its rows."""
    from transformers import set_seed

    # The adapter's random initialisation follows from the seed, whatever was drawn before.
    set_seed(config.seed)
    model = backend.attach(loaded, config, device)
    return Prepared(
        model=model,
        tokenizer=loaded.tokenizer,
        shots=rows.shots,
        rows=rows.train,
        held_out=rows.held_out,
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def manifest_contents(
    config: RunConfig,
    name: str,
    study: str | None,
    inputs: Inputs,
    loaded: Loaded,
    prepared: Prepared,
    papers: Sequence[Paper],
    precision: str,
) -> dict[str, Any]:
    """What the manifest says of the run's place, model, arithmetic, data and seed.

    Args:
        papers: those of `inputs` with the items that the model has room for.
    """
    return {
        "name": name,
        "study": study,
        "precision": precision,
        "model": {"name": config.model.name, "source": loaded.located.source, "version": loaded.located.version},
        "data": {
            "name": config.data.name,
            "train": fingerprint(inputs.split.train),
            "validation": fingerprint(inputs.split.validation),
            "rows": {"train": len(inputs.split.train), "validation": len(inputs.split.validation)},
        },
        "tokenized": {
            name: {
                "fingerprint": rows.fingerprint,
                "rows": len(rows),
                "dropped": rows.dropped,
                "shortened": rows.shortened,
            }
            for name, rows in (("train", prepared.rows), ("validation", prepared.held_out))
        },
        "benchmarks": benchmarks_told(papers),
        # All that was set apart: what the model has no room for is no test of it either.
        "chosen_by": questions_of([paper for paper in inputs.papers if paper.chooses]),
        "leaks": inputs.passed.report(),
        "seeds": {"seed": config.seed},
    }


def benchmarks_told(papers: Sequence[Paper]) -> dict[str, Any]:
    """What a record says of the benchmarks asked: the fingerprint is what benchmark.<name>.fingerprint takes.

    `asked` and `worked` are those of the items that are put to the model, and of those that are shown to it; a file
    has no revision.
    """
    return {
        paper.metric: {
            "fingerprint": paper.source,
            "asked": paper.asked,
            "worked": paper.shown,
            "items": len(paper.items),
            "revision": paper.benchmark.revision if paper.benchmark.path is None else None,
        }
        for paper in papers
    }


def quiet_libraries() -> None:
    """Keep the training libraries' own chatter off the terminal; their warnings go to run.log."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_default_handler()
    transformers.utils.logging.enable_propagation()
