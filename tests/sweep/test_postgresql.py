"""A study on a real PostgreSQL server.   pytest -m services tests/sweep"""

import pickle
import time

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from medbot_exp.errors import StorageError
from medbot_exp.sweep import patience
from medbot_exp.sweep.patience import patiently
from medbot_exp.sweep.refusals import PASSWORD_VARIABLE
from medbot_exp.sweep.storage import address_of

pytestmark = pytest.mark.services


@pytest.fixture
def database(postgres, request):
    """The name of a new, empty database."""
    name = f"study_{abs(hash(request.node.nodeid))}_{{x}}"
    postgres.create_database(name)
    return name


@pytest.fixture(params=["psycopg2", "psycopg"])
def address(request, postgres, database, monkeypatch, tmp_path):
    """The address of a new database; its password is in the environment until the test ends."""
    pytest.importorskip(request.param)
    monkeypatch.setenv(PASSWORD_VARIABLE, "")
    return address_of(postgres.url_of(database, driver=request.param), tmp_path / "unused.db")


class TestPostgresql(StorageTestCase):
    """Optuna's own battery."""

    @pytest.fixture
    def storage(self, postgres, monkeypatch, tmp_path):
        pytest.importorskip("psycopg2")
        monkeypatch.setenv(PASSWORD_VARIABLE, "")
        postgres.sql("DROP SCHEMA public CASCADE")
        postgres.sql("CREATE SCHEMA public")
        storage = address_of(postgres.url, tmp_path / "unused.db").open()
        yield storage
        storage.remove_session()
        storage.engine.dispose()


def connections(postgres, database) -> int:
    """How many connections to the database the server counts."""
    return int(postgres.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"))


def test_wrong_password_is_told_with_its_remedy(postgres, database, address, monkeypatch):
    monkeypatch.setenv(PASSWORD_VARIABLE, "sesame")
    with pytest.raises(StorageError, match="password authentication failed") as caught:
        address.open()
    assert "Correct the user and the password" in str(caught.value) and "sesame" not in str(caught.value)
    before = time.monotonic()
    with pytest.raises(StorageError):
        patiently(address.open, 60)
    assert time.monotonic() - before < 5


def test_missing_password_is_told_with_its_remedy(address, monkeypatch):
    monkeypatch.delenv(PASSWORD_VARIABLE)
    with pytest.raises(StorageError, match="no password supplied") as caught:
        address.open()
    assert PASSWORD_VARIABLE in str(caught.value)


def test_password_may_come_by_libpq_instead(postgres, address, monkeypatch):
    monkeypatch.delenv(PASSWORD_VARIABLE)
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    assert address.open().get_all_studies() == []


def test_unknown_database_is_told_with_its_remedy(postgres, monkeypatch, tmp_path):
    monkeypatch.setenv(PASSWORD_VARIABLE, "")
    with pytest.raises(StorageError, match='database "none" does not exist\nCreate it on the server'):
        address_of(postgres.url_of("none"), tmp_path / "unused.db").open()


def test_unknown_host_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv(PASSWORD_VARIABLE, "")
    with pytest.raises(StorageError, match="could not translate host name") as caught:
        address_of("postgresql+psycopg2://u:sesame@nowhere.invalid/d", tmp_path / "unused.db").open()
    assert "sesame" not in str(caught.value) and "sesame" not in repr(caught.value.__cause__)


def test_storage_pickles_without_its_password(address, postgres):
    storage = address.open()
    storage.create_new_study([StudyDirection.MINIMIZE], "study")
    pickled = pickle.dumps(storage)
    assert postgres.password.encode() not in pickled and b"p%40ss" not in pickled
    assert [study.study_name for study in pickle.loads(pickled).get_all_studies()] == ["study"]
    assert "p@ss" not in storage.url and "p%40ss" not in storage.url


HOLDER = """
import sys
from pathlib import Path
from medbot_exp.sweep.storage import address_of
address = address_of(sys.argv[1], Path("unused.db"))
with address.exclusive():
    print("held", flush=True)
    input()
"""


def test_exclusive_excludes_and_ends_with_its_holder(address, postgres, database, worker, monkeypatch):
    holder = worker(HOLDER, address.url)
    assert holder.answer() == "held"
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.3)
    with pytest.raises(StorageError, match="another process keeps it locked"), address.exclusive():
        raise AssertionError("two processes are inside")
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 120.0)
    holder.kill()
    before = time.monotonic()
    with address.exclusive():
        assert time.monotonic() - before < 1
    for _ in range(5):
        with address.exclusive():
            pass
    deadline = time.monotonic() + 5
    while connections(postgres, database) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert connections(postgres, database) == 0


TELLER = """
import sys
from pathlib import Path
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from medbot_exp.sweep.storage import address_of
address = address_of(sys.argv[1], Path("unused.db"))
print("ready", flush=True)
input()
storage = address.open()
print("open", flush=True)
for line in sys.stdin:
    try:
        storage.set_trial_state_values(int(line), TrialState.COMPLETE, [float(sys.argv[2])])
        print("accepted", flush=True)
    except UpdateFinishedTrialError:
        print("refused", flush=True)
"""


def test_processes_open_a_new_database_at_once_and_one_tell_is_accepted(address, worker):
    tellers = [worker(TELLER, address.url, str(n)) for n in range(4)]
    for word in ("ready", "open"):
        assert [teller.answer() for teller in tellers] == [word] * 4
        if word == "ready":
            for teller in tellers:
                teller.send()
    storage = address.open()
    study = storage.create_new_study([StudyDirection.MINIMIZE], "study")
    for _ in range(20):
        trial = storage.create_new_trial(study)
        for teller in tellers:
            teller.send(str(trial))
        answers = [teller.answer() for teller in tellers]
        assert sorted(answers) == ["accepted", "refused", "refused", "refused"]
        assert storage.get_trial(trial).value == answers.index("accepted")


def test_patience_outlasts_a_server_that_comes_back(address, postgres, worker, caplog):
    storage = address.open()
    study = optuna.create_study(storage=storage, study_name="study")
    trial = study.ask()
    postgres.stop("immediate")
    try:
        with pytest.raises(StorageError, match="must answer within 1 s, but: .*(refused|terminat|closed)"):
            patiently(lambda: storage.get_n_trials(study._study_id), 1)
        with pytest.raises(StorageError, match="See that the server runs"):
            address.open()
        waiting = worker(HOLDER, address.url)
        time.sleep(1.5)
    finally:
        postgres.start()
    assert waiting.answer() == "held"
    patiently(lambda: study.tell(trial, 1.0), 30)
    assert study.trials[0].state is TrialState.COMPLETE
    with pytest.raises(UpdateFinishedTrialError):
        patiently(lambda: storage.set_trial_user_attr(trial._trial_id, "k", 1), 30)


def test_connection_that_was_dropped_is_found_before_it_is_used(address, postgres):
    storage = address.open()
    storage.create_new_study([StudyDirection.MINIMIZE], "study")
    postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert len(storage.get_all_studies()) == 1


def test_exclusive_ends_without_an_error_where_the_server_went_away(address, postgres):
    address.open()
    with address.exclusive():
        postgres.stop("immediate")
        postgres.start()
    with address.exclusive():
        pass
