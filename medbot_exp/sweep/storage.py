"""Where a study is kept, so that it outlives a killed process, a full disk and a restarted server.

An `Address` names the place and holds no password. Three kinds of place:

sqlite    one machine: a database in WAL mode, every transaction of which is exclusive from its first statement
journal   network file systems: a file of one JSON record a line, mended where a crash cut its last record
server    several hosts: PostgreSQL or MySQL
"""

import errno
import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast
from urllib.parse import quote, unquote

from medbot_exp.errors import ConfigError, StorageError, first_line

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage
    from optuna.storages.journal import BaseJournalBackend
    from sqlalchemy import Engine

T = TypeVar("T")
Kind = Literal["sqlite", "journal", "server"]

log = logging.getLogger(__name__)

# Where a password waits for the processes that open the study: they inherit it, and no file or log gets to hold it.
PASSWORD_VARIABLE = "MEDBOT_EXP_STORAGE_PASSWORD"

# How long a storage that is locked or cannot be reached is waited for.
PATIENCE_SECONDS = 120.0
# After so long a person is told what is waited for.
SILENT_SECONDS = 3.0

# A server's host that is switched off answers nothing at all: without these, libpq waits for hours.
LIBPQ_ARGUMENTS = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}

SUPPORTED = (
    "sqlite:///study.db (one machine), journal:///study.log (network file systems), "
    "postgresql+psycopg2://user@host/database or mysql+pymysql://user@host/database (several hosts)"
)

# The package that brings a module which SQLAlchemy did not find.
DRIVERS = {
    "psycopg2": "psycopg2-binary",
    "psycopg": "'psycopg[binary]'",
    "pymysql": "pymysql",
    "MySQLdb": "mysqlclient",
}

# What servers say where waiting does not help, and the remedy; the first that fits. libpq gives no code for a
# connection that failed.
PASSWORD_REMEDY = f"Correct the user and the password: in the URL, in {PASSWORD_VARIABLE} or in ~/.pgpass"
REFUSALS = {
    "password authentication failed": PASSWORD_REMEDY,
    "no password supplied": PASSWORD_REMEDY,
    "' to database '": "Create it on the server (CREATE DATABASE) and GRANT it to this user, or correct the URL",
    "Access denied": PASSWORD_REMEDY,
    "no pg_hba.conf entry": "Let the server accept this host and user (pg_hba.conf)",
    "does not exist": "Create it on the server (createdb, createuser), or correct the URL",
    "Unknown database": "Create it on the server (CREATE DATABASE), or correct the URL",
    "No space left on device": "Free some space on the server",
}

# A network file system that loses its server for a while.
PASSING_ERRNOS = {errno.ENOLCK, errno.ESTALE, errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT}


