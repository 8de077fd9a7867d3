"""Shared by the tests of sweeps: search spaces, a PostgreSQL server of our own, processes that act when told to."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
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


@dataclass(frozen=True)
class PostgresServer:
    """A server on 127.0.0.1, gone at the end of the session; `folder` holds its data and its log."""

    programs: Path
    folder: Path
    port: int
    user: str = "medbot"
    password: str = "p@ss:/w%rd {x}"

    @property
    def url(self) -> str:
        """A URL with the password, as a user would type it."""
        return self.url_of("postgres")

    def url_of(self, database: str, password: str = "p%40ss%3A%2Fw%25rd%20%7Bx%7D", driver: str = "psycopg2") -> str:
        return f"postgresql+{driver}://{self.user}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-o", options, "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        """`immediate` is what a crash of its host amounts to; `fast` is an orderly end."""
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-m", mode, "-w", "stop")

    def create_database(self, name: str) -> None:
        self.sql(f'CREATE DATABASE "{name}"')

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What psql prints for `statement`, bare."""
        where = ("-h", str(self.folder), "-p", str(self.port), "-U", self.user, "-d", database)
        return self.run("psql", "-At", *where, "-c", statement, PGPASSWORD=self.password).strip()

    def run(self, program: str, *args: str, **environment: str) -> str:
        command = [str(self.programs / program), *args]
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            command = ["runuser", "-u", "postgres", "--", *command]
        # Not a pipe: the server inherits the output of pg_ctl and keeps it open.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                command, cwd=self.folder, env=os.environ | environment, stdout=output, stderr=output, timeout=60
            )
            output.seek(0)
            text = output.read()
        assert done.returncode == 0, f"{program}: {text}"
        return text


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running server; a test that stops it starts it again."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Not below tmp_path, which other users may not enter.
    server = PostgresServer(programs[-1].parent, Path(tempfile.mkdtemp(prefix="medbot-pg-")), port)
    try:
        (server.folder / "password").write_text(server.password)
        if os.geteuid() == 0:
            for path in (server.folder, server.folder / "password"):
                shutil.chown(path, "postgres")
        secret = ("-U", server.user, "--auth=scram-sha-256", f"--pwfile={server.folder}/password")
        server.run("initdb", "-D", f"{server.folder}/data", "--no-sync", "--locale=C.UTF-8", *secret)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(server.folder)


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
