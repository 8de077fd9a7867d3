"""The door: a composed DictConfig becomes a RunConfig whose values go together.

What no type can express is a rule here. All rules are looked at before any fault is raised.
"""

import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from medbot_exp.config import (
    LABEL_RULE,
    Ask,
    Attention,
    BackendName,
    BenchmarkConfig,
    DataConfig,
    Direction,
    Dtype,
    Engine,
    LoraConfig,
    LoraInit,
    Method,
    ModelConfig,
    ModelKind,
    OptimizerConfig,
    Precision,
    PromptConfig,
    Quantization,
    RunConfig,
    TaskName,
    TrackingConfig,
    TrainerConfig,
    conf_directory,
    is_label,
    is_targeted,
)
from medbot_exp.errors import ConfigError
from medbot_exp.objectives import development_name, objectives_of


@dataclass(frozen=True)
class Rule:
    """Something that must hold: its text, whether it does, the values it looks at, and what to do where it does not."""

    text: str
    holds: bool
    values: dict[str, Any]
    remedy: str

    def fault(self) -> str:
        """What to tell the user."""
        values = " ".join(f"{key}={'null' if value is None else value}" for key, value in self.values.items())
        return f"{self.text}, but got {values}; {self.remedy}"


def typed(cfg: DictConfig) -> RunConfig:
    """`cfg` as dataclasses, every value checked.

    Raises:
        ConfigError: all faults of the composed config, a line each.
    """
    missing = absent(sorted(OmegaConf.missing_keys(cfg)))
    if missing:
        raise ConfigError("\n".join(missing))
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, RunConfig)
    faults = undeclared(config) or faults_of(config)
    if faults:
        raise ConfigError("\n".join(faults))
    return config


