"""The schema, the labels that name directories, and every file of conf/."""

import dataclasses
import itertools
import re
import shlex
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from medbot_exp import config as schema
from medbot_exp.config import Quantization, checked_label, conf_directory
from medbot_exp.errors import ConfigError
from medbot_exp.rules import typed

CONF = conf_directory()
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
OPTIONS = [path for path in FILES if len(path.parts) == 2]


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
    """The options in as few runs as possible, one of each group in a run.

    Experiments and sweeps choose others themselves; objectives and tasks name benchmarks.
    """
    groups = {}
    for path in options:
        groups.setdefault(path.parent, []).append(path)
    alone = [[path] for group in ("experiment", "sweep", "objective", "benchmark") for path in groups.pop(Path(group))]
    return alone + [[path for path in row if path is not None] for row in itertools.zip_longest(*groups.values())]


@pytest.mark.parametrize("paths", together(OPTIONS), ids=lambda paths: " ".join(map(str, paths)))
def test_every_option_is_chosen_by_the_command_that_it_states(paths):
    commands = [re.sub(r"<\w+>", "somewhere", stated_command(path)) for path in paths]
    with hydra.initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        cfg = hydra.compose(
            "config", overrides=shlex.split(" ".join(commands).replace("-m ", "")), return_hydra_config=True
        )
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
