"""What a trial's directory says of its end."""

import json

from medbot_exp.rundir import RunDirectory
from medbot_exp.sweep.outcome import Outcome, correct_result, read_outcome
from medbot_exp.whole_files import write_json


def begun(directory):
    """A run that began in `directory`."""
    run = RunDirectory(directory)
    run.path.mkdir()
    run.config.write_text("seed: 1")
    run.metrics.write_text("")
    return run


def test_an_outcome_is_read_as_it_was_written(tmp_path):
    assert read_outcome(tmp_path) is None
    Outcome("complete", [0.5]).write(tmp_path)
    assert read_outcome(tmp_path) == Outcome("complete", [0.5])


def test_result_json_counts_where_the_kill_came_before_trial_json(tmp_path):
    write_json(tmp_path / "result.json", {"status": "complete", "objective": {"validation/loss": 2.0}, "error": None})
    assert read_outcome(tmp_path) == Outcome("complete", [2.0])


def test_a_run_that_another_process_ended_has_a_result_that_says_so(tmp_path):
    run = begun(tmp_path / "trial-0000")
    correct_result(run.path, Outcome("died", reason="its process was killed by SIGKILL"))
    result = json.loads(run.result.read_text())
    assert (result["status"], result["error"]) == ("failed", "its process was killed by SIGKILL")
    assert result["seconds"]["total"] >= 0


def test_a_run_that_its_study_gave_up_is_not_complete(tmp_path):
    run = begun(tmp_path / "trial-0000")
    write_json(run.result, {"status": "complete", "objective": {"validation/loss": 2.0}, "steps": 10})
    correct_result(run.path, Outcome("failed", reason="given up"))
    result = json.loads(run.result.read_text())
    assert (result["status"], result["objective"], result["steps"]) == ("failed", {}, 10)


def test_directories_of_other_applications_get_no_result(tmp_path):
    correct_result(tmp_path, Outcome("died", reason="killed"))
    assert list(tmp_path.iterdir()) == []
