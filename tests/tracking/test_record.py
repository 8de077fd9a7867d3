"""metrics.jsonl, result.json, and the copies that the mirror gets."""

import json
import math
from typing import Any

import pytest

from medbot_exp.rundir import RunDirectory
from medbot_exp.tracking.record import Mirror, Record


class Kept(Mirror):
    """A mirror that keeps what it is told."""

    def __init__(self):
        self.told: list[tuple[Any, ...]] = []

    def log(self, step, metrics):
        self.told.append(("log", step, dict(metrics)))

    def summarize(self, result):
        self.told.append(("summarize", dict(result)))

    def finish(self, exit_code):
        self.told.append(("finish", exit_code))


@pytest.fixture
def directory(tmp_path) -> RunDirectory:
    """An empty run directory."""
    return RunDirectory(tmp_path)


@pytest.fixture
def record(directory) -> Record:
    """A record that is mirrored."""
    return Record(directory, Kept())


def strictly(text: str) -> Any:
    """`text` as JSON in the standard's sense: NaN and Infinity are no JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


class TestLog:
    def test_each_call_appends_a_line_that_is_on_disk_at_once(self, directory, record):
        record.log(0, {"validation/loss": 2.5})
        assert directory.metrics.read_text() == '{"step": 0, "validation/loss": 2.5}\n'
        record.log(1, {"train/loss": 2.25, "train/epoch": 0.5})
        assert [strictly(line) for line in directory.metrics.read_text().splitlines()] == [
            {"step": 0, "validation/loss": 2.5},
            {"step": 1, "train/loss": 2.25, "train/epoch": 0.5},
        ]

    def test_later_record_of_the_same_run_goes_on_in_the_file(self, directory, record):
        record.log(0, {"train/loss": 1.0})
        Record(directory, Mirror()).log(1, {"train/loss": 0.5})
        assert [row["step"] for row in record.lines()] == [0, 1]

    def test_floats_come_back_bit_for_bit(self, record):
        value = math.nextafter(0.1, 1.0)
        record.log(0, {"train/loss": value})
        assert record.lines() == [{"step": 0, "train/loss": value}]

    def test_numbers_that_json_has_not_are_kept_as_text(self, directory, record):
        record.log(3, {"train/loss": math.nan, "train/grad_norm": math.inf, "validation/loss": -math.inf})
        assert strictly(directory.metrics.read_text()) == {
            "step": 3,
            "train/loss": "nan",
            "train/grad_norm": "inf",
            "validation/loss": "-inf",
        }

    def test_mirror_gets_every_line(self, record):
        record.log(0, {"train/loss": 1.0})
        record.log(1, {"train/loss": 0.5})
        assert record.mirror.told == [("log", 0, {"train/loss": 1.0}), ("log", 1, {"train/loss": 0.5})]


class TestRewind:
    def test_forgets_what_came_after_the_step(self, record):
        for step in (0, 1, 2, 2, 3):
            record.log(step, {"train/loss": float(step)})
        record.rewind(2)
        assert [row["step"] for row in record.lines()] == [0, 1, 2, 2]
        record.log(3, {"train/loss": 9.0})
        assert record.lines()[-1] == {"step": 3, "train/loss": 9.0}

    def test_line_that_a_kill_tore_is_dropped(self, directory, record):
        record.log(0, {"train/loss": 1.0})
        with directory.metrics.open("a") as file:
            file.write('{"step": 1, "train/lo')
        assert [row["step"] for row in record.lines()] == [0]
        record.rewind(1)
        record.log(1, {"train/loss": 0.5})
        assert [strictly(line)["step"] for line in directory.metrics.read_text().splitlines()] == [0, 1]

    def test_run_that_never_logged_has_no_lines(self, record):
        record.rewind(0)
        assert record.lines() == []


class TestKnown:
    def test_joins_all_that_was_logged_for_the_step(self, record):
        record.log(0, {"validation/loss": 2.5})
        record.log(0, {"eval/cases/accuracy": 0.2})
        record.log(1, {"train/loss": 1.0})
        assert record.known(0) == {"validation/loss": 2.5, "eval/cases/accuracy": 0.2}

    def test_is_empty_for_a_step_that_was_not_logged(self, record):
        record.log(0, {"validation/loss": 2.5})
        assert record.known(7) == {}


class TestFinish:
    def test_result_is_written_whole_and_the_mirror_left_alone(self, directory, record):
        result = {"status": "complete", "metrics": {"validation/loss": 2.0}, "error": None}
        record.finish(result)
        assert strictly(directory.result.read_text()) == result
        assert directory.status() == "complete"
        assert record.mirror.told == []
        assert [path.name for path in directory.path.iterdir()] == ["result.json"]

    def test_result_with_a_loss_that_is_no_number_stays_valid_json(self, directory, record):
        record.finish({"status": "complete", "metrics": {"validation/loss": math.nan}})
        assert strictly(directory.result.read_text())["status"] == "complete"


def test_mirror_that_fails_is_told_of_once_and_given_up(directory, caplog):
    class Gone(Mirror):
        def log(self, step, metrics):
            raise ConnectionResetError("the service is gone")

    record = Record(directory, Gone())
    for step in range(3):
        record.log(step, {"train/loss": 1.0})
    assert len(record.lines()) == 3
    assert caplog.text.count("the service is gone") == 1


def test_mirror_that_drops_everything_takes_every_call(directory):
    record = Record(directory, Mirror())
    record.log(0, {"train/loss": 1.0})
    record.mirror.table("samples", ("id",), [["a"]])
    record.mirror.adapter(directory.adapter)
    record.finish({"status": "complete"})
    assert record.mirror.description is None
    assert {path.name for path in directory.path.iterdir()} == {"metrics.jsonl", "result.json"}
