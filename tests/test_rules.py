"""The rules that values keep: each one broken, each edge kept, all faults at once."""

import re

import pytest

from medbot_exp.config import (
    ArchitectureConfig,
    Attention,
    BackendName,
    Dtype,
    LoraInit,
    ModelKind,
    Precision,
    Quantization,
)
from medbot_exp.errors import ConfigError
from medbot_exp.rules import faults_of

NAN, INFINITE = float("nan"), float("inf")

# (values that break one rule, the values as the fault reports them, words of the remedy)
BROKEN_RULES = [
    ({"lora.r": 0}, "lora.r=0", "8, 16 or 32"),
    ({"lora.alpha": -1.0}, "lora.alpha=-1.0", "leave it out to follow lora.r"),
    ({"lora.alpha": 0.0}, "lora.alpha=0.0", "leave it out"),
    ({"lora.alpha": INFINITE}, "lora.alpha=inf", "leave it out"),
    ({"lora.dropout": 1.5}, "lora.dropout=1.5", "0.05 or 0.1"),
    ({"lora.dropout": 1.0}, "lora.dropout=1.0", "0.05 or 0.1"),
    ({"lora.dropout": -0.1}, "lora.dropout=-0.1", "0.05 or 0.1"),
    ({"lora.target_modules": []}, "lora.target_modules=[]", "[q_proj,v_proj]"),
    ({"lora.target_modules": None}, "lora.target_modules=null", "[q_proj,v_proj]"),
    ({"lora.target_modules": ["q_proj", 3]}, "lora.target_modules=['q_proj', 3]", "[q_proj,v_proj]"),
    ({"lora.dora": True, "lora.init": LoraInit.pissa}, "lora.init=pissa", "lora.init=default"),
    (
        {"lora.init": LoraInit.olora, "model.quantization": Quantization.nf4},
        "lora.init=olora model.quantization=nf4",
        "lora.init=default",
    ),
    ({"lora.init": LoraInit.orthogonal, "lora.r": 7}, "lora.r=7", "lora.r=16"),
    ({"optimizer.lr": 0.0}, "optimizer.lr=0.0", "1.0e-3"),
    ({"optimizer.lr": NAN}, "optimizer.lr=nan", "1.0e-3"),
    (
        {"optimizer.warmup_ratio": 1.0, "trainer.max_steps": None, "trainer.epochs": 1.0},
        "optimizer.warmup_ratio=1.0",
        "0.05",
    ),
    ({"optimizer.warmup_ratio": -0.1}, "optimizer.warmup_ratio=-0.1", "0.05"),
    ({"optimizer.weight_decay": -0.01}, "optimizer.weight_decay=-0.01", "0.01"),
    ({"optimizer.max_grad_norm": 0.0}, "optimizer.max_grad_norm=0.0", "1.0"),
    ({"optimizer.lora_plus_ratio": 0.5}, "optimizer.lora_plus_ratio=0.5", "16, or null"),
    ({"trainer.epochs": 0.0, "trainer.max_steps": None}, "trainer.epochs=0.0", "less than one epoch"),
    ({"trainer.max_steps": 0}, "trainer.max_steps=0", "null leaves it to epochs"),
    ({"trainer.max_steps": -1}, "trainer.max_steps=-1", "null leaves it to epochs"),
    ({"trainer.epochs": 3.0}, "trainer.max_steps=10 trainer.epochs=3.0", "trainer.max_steps=null"),
    ({"trainer.max_steps": None}, "trainer.max_steps=null trainer.epochs=null", "trainer.max_steps=100"),
    (
        {"trainer.max_steps": 1, "optimizer.warmup_ratio": 0.05},
        "optimizer.warmup_ratio=0.05 trainer.max_steps=1",
        "optimizer.warmup_ratio=0",
    ),
    (
        {"trainer.early_stopping_patience": 2, "trainer.checkpoint_steps": 5, "trainer.eval_steps": 2},
        "trainer.checkpoint_steps=5 trainer.eval_steps=2",
        "trainer.checkpoint_steps=2",
    ),
    ({"trainer.early_stopping_min_delta": -0.1}, "trainer.early_stopping_min_delta=-0.1", "0.0"),
    ({"data.validation": 0.0}, "data.validation=0.0", "0.1"),
    ({"data.validation": 1.5}, "data.validation=1.5", "0.1"),
    ({"data.columns.split": None}, "data.validation=null data.columns.split=null", "data.validation=0.1"),
    ({"data.bundled": None}, "data.path=null data.hub=null data.bundled=null", "data.path=<file>"),
    ({"prompt.template": "Tell me."}, "prompt.template='Tell me.'", "{question} where the question goes"),
    ({"prompt.template": "{question} {foo}"}, "prompt.template='…{foo}…'", "capitals"),
    (
        {"data.columns.answer": "question"},
        "data.columns.question=question data.columns.reasoning=reasoning data.columns.answer=question",
        "three columns",
    ),
    ({"root": ""}, "root=''", "give a value"),
    ({"cache_dir": ""}, "cache_dir=''", "give a value"),
    ({"tracking.project": ""}, "tracking.project=''", "give a value"),
    ({"trainer.logging_steps": 4}, "trainer.checkpoint_steps=5 trainer.logging_steps=4", "trainer.checkpoint_steps=8"),
    ({"data.columns.reasoning": None}, "data.columns.reasoning=null", "prompt=direct"),
    (
        {"model.kind": ModelKind.random, "model.architecture": ArchitectureConfig(0, 64, 128, 2, 4, 2, 320, 512)},
        "model.max_length=1024 model.architecture.max_position_embeddings=512",
        "use model.max_length=512, or model.architecture.max_position_embeddings=1024",
    ),
    ({"model.max_length": 31}, "model.max_length=31", "1024"),
    ({"model.wheel": None}, "model.wheel=null", "model=smollm2_135m, or add model.path="),
    ({"model.kind": ModelKind.random}, "model.architecture=null", "model=tiny, or add model.path="),
    ({"model.kind": ModelKind.hub}, "model.repo=null", "model=deepseek_r1_llama_8b, or add model.path="),
    ({"model.kind": ModelKind.directory}, "model.path=null", "model=directory, or add model.path="),
    ({"objective.metric": "train/loss"}, "objective.metric=train/loss", "validation/loss"),
    *(
        ({f"trainer.{key}": 0}, f"trainer.{key}=0", "counts")
        for key in (
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
    ),
    ({"trainer.eval_limit": 0}, "trainer.eval_limit=0", "null"),
    ({"trainer.early_stopping_patience": 0}, "trainer.early_stopping_patience=0", "null"),
    ({"data.limit": 0}, "data.limit=0", "null"),
    ({"benchmark.cases.limit": 0}, "benchmark.cases.limit=0", "null"),
    ({"trainer.samples": -1}, "trainer.samples=-1", "0"),
    ({"prompt.shots": -1}, "prompt.shots=-1", "0"),
    ({"seed": -1}, "seed=-1", "3407"),
]

KEPT_RULES = [
    {"lora.r": 1},
    {"lora.dropout": 0.0},
    {"lora.dropout": 0.99},
    {"lora.target_modules": r".*\.q_proj"},
    {"lora.init": LoraInit.pissa},
    {"lora.init": LoraInit.orthogonal, "lora.r": 8},
    {"optimizer.warmup_ratio": 0.0, "trainer.max_steps": 1},
    {"optimizer.warmup_ratio": 0.05, "trainer.max_steps": 2},
    {"optimizer.weight_decay": 0.0},
    {"optimizer.lora_plus_ratio": 1.0},
    {"trainer.max_steps": None, "trainer.epochs": 0.5},
    {"model.wheel": None, "model.path": "somewhere"},
    {"trainer.max_steps": 1},
    {"trainer.eval_limit": None},
    {"trainer.samples": 0},
    {"trainer.early_stopping_patience": 1, "trainer.checkpoint_steps": 2, "trainer.eval_steps": 2},
    {"trainer.checkpoint_steps": 5, "trainer.eval_steps": 2},
    {"data.validation": 0.5},
    {"data.validation": 40.0},
    {"data.limit": 1},
    {"model.max_length": 32},
    {"objective.metric": "eval/cases_development/accuracy", "objective.direction": "maximize"},
    {"seed": 0},
]


def changed(config, values):
    """`config` with each dotted key of `values` set."""
    for key, value in values.items():
        *parents, name = key.split(".")
        node = config
        for parent in parents:
            node = node[parent] if isinstance(node, dict) else getattr(node, parent)
        setattr(node, name, value)
    return config


def as_id(values):
    return " ".join(f"{key}={value}" for key, value in values.items())


@pytest.mark.parametrize("values, reported, remedy", BROKEN_RULES, ids=[as_id(case[0]) for case in BROKEN_RULES])
def test_broken_rule_is_reported_with_key_value_and_remedy(compose, values, reported, remedy):
    (fault,) = faults_of(changed(compose(), values))
    rule, given, mend = re.fullmatch(r"(.+), but got (.+?); (.+)", fault).groups()
    assert given == reported
    assert remedy in mend
    assert rule


@pytest.mark.parametrize("values", KEPT_RULES, ids=[as_id(case) for case in KEPT_RULES])
def test_value_at_the_edge_of_a_rule_is_accepted(compose, values):
    assert faults_of(changed(compose(), values)) == []


def test_all_faults_arrive_in_one_error(compose):
    with pytest.raises(ConfigError) as caught:
        compose("lora.r=-3", "lora.alpha=-1", "lora.dropout=1.5", "optimizer.lr=0", "trainer.batch_size=0", "seed=-1")
    lines = str(caught.value).splitlines()
    broken = ["lora.r=-3", "lora.alpha=-1.0", "lora.dropout=1.5", "optimizer.lr=0.0", "trainer.batch_size=0", "seed=-1"]
    assert len(lines) == len(broken)
    assert all(any(f"but got {value};" in line for line in lines) for value in broken)


def test_reasoning_prompt_on_rows_without_reasoning_names_the_prompt_to_use(compose):
    with pytest.raises(ConfigError, match="prompt=medbot trains on reasoning.*use prompt=direct"):
        compose("data=file", "data.path=rows.csv", "data.columns.reasoning=null")
    assert compose("data=file", "data.path=rows.csv", "data.columns.reasoning=null", "prompt=direct")


def test_no_evaluation_steps_with_early_stopping_is_a_fault_not_a_crash(compose):
    faults = faults_of(changed(compose(), {"trainer.early_stopping_patience": 3, "trainer.eval_steps": 0}))
    assert any("trainer.eval_steps=0" in fault for fault in faults)


def test_seed_beyond_32_bits_is_a_fault(compose):
    assert faults_of(changed(compose(), {"seed": 2**32}))


def test_rank_of_zero_is_one_fault_where_alpha_follows_it(compose):
    with pytest.raises(ConfigError) as caught:
        compose("lora.r=0")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["optimizer.weight_decay", "optimizer.lora_plus_ratio"])
