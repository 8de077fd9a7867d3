"""A PostgreSQL server of our own on the loopback."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PostgresServer:
    """A server on 127.0.0.1, gone at the end; `folder` holds its data and its log."""

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


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """A server that runs, unless its user stopped it, until the end of the block.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Not in a directory of the caller's, which other users may not enter.
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
