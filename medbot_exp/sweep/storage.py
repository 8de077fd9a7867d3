"""Where a study is kept, so that it outlives a killed process, a full disk and a restarted server.

An `Address` names the place and holds no password. Three kinds of place:

sqlite    one machine: a database in WAL mode, every transaction of which is exclusive from its first statement
journal   network file systems: a file of one JSON record a line, mended where a crash cut its last record
server    several hosts: PostgreSQL or MySQL
"""

import logging
import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote, unquote

from medbot_exp.errors import ConfigError, StorageError
from medbot_exp.sweep.database import held_on_server, prepared_storage
from medbot_exp.sweep.journal import Journal
from medbot_exp.sweep.patience import held_file, patiently, told
from medbot_exp.sweep.refusals import PASSWORD_VARIABLE, REFUSALS

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.storages.journal import BaseJournalBackend

Kind = Literal["sqlite", "journal", "server"]

log = logging.getLogger(__name__)


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
