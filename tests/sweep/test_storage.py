"""Where a study is kept: it outlives torn writes, full disks, killed holders and other processes."""

import logging
import os
import pickle
import re
import shutil
import sqlite3
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from medbot_exp.errors import ConfigError, StorageError
from medbot_exp.sweep import patience
from medbot_exp.sweep.patience import patiently
from medbot_exp.sweep.refusals import PASSWORD_VARIABLE
from medbot_exp.sweep.storage import Address, address_of, server_address

KINDS = ("sqlite", "journal")


@pytest.fixture(params=KINDS)
def address(request, tmp_path) -> Address:
    """A place in a file, of either kind."""
    return address_of(f"{request.param}:///{tmp_path}/study.{request.param}", tmp_path / "unused.db")


class TestSqlite(StorageTestCase):
    """Optuna's own battery."""

    @pytest.fixture(scope="class")
    def empty(self, tmp_path_factory):
        """A database with its tables: making them takes most of a test's time."""
        path = tmp_path_factory.mktemp("empty") / "study.db"
        address_of(None, path).open().engine.dispose()
        return path

    @pytest.fixture
    def storage(self, empty, tmp_path):
        return address_of(None, Path(shutil.copy(empty, tmp_path))).open()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "sqlite:///{}/default.db"),
        ("sqlite://", "sqlite:///{}/default.db"),
        ("sqlite:///:memory:", "sqlite:///{}/default.db"),
        ("sqlite:///a/study.db", "sqlite:///{}/a/study.db"),
        ("sqlite+pysqlite:////a/study.db", "sqlite:////a/study.db"),
        ("sqlite:////a/lora.r=2,4 (b)/{x}%3F.db", "sqlite:////a/lora.r=2,4 (b)/%7Bx%7D%3F.db"),
        ("journal:///../a/study.txt", "journal:///{}/../a/study.txt"),
        ("study.db", "sqlite:///{}/study.db"),
        ("/a/study.log", "journal:////a/study.log"),
        ("study.journal", "journal:///{}/study.journal"),
        ("mysql+pymysql://u@h/d", "mysql+pymysql://u@h/d"),
        ("postgresql+psycopg2://u@h:5/d?sslmode=require", "postgresql+psycopg2://u@h:5/d?sslmode=require"),
    ],
)
def test_address_is_absolute_and_stays_what_it_is(given, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    address = address_of(given, tmp_path / "default.db", {})
    assert address.url == expected.format(tmp_path).replace(f"{tmp_path}/..", str(tmp_path.parent))
    monkeypatch.chdir("/")
    assert address_of(address.url, tmp_path / "other.db", {}) == address == pickle.loads(pickle.dumps(address))


@pytest.mark.parametrize("name", ["lora.r=2,4 {x}", "50% #1?", "50%25", "ü:@&"])
@pytest.mark.parametrize("suffix", ["db", "log"])
def test_any_file_name_is_that_of_the_file(name, suffix, tmp_path):
    address_of(str(tmp_path / f"{name}.{suffix}"), tmp_path / "unused.db").open()
    assert (tmp_path / f"{name}.{suffix}").is_file()
    assert all(path.name.startswith(f"{name}.{suffix}") for path in tmp_path.iterdir())


def test_place_in_memory_becomes_a_file_and_the_log_says_why(tmp_path, caplog):
    caplog.set_level(logging.INFO, "medbot_exp")
    assert address_of(InMemoryStorage(), tmp_path / "study.db").path == tmp_path / "study.db"
    assert address_of(RDBStorage("sqlite:///:memory:"), tmp_path / "study.db").path == tmp_path / "study.db"
    assert caplog.text.count("a storage in memory is lost with its process") == 2


def test_storages_of_optuna_become_addresses(tmp_path):
    rdb = RDBStorage(f"sqlite:///{tmp_path}/a.db", engine_kwargs={"pool_size": 3, "connect_args": {"timeout": 7}})
    address = address_of(rdb, tmp_path / "unused.db")
    assert address.path == tmp_path / "a.db"
    opened = address.open()
    assert opened.engine.pool.size() == 3
    with opened.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 7000
    assert address_of(opened, tmp_path / "unused.db") == address
    wrapped = optuna.create_study(storage=opened)._storage
    assert address_of(wrapped, tmp_path / "unused.db") == address
    journal = JournalStorage(JournalFileBackend(str(tmp_path / "a.log")))
    address = address_of(journal, tmp_path / "unused.db")
    assert (address.kind, address.path) == ("journal", tmp_path / "a.log")
    assert address_of(address.open(), tmp_path / "unused.db") == address


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("study", "ends in .db, .log or .journal"),
        ("redis://h", "use sqlite:///study.db"),
        ("oracle://u:sesame@h/d", "use sqlite:///study.db"),
        ("postgresql+asyncpg://u:sesame@h/d", "use sqlite:///study.db"),
        ("postgresql+nothing://u:sesame@h/d", "use sqlite:///study.db"),
        ("postgresql://u:ses@me@h/d", "@ as %40"),
        ("postgresql://u:ses/me@s@h:12x/d", "@ as %40"),
        ("postgresql://u:sesame@h:12x/d", "/ as %2F"),
        ("u:sesame@h", "ends in .db"),
        ("sqlite:///a.db?timeout=3", "name a file and nothing else"),
        ("sqlite://a.db", "sqlite:///relative/path"),
        ("journal://", "journal:///relative/path"),
        (object(), "got object"),
    ],
)
def test_what_is_no_storage_is_refused_and_gives_nothing_away(given, told, tmp_path):
    with pytest.raises(ConfigError, match="`hydra.sweeper.storage` must") as caught:
        address_of(given, tmp_path / "unused.db", {})
    assert told in str(caught.value)
    assert not {"ses", "sesame"} & set(re.split(r"\W+", str(caught.value))) and caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://me:open%20s%40me%2F%25%7Bx%7D@127.0.0.1:1/d",
        "postgresql+psycopg2://me@127.0.0.1:1/d?password=open%20s%40me%2F%25%7Bx%7D",
    ],
)
def test_password_leaves_the_address_and_its_errors(url, monkeypatch, tmp_path, caplog):
    pytest.importorskip("psycopg2")
    caplog.set_level(logging.DEBUG)
    # Set first, so that monkeypatch takes away what address_of puts there.
    monkeypatch.setenv(PASSWORD_VARIABLE, "")
    address = address_of(url, tmp_path / "unused.db")
    assert os.environ[PASSWORD_VARIABLE] == "open s@me/%{x}"
    with pytest.raises(StorageError, match="Connection refused") as caught:
        address.open()
    with pytest.raises(StorageError) as late:
        patiently(address.open, 0)
    spoken = [str(address), repr(address), repr(pickle.dumps(address)), caplog.text]
    for error in (caught.value, late.value):
        while error is not None:
            spoken += [str(error), repr(error)]
            error = error.__cause__
    assert not [text for text in spoken if re.search("open( |%20|\\+)s(@|%40)me", text)]
    assert address.url == "postgresql+psycopg2://me@127.0.0.1:1/d"


