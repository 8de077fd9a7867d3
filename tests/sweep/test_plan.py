"""What a study is about: two commands that train on other rows or weights have other plans."""

import hydra
import pytest
from safetensors.torch import save_file

from medbot_exp.config import conf_directory
from medbot_exp.errors import MedbotError
from medbot_exp.sweep.plan import plan_of
from medbot_exp.sweep.space import read_space


@pytest.fixture
def plan(tmp_path):
    """plan(*overrides, search=...): that of a search around the composed config."""

    def made(*overrides: str, search: str = "lora.r=8,16"):
        with hydra.initialize_config_dir(str(conf_directory()), version_base="1.3"):
            base = hydra.compose("config", [f"cache_dir={tmp_path}/cache", *overrides], return_hydra_config=True)
        return plan_of(read_space(None, None, None, None, [search], None, with_stop=False), base)

    return made


def rows(path, answers):
    lines = [f"q{number},because,{answer},{part}" for number, (answer, part) in enumerate(answers)]
    path.write_text("\n".join(["question,reasoning,answer,part", *lines]))


def test_rows_that_change_under_the_same_name_change_the_plan(plan, tmp_path):
    path = tmp_path / "rows.csv"
    overrides = ("data=file", f"data.path={path}", "data.columns.split=part")
    rows(path, [("rest", "train"), ("walk", "train"), ("sleep", "validation")])
    before = plan(*overrides)
    assert plan(*overrides) == before
    rows(path, [("rest", "train"), ("swim", "train"), ("sleep", "validation")])
    after = plan(*overrides)
    assert [key for key in after if after[key] != before[key]] == ["rows"]
    assert after["rows"]["validation"] == before["rows"]["validation"]


def test_weights_that_change_under_the_same_name_change_the_plan(plan, tmp_path):
    import torch

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    overrides = ("model=directory", f"model.path={folder}")
    save_file({"w": torch.zeros(2)}, folder / "model.safetensors")
    before = plan(*overrides)
    save_file({"w": torch.ones(2)}, folder / "model.safetensors")
    after = plan(*overrides)
    assert [key for key in after if after[key] != before[key]] == ["weights"]


def test_rows_that_are_searched_themselves_are_not_compared(plan):
    assert "rows" in plan() and "rows" not in plan(search="data.limit=50,100")


def test_what_changes_nothing_that_is_computed_is_not_compared(plan):
    assert plan("name=a", "tracking=none", "root=elsewhere") == plan("name=b", "root=here")


def test_rows_that_are_missing_are_told(plan, tmp_path):
    with pytest.raises(MedbotError, match="none.csv"):
        plan("data=file", f"data.path={tmp_path}/none.csv")