def test_infinite_value_is_a_fault(compose, key):
    assert faults_of(changed(compose(), {key: INFINITE}))


@pytest.mark.parametrize(
    "override, key, names",
    [
        ("+lora.dropuot=0.1", "lora.dropuot", "r, alpha, dropout, target_modules, rslora, dora, init"),
        ("+data.columns.title=t", "data.columns.title", "id, question, reasoning, answer, options, label, split"),
        ("+benchmark.cases.top=3", "benchmark.cases.top", "path, hub, hub_config, split, revision"),
        ("+lorra.r=8", "lorra", "task, model, data, prompt, lora"),
    ],
)
def test_key_slipped_in_with_plus_is_refused_with_the_names_there_are(compose, override, key, names):
    with pytest.raises(ConfigError) as caught:
        compose(override)
    assert str(caught.value).startswith(f"`{key}` is no key")
    assert f"has: {names}" in str(caught.value)


def test_value_that_must_be_given_is_named_with_the_override_that_gives_it(compose):
    with pytest.raises(ConfigError, match=r"`data\.path` must be given: add data\.path="):
        compose("data=file")


def test_random_weights_are_not_quantised(compose):
    with pytest.raises(ConfigError, match=r"model\.quantization=nf4; use model\.quantization=none"):
        compose("model=tiny", "model.quantization=nf4")
    assert compose("model=tiny", "model.quantization=nf4", "model.path=somewhere")