def absent(keys: list[str]) -> list[str]:
    """What to say of the dotted `keys` that have no value: those of one group in one line."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(key.partition(".")[0], []).append(key)
    lines = []
    for group, missing in groups.items():
        if missing == [group] and options(group):
            lines.append(f"`{group}` must be one of its options: add {group}=<{'|'.join(options(group))}>")
        elif len(missing) == 1:
            lines.append(f"`{missing[0]}` must be given: add {missing[0]}=<value>")
        else:
            names = ", ".join(key.removeprefix(f"{group}.") for key in missing)
            lines.append(
                f"`{group}` must have all its keys, but this option lacks {names}\n"
                f"  take them over from another: begin its file with `defaults: [<option>]`, {group} has: "
                f"{', '.join(options(group))}"
            )
    return lines


def undeclared(node: Any, path: str = "") -> list[str]:
    """Keys that `+key=value` slipped into a dataclass, with the names that it does have."""
    if not is_dataclass(node):
        items = node.items() if isinstance(node, dict) else ()
        return [line for key, value in items for line in undeclared(value, f"{path}{key}.")]
    names = [field.name for field in fields(node)]
    lines = [no_such_key(f"{path}{key}", names) for key in vars(node) if key not in names]
    return lines + [line for name in names for line in undeclared(getattr(node, name), f"{path}{name}.")]


def no_such_key(key: str, names: list[str]) -> str:
    """What to say of the dotted `key` where its parent has `names`."""
    parent, _, last = key.rpartition(".")
    if not names and key.startswith("hydra."):
        return f"`{key}` is no key yet; +{key} adds it"
    if not names:
        return f"`{key}` is no key: {parent} is empty, as {parent.partition('.')[0]}=[] was chosen"
    close = difflib.get_close_matches(last, names, n=1)
    hint = f"; did you mean {parent + '.' if parent else ''}{close[0]}?" if close else ""
    if parent == "benchmark" and last in options("benchmark"):
        hint = f"; to ask {last}, add benchmark=[{','.join([*names, last])}]"
    return f"`{key}` is no key; {parent or 'the config'} has: {', '.join(names)}{hint}"


def options(group: str) -> list[str]:
    """The options of a group of conf/, sorted; empty for anything else."""
    return sorted(path.stem for path in (conf_directory() / group).glob("*.yaml"))


def faults_of(config: RunConfig) -> list[str]:
    """Every rule that a value of `config` breaks, each with the value and the remedy."""
    rules = (
        *model_rules(config.model),
        *data_rules(config.data, config.prompt),
        *lora_rules(config.lora, config.model, config.task.name),
        *optimizer_rules(config.optimizer),
        *trainer_rules(config.trainer, config.optimizer),
        *(unsloth_rules(config) if config.backend.name is BackendName.unsloth else ()),
        *tracking_rules(config.tracking),
        *objective_rules(config),
        *(
            rule
            for name, benchmark in config.benchmark.items()
            for rule in (*benchmark_rules(name, benchmark, config.task.name), revision_rule(name, benchmark, config))
        ),
        *counting_rules(config),
        *(
            Rule(f"`{key}` must not be empty", bool(value), {key: repr(value)}, f"leave out {key}=, or give a value")
            for key, value in (
                ("root", config.root),
                ("cache_dir", config.cache_dir),
                ("tracking.project", config.tracking.project),
            )
        ),
        Rule("`seed < 2^32` must hold", config.seed < 2**32, {"seed": config.seed}, "try 3407"),
        Rule(
            "`task.rehearse` must be true or false for task=plan, and is for nothing else",
            (config.task.name is TaskName.plan) == (config.task.rehearse is not None),
            {"task": config.task.name.name, "task.rehearse": config.task.rehearse},
            "leave it out, or use task=plan",
        ),
        Rule(
            "`task.device` must be auto or cuda for task=plan, and is for nothing else",
            (config.task.name is TaskName.plan) == (config.task.device is not None),
            {"task": config.task.name.name, "task.device": getattr(config.task.device, "name", None)},
            "leave it out, or use task=plan",
        ),
        Rule(
            "`task.run` is for task=evaluate",
            config.task.run is None or config.task.name is TaskName.evaluate,
            {"task": config.task.name.name, "task.run": config.task.run},
            "leave it out, or use task=evaluate",
        ),
        Rule(
            "an evaluation needs a benchmark",
            config.task.name is not TaskName.evaluate or bool(config.benchmark) or config.task.run is not None,
            {"benchmark": "[]"},
            "try benchmark=[medqa]",
        ),
        *(
            Rule(LABEL_RULE.format(key), is_label(value), {key: repr(value)}, "try letters and digits")
            for key, value in (("name", config.name), ("study", config.study))
        ),
    )
    return [rule.fault() for rule in rules if not rule.holds]


def model_rules(model: ModelConfig) -> Iterator[Rule]:
    """Where the weights come from, and how long a row may be."""
    yield Rule(
        "`model.max_length >= 32` must hold",
        model.max_length >= 32,
        {"model.max_length": model.max_length},
        "it counts tokens: try 1024",
    )
    made_here = model.architecture if model.kind is ModelKind.random and model.path is None else None
    positions = model.max_length if made_here is None else made_here.max_position_embeddings
    yield Rule(
        "rows must be no longer than the model is made for",
        model.max_length <= positions,
        {"model.max_length": model.max_length, "model.architecture.max_position_embeddings": positions},
        f"use model.max_length={positions}, or model.architecture.max_position_embeddings={model.max_length}",
    )
    source, start = {
        ModelKind.wheel: ("wheel", "smollm2_135m"),
        ModelKind.random: ("architecture", "tiny"),
        ModelKind.hub: ("repo", "deepseek_r1_llama_8b"),
        ModelKind.directory: ("path", "directory"),
    }[model.kind]
    yield Rule(
        f"`model.kind={model.kind.name}` needs `model.{source}`",
        getattr(model, source) is not None or model.path is not None,
        {f"model.{source}": None},
        f"start from model={start}, or add model.path=<directory>",
    )
    yield Rule(
        "random weights are not quantised",
        model.kind is not ModelKind.random or model.path is not None or model.quantization is Quantization.none,
        {"model.kind": model.kind.name, "model.quantization": model.quantization.name},
        "use model.quantization=none",
    )


def data_rules(data: DataConfig, prompt: PromptConfig) -> Iterator[Rule]:
    """Where the rows come from, which are held out, and what the prompt needs of them."""
    share = data.validation
    yield Rule(
        "one of `data.path`, `data.hub` and `data.bundled` must say where the rows are",
        bool(data.path or data.hub or data.bundled),
        {"data.path": data.path, "data.hub": data.hub, "data.bundled": data.bundled},
        "add data.path=<file>",
    )
    yield Rule(
        "`data.validation` must be a share between 0 and 1 or a whole number of rows",
        share is None or 0 < share < 1 or (share >= 1 and share % 1 == 0),
        {"data.validation": share},
        "try 0.1",
    )
    yield Rule(
        "some rows must be held out",
        data.columns.split is not None or share is not None,
        {"data.validation": None, "data.columns.split": None},
        "try data.validation=0.1",
    )
    yield Rule(
        "`data.columns.options` and `data.columns.label` go together",
        (data.columns.options is None) == (data.columns.label is None),
        {"data.columns.options": data.columns.options, "data.columns.label": data.columns.label},
        "name both columns, or neither",
    )
    yield Rule(
        "`prompt.template` must hold {question}",
        "{question}" in prompt.template,
        {"prompt.template": repr(prompt.template)},
        "write {question} where the question goes",
    )
    others = sorted(set(re.findall(r"\{[a-z_]+\}", prompt.template)) - {"{question}"})
    yield Rule(
        "`prompt.template` has {question} to fill in and nothing else",
        not others,
        {"prompt.template": f"'…{' '.join(others)}…'"},
        "write it in capitals or without braces, if it is meant as it stands",
    )
    texts = {key: getattr(data.columns, key) for key in ("question", "reasoning", "answer")}
    named = [column for column in texts.values() if column is not None]
    yield Rule(
        "question, reasoning and answer must be columns of their own",
        len(set(named)) == len(named),
        {f"data.columns.{key}": column for key, column in texts.items()},
        "name three columns, or null for no reasoning",
    )
    yield Rule(
        f"prompt={prompt.name} trains on reasoning, so the rows must have some",
        not prompt.reasoning or data.columns.reasoning is not None,
        {"data.columns.reasoning": None},
        "name the column, or use prompt=direct",
    )


def lora_rules(lora: LoraConfig, model: ModelConfig, task: TaskName) -> Iterator[Rule]:
    """The adapter's shape, and what its initialisation does to the base weights."""
    rewrites_base = lora.init in (LoraInit.pissa, LoraInit.olora)
    yield Rule("`lora.r >= 1` must hold", lora.r >= 1, {"lora.r": lora.r}, "try 8, 16 or 32")
    yield Rule(
        "`0 < lora.alpha < inf` must hold",
        positive(lora.alpha) or lora.alpha == lora.r,  # then it follows, and lora.r is at fault
        {"lora.alpha": lora.alpha},
        "leave it out to follow lora.r",
    )
    yield Rule(
        "`0 <= lora.dropout < 1` must hold",
        0 <= lora.dropout < 1,
        {"lora.dropout": lora.dropout},
        "try 0, 0.05 or 0.1",
    )
    yield Rule(
        "`lora.target_modules` must be all-linear, a regular expression or a list of module names",
        names_modules(lora.target_modules),
        {"lora.target_modules": lora.target_modules},
        "try lora.target_modules=[q_proj,v_proj]",
    )
    # TRL makes the logits of the head's own weights, a part of them at a time. What was trained all the same is asked.
    yield Rule(
        "`lora.target_modules` must leave lm_head out, as the loss would pass over an adapter on it",
        task is TaskName.evaluate or not adapts(lora, "lm_head"),
        {"lora.target_modules": lora.target_modules},
        "use lora.target_modules=all-linear, which does",
    )
    yield Rule(
        "`lora.dora=true` needs an initialisation that leaves the base weights alone",
        not (lora.dora and rewrites_base),
        {"lora.init": lora.init.name},
        "use lora.init=default",
    )
    yield Rule(
        "`lora.init` must leave quantised base weights alone",
        not (rewrites_base and model.quantization is not Quantization.none),
        {"lora.init": lora.init.name, "model.quantization": model.quantization.name},
        "use lora.init=default",
    )
    yield Rule(
        "`lora.init=orthogonal` needs an even rank",
        lora.init is not LoraInit.orthogonal or lora.r % 2 == 0,
        {"lora.r": lora.r},
        "use lora.r=16",
    )