def test_password_of_the_drivers_arguments_leaves_the_address(tmp_path):
    into: dict[str, str] = {}
    kwargs = {"pool_size": 2, "connect_args": {"password": "sesame", "application_name": "x"}}
    address = server_address("postgresql+psycopg2://me@h/d", kwargs, into)
    assert into == {PASSWORD_VARIABLE: "sesame"}
    assert address.engine_kwargs == {"pool_size": 2, "connect_args": {"application_name": "x"}}
    assert b"sesame" not in pickle.dumps(address)


def test_missing_driver_is_named_with_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(ConfigError, match="pip install psycopg2-binary"):
        address_of("postgresql+psycopg2://me@127.0.0.1:1/d", tmp_path / "unused.db").open()


@pytest.mark.parametrize("suffix", ["db", "log"])
def test_place_that_cannot_hold_a_study_is_told(suffix, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="must be usable, but got .*Not a directory|File exists"):
        address_of(str(tmp_path / "file" / f"study.{suffix}"), tmp_path / "unused.db").open()


def test_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / "study.db").write_text("no database\n" * 100)
    with pytest.raises(StorageError, match="file is not a database"):
        address_of(None, tmp_path / "study.db").open()


def test_importing_it_loads_neither_optuna_nor_sqlalchemy(run_python_in, tmp_path):
    code = (
        "import sys, medbot_exp.sweep.storage as s, pathlib; s.address_of('sqlite:///a.db', pathlib.Path('b'))\n"
        "assert not {'optuna', 'sqlalchemy', 'torch'} & set(sys.modules)"
    )
    assert run_python_in(tmp_path, "-c", code).status == 0