@dataclass(frozen=True)
class Address:
    """Where a study is kept, without its password: may be printed, logged and pickled.

    Attributes:
        url: `sqlite:///` or `journal:///` and an absolute path, percent-encoded; or a server's URL for SQLAlchemy.
        engine_kwargs: what the user's own RDBStorage passes to SQLAlchemy's create_engine.
    """

    url: str
    engine_kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def kind(self) -> Kind:
        """Which of the three kinds of place this is."""
        scheme = self.url.partition(":")[0]
        return cast(Kind, scheme) if scheme in ("sqlite", "journal") else "server"

    @property
    def path(self) -> Path:
        """The file of a database or of a journal; of no use for a server."""
        return Path(unquote(self.url.partition(":///")[2]))

    def open(self) -> "BaseStorage":
        """The storage, made where there was none; it pickles as this address and is opened again by the reader.

        A server that cannot be reached is told at once: `patiently(address.open)` waits for it.

        Raises:
            ConfigError: the driver is not installed.
            StorageError: it cannot be reached, read or written, or is locked for longer than PATIENCE_SECONDS.
        """
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        try:
            # Optuna makes its tables without a thought for others who open the same new database.
            with self._held("open"):
                if self.kind == "journal":
                    journal = Journal(self.path)
                    journal.mend()
                    return optuna.storages.JournalStorage(cast("BaseJournalBackend", journal))
                return prepared_storage()(self)
        except ImportError as error:
            module = getattr(error, "name", None) or getattr(error.__cause__, "name", None) or "the driver"
            raise ConfigError(
                f"`hydra.sweeper.storage` needs a driver that is installed, but got {self.url} and no module {module}\n"
                f"Run: pip install {DRIVERS.get(module, module)}"
            ) from error
        # Optuna raises RuntimeError for tables of another version, with its own remedy.
        except (OSError, SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
            raise StorageError(
                f"`hydra.sweeper.storage` must be usable, but got {self.url}: {told(error)}\n{self._remedy(error)}"
            ) from error

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Only one process, of those on any host that use this place, is inside `with address.exclusive():`.

        It is free again as soon as its holder dies, however that came. Not for nesting, and not around the start
        of a child process: a forked child keeps the lock of a file.

        Raises:
            StorageError: another process held it for PATIENCE_SECONDS, or the place could not be reached for as long.
        """
        with patiently(partial(self._held, "study")):
            yield

    def _held(self, purpose: str) -> ExitStack:
        """The lock of this place for `purpose`, held until the stack is closed."""
        if self.kind == "server":
            return held_on_server(self, purpose)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Not <file>.lock, which Optuna's own journal takes for a lock that is held.
        return held_file(Path(f"{self.path}.{purpose}.lock"), self.path)

    def _remedy(self, error: BaseException) -> str:
        if self.kind != "server":
            return (
                "Choose a file in a directory that can be written; on a network file system: journal:///<path>.log; "
                "where the file is damaged, put its last good copy in its place or start under another name"
            )
        known = [remedy for text, remedy in REFUSALS.items() if text in told(error)]
        return known[0] if known else "See that the server runs and that this host reaches it, then type the same again"


def address_of(
    storage: "str | BaseStorage | None", default: Path, password_into: MutableMapping[str, str] = os.environ
) -> Address:
    """The address of what a user gave as `hydra.sweeper.storage`; SQLite at `default` for what would not last.

    Args:
        storage: a URL, a path that ends in .db, .log or .journal, one of Optuna's storages, or None.
        default: the database of a study whose user named none.
        password_into: gets the URL's password, under PASSWORD_VARIABLE.

    Raises:
        ConfigError: it is none of these.
    """
    if storage is None:
        return Address(file_url("sqlite", default))
    if isinstance(storage, str):
        return address_of_text(storage, {}, default, password_into)
    from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    # optuna.create_study wraps the storage that it is given.
    inner = getattr(storage, "_backend", None)
    if isinstance(inner, RDBStorage):
        storage = inner
    if isinstance(storage, InMemoryStorage):
        return instead_of_memory(default)
    if isinstance(storage, JournalStorage) and isinstance(inner, JournalFileBackend | Journal):
        path = inner.path if isinstance(inner, Journal) else Path(inner._file_path)
        return Address(file_url("journal", path))
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()
        if storage.heartbeat_interval is not None:
            log.info("heartbeat_interval of the storage is not used: each trial's owner keeps a beat of its own")
        return address_of_text(storage.url, storage.engine_kwargs, default, password_into)
    raise ConfigError(
        f"`hydra.sweeper.storage` must be a storage that other processes can open, but got {type(storage).__name__}; "
        f"use {SUPPORTED}"
    )


def address_of_text(
    text: str, engine_kwargs: Mapping[str, Any], default: Path, password_into: MutableMapping[str, str]
) -> Address:
    """The address that a URL or a path amounts to."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        suffix = Path(text).suffix
        kind = {".db": "sqlite", ".log": "journal", ".journal": "journal"}.get(suffix)
        if kind is None:
            # Not the text itself: what was meant as a URL may hold a password.
            raise ConfigError(
                f"`hydra.sweeper.storage` must be a URL or a path that ends in .db, .log or .journal, but got a text "
                f"that ends in {suffix!r}; use {SUPPORTED}"
            )
        return Address(file_url(kind, Path(text)))
    if scheme in ("sqlite", "sqlite+pysqlite", "journal"):
        kind = scheme.partition("+")[0]
        name, question, _ = rest.partition("?")
        path = unquote(name.removeprefix("/"))
        if kind == "sqlite" and path in ("", ":memory:"):
            return instead_of_memory(default)
        if not name.startswith("/") or not path or question:
            raise ConfigError(
                f"`hydra.sweeper.storage` must name a file and nothing else, but got {text}; "
                f"use {kind}:///relative/path or {kind}:////absolute/path"
            )
        return Address(file_url(kind, Path(path)), engine_kwargs)
    return server_address(text, engine_kwargs, password_into)


def instead_of_memory(default: Path) -> Address:
    """SQLite at `default`, and a line in the log that says why."""
    log.info(
        "The study is kept in %s: a storage in memory is lost with its process, and trials are processes of their own",
        default,
    )
    return Address(file_url("sqlite", default))


def file_url(kind: str, path: Path) -> str:
    """The URL of a file, absolute because a trial may work in a directory of its own."""
    # All but what would end the path, or be read as something else, stays as the user knows it.
    return f"{kind}:///{quote(os.path.abspath(path.expanduser()), safe='/ +,:=@~()[]')}"


def server_address(text: str, engine_kwargs: Mapping[str, Any], password_into: MutableMapping[str, str]) -> Address:
    """The address of a server, its password taken out of the URL and of the driver's arguments."""
    from sqlalchemy import URL, make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
        server, asynchronous = url.get_backend_name(), url.get_dialect().is_async
    except (ArgumentError, ValueError):
        # No cause and none of the text: either holds the password where the URL was typed in a wrong way.
        raise ConfigError(
            "`hydra.sweeper.storage` must be a URL that SQLAlchemy can read, but got one that it cannot "
            f"(it begins with {text.partition('://')[0]}://); use {SUPPORTED}, with the password's special "
            "characters encoded: @ as %40, / as %2F, : as %3A, % as %25"
        ) from None
    if "@" in f"{url.host}{url.database}":
        raise ConfigError(
            "`hydra.sweeper.storage` must hold one @, but got a URL with more of them; "
            "encode the password's special characters: @ as %40, / as %2F, : as %3A, % as %25"
        )
    if server not in ("postgresql", "mysql", "mariadb") or asynchronous:
        raise ConfigError(
            f"`hydra.sweeper.storage` must be a storage that Optuna can use, but got {url.drivername}; use {SUPPORTED}"
        )
    arguments = dict(engine_kwargs.get("connect_args", {}))
    secrets: list[Any] = [url.password]
    for key in ("password", "passwd"):
        secrets += [arguments.pop(key, None), url.query.get(key)]
    for secret in secrets:
        if secret:
            password_into[PASSWORD_VARIABLE] = str(secret)
    # Not url.set(password=None), to which None means that nothing changes.
    bare = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, url.query)
    bare = bare.difference_update_query(["password", "passwd"])
    rest = {**engine_kwargs, "connect_args": arguments} if engine_kwargs else {}
    return Address(bare.render_as_string(), rest)


