"""Waiting for a database: for what passes alone, for a time, by no clock that can be set."""

import errno
import sqlite3
import time
from pathlib import Path

import optuna
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError, PendingRollbackError

from medbot_exp.errors import StorageError
from medbot_exp.sweep.patience import patiently
from medbot_exp.sweep.storage import Address, address_of, file_url


def locked(path: Path, timeout: float):
    """A storage on `path` that waits `timeout` seconds for a lock, and the connection that holds the lock."""
    storage = Address(file_url("sqlite", path), {"connect_args": {"timeout": timeout}}).open()
    holder = sqlite3.connect(path, isolation_level=None)
    return storage, holder


def test_patience_waits_for_a_locked_database_and_ends(tmp_path, caplog, fill):
    storage, holder = locked(tmp_path / "study.db", 0.05)
    study = fill(storage)
    holder.execute("BEGIN IMMEDIATE")
    calls = []

    def read() -> int:
        calls.append(time.monotonic())
        if len(calls) == 3:
            holder.rollback()
        return storage.get_n_trials(study)

    assert patiently(read, 60) == 1
    assert len(calls) >= 3
    assert caplog.text.count("does not answer") == 1 and "database is locked" in caplog.text
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="must answer within 0.3 s, but: database is locked") as caught:
        patiently(lambda: storage.get_n_trials(study), 0.3)
    assert isinstance(caught.value.__cause__, optuna.exceptions.StorageInternalError)


def test_patience_does_not_depend_on_the_clock(tmp_path, monkeypatch):
    hours = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(time, "time", lambda: next(hours))
    calls = []

    def act() -> int:
        calls.append(0)
        if len(calls) < 4:
            raise OSError(errno.ESTALE, "Stale file handle")
        return len(calls)

    assert patiently(act, 30) == 4


@pytest.mark.parametrize(
    "error",
    [
        optuna.exceptions.UpdateFinishedTrialError(),
        KeyError("trial"),
        ValueError("x"),
        OSError(errno.ENOSPC, "No space left on device"),
        OperationalError("INSERT", {}, Exception('FATAL:  database "d" does not exist')),
        OperationalError("INSERT", {}, Exception("could not extend file: No space left on device")),
    ],
)
def test_patience_is_for_what_passes_alone(error):
    calls = []

    def act() -> None:
        calls.append(0)
        raise error

    with pytest.raises(type(error)) as caught:
        patiently(act, 60)
    assert caught.value is error and len(calls) == 1


def test_patience_covers_a_connection_that_was_asked_again_after_its_loss():
    """As Optuna's RDBStorage does while it reads trials."""
    calls = []

    def act() -> int:
        calls.append(0)
        if len(calls) == 1:
            try:
                raise OperationalError("SELECT", {}, Exception("server closed the connection unexpectedly"))
            except OperationalError:
                raise PendingRollbackError("Can't reconnect until invalid transaction is rolled back.")  # noqa: B904
        return len(calls)

    assert patiently(act, 30) == 2


def test_full_disk_under_sqlite_is_not_waited_for(tmp_path, fill):
    storage = address_of(None, tmp_path / "study.db").open()
    study = fill(storage)
    event.listen(storage.engine, "checkout", lambda connection, *_: connection.execute("PRAGMA max_page_count=1"))
    with pytest.raises(optuna.exceptions.StorageInternalError) as caught:
        for number in range(100):
            patiently(lambda number=number: storage.set_study_user_attr(study, f"k{number}", "x" * 2000))
    assert "full" in str(caught.value.__cause__)