DISK_FULL = """
import os, resource, sys
from pathlib import Path
import optuna
from optuna.trial import TrialState
from medbot_exp.sweep.storage import address_of
storage = address_of(sys.argv[1], Path("unused.db")).open()
trial = storage.create_new_trial(storage.get_study_id_from_name("study"))
files = [name for name in os.listdir(".") if not name.endswith((".lock", "-shm"))]
limit = max(os.path.getsize(name) for name in files) + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
written = 0
try:
    while written < 10000:
        storage.set_trial_user_attr(trial, f"note-{written}", "x" * 100)
        written += 1
except (OSError, optuna.exceptions.StorageInternalError):
    pass
assert 0 < written < 10000, written
if sys.argv[1].startswith("journal"):
    # Others see no part of the record that did not fit.
    with open(sys.argv[1].removeprefix("journal:///"), "rb") as file:
        assert file.read().endswith(b"\\n")
# Nothing is spoilt for the process itself either: once there is space it goes on.
assert len(storage.get_trial(trial).user_attrs) == written
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
storage.set_trial_user_attr(trial, "later", 1)
print(written)
"""


@pytest.mark.parametrize("spare", [9_000, 40_001])
def test_full_disk_loses_nothing_that_was_acknowledged(address, spare, run_python_in, tmp_path, fill):
    study = fill(address.open())
    done = run_python_in(tmp_path, "-c", DISK_FULL, address.url, str(spare))
    assert done.status == 0, done.stderr
    storage = address.open()
    assert storage.get_n_trials(study) == 2
    trial = storage.get_all_trials(study)[1]
    assert set(trial.user_attrs) == {f"note-{n}" for n in range(int(done.stdout))} | {"later"}
    assert storage.get_all_trials(study)[0].params == {"x": 0.5}
    storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])


HOLDER = """
import sys, time
from pathlib import Path
from medbot_exp.sweep import journal
from medbot_exp.sweep.storage import address_of
address = address_of(sys.argv[1], Path("unused.db"))
if sys.argv[2] == "exclusive":
    with address.exclusive():
        print("held", flush=True)
        input()
else:
    # The writing of a record, which never comes to its end.
    journal.os.fsync = lambda file: (print("held", flush=True), time.sleep(600))
    address.open().create_new_trial(0)
"""


def test_exclusive_excludes_other_processes_and_ends_with_its_holder(address, worker, monkeypatch, caplog):
    address.open()
    holder = worker(HOLDER, address.url, "exclusive")
    assert holder.answer() == "held"
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(patience, "SILENT_SECONDS", 0.05)
    with pytest.raises(StorageError, match="another process keeps it locked"), address.exclusive():
        raise AssertionError("two processes are inside")
    assert caplog.text.count("is locked by another process, waiting for") == 1
    holder.kill()
    before = time.monotonic()
    with address.exclusive():
        assert time.monotonic() - before < 1
    with address.exclusive():
        pass


def test_exclusive_is_left_by_an_error_inside_it(address):
    with pytest.raises(ZeroDivisionError), address.exclusive():
        raise ZeroDivisionError
    with address.exclusive():
        pass


