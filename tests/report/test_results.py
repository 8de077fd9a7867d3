"""What the end of a search says: the best trial as a run by itself."""

import pytest

from medbot_exp.report.results import expanded

PRESET = """
# @package _global_
defaults:
  - override /hydra/sweeper: optuna
  - override /objective: accuracy
study: quick
trainer:
  samples: 0
  eval_limit: null
hydra:
  sweeper:
    n_trials: 8
"""


@pytest.fixture
def folders(tmp_path):
    """Two folders of config files, of which the second has the preset `quick`."""
    for name in ("own", "conf"):
        (tmp_path / name / "sweep").mkdir(parents=True)
    (tmp_path / "conf" / "sweep" / "quick.yaml").write_text(PRESET)
    return [tmp_path / "own", tmp_path / "conf"]


def test_a_preset_is_replaced_by_what_it_sets_for_trials(folders):
    words = expanded(["lora.r=8", "+sweep=quick", "trainer.samples=2"], folders)
    assert words == [
        "lora.r=8",
        "objective=accuracy",
        "study=quick",
        "trainer.samples=0",
        "trainer.eval_limit=null",
        "trainer.samples=2",
    ]


def test_of_two_presets_of_one_name_the_first_folders_counts(folders):
    (folders[0] / "sweep" / "quick.yaml").write_text("# @package _global_\nseed: 7\n")
    assert expanded(["+sweep=quick"], folders) == ["seed=7"]


def test_a_preset_that_is_in_no_folder_stays(folders):
    assert expanded(["+sweep=elsewhere", "lora.r=8"], folders) == ["+sweep=elsewhere", "lora.r=8"]
