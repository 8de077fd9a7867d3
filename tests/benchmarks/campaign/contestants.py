"""The sweeps under test, and how a study of each is read."""

import json
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import optuna
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from campaign.judge import Row, Violation
from campaign.ledger import Event

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Setup:
    """What a study is to be.

    Attributes:
        trials: how many in all.
        jobs: at a time.
        nap: seconds that a trial takes.
        storage: sqlite, journal, or the URL of a server.
    """

    trials: int
    jobs: int = 2
    nap: float = 0.05
    storage: str = "sqlite"


class Contestant(Protocol):
    """A way to run a study by typing a command."""

    key: str
    name: str

    def command(self, setup: Setup, folder: Path) -> list[str]:
        """What a user types, in `folder`."""

    def preparation(self, setup: Setup) -> list[str] | None:
        """What a user types before that."""

    def processes(self, setup: Setup) -> int:
        """How many times at once the command is typed."""

    def file(self, setup: Setup, folder: Path) -> Path:
        """The database or the journal."""

    def row(self, trial: optuna.trial.FrozenTrial) -> Row:
        """A trial for the judge."""

    def events(self, folder: Path) -> list[Event]:
        """What its own records add to the ledger."""

    def results(self, folder: Path) -> dict[int, float]:
        """The values that trials left in their own directories, by number."""

    def report_faults(self, folder: Path, rows: Sequence[Row]) -> list[Violation]:
        """What is wrong with the files that a finished study leaves."""


class Ours:
    """hydra/sweeper=optuna with hydra/launcher=local."""

    key, name = "ours", "medbot_exp"

    def __init__(self, *overrides: str):
        self.overrides = overrides

    def command(self, setup: Setup, folder: Path) -> list[str]:
        storage = f"journal:///{self.file(setup, folder)}" if setup.storage == "journal" else setup.storage
        return [
            sys.executable,
            str(HERE / "toy.py"),
            "-m",
            "hydra/sweeper=optuna",
            "hydra/launcher=local",
            "hydra.sweep.dir=study",
            f"hydra.sweeper.n_trials={setup.trials}",
            f"hydra.sweeper.n_jobs={setup.jobs}",
            "hydra.sweeper.max_retry=1000",
            "+x=interval(-5,5)",
            f"+nap={setup.nap}",
            *([] if setup.storage == "sqlite" else [f"hydra.sweeper.storage='{storage}'"]),
            *self.overrides,
        ]

    def preparation(self, setup: Setup) -> None:
        return None

    def processes(self, setup: Setup) -> int:
        return 1

    def file(self, setup: Setup, folder: Path) -> Path:
        return folder / "study" / ("study.log" if setup.storage == "journal" else "study.db")

    def row(self, trial: optuna.trial.FrozenTrial) -> Row:
        return Row(trial.number, trial.state.name, trial.value, trial.user_attrs.get("retry_of"))

    def events(self, folder: Path) -> list[Event]:
        return []

    def results(self, folder: Path) -> dict[int, float]:
        found = {}
        for path in (folder / "study").glob("*/trial.json"):
            outcome = json.loads(path.read_text())
            if outcome["state"] == "complete":
                found[int(path.parent.name)] = float(outcome["values"][0])
        return found

    def report_faults(self, folder: Path, rows: Sequence[Row]) -> list[Violation]:
        table = folder / "study" / "trials.csv"
        lines = len(table.read_text().splitlines()) - 1 if table.is_file() else 0
        return [] if lines == len(rows) else [Violation("report", f"trials.csv has {lines} of {len(rows)} trials")]


class Bare:
    """A plain script, several processes of it at once."""

    key, name = "bare", "bare Optuna"

    def command(self, setup: Setup, folder: Path) -> list[str]:
        return [sys.executable, str(HERE / "bare.py"), setup.storage, str(setup.trials), str(setup.nap)]

    def preparation(self, setup: Setup) -> list[str]:
        # Made by one process, and its stale trials failed, before several open it: two would trip over its tables.
        return [sys.executable, str(HERE / "bare.py"), setup.storage, "0", "0"]

    def processes(self, setup: Setup) -> int:
        return setup.jobs

    def file(self, setup: Setup, folder: Path) -> Path:
        return folder / ("study.log" if setup.storage == "journal" else "study.db")

    def row(self, trial: optuna.trial.FrozenTrial) -> Row:
        history = trial.system_attrs.get("retry_history")
        return Row(trial.number, trial.state.name, trial.value, history[-1] if history else None)

    def events(self, folder: Path) -> list[Event]:
        return []

    def results(self, folder: Path) -> dict[int, float]:
        return {}

    def report_faults(self, folder: Path, rows: Sequence[Row]) -> list[Violation]:
        return []


def read_rows(contestant: Contestant, setup: Setup, folder: Path) -> list[Row]:
    """The trials of the study in `folder`, by number; none where there is no study."""
    file = contestant.file(setup, folder)
    if setup.storage in ("sqlite", "journal") and not file.is_file():
        return []
    if setup.storage == "journal":
        storage: JournalStorage | RDBStorage = JournalStorage(JournalFileBackend(str(file)))
    else:
        storage = RDBStorage(f"sqlite:///{file}" if setup.storage == "sqlite" else setup.storage)
    try:
        studies = storage.get_all_studies()
        return [contestant.row(trial) for study in studies for trial in storage.get_all_trials(study._study_id)]
    finally:
        if isinstance(storage, RDBStorage):
            storage.remove_session()
            storage.engine.dispose()


def complete_now(contestant: Contestant, setup: Setup, folder: Path) -> dict[int, float]:
    """The values of the trials that are complete at this moment, by number; looks at SQLite only.

    Reads the database without Optuna, which would make the tables that a kill left unmade.
    """
    file = contestant.file(setup, folder)
    if setup.storage != "sqlite" or not file.is_file():
        return {}
    query = (
        "SELECT number, value FROM trials JOIN trial_values ON trials.trial_id = trial_values.trial_id "
        "WHERE state = 'COMPLETE'"
    )
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as connection:
            return dict(connection.execute(query).fetchall())
    except sqlite3.OperationalError:
        return {}  # there are no tables yet
