"""A search by accuracy chooses by its development part, and the winner alone is put to the test."""

import json
import re
from pathlib import Path

import pytest

from medbot_exp.rundir import RunDirectory, others_evaluated
from medbot_exp.sweep.winner import test_facts as facts_of_test
from medbot_exp.sweep.winner import told
from medbot_exp.whole_files import read_jsonl, write_json

SMALL = (
    "model=tiny",
    "prompt=direct",
    "objective=accuracy",
    "optimizer.lr=2.0e-2",
    "trainer.max_steps=2",
    "trainer.eval_limit=3",
    "trainer.samples=0",
    "benchmark.cases.limit=5",
    "benchmark.cases.development=10",
    "tracking=none",
)


def asked(path):
    return {row["id"] for row in read_jsonl(path)}


@pytest.mark.parametrize("search", [(), ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra/launcher=local")])
def test_winner_alone_is_put_to_the_test(run_python_in, tmp_path, search):
    finished = run_python_in(tmp_path, "-m", "medbot_exp", "-m", *SMALL, *search, "lora.r=2,4", "study=s")
    assert finished.status == 0, finished.stderr
    trials = [RunDirectory(tmp_path / "multirun" / "s" / f"trial-000{number}") for number in (0, 1)]
    scores = [json.loads(trial.result.read_text())["objective"]["eval/cases_development/accuracy"] for trial in trials]
    winner = trials[scores.index(max(scores))]
    assert [trial for trial in trials if trial.evaluations.exists()] == [winner]
    assert all(len(asked(trial.predictions("cases_development"))) == 10 for trial in trials)
    test = asked(winner.evaluated("cases"))
    assert len(test) == 5 and not test & asked(winner.predictions("cases_development"))
    found = json.loads(winner.evaluation("cases").read_text())["tuned"]["eval/cases/accuracy"]
    assert (
        f"test on cases  {found:.1%} (" in finished.stdout
        and "of 5 items that no trial was chosen by" in finished.stdout
    )
    assert finished.stderr.count("the test is read once") == 1
    if search:
        assert "test on cases" in (tmp_path / "multirun" / "s" / "report.html").read_text()


def test_front_has_no_winner_and_says_how_the_test_is_read(run_python_in, tmp_path):
    search = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra/launcher=local", "study=s")
    goals = ("objective=accuracy_and_tokens", "benchmark.cases.method=generate", "benchmark.cases.answer_tokens=4")
    words = [word for word in SMALL if word != "objective=accuracy"]
    finished = run_python_in(tmp_path, "-m", "medbot_exp", "-m", *words, *goals, *search, "lora.r=2,4")
    assert finished.status == 0, finished.stderr
    told = re.search(
        r"^  test on cases +not read, .*; choose one of the [12] best, and read it once: python (.*)$",
        finished.stdout,
        re.M,
    )
    command = told.group(1).split()
    assert command[:3] == ["-m", "medbot_exp", "task=evaluate"] and "tracking=none" in command
    assert not list((tmp_path / "multirun" / "s").glob("*/evaluations"))
    finished = run_python_in(tmp_path, *command)
    assert finished.status == 0 and "accuracy on cases (n=5)" in finished.stdout
    assert "of the same study" not in finished.stderr
    other = {"trial-0000": "trial-0001", "trial-0001": "trial-0000"}
    read = next(name for name in other if name in command[3])
    command[3] = command[3].replace(read, other[read])
    finished = run_python_in(tmp_path, *command)
    assert f"cases is read for {other[read]}, and was for {read} of the same study: " in finished.stderr


def test_winner_after_others_says_that_the_test_was_read_for_them(tmp_path, monkeypatch):
    trials = [RunDirectory(tmp_path / f"trial-000{number}") for number in range(3)]
    for trial in trials[:2]:
        write_json(trial.evaluation("cases"), {})
    assert [other.path.name for other in others_evaluated(trials[2], "cases")] == ["trial-0000", "trial-0001"]
    assert [other.path.name for other in others_evaluated(trials[1], "cases")] == ["trial-0000"]
    assert others_evaluated(trials[2], "medqa") == []
    trials[2].path.mkdir()
    monkeypatch.chdir(trials[2].path)
    assert len(others_evaluated(RunDirectory(Path(".")), "cases")) == 2
    values = {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "n": 9}
    metrics = {f"eval/cases/{key}": value for key, value in values.items()}
    evaluation = {"tuned": metrics, "base": metrics}
    assert told("cases", evaluation, 2).endswith("50.0% by the base; the test was read for 3 trials of this study")
    assert told("cases", evaluation, 0).endswith("50.0% by the base")


def test_run_that_is_chosen_by_its_loss_has_no_test_of_its_own(run_python_in, tmp_path):
    words = [word for word in SMALL if not word.startswith(("objective", "benchmark.cases.development"))]
    finished = run_python_in(tmp_path, "-m", "medbot_exp", *words, "benchmark.cases.limit=2")
    assert finished.status == 0 and "task=evaluate" not in finished.stdout
    (directory,) = (tmp_path / "multirun" / "runs").glob("*/*")
    assert facts_of_test(RunDirectory(directory)) == {}


def test_single_run_tells_how_its_test_is_read(run_python_in, tmp_path):
    finished = run_python_in(tmp_path, "-m", "medbot_exp", *SMALL)
    (directory,) = (tmp_path / "multirun" / "runs").glob("*/*")
    command = f"python -m medbot_exp task=evaluate task.run={directory.relative_to(tmp_path)}"
    assert re.search(rf"^  test +not read yet; {re.escape(command)}$", finished.stdout, re.MULTILINE)
