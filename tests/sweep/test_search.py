"""What a command asks of a search, before its first trial."""

import sys

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from medbot_exp.sweep.search import hide_password
from medbot_exp.sweep.storage import Address

URL = "postgresql+psycopg2://me:s3cr3t@host/db"
BARE = "postgresql+psycopg2://me@host/db"
NODE = ("+hydra.sweeper.storage._target_=optuna.storages.RDBStorage", f"+hydra.sweeper.storage.url='{URL}'")


@pytest.mark.parametrize(
    "in_file, overrides",
    [
        (f"hydra: {{sweeper: {{storage: '{URL}'}}}}", ()),
        (f"hydra: {{sweeper: {{storage: {{_target_: optuna.storages.RDBStorage, url: '{URL}'}}}}}}", ()),
        ("", NODE),
        ("", (f"hydra.sweeper.storage='{URL}'",)),
        ("", (f"++hydra.sweeper.storage='{URL}'",)),
    ],
    ids=["text in a file", "node in a file", "node typed", "text typed", "text added"],
)
def test_a_trial_composes_no_password_wherever_it_stood(tmp_path, monkeypatch, in_file, overrides):
    (tmp_path / "config.yaml").write_text(f"defaults: [{{override hydra/sweeper: optuna}}, _self_]\n{in_file}\nx: 0\n")
    monkeypatch.setattr(sys, "argv", ["app.py", "-m", *overrides])
    with initialize_config_dir(str(tmp_path), version_base=None):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)
        assert "s3cr3t" in OmegaConf.to_yaml(config)
        hide_password(config, Address(BARE))
        trial = loader.load_sweep_config(config, ["x=1"])
    assert trial.hydra.sweeper.storage == config.hydra.sweeper.storage == BARE
    for words in (OmegaConf.to_yaml(config), OmegaConf.to_yaml(trial), " ".join(sys.argv)):
        assert "s3cr3t" not in words
