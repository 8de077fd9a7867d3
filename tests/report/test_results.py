"""What the end of a search says: the best trial as a run by itself."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from medbot_exp.report.results import expanded, plain_values

FILES = {
    "config": "defaults: [goal: loss, size: small, _self_]\nsteps: 10\nseed: 1\nalpha: ${seed}\n",
    "goal/loss": "name: loss\n",
    "goal/accuracy": "name: accuracy\n",
    "size/small": "width: 1\n",
    "size/large": "width: 9\n",
    "experiment/long": "# @package _global_\nsteps: 90\n",
    "sweep/common": "# @package _global_\nwidest: 5\n",
    "sweep/quick": (
        "# @package _global_\n"
        "defaults: [common, override /hydra/hydra_logging: none, override /goal: accuracy]\n"
        "steps: 60\nseed: null\nalpha: ${.steps}\n"
    ),
}


@pytest.fixture
def composed(tmp_path):
    """composed(overrides): what they compose to in a small application, with Hydra's own node."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        yield lambda words: compose("config", list(words), return_hydra_config=True)


@pytest.mark.parametrize(
    "overrides",
    [
        ["+sweep=quick"],
        ["steps=20", "+sweep=quick"],  # a value prevails over a group, wherever it stands
        ["+sweep=quick", "steps=20"],
        ["+sweep=quick", "goal=loss"],
        ["goal=loss", "+sweep=quick"],
        ["+sweep=quick", "+experiment=long"],
        ["+experiment=long", "+sweep=quick"],
        ["size=large", "+sweep=quick", "size.width=3"],
    ],
    ids=" ".join,
)
def test_a_preset_is_replaced_by_what_it_sets_for_a_trial(composed, overrides):
    words = expanded(overrides, composed)
    assert not [word for word in words if "sweep" in word or "hydra" in word]
    assert [word for word in words if word in overrides] == [word for word in overrides if "sweep" not in word]
    again, trial = (plain_values(composed(each)) for each in (words, overrides))
    assert again == trial


def test_overrides_without_a_preset_stay(composed):
    assert expanded(["steps=3", "+experiment=long"], composed) == ["steps=3", "+experiment=long"]


def test_interpolations_stay_what_they_are(composed):
    assert OmegaConf.to_container(composed(expanded(["+sweep=quick"], composed)))["alpha"] == "${.steps}"