def patiently(action: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
    """What `action` returns, called again while its storage is locked or cannot be reached.

    An action whose answer got lost is called again though it was carried out: a second `tell` then raises Optuna's
    UpdateFinishedTrialError, which passes like every error that waiting does not mend.

    Raises:
        StorageError: `seconds` passed.
    """
    until = time.monotonic() + seconds
    pause = 0.05
    while True:
        try:
            return action()
        except Exception as error:
            cause = passing_cause(error)
            if cause is None:
                raise
            left = until - time.monotonic()
            if left <= 0:
                raise StorageError(
                    f"the study's storage must answer within {seconds:g} s, but: {told(cause)}\n"
                    "See that it can be reached and that no process keeps it locked, then type the same again"
                ) from error
            if pause == 0.05:
                log.warning("The study's storage does not answer, trying for %.0f s more: %s", left, told(cause))
        time.sleep(min(pause, left))
        pause = min(2 * pause, 5.0)


def passing_cause(error: BaseException) -> BaseException | None:
    """That of `error` and its causes which may be gone after a while; None where there is none."""
    from sqlalchemy.exc import PendingRollbackError

    cause: BaseException | None = error
    while cause is not None and not passes(cause):
        # Optuna asks again on the connection that it lost, which SQLAlchemy refuses without naming the loss.
        cause = cause.__context__ if isinstance(cause, PendingRollbackError) else cause.__cause__
    return cause


def passes(error: BaseException) -> bool:
    """Whether waiting may mend `error`."""
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

    if isinstance(error, OSError):
        return error.errno in PASSING_ERRNOS
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        # The low byte is the error, the others say more about it.
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
    lost = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
    return lost and not any(text in str(error.orig) for text in REFUSALS)


def told(error: BaseException) -> str:
    """The first line of what the database or the operating system said, without the statement that it said it to."""
    from sqlalchemy.exc import DBAPIError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DBAPIError) and cause.orig is not None:
            return first_line(cause.orig)
        cause = cause.__cause__
    return first_line(error)


def held_file(lock: Path, guarded: Path) -> ExitStack:
    """The lock file `lock`, held until the stack is closed or this process is no more.

    Raises:
        StorageError: another process held it for PATIENCE_SECONDS.
    """
    from filelock import FileLock, Timeout

    flock = FileLock(lock)

    def taken() -> bool:
        try:
            flock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    wait_for_lock(taken, 0.01, str(guarded), f"`fuser -v {lock}` names that process: wait for it or end it")
    stack = ExitStack()
    stack.callback(flock.release)
    return stack


