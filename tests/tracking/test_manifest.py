"""manifest.json names the code, packages and machine that a run was made of."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from medbot_exp.errors import RunDirectoryError
from medbot_exp.rundir import RunDirectory
from medbot_exp.tracking.manifest import environment, git_state, hardware, installed, write


def git(directory: Path, *arguments: str) -> str:
    """What git prints, run as a user without configuration."""
    settings = {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        **{f"GIT_{role}_{key}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")},
    }
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments], env=os.environ | settings, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path) -> Path:
    """A checkout with one commit; the directory in it that holds manifest.py."""
    git(tmp_path, "init", "--quiet")
    directory = tmp_path / "package"
    directory.mkdir()
    (directory / "manifest.py").write_text("pass\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "First")
    return directory


def contents(**changes):
    """What a manifest says of a model and its rows: a letter each, `cut` what the tokenizer makes of them."""
    told = {"model": "m", "train": "t", "validation": "v", "cut": "c"} | changes
    return {
        "model": {"version": told["model"]},
        "data": {name: told[name] for name in ("train", "validation")},
        "tokenized": {name: {"fingerprint": told[name] + told["cut"]} for name in ("train", "validation")},
    }


PARTS = {
    "model": "the model (model.path",
    "train": "the rows to train on (data.path",
    "validation": "the held-out rows (data.path",
    "cut": "the tokenizer (model.path",
}


@pytest.mark.parametrize("changed", [["model"], ["train"], ["validation"], ["cut"], ["model", "train"]])
def test_what_changed_since_a_run_was_begun_is_told_in_words(tmp_path, changed):
    directory = RunDirectory(tmp_path)
    write(directory, contents())
    write(directory, contents())
    with pytest.raises(RunDirectoryError) as caught:
        write(directory, contents(**dict.fromkeys(changed, "n")))
    assert [part for part, words in PARTS.items() if words in str(caught.value)] == changed
    assert str(caught.value).endswith("changed; restore the files, or start a new run")


class TestGitState:
    def test_is_the_commit_of_the_checkout(self, package):
        assert git_state(package) == {"commit": git(package, "rev-parse", "HEAD"), "dirty": False}

    def test_is_dirty_after_a_change(self, package):
        (package / "manifest.py").write_text("changed\n")
        assert git_state(package)["dirty"] is True

    def test_is_dirty_with_a_file_that_git_does_not_know(self, package):
        (package / "new.py").write_text("pass\n")
        assert git_state(package)["dirty"] is True

    def test_is_none_for_a_package_installed_below_somebody_elses_checkout(self, package):
        installed_here = package / "site-packages"
        installed_here.mkdir()
        (installed_here / "manifest.py").write_text("pass\n")
        assert git_state(installed_here) is None

    def test_is_none_outside_a_checkout(self, tmp_path, monkeypatch):
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        assert git_state(tmp_path) is None

    def test_is_none_where_git_is_not_installed(self, package, monkeypatch):
        monkeypatch.setenv("PATH", str(package))
        assert git_state(package) is None


class TestInstalled:
    def test_is_the_version_of_a_distribution(self):
        assert installed("torch") == version("torch")

    def test_is_none_without_one(self):
        assert installed("no-such-distribution-of-ours") is None


class TestHardware:
    def test_names_cores_memory_and_processor(self):
        found = hardware()
        assert found["machine"] == platform.machine()
        assert found["cores"] == len(os.sched_getaffinity(0))
        assert found["threads"] == torch.get_num_threads()
        kibibytes = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
        assert found["memory_gib"] == pytest.approx(int(kibibytes.split()[1]) / 2**20, abs=0.1)
        assert isinstance(found["processor"], str)

    def test_lists_as_many_gpus_as_torch_sees(self):
        assert len(hardware()["gpus"]) == torch.cuda.device_count()


class TestEnvironment:
    def test_has_what_two_runs_could_differ_in(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/medbot-exp", "lora.r=16", "name=a b"])
        found = environment()
        assert found["command"] == "python -m medbot_exp lora.r=16 'name=a b'"
        assert found["python"] == platform.python_version()
        for name in ("medbot-exp", "torch", "transformers", "trl", "peft", "datasets", "hydra-core", "wandb", "optuna"):
            assert found["packages"][name] == version(name)
        assert None not in found["packages"].values()

    def test_can_be_written_as_json(self):
        found = environment()
        assert json.loads(json.dumps(found)) == found

    def test_holds_no_secret_of_the_process(self, monkeypatch):
        canary = "canary-5e1f0c9d"
        for name in ("WANDB_API_KEY", "HF_TOKEN"):
            monkeypatch.setenv(name, canary)
        assert canary not in json.dumps(environment())
