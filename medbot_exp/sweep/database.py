"""A study's database: how its connections are prepared, and the lock that a server keeps."""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from medbot_exp.sweep.patience import PATIENCE_SECONDS, wait_for_lock
from medbot_exp.sweep.refusals import PASSWORD_VARIABLE

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage
    from sqlalchemy import Engine

# A server's host that is switched off answers nothing at all: without these, libpq waits for hours.
LIBPQ_ARGUMENTS = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


class Address(Protocol):
    """What is needed of a storage.Address here."""

    @property
    def url(self) -> str:
        """Without a password."""

    @property
    def engine_kwargs(self) -> Mapping[str, Any]:
        """The user's own for SQLAlchemy's create_engine."""

    @property
    def kind(self) -> str:
        """`sqlite` or `server`."""

    @property
    def path(self) -> Path:
        """SQLite's file."""

    def open(self) -> "BaseStorage":
        """The storage."""


@cache
def prepared_storage() -> "Callable[[Address], RDBStorage]":
    """Optuna's RDBStorage, whose connections are prepared before the first of them; made here to import it late."""
    from optuna.storages import RDBStorage
    from sqlalchemy import Engine

    class PreparedStorage(RDBStorage):
        """RDBStorage uses its engine as soon as it is made, so what must hold for every connection is set up here."""

        def __init__(self, address: Address) -> None:
            self.address = address
            self.is_made = False
            kwargs = {**address.engine_kwargs, "connect_args": connect_args(address)}
            if address.kind == "server":
                # Finds a connection that the server has dropped before a statement does.
                kwargs.setdefault("pool_pre_ping", True)
            # Optuna calls format() on the URL.
            super().__init__(address.url.replace("{", "{{").replace("}", "}}"), kwargs)
            self.is_made = True

        @property
        def engine(self) -> Engine:
            return self.__dict__["engine"]

        @engine.setter
        def engine(self, engine: Engine) -> None:
            from sqlalchemy import event

            if self.address.kind == "server":
                give_password(engine)
            else:
                configure_sqlite(engine, self.address.path)
                event.listen(engine, "begin", self.begin)
            self.__dict__["engine"] = engine

        def begin(self, connection: Any) -> None:
            # https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable
            # A deferred transaction reads, then asks for the right to write: two tells of one trial both find it
            # unfinished, and one that read before another wrote fails at once, whatever the timeout. While Optuna
            # makes and checks its tables it must do: there one transaction waits inside another.
            connection.exec_driver_sql("BEGIN IMMEDIATE" if self.is_made else "BEGIN")

        def __reduce__(self) -> tuple[Callable[[Address], "BaseStorage"], tuple[Address]]:
            return type(self.address).open, (self.address,)

    return PreparedStorage


def held_on_server(address: Address, purpose: str) -> ExitStack:
    """The server's advisory lock for `purpose`, held until the stack is closed or the connection is lost.

    Raises:
        StorageError: another process held it for PATIENCE_SECONDS.
    """
    from sqlalchemy import NullPool, create_engine, make_url, text

    url = make_url(address.url)
    # The name of the host is left out: others may reach the same server under another one.
    digest = hashlib.sha256(f"medbot_exp/{purpose}/{url.database}".encode()).digest()
    if url.get_backend_name() == "postgresql":
        # https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADVISORY-LOCKS
        key = int.from_bytes(digest[:8], signed=True)
        query = text(f"SELECT pg_try_advisory_lock({key})")
    else:
        query = text(f"SELECT GET_LOCK('medbot_exp/{digest.hex()[:32]}', 0)")
    with ExitStack() as stack:
        kwargs = {"connect_args": connect_args(address)}
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", **kwargs)
        stack.callback(engine.dispose)
        give_password(engine)
        connection = stack.enter_context(engine.connect())
        wait_for_lock(lambda: bool(connection.scalar(query)), 0.05, address.url, "wait for that process or end it")
        return stack.pop_all()


def connect_args(address: Address) -> dict[str, Any]:
    """What is passed to the driver with each connection, the user's own above ours."""
    own = dict(address.engine_kwargs.get("connect_args", {}))
    if address.kind == "sqlite":
        # Without an isolation level, Python's sqlite3 begins no transaction of its own accord.
        return {"timeout": PATIENCE_SECONDS} | own | {"isolation_level": None}
    from sqlalchemy import make_url

    url = make_url(address.url)
    if url.get_driver_name() in ("psycopg2", "psycopg"):
        return {key: value for key, value in LIBPQ_ARGUMENTS.items() if key not in url.query} | own
    return own


def give_password(engine: "Engine") -> None:
    """Have every connection that `engine` makes use the password, which stays out of URLs, errors and pickles."""
    from sqlalchemy import event

    @event.listens_for(engine, "do_connect")
    def add(dialect: Any, record: Any, args: list[Any], parameters: dict[str, Any]) -> None:
        password = os.environ.get(PASSWORD_VARIABLE)
        if password:
            parameters["password"] = password


def configure_sqlite(engine: "Engine", path: Path) -> None:
    """Have every connection that `engine` makes open `path`, in WAL mode."""
    from sqlalchemy import event

    @event.listens_for(engine, "do_connect")
    def name(dialect: Any, record: Any, args: list[Any], parameters: dict[str, Any]) -> None:
        # SQLAlchemy 2.0 and 2.1 read % and ? in a path differently.
        args[:] = [str(path)]

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