def wait_for_lock(taken: Callable[[], bool], pause_seconds: float, guarded: str, remedy: str) -> None:
    """Ask for a lock until it is `taken`; a line in the log where that takes long.

    Raises:
        StorageError: another process held it for PATIENCE_SECONDS.
    """
    began, told = time.monotonic(), False
    while not taken():
        waited = time.monotonic() - began
        if waited > PATIENCE_SECONDS:
            raise StorageError(
                f"{guarded} must be free within {PATIENCE_SECONDS:g} s, but another process keeps it locked; {remedy}"
            )
        if waited > SILENT_SECONDS and not told:
            log.warning("%s is locked by another process, waiting for %.0f s more", guarded, PATIENCE_SECONDS - waited)
            told = True
        time.sleep(pause_seconds)


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
            return Address.open, (self.address,)

    return PreparedStorage


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


class Journal:
    """A file of JSON records, one a line, for optuna.storages.JournalStorage: the same format as Optuna's own.

    Optuna's JournalFileBackend leaves a study unusable after a torn record and waits 30 s for a dead holder's lock;
    this one cuts what was torn and leaves it to the kernel to free the lock. A record is acknowledged once it is on
    the disk. Pickles as its path and a position.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # The number of a record and where it starts: reading goes on from the last place that was asked for.
        self.place = (0, 0)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Every record from number `log_number_from` on; a last one that is still being written is left out.

        Raises:
            StorageError: a record that has others behind it is damaged.
        """
        if log_number_from < self.place[0]:
            self.place = (0, 0)
        number, offset = self.place
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < offset:
                raise StorageError(
                    f"{self.path} must only grow, but it is shorter than when it was last read; "
                    "end the processes that use it and type the same again"
                )
            file.seek(offset)
            *lines, _unfinished = file.read().split(b"\n")
        skipped, wanted = lines[: log_number_from - number], lines[log_number_from - number :]
        records = []
        for position, line in enumerate(wanted):
            record = parsed(line)
            if record is None and position == len(wanted) - 1:
                break
            if record is None:
                raise damaged(self.path, log_number_from + position + 1)
            records.append(record)
        self.place = (number + len(skipped), offset + sum(len(line) + 1 for line in skipped))
        return records

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write `logs` through to the disk, all of them or none.

        Raises:
            OSError: they could not be written; the journal is as it was.
            StorageError: the journal is locked.
        """
        text = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in logs).encode()
        with held_file(Path(f"{self.path}.write.lock"), self.path):
            # Opened under the lock: that is when a network file system looks for what other hosts wrote.
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                size = self._cut(file)
                try:
                    written = 0
                    while written < len(text):
                        written += os.write(file, text[written:])
                    os.fsync(file)
                except BaseException:
                    os.ftruncate(file, size)
                    raise
            finally:
                os.close(file)

    def mend(self) -> None:
        """Make the file where there is none, and cut off a last record that a crash or a full disk left torn.

        Raises:
            StorageError: the record before it is damaged as well, or the journal is locked.
        """
        with held_file(Path(f"{self.path}.write.lock"), self.path):
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._cut(file)
            finally:
                os.close(file)

    def _cut(self, file: int) -> int:
        """The size of the journal behind its last sound record, which is where it ends now."""
        size = os.fstat(file).st_size
        last = last_line(file, size)
        if size == 0 or (last.endswith(b"\n") and parsed(last) is not None):
            return size
        sound = size - len(last)
        before = last_line(file, sound)
        if before and parsed(before) is None:
            # Two damaged records are no torn write; cutting one at each opening would eat the journal.
            raise damaged(self.path, os.pread(file, sound, 0).count(b"\n"))
        os.ftruncate(file, sound)
        os.fsync(file)
        log.warning(
            "%s ended in a record that was not written to its end: its %d bytes are cut off, %r is lost",
            self.path,
            len(last),
            last[:80].decode(errors="replace"),
        )
        return sound


def parsed(line: bytes) -> dict[str, Any] | None:
    """The record in a line of a journal; None where there is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def damaged(path: Path, number: int) -> StorageError:
    """The error for a record that cannot be read though others follow it."""
    return StorageError(
        f"each line of {path} must hold one JSON record, but line {number} does not\n"
        "Something else wrote into it: put its last good copy in its place, or take that line out (what it said is "
        "lost), or start a new study under another name"
    )


def last_line(file: int, end: int) -> bytes:
    """The last line of the first `end` bytes of `file`, with its newline where it has one."""
    start, tail = end, b""
    while start > 0 and b"\n" not in tail[:-1]:
        start = max(0, start - 65536)
        tail = os.pread(file, end - start, start)
    return tail[tail.rfind(b"\n", 0, -1) + 1 :]
