"""A journal file: torn, damaged and shortened records are cut, named or told, and it goes on."""

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from medbot_exp.errors import StorageError
from medbot_exp.sweep.journal import Journal
from medbot_exp.sweep.storage import address_of


class TestJournal(StorageTestCase):
    """Optuna's own battery."""

    @pytest.fixture
    def storage(self, tmp_path):
        return address_of(str(tmp_path / "study.log"), tmp_path / "unused.db").open()


def test_journal_cut_anywhere_in_its_last_record_goes_on(tmp_path, caplog, fill):
    path = tmp_path / "study.log"
    address = address_of(str(path), tmp_path / "unused.db")
    fill(address.open())
    whole = path.read_bytes()
    sound = whole[: whole.rindex(b"\n", 0, -1) + 1]
    for length in range(len(sound), len(whole)):
        caplog.clear()
        path.write_bytes(whole[:length])
        storage = address.open()
        assert path.read_bytes() == sound
        told = [record.getMessage() for record in caplog.records if record.name.startswith("medbot_exp")]
        assert len(told) == (length > len(sound))
        assert all(f"its {length - len(sound)} bytes are cut off" in text for text in told)
        assert storage.get_trial(0).params == {"x": 0.5}
        storage.set_trial_state_values(0, TrialState.COMPLETE, [length])
        # Whoever looks at it with Optuna alone sees the same.
        plain = JournalStorage(JournalFileBackend(str(path)))
        assert plain.get_trial(0).value == length
        plain.create_new_trial(0)
        assert storage.get_n_trials(0) == 2


def test_record_torn_by_another_is_cut_before_the_next_and_no_concern_of_readers(tmp_path, caplog, fill):
    path = tmp_path / "study.log"
    storage = address_of(str(path), tmp_path / "unused.db").open()
    study = fill(storage)
    sound = path.read_bytes()
    for torn in (b'{"op_code":4,"wor', b"\0" * 4096, b'{"op_code":4\n', b"x" * 200_000):
        with path.open("ab") as file:
            file.write(torn)
        assert storage.get_n_trials(study) == 1
        assert path.read_bytes() == sound + torn
        storage.create_new_trial(study)
        assert f"its {len(torn)} bytes are cut off" in caplog.text
        assert path.read_bytes().startswith(sound + b'{"op_code":4,"worker_id"')
        assert storage.get_n_trials(study) == 2
        path.write_bytes(sound)
        storage = address_of(str(path), tmp_path / "unused.db").open()


@pytest.mark.parametrize("ends", [b"", b'{"torn'])
def test_damage_in_the_middle_is_named_by_its_line_and_left_as_it_is(ends, tmp_path, fill):
    path = tmp_path / "study.log"
    fill(address_of(str(path), tmp_path / "unused.db").open())
    lines = path.read_bytes().splitlines(keepends=True)
    spoilt = b"".join([*lines[:-2], b"\0\0\0\n", lines[-1]]) if not ends else b"".join([*lines[:-1], b"\0\n", ends])
    path.write_bytes(spoilt)
    number = len(lines) - 1 if not ends else len(lines)
    for _ in range(2):
        with pytest.raises(StorageError, match=f"{path} must hold one JSON record, but line {number} does not"):
            address_of(str(path), tmp_path / "unused.db").open()
    assert path.read_bytes() == spoilt


def test_journal_that_gets_shorter_under_a_reader_is_told(tmp_path):
    journal = Journal(tmp_path / "study.log")
    journal.append_logs([{"n": n} for n in range(9)])
    assert journal.read_logs(0) == [{"n": n} for n in range(9)]
    assert journal.read_logs(5) == [{"n": n} for n in range(5, 9)]
    assert journal.read_logs(2) == [{"n": n} for n in range(2, 9)]
    assert journal.read_logs(9) == []
    journal.path.write_text('{"n": 0}\n')
    with pytest.raises(StorageError, match="must only grow"):
        journal.read_logs(9)