def optimizer_rules(optimizer: OptimizerConfig) -> Iterator[Rule]:
    """Ranges of the optimizer's numbers."""
    yield Rule(
        "`0 < optimizer.lr < inf` must hold", positive(optimizer.lr), {"optimizer.lr": optimizer.lr}, "try 1.0e-3"
    )
    yield Rule(
        "`0 <= optimizer.warmup_ratio < 1` must hold",
        0 <= optimizer.warmup_ratio < 1,
        {"optimizer.warmup_ratio": optimizer.warmup_ratio},
        "it is a share of all steps: try 0.05",
    )
    yield Rule(
        "`optimizer.weight_decay >= 0` must hold",
        0 <= optimizer.weight_decay < math.inf,
        {"optimizer.weight_decay": optimizer.weight_decay},
        "try 0.01",
    )
    yield Rule(
        "`0 < optimizer.max_grad_norm < inf` must hold",
        positive(optimizer.max_grad_norm),
        {"optimizer.max_grad_norm": optimizer.max_grad_norm},
        "try 1.0; a huge value switches clipping off",
    )
    yield Rule(
        "`optimizer.lora_plus_ratio >= 1` must hold",
        optimizer.lora_plus_ratio is None or 1 <= optimizer.lora_plus_ratio < math.inf,
        {"optimizer.lora_plus_ratio": optimizer.lora_plus_ratio},
        "try 16, or null to switch LoRA+ off",
    )


