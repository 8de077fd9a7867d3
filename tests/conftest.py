"""Shared by all tests: composing a config, running the command, the byte tokenizer, real rows."""

import os

# Before torch and the hub's client load: two processes with default threads stall each other, and no test of
# the default suite may reach for a network.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import copy
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import pytest

import medbot_exp.cli  # noqa: F401  # registers the schema and the resolvers that conf/ names
from medbot_exp.config import RunConfig, conf_directory
from medbot_exp.rules import typed

# A shell that starts the tests in the background has Ctrl-C ignored, and what they start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REAL_ROWS = Path(__file__).parents[2] / "shared" / "data"


@cache
def composed_once(overrides: tuple[str, ...]) -> RunConfig:
    """The config that `python -m medbot_exp <overrides>` would run with."""
    with hydra.initialize_config_dir(config_dir=str(conf_directory()), version_base="1.3"):
        return typed(hydra.compose("config", overrides=list(overrides)))


@pytest.fixture(scope="session")
def compose() -> Callable[..., RunConfig]:
    """compose(*overrides): a RunConfig that the caller may change."""

    def composed(*overrides: str) -> RunConfig:
        return copy.deepcopy(composed_once(overrides))

    return composed


@dataclass(frozen=True)
class Finished:
    """What a process left behind."""

    status: int
    stdout: str
    stderr: str


def child_environment(home: Path) -> dict[str, str]:
    """The environment of a machine with no account, no key and an empty cache."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "HYDRA_", "HF_"))}
    return inherited | {
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "MEDBOT_EXP_CACHE": str(home / "cache"),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def run_python_in() -> Callable[..., Finished]:
    """run_python_in(folder, *args, env=None): the interpreter in a process of its own, with `folder` as its home."""

    def run(folder: Path, *args: str, env: dict[str, str] | None = None) -> Finished:
        environment = child_environment(folder) | (env or {})
        done = subprocess.run(
            [sys.executable, *args], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def start_torchrun() -> Callable[..., subprocess.Popen[str]]:
    """start_torchrun(folder, *args, env=None): the interpreter in two processes of one run, at home in `folder`."""

    def start(folder: Path, *args: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        # Not the program torchrun: the path need not have it.
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *args]
        environment = child_environment(folder) | (env or {})
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes)

    return start


@pytest.fixture(scope="session")
def torchrun(start_torchrun: Callable[..., subprocess.Popen[str]]) -> Callable[..., Finished]:
    """torchrun(folder, *args, env=None): as start_torchrun, waited for."""

    def run(folder: Path, *args: str, env: dict[str, str] | None = None) -> Finished:
        process = start_torchrun(folder, *args, env=env)
        try:
            stdout, stderr = process.communicate(timeout=150)
        except subprocess.TimeoutExpired:
            process.terminate()  # it ends its processes first
            process.wait(60)
            raise
        return Finished(process.returncode, stdout, stderr)

    return run


@pytest.fixture
def run_cli(run_python_in: Callable[..., Finished], tmp_path: Path) -> Callable[..., Finished]:
    """run_cli(*args, env=None): `python -m medbot_exp` in a process of its own, in tmp_path."""

    def run(*args: str, env: dict[str, str] | None = None) -> Finished:
        return run_python_in(tmp_path, "-m", "medbot_exp", *args, env=env)

    return run


@pytest.fixture(scope="session")
def read_wandb_run() -> Callable[[Path, str], list[dict[str, Any]]]:
    """read_wandb_run(directory, run_id): the records of an offline run below `directory`, read by W&B itself."""

    def read(directory: Path, run_id: str) -> list[dict[str, Any]]:
        (path,) = directory.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb")
        program = shutil.which("wandb", path=str(Path(sys.executable).parent))
        assert program is not None
        command = [program, "leet", "inspect", "--json", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return read


@pytest.fixture
def tiny_tokenizer() -> Any:
    """The byte-level tokenizer of model=tiny: a token is a byte, so lengths can be counted by hand."""
    from medbot_exp.model import byte_tokenizer

    return byte_tokenizer()


@pytest.fixture(scope="session")
def saved_tiny(compose: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that save_pretrained wrote: weights and tokenizer of model=tiny."""
    import torch

    from medbot_exp.model import byte_tokenizer, load

    directory = tmp_path_factory.mktemp("saved")
    load(compose("model=tiny").model, Path(os.devnull), torch.device("cpu")).model.save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture
def leave_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """leave_free(size): from now on the process's container leaves it `size` bytes of memory, or says so."""

    def leave(size: int) -> None:
        folder = tmp_path / "cgroup"
        folder.mkdir()
        for name, content in (("max", f"{size}"), ("current", "0"), ("stat", "inactive_file 0")):
            (folder / f"memory.{name}").write_text(content)
        monkeypatch.setattr("medbot_exp.training.allocator.CGROUP", folder)

    return leave


@pytest.fixture(scope="session")
def real_rows() -> Path:
    """The folder of published data sets that stands beside the project."""
    if not REAL_ROWS.is_dir():
        pytest.skip(f"the real rows are not here: no folder {REAL_ROWS}")
    return REAL_ROWS
