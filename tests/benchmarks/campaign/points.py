"""Wrappers around the calls that change something: they kill their own process before or after one of them.

FAULTS_RECORD=<file> writes down which calls a process makes; FAULTS_POINT=<role>:<name>:<occurrence>:<before|after>
kills the first process of the case that comes to that point (FAULTS_SIGNAL=SIGSTOP stops it), and FAULTS_FLAG=<file>
says that it did.
"""

import importlib
import os
import signal
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

from campaign import ledger

POINT, RECORD, FLAG, SIGNAL = "FAULTS_POINT", "FAULTS_RECORD", "FAULTS_FLAG", "FAULTS_SIGNAL"


class Points:
    """The calls that this process has come to."""

    def __init__(self, role: str, wanted: str | None, record: str | None):
        self.role, self.wanted, self.record = role, wanted, record
        self.counts: Counter[str] = Counter()

    def around(
        self, name: str, function: Callable[..., Any], when: Callable[..., bool] = lambda *_a, **_k: True
    ) -> Any:
        """`function`, with a point `name` before and after each call for which `when` holds."""

        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if not when(*args, **kwargs):
                return function(*args, **kwargs)
            occurrence = self.counts[name]
            self.counts[name] += 1
            self.reach(f"{self.role}:{name}:{occurrence}:before")
            returned = function(*args, **kwargs)
            self.reach(f"{self.role}:{name}:{occurrence}:after")
            return returned

        return wrapped

    def reach(self, point: str) -> None:
        """Die here, if this is the point."""
        if self.record is not None:
            with open(self.record, "a") as file:
                file.write(point + "\n")
        if point == self.wanted and claim_flag():
            ledger.note("kill", target=self.role, pids=[os.getpid()])
            os.kill(os.getpid(), signal.Signals[os.environ.get(SIGNAL, "SIGKILL")])


def claim_flag() -> bool:
    """Whether this process is the first to come to the point; the flag holds its number."""
    try:
        file = os.open(os.environ[FLAG], os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    os.write(file, str(os.getpid()).encode())
    os.close(file)
    return True


def install(role: str) -> None:
    """Wrap the real functions, where the environment asks for it."""
    wanted, record = os.environ.get(POINT), os.environ.get(RECORD)
    if wanted is None and record is None:
        return
    import optuna
    from sqlalchemy.engine.default import DefaultDialect

    points = Points(role, wanted, record)
    for name in ("ask", "tell", "enqueue_trial"):
        setattr(optuna.Study, name, points.around(name.partition("_")[0], getattr(optuna.Study, name)))
    # What study.optimize, which bare Optuna's script calls, tells by.
    optimize = importlib.import_module("optuna.study._optimize")
    optimize._tell_with_warning = points.around("tell", optimize._tell_with_warning)  # type: ignore[attr-defined]
    for storage in (optuna.storages.RDBStorage, optuna.storages.JournalStorage):
        report = storage.set_trial_intermediate_value
        storage.set_trial_intermediate_value = points.around("report", report)  # type: ignore[method-assign]
    DefaultDialect.do_commit = points.around("commit", DefaultDialect.do_commit)  # type: ignore[method-assign]
    os.rename, os.replace = points.around("rename", os.rename), points.around("rename", os.replace)
    install_ours(points)


def install_ours(points: Points) -> None:
    """Wrap what only this package has."""
    import subprocess

    from medbot_exp import whole_files
    from medbot_exp.sweep import job, study
    from medbot_exp.sweep.database import prepared_storage

    # The class that Optuna's own is the parent of is made on first use.
    storage: Any = prepared_storage()  # type: ignore[assignment]
    storage.set_trial_system_attr = points.around(
        "ticket", storage.set_trial_system_attr, lambda _self, _trial, key, **_k: key == study.TICKET
    )
    job.TrackedTask.claim = points.around("claim", job.TrackedTask.claim)  # type: ignore[method-assign]
    whole_files.write_text = points.around("write", whole_files.write_text)
    subprocess.Popen.__init__ = points.around(  # type: ignore[method-assign]
        "spawn", subprocess.Popen.__init__, lambda _self, words, *_a, **_k: "medbot_exp.sweep.child" in str(words)
    )