def trainer_rules(trainer: TrainerConfig, optimizer: OptimizerConfig) -> Iterator[Rule]:
    """The length of the training, and cadences that fit each other."""
    warmup_steps = 0 if trainer.max_steps is None else math.ceil(optimizer.warmup_ratio * trainer.max_steps)
    yield Rule(
        "warm-up must end before the training does, as its first step has a rate of 0",
        trainer.max_steps is None
        or trainer.max_steps < 1
        or optimizer.warmup_ratio >= 1  # which is a fault of its own
        or warmup_steps < trainer.max_steps,
        {"optimizer.warmup_ratio": optimizer.warmup_ratio, "trainer.max_steps": trainer.max_steps},
        "use optimizer.warmup_ratio=0",
    )
    yield Rule(
        "`trainer.epochs > 0` must hold",
        trainer.epochs is None or positive(trainer.epochs),
        {"trainer.epochs": trainer.epochs},
        "less than one epoch is fine",
    )
    yield Rule(
        "either `trainer.max_steps` or `trainer.epochs` says how long to train",
        (trainer.max_steps is None) != (trainer.epochs is None),
        {"trainer.max_steps": trainer.max_steps, "trainer.epochs": trainer.epochs},
        "try trainer.max_steps=100" if trainer.epochs is None else "add trainer.max_steps=null",
    )
    yield Rule(
        "early stopping keeps the best evaluated checkpoint, so `trainer.checkpoint_steps` must equal "
        "`trainer.eval_steps`",
        trainer.early_stopping_patience is None or trainer.checkpoint_steps == trainer.eval_steps,
        {"trainer.checkpoint_steps": trainer.checkpoint_steps, "trainer.eval_steps": trainer.eval_steps},
        f"try trainer.checkpoint_steps={trainer.eval_steps}",
    )
    yield Rule(
        "`trainer.early_stopping_min_delta >= 0` must hold",
        0 <= trainer.early_stopping_min_delta < math.inf,
        {"trainer.early_stopping_min_delta": trainer.early_stopping_min_delta},
        "try 0.0",
    )
    yield Rule(
        "a resumed run logs what an unbroken one does, so `trainer.checkpoint_steps` must be a multiple of "
        "`trainer.logging_steps`",
        trainer.logging_steps < 1 or trainer.checkpoint_steps % trainer.logging_steps == 0,
        {"trainer.checkpoint_steps": trainer.checkpoint_steps, "trainer.logging_steps": trainer.logging_steps},
        f"try trainer.checkpoint_steps={next_multiple(trainer.checkpoint_steps, trainer.logging_steps)}",
    )


# Weights and arithmetic that Unsloth's trainer leaves as they are, of auto and the types of 16 bits.
UNSLOTHS_ARITHMETIC = (
    (Dtype.auto, Precision.auto),
    (Dtype.auto, Precision.bf16),
    (Dtype.bfloat16, Precision.auto),
    (Dtype.bfloat16, Precision.bf16),
    (Dtype.float16, Precision.fp16),
)