def test_keys_that_an_option_lacks_are_told_together_with_where_to_take_them_from(run_cli, tmp_path):
    (tmp_path / "prompt").mkdir()
    (tmp_path / "prompt" / "bare.yaml").write_text("template: 'Case: {question}'\n")
    finished = run_cli(f"--config-dir={tmp_path}", "prompt=bare")
    assert finished.status == 2
    assert "lacks chat, loss_on, name, reasoning, shots" in finished.stderr
    assert "`defaults: [<option>]`, prompt has: chat, direct, medbot" in finished.stderr


UNSLOTH = ("backend=unsloth", "model=directory", "model.path=model")


@pytest.mark.parametrize(
    "values, told, remedy",
    [
        ({"lora.dora": True}, "lora.dora=true", "lora.dora=false"),
        ({"lora.init": LoraInit.pissa}, "lora.init=pissa", "lora.init=default"),
        ({"model.attention": Attention.eager}, "model.attention=eager", "model.attention=sdpa"),
        ({"model.dtype": Dtype.float32}, "model.dtype=float32 trainer.precision=auto", "model.dtype=auto"),
        ({"trainer.precision": Precision.fp32}, "trainer.precision=fp32", "trainer.precision=auto"),
        ({"model.dtype": Dtype.float16}, "model.dtype=float16 trainer.precision=auto", "trainer.precision=auto"),
        ({"lora.target_modules": ["q_proj", "model.embed_tokens"]}, "'model.embed_tokens'", "all-linear"),
        ({"lora.target_modules": ".*(q_proj|embed_tokens)"}, ".*(q_proj|embed_tokens)", "all-linear"),
    ],
)
def test_what_unsloth_does_not_do_is_refused_by_name(compose, values, told, remedy):
    (fault,) = faults_of(changed(compose(*UNSLOTH), values))
    assert fault.startswith("backend=unsloth ") and fault.endswith("or backend=peft")
    assert told in fault and remedy in fault.partition(";")[2]
    assert faults_of(changed(compose("model=directory", "model.path=model"), values)) == []


