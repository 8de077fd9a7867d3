"""Shared by the tests of sweeps: a PostgreSQL server of our own, and processes that act when they are told to."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

# The fault campaign and its server are programs of their own, and lie with the benchmarks.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from campaign.postgres import PostgresServer, running_server


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