def test_journal_of_a_writer_killed_in_the_act_is_free_at_once(tmp_path, worker, monkeypatch, fill):
    address = address_of(str(tmp_path / "study.log"), tmp_path / "unused.db")
    storage = address.open()
    study = fill(storage)
    holder = worker(HOLDER, address.url, "write")
    assert holder.answer() == "held"
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(StorageError, match=f"{address.path} must be free within 0.2 s"):
        storage.create_new_trial(study)
    holder.kill()
    before = time.monotonic()
    storage.create_new_trial(study)
    assert time.monotonic() - before < 1
    # The record had reached the file; only its writer was not told so.
    assert storage.get_n_trials(study) == 3


TELLER = """
import sys
from pathlib import Path
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from medbot_exp.sweep.storage import address_of
storage = address_of(sys.argv[1], Path("unused.db")).open()
print("ready", flush=True)
for line in sys.stdin:
    try:
        storage.set_trial_state_values(int(line), TrialState.COMPLETE, [float(sys.argv[2])])
        print("accepted", flush=True)
    except UpdateFinishedTrialError:
        print("refused", flush=True)
"""


def test_one_of_two_tells_at_once_is_accepted(address, worker, fill):
    storage = address.open()
    fill(storage, trials=40)
    tellers = [worker(TELLER, address.url, str(n)) for n in range(2)]
    assert [teller.answer() for teller in tellers] == ["ready", "ready"]
    for trial in [trial._trial_id for trial in storage.get_all_trials(storage.get_study_id_from_name("study"))]:
        for teller in tellers:
            teller.send(str(trial))
        answers = [teller.answer() for teller in tellers]
        assert sorted(answers) == ["accepted", "refused"]
        assert storage.get_trial(trial).value == answers.index("accepted")


OPENER = """
import sys
from pathlib import Path
import optuna
from medbot_exp.sweep.storage import address_of
address = address_of(sys.argv[1], Path("unused.db"))
print("ready", flush=True)
input()
study = optuna.create_study(storage=address.open(), study_name="study", load_if_exists=True)
for _ in range(5):
    study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 1.0)
print("done", flush=True)
"""


def test_four_processes_open_a_new_study_at_once(address, worker):
    openers = [worker(OPENER, address.url) for _ in range(4)]
    assert [opener.answer() for opener in openers] == ["ready"] * 4
    for opener in openers:
        opener.send()
    assert [opener.answer() for opener in openers] == ["done"] * 4
    study = optuna.load_study(storage=address.open(), study_name="study")
    assert sorted(trial.number for trial in study.trials) == list(range(20))


def test_every_connection_to_sqlite_is_prepared_also_after_pickling(tmp_path):
    storage = address_of(None, tmp_path / "study.db").open()
    for opened in (storage, pickle.loads(pickle.dumps(storage))):
        with opened.engine.connect() as first, opened.engine.connect() as second:
            for connection in (first, second):
                assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
                assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 120_000
                # A transaction that has only read keeps others from writing.
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    sqlite3.connect(tmp_path / "study.db", timeout=0).execute("BEGIN IMMEDIATE")
                connection.rollback()


def test_kill_during_many_writes_leaves_a_study_that_goes_on(address, worker):
    code = OPENER.replace("range(5)", "range(100000)")
    opener = worker(code, address.url)
    assert opener.answer() == "ready"
    opener.send()
    watching, until = address.open(), time.monotonic() + 60
    while sum(summary.n_trials for summary in optuna.get_all_study_summaries(watching)) <= 5:
        assert time.monotonic() < until, "nothing was written"
        time.sleep(0.05)
    opener.kill()
    study = optuna.load_study(storage=address.open(), study_name="study")
    before = len(study.trials)
    assert before > 5
    study.tell(study.ask(), 1.0)
    assert [trial.number for trial in study.trials] == list(range(before + 1))