def unsloth_rules(config: RunConfig) -> Iterator[Rule]:
    """What Unsloth (2026.10.9) would do in another way than asked, or not at all."""
    model, lora, precision = config.model, config.lora, config.trainer.precision
    yield Rule(
        "backend=unsloth has no kernels for DoRA, which would train through PEFT's own code",
        not lora.dora,
        {"lora.dora": "true"},
        "use lora.dora=false, or backend=peft",
    )
    yield Rule(
        "backend=unsloth reads its model from files",
        model.path is not None or model.architecture is None,
        {"model": model.name},
        "use a model of the hub or model=directory, or backend=peft",
    )
    yield Rule(
        "backend=unsloth needs an initialisation that leaves the frozen weights alone, as they are read once",
        lora.init not in (LoraInit.pissa, LoraInit.olora),
        {"lora.init": lora.init.name},
        "use lora.init=default, or backend=peft",
    )
    yield Rule(
        "backend=unsloth chooses how attention is computed itself",
        model.attention is Attention.sdpa,
        {"model.attention": model.attention.name},
        "use model.attention=sdpa, or backend=peft",
    )
    # models/llama.py: no fused LoRA on float32; models/rl.py: fp32 becomes bf16, and mixed types are refused.
    yield Rule(
        "backend=unsloth needs weights and arithmetic of one type of 16 bits",
        (model.dtype, precision) in UNSLOTHS_ARITHMETIC,
        {"model.dtype": model.dtype.name, "trainer.precision": precision.name},
        "use model.dtype=auto trainer.precision=auto, or backend=peft",
    )
    # models/_utils.py, _redirect_embedding_targets: in a list they are trained whole, by a pattern not at all.
    yield Rule(
        "backend=unsloth trains no adapter on embed_tokens",
        not adapts(lora, "model.embed_tokens"),
        {"lora.target_modules": lora.target_modules},
        "use lora.target_modules=all-linear, or backend=peft",
    )


def adapts(lora: LoraConfig, name: str) -> bool:
    """Whether the embedding or head `name` gets an adapter; not where `lora.target_modules` is at fault itself."""
    if lora.target_modules == "all-linear" or not names_modules(lora.target_modules):
        return False
    try:
        return is_targeted(name, lora.target_modules)
    except re.error:
        return False


def tracking_rules(tracking: TrackingConfig) -> Iterator[Rule]:
    """What W&B takes as a name."""
    yield Rule(
        "`tracking.project` must be without / \\ # ? % :",
        not set(tracking.project) & set("/\\#?%:"),
        {"tracking.project": tracking.project},
        "W&B takes no other names",
    )


def objective_rules(config: RunConfig) -> Iterator[Rule]:
    """Metrics that there are, and the direction that goes with each."""
    objective, metrics = config.objective, objectives_of(config)
    given = {"objective.metric": objective.metric, "objective.direction": objective.direction}
    try:
        goals = objective.goals()
    except (KeyError, ValueError):
        yield Rule(
            "`objective.direction` must be minimize or maximize, one for each of `objective.metric`",
            False,
            given,
            "try objective.metric=validation/loss objective.direction=minimize",
        )
        return
    yield Rule(
        "an accuracy is maximised and all else minimised",
        all(metric.endswith("/accuracy") == (goal is Direction.maximize) for metric, goal in goals.items()),
        given,
        "change objective.direction",
    )
    unwritten = [
        f"benchmark.{name}.method=generate has it write, and its tokens counted"
        for name, benchmark in config.benchmark.items()
        if f"eval/{development_name(name, benchmark)}/completion_tokens" in set(goals) - set(metrics)
    ]
    yield Rule(
        "`objective.metric` must be one that the run measures, of a benchmark its development part: "
        "what is chosen by a test has none left",
        bool(goals) and set(goals) <= set(metrics),
        {"objective.metric": objective.metric},
        "; ".join([f"the run has: {', '.join(metrics)}", *unwritten]),
    )