@pytest.mark.parametrize("targets", [["q_proj", "lm_head"], ".*(q_proj|lm_head)"])
@pytest.mark.parametrize("words", [(), UNSLOTH])
def test_adapter_on_the_head_is_refused_whoever_trains(compose, words, targets):
    (fault,) = faults_of(changed(compose(*words), {"lora.target_modules": targets}))
    assert fault.startswith("`lora.target_modules` must leave lm_head out") and f"{targets}" in fault
    evaluated = changed(compose(*words, "task=evaluate"), {"lora.target_modules": targets})
    assert not any("lm_head out" in each for each in faults_of(evaluated))  # one that was trained before


@pytest.mark.parametrize(
    "values",
    [
        {"model.dtype": Dtype.float16, "trainer.precision": Precision.fp16},
        {"model.dtype": Dtype.bfloat16},
        {"lora.target_modules": "all-linear"},
        {"lora.target_modules": "(q_proj"},  # is no pattern: told once the model's layers are known
        {"lora.init": LoraInit.orthogonal, "lora.rslora": True, "lora.dropout": 0.1},
    ],
)
def test_what_unsloth_does_is_taken(compose, values):
    assert faults_of(changed(compose(*UNSLOTH), values)) == []


def test_unsloth_is_told_of_with_all_other_faults(compose):
    values = {"lora.dora": True, "model.attention": Attention.eager, "lora.r": 0}
    assert len(faults_of(changed(compose(*UNSLOTH), values))) == 3
    (fault,) = faults_of(changed(compose("model=tiny"), {"backend.name": BackendName.unsloth}))
    assert "reads its model from files, but got model=tiny" in fault


def test_vllm_writes_for_an_evaluation_alone(compose):
    words = ("benchmark=[medqa]", "benchmark.medqa.engine=vllm")
    compose("task=evaluate", *words)
    with pytest.raises(ConfigError, match="benchmark.medqa.engine=vllm task=train; use benchmark.medqa.engine=auto"):
        compose(*words)
    with pytest.raises(ConfigError, match="engine=vllm benchmark.medqa.method=loglikelihood; use .*method=generate"):
        compose("task=evaluate", *words, "benchmark.medqa.method=loglikelihood")


@pytest.mark.parametrize("place", [("medqa", "test.jsonl"), ("cases", None)])
def test_commit_of_the_hub_is_refused_where_the_hub_is_not_read(compose, place):
    name, path = place
    words = (f"benchmark=[{name}]", f"benchmark.{name}.path={path or 'null'}", f"benchmark.{name}.revision=abc")
    told = (
        f"benchmark.{name}.path={path or 'null'} .*benchmark.{name}.revision=abc; use benchmark.{name}.revision=null;"
    )
    with pytest.raises(ConfigError, match=told):
        compose(*words)
    assert compose(*words, f"benchmark.{name}.revision=null")


def test_commit_of_the_hub_is_for_whatever_is_read_there(compose):
    words = ("benchmark=[medqa]", "benchmark.medqa.revision=abc")
    assert compose(*words)
    file = (*words, "benchmark.medqa.path=test.jsonl")
    assert compose(*file, "benchmark.medqa.shots=2")
    with pytest.raises(ConfigError, match="is not read beside a local file"):
        compose(*file, "benchmark.medqa.shots=2", "benchmark.medqa.shots_path=train.jsonl")
    chosen = ("objective.metric=eval/medqa_development/accuracy", "objective.direction=maximize")
    assert compose(*file, *chosen)
    with pytest.raises(ConfigError, match="is not read beside a local file"):
        compose(*file, *chosen, "benchmark.medqa.development_path=train.jsonl")
