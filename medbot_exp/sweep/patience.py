"""Waiting for a storage that is locked, or that cannot be reached for a while, and telling why."""

import errno
import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from medbot_exp.errors import StorageError, first_line
from medbot_exp.sweep.refusals import REFUSALS

T = TypeVar("T")

log = logging.getLogger(__name__)

# How long a storage that is locked or cannot be reached is waited for.
PATIENCE_SECONDS = 120.0
# After so long a person is told what is waited for.
SILENT_SECONDS = 3.0

# A network file system that loses its server for a while.
PASSING_ERRNOS = {errno.ENOLCK, errno.ESTALE, errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT}


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
    began, silent = time.monotonic(), True
    while not taken():
        waited = time.monotonic() - began
        if waited > PATIENCE_SECONDS:
            raise StorageError(
                f"{guarded} must be free within {PATIENCE_SECONDS:g} s, but another process keeps it locked; {remedy}"
            )
        if waited > SILENT_SECONDS and silent:
            log.warning("%s is locked by another process, waiting for %.0f s more", guarded, PATIENCE_SECONDS - waited)
            silent = False
        time.sleep(pause_seconds)