def benchmark_rules(name: str, benchmark: BenchmarkConfig, task: TaskName) -> Iterator[Rule]:
    """Ranges of the numbers of the benchmark `name`, and what its way to ask goes with."""
    key = f"benchmark.{name}"
    counted = {
        "limit": "null takes all items",
        "batch_size": "it counts items",
        "vllm_batch_size": "it counts items",
        "development": "it counts items",
        "thinking_tokens": "it counts tokens",
        "answer_tokens": "it counts tokens",
    }
    for part, remedy in counted.items():
        yield at_least(1, f"{key}.{part}", getattr(benchmark, part), remedy)
    yield at_least(0, f"{key}.shots", benchmark.shots, "0 shows none")
    yield at_least(0, f"{key}.seed", benchmark.seed, "try 3407")
    yield Rule(
        f"`0 <= {key}.temperature < inf` must hold",
        0 <= benchmark.temperature < math.inf,
        {f"{key}.temperature": benchmark.temperature},
        "0 is greedy; try 0.6",
    )
    yield Rule(
        f"`0 < {key}.top_p <= 1` must hold",
        0 < benchmark.top_p <= 1,
        {f"{key}.top_p": benchmark.top_p},
        "1 draws from all words; try 0.95",
    )
    yield Rule(
        "vLLM writes replies, and no likelihoods are taken from it",
        benchmark.engine is not Engine.vllm or benchmark.method is Method.generate,
        {f"{key}.engine": benchmark.engine.name, f"{key}.method": benchmark.method.name},
        f"use {key}.method=generate",
    )
    yield Rule(
        "while it trains, a model answers as it is, without vLLM",
        benchmark.engine is not Engine.vllm or task is TaskName.evaluate,
        {f"{key}.engine": benchmark.engine.name, "task": task.name},
        f"use {key}.engine=auto, and evaluate the run by task=evaluate",
    )
    yield Rule(
        "lm-evaluation-harness's words ask for an answer without a thought, and measure it",
        benchmark.ask is Ask.run or benchmark.method is Method.loglikelihood,
        {f"{key}.ask": benchmark.ask.name, f"{key}.method": benchmark.method.name},
        f"use {key}.method=loglikelihood",
    )
    yield Rule(
        "the bundled cases know no words of lm-evaluation-harness, which does not have them",
        name != "cases" or benchmark.ask is Ask.run,
        {f"{key}.ask": benchmark.ask.name},
        f"use {key}.ask=run",
    )


def revision_rule(name: str, benchmark: BenchmarkConfig, config: RunConfig) -> Rule:
    """A commit of the hub's data set is not read where all rows come from files: a record that has it would mislead."""
    key = f"benchmark.{name}"
    shots = benchmark.shots > 0 and benchmark.shots_path is None
    chosen_by = f"/{development_name(name, benchmark)}/" in str(config.objective.metric)
    development = chosen_by and benchmark.development_path is None and benchmark.development_split is not None
    of_hub = benchmark.hub is not None and (benchmark.path is None or shots or development)
    return Rule(
        f"`{key}.revision` is a commit of the hub's data set, which is not read beside a local file",
        of_hub or benchmark.revision is None,
        {f"{key}.path": benchmark.path, f"{key}.hub": benchmark.hub, f"{key}.revision": benchmark.revision},
        f"use {key}.revision=null; {key}.fingerprint pins the items of a file",
    )


def counting_rules(config: RunConfig) -> Iterator[Rule]:
    """Smallest values of the keys that count something."""
    counted = {
        "batch_size": "rows",
        "gradient_accumulation_steps": "micro-batches",
        "eval_batch_size": "rows",
        "logging_steps": "optimizer steps",
        "eval_steps": "optimizer steps",
        "checkpoint_steps": "optimizer steps",
        "checkpoint_limit": "checkpoints",
        "sample_thinking_tokens": "tokens",
        "sample_answer_tokens": "tokens",
    }
    trainer = config.trainer
    for name, unit in counted.items():
        yield at_least(1, f"trainer.{name}", getattr(trainer, name), f"it counts {unit}")
    yield at_least(1, "trainer.max_steps", trainer.max_steps, "it counts optimizer steps; null leaves it to epochs")
    yield at_least(1, "trainer.eval_limit", trainer.eval_limit, "null takes all held-out rows")
    yield at_least(1, "trainer.early_stopping_patience", trainer.early_stopping_patience, "null switches it off")
    yield at_least(1, "data.limit", config.data.limit, "null takes all rows")
    yield at_least(0, "trainer.samples", trainer.samples, "0 writes none")
    yield at_least(0, "prompt.shots", config.prompt.shots, "0 shows none")
    yield at_least(0, "seed", config.seed, "try 3407")


def at_least(least: int, key: str, value: int | None, remedy: str) -> Rule:
    """The rule that the value of `key` is no smaller than `least`, or null where the schema lets it."""
    return Rule(f"`{key} >= {least}` must hold", value is None or value >= least, {key: value}, remedy)


def next_multiple(number: int, of: int) -> int:
    """The smallest multiple of `of` that is no less than `number`; `number` where there is none."""
    return -(-number // of) * of if of > 0 else number


def names_modules(value: Any) -> bool:
    """Whether `value` can be PEFT's target_modules: a text, or a list of texts that is not empty."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(name, str) for name in value)
    return isinstance(value, str)


def positive(value: float) -> bool:
    """Whether `value` is above zero and finite."""
    return value > 0 and math.isfinite(value)
