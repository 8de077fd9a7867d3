"""The schema, the rules that values keep, and every file of conf/."""

import dataclasses
import itertools
import re
import shlex
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from medbot_exp import config as schema
from medbot_exp.config import Direction, LoraInit, Quantization, checked_label, conf_directory, faults_of, typed
from medbot_exp.errors import ConfigError

CONF = conf_directory()
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
OPTIONS = [path for path in FILES if len(path.parts) == 2]

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
    ({"optimizer.warmup_ratio": 1.0}, "optimizer.warmup_ratio=1.0", "0.05"),
    ({"optimizer.warmup_ratio": -0.1}, "optimizer.warmup_ratio=-0.1", "0.05"),
    ({"optimizer.weight_decay": -0.01}, "optimizer.weight_decay=-0.01", "0.01"),
    ({"optimizer.max_grad_norm": 0.0}, "optimizer.max_grad_norm=0.0", "1.0"),
    ({"optimizer.lora_plus_ratio": 0.5}, "optimizer.lora_plus_ratio=0.5", "16, or null"),
    ({"trainer.epochs": 0.0}, "trainer.epochs=0.0", "less than one epoch"),
    ({"trainer.max_steps": 0}, "trainer.max_steps=0", "-1"),
    ({"trainer.max_steps": -2}, "trainer.max_steps=-2", "-1"),
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
    ({"data.columns.reasoning": None}, "data.columns.reasoning=null", "prompt=direct"),
    ({"model.max_length": 31}, "model.max_length=31", "1024"),
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
    ({"seed": -1}, "seed=-1", "0"),
]

KEPT_RULES = [
    {"lora.r": 1},
    {"lora.dropout": 0.0},
    {"lora.dropout": 0.99},
    {"lora.target_modules": r".*\.q_proj"},
    {"lora.init": LoraInit.pissa},
    {"lora.init": LoraInit.orthogonal, "lora.r": 8},
    {"optimizer.warmup_ratio": 0.0},
    {"optimizer.weight_decay": 0.0},
    {"optimizer.lora_plus_ratio": 1.0},
    {"trainer.max_steps": -1},
    {"trainer.max_steps": 1},
    {"trainer.eval_limit": None},
    {"trainer.samples": 0},
    {"trainer.early_stopping_patience": 1, "trainer.checkpoint_steps": 2, "trainer.eval_steps": 2},
    {"trainer.checkpoint_steps": 5, "trainer.eval_steps": 2},
    {"data.validation": 0.5},
    {"data.validation": 40.0},
    {"data.limit": 1},
    {"model.max_length": 32},
    {"objective.metric": "eval/cases/accuracy", "objective.direction": Direction.maximize},
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
        ("+benchmark.cases.top=3", "benchmark.cases.top", "limit"),
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


@pytest.mark.parametrize("label", ["run", "a", "x" * 64, "2026-11-23_12-00-00", "lr1.0e-3", "..a", "-"])
def test_label_that_names_a_directory_is_accepted(label):
    assert checked_label("name", label) == label


@pytest.mark.parametrize(
    "label", ["", ".", "..", "...", "../x", "a/b", "/etc", "a b", "x" * 65, "a\n", "é", "a\\b", "~", "a:b"]
)
def test_label_that_could_leave_its_directory_is_refused(label):
    with pytest.raises(ConfigError, match="`study` must be 1 to 64 characters"):
        checked_label("study", label)


@pytest.mark.parametrize("override", ["name=../x", "study=../x"])
def test_name_and_study_are_checked_in_every_mode(compose, override):
    with pytest.raises(ConfigError, match="must be 1 to 64 characters"):
        compose(override)


def test_schema_holds_no_value_of_its_own():
    classes = [item for item in vars(schema).values() if isinstance(item, type) and dataclasses.is_dataclass(item)]
    assert schema.RunConfig in classes
    given = [
        f"{item.__name__}.{field.name}"
        for item in classes
        for field in dataclasses.fields(item)
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    ]
    assert given == []


def test_alpha_follows_r_unless_it_is_given(compose):
    assert compose("lora.r=32").lora.alpha == 32
    assert compose("lora.r=32", "lora.alpha=8").lora.alpha == 8


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path,
        )
        for path in FILES
    ],
    ids=str,
)
def test_file_opens_with_a_comment_that_states_its_command(path):
    assert stated_command(path) is not None


def together(options):
    """The options in as few runs as possible, one of each group in a run; an experiment chooses for itself."""
    groups = {}
    for path in options:
        groups.setdefault(path.parent, []).append(path)
    alone = [[path] for path in groups.pop(Path("experiment"))]
    return alone + [[path for path in row if path is not None] for row in itertools.zip_longest(*groups.values())]


@pytest.mark.parametrize("paths", together(OPTIONS), ids=lambda paths: " ".join(map(str, paths)))
def test_every_option_is_chosen_by_the_command_that_it_states(paths):
    commands = [re.sub(r"<\w+>", "somewhere", stated_command(path)) for path in paths]
    with hydra.initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", overrides=shlex.split(" ".join(commands)), return_hydra_config=True)
    # Benchmarks come as a list, each under its own key; Hydra keeps no choice for those.
    choices = {group: [option] for group, option in cfg.hydra.runtime.choices.items()} | {"benchmark": cfg.benchmark}
    assert [path for path in paths if path.stem not in choices[path.parts[0]]] == []
    OmegaConf.set_struct(cfg, False)
    del cfg.hydra
    typed(cfg)


def stated_command(path: Path) -> str | None:
    """The overrides in the first comment of a file of conf/; None without a command."""
    lines = (CONF / path).read_text(encoding="utf-8").splitlines()
    first = lines[1] if lines[0].startswith("# @package") else lines[0]
    found = re.fullmatch(r"# \S.+\.   python -m medbot_exp(.*)", first)
    return found.group(1) if found else None


def test_medbot_recipe_is_the_published_one(compose):
    config = compose("+experiment=medbot")
    assert (config.model.repo, config.model.quantization) == (
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        Quantization.nf4,
    )
    assert (config.data.hub, config.data.limit) == ("FreedomIntelligence/medical-o1-reasoning-SFT", 500)
    assert (config.lora.r, config.lora.alpha, config.lora.dropout) == (16, 16, 0)
    assert (config.optimizer.lr, config.trainer.max_steps) == (2e-4, 60)
    # 5 of 60 steps warm up, and 2 rows times 4 make a step.
    assert round(config.optimizer.warmup_ratio * config.trainer.max_steps, 1) == 5.0
    assert config.trainer.batch_size * config.trainer.gradient_accumulation_steps == 8
