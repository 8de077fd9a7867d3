"""What a run starts from: looked at before anything is written (`gather`), then made (`prepare`)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbot_exp.config import Ask, BackendName, Method, OptionOrder, RunConfig, TrackingName
from medbot_exp.data import sources
from medbot_exp.data.example import Example, Split, fingerprint, normalised
from medbot_exp.data.prepare import TokenizedRows, tokenize
from medbot_exp.device import find_device, refuse_lacking, refuse_unfit
from medbot_exp.errors import ConfigError, DataError
from medbot_exp.evaluation.benchmarks import cases
from medbot_exp.model import Loaded, check_paths
from medbot_exp.processes import Processes, refuse
from medbot_exp.tracking.wandb import Mode, decide_mode
from medbot_exp.training import backend, unsloth
from medbot_exp.training.footprint import Longest

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """Rows, benchmark items, device, and whether W&B goes online; None without W&B, or where another has it."""

    split: Split
    items: Sequence[Example]
    device: "torch.device"
    mode: Mode | None


@dataclass(frozen=True)
class Tokenized:
    """The worked examples of a prompt, and the rows to train on and to hold out."""

    shots: list[Example]
    train: TokenizedRows
    held_out: TokenizedRows

    def longest(self) -> Longest:
        """What decides the memory of a training on them."""
        return Longest(max(map(len, self.train.input_ids)), max(map(len, self.held_out.input_ids)))


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
    refuse_conflicts(config, processes)
    refuse_lacking(config)
    watched = processes.first and config.tracking.name is TrackingName.wandb
    mode = decide_mode(config.tracking) if watched else None
    device = find_device(processes.gpu)
    refuse_unfit(config, device)
    with processes.local_first():
        split, items = read_questions(config)
    return Inputs(split, items, device, mode)


def refuse_conflicts(config: RunConfig, processes: Processes) -> None:
    """Raise a MedbotError for what `config` asks for that does not go together, or a path that leads nowhere."""
    refuse(config, processes)
    if config.backend.name is BackendName.unsloth:
        unsloth.refuse(config)
    refuse_unasked(config)
    check_paths(config.model)
    sources.check_file(config.data)


def refuse_unasked(config: RunConfig) -> None:
    """Raise a ConfigError for a benchmark that a run does not ask yet, or asks in another way than is wished."""
    as_asked = {
        "path": None,
        "hub": None,
        "split": "validation",
        "fingerprint": None,
        "method": Method.loglikelihood,
        "ask": Ask.run,
        "order": OptionOrder.published,
        "shots": 0,
    }
    others = [f"benchmark.{name}" for name in config.benchmark if name != "cases"]
    changed = [
        f"benchmark.cases.{key}"
        for name, benchmark in config.benchmark.items()
        for key, value in as_asked.items()
        if name == "cases" and getattr(benchmark, key) != value
    ]
    if others or changed:
        raise ConfigError(
            "a run asks the bundled cases alone so far, by the likelihood of their options, but got "
            f"{', '.join([*others, *changed])}; use benchmark=[cases], and leave its other keys as they are"
        )


def read_questions(config: RunConfig) -> tuple[Split, Sequence[Example]]:
    """The rows to train on and those held out, before they are tokenised, and the benchmark's items.

    Raises:
        DataError: a file, a column or a row that is not as it should be, none left to train on, or one of those that
            are asked among those.
    """
    split = sources.load(config.data)
    if len(split.train) <= config.prompt.shots:
        raise DataError(
            f"`prompt.shots` must leave rows to train on, but got prompt.shots={config.prompt.shots} "
            f"of {len(split.train)} rows; lower it"
        )
    items = cases.load(config.benchmark["cases"]) if "cases" in config.benchmark else []
    refuse_overlap(split.train, items, "benchmark", "hold them out with data.columns.split, or use benchmark=[]")
    refuse_overlap(split.train, split.validation, "held-out", "take them out of one part of the file")
    return split, items


def refuse_overlap(training: Sequence[Example], asked: Sequence[Example], kind: str, remedy: str) -> None:
    """Raise a DataError where a question of `asked` is among the training rows: its score would mean nothing."""
    trained = {normalised(row.question) for row in training}
    both = [item.id for item in asked if normalised(item.question) in trained]
    if both:
        raise DataError(
            f"no {kind} question may be trained on, but {len(both)} of {len(asked)} are among the training rows "
            f"({', '.join(both[:3])}); {remedy}"
        )


def tokenized(config: RunConfig, split: Split, tokenizer: Any, cache_dir: Path) -> Tokenized:
    """The rows of `split` as `tokenizer` cuts them."""
    shots, training = split.train[: config.prompt.shots], split.train[config.prompt.shots :]
    held_out = split.validation[: config.trainer.eval_limit]
    common = (shots, config.prompt, config.data, config.model.max_length, tokenizer, cache_dir)
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
    config: RunConfig, name: str, study: str | None, inputs: Inputs, loaded: Loaded, prepared: Prepared, precision: str
) -> dict[str, Any]:
    """What the manifest says of the run's place, model, arithmetic, data and seed."""
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
        "seeds": {"seed": config.seed},
    }


def quiet_libraries() -> None:
    """Keep the training libraries' own chatter off the terminal; their warnings go to run.log."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_default_handler()
    transformers.utils.logging.enable_propagation()
