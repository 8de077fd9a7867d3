"""Shared by the tests of sweeps: search spaces, a PostgreSQL server of our own, processes that act when told to."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from campaign.postgres import PostgresServer, running_server
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from medbot_exp.errors import ConfigError


@pytest.fixture(scope="session")
def space_of() -> Callable[..., Any]:
    """space_of(*arguments, params=None, search_space=None, when=None, custom=None, loader=None, with_stop=False)."""
    from medbot_exp.sweep.space import read_space

    def read(
        *arguments: str, params=None, search_space=None, when=None, custom=None, loader=None, with_stop=False
    ) -> Any:
        return read_space(params, search_space, when, custom, arguments, loader, with_stop)

    return read


@pytest.fixture(scope="session")
def faults_of(space_of: Callable[..., Any]) -> Callable[..., list[str]]:
    """faults_of(*arguments, ...): the lines of the error that space_of raises."""

    def faults(*arguments: str, **keys: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            space_of(*arguments, **keys)
        return str(caught.value).splitlines()

    return faults


@pytest.fixture
def grouped_directory(tmp_path: Path) -> Path:
    """A directory of configs with the group `optimizer`."""
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "adamw.yaml").write_text("name: adamw\nlr: 0.1\n")
    (tmp_path / "optimizer" / "sgd.yaml").write_text("name: sgd\nlr: 0.1\nmomentum: 0.9\n")
    (tmp_path / "config.yaml").write_text(
        "defaults: [optimizer: adamw, _self_]\n"
        "lora: {r: 16, alpha: '${.r}', rslora: false, target: [a, b]}\nnone: null\n"
    )
    return tmp_path


@pytest.fixture
def grouped_config(grouped_directory: Path) -> DictConfig:
    """What grouped_directory composes to, with Hydra's own node in it."""
    with initialize_config_dir(str(grouped_directory), version_base="1.3"):
        return compose("config", return_hydra_config=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running server; a test that stops it starts it again."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running_server())
        except FileNotFoundError as error:
            pytest.skip(str(error))
        yield server


class Worker:
    """A process that runs `code` and then answers each line of its input with one of its output."""

    def __init__(self, code: str, *args: str, env: dict[str, str] | None = None) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | (env or {})
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def send(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        """The next line of its output; empty where it ended without one."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def worker() -> Iterator[Callable[..., Worker]]:
    """worker(code, *args): a Worker, killed at the end of the test."""
    started: list[Worker] = []

    def start(code: str, *args: str, env: dict[str, str] | None = None) -> Worker:
        started.append(Worker(code, *args, env=env))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        for stream in (one.process.stdin, one.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture(scope="session")
def fill() -> Callable[..., int]:
    """fill(storage, trials=1): the number of a study with running trials, each with a parameter and an attribute."""
    from optuna.distributions import FloatDistribution
    from optuna.study import StudyDirection

    def filled(storage: Any, trials: int = 1) -> int:
        study = storage.create_new_study([StudyDirection.MINIMIZE], "study")
        for _ in range(trials):
            trial = storage.create_new_trial(study)
            storage.set_trial_param(trial, "x", 0.5, FloatDistribution(0, 1))
            storage.set_trial_user_attr(trial, "note", "ä" * 20)
        return study

    return filled
