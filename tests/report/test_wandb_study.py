"""The run of a whole study in W&B, read back from an offline run with W&B's own reader."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest

from medbot_exp.config import TrackingConfig, TrackingMode, TrackingName
from medbot_exp.report.study import Notes, StudySummary, summarize
from medbot_exp.report.wandb_study import mirror_study
from medbot_exp.tracking.wandb import Place

VALUES = [3.0, None, 2.0, 2.5, 1.0]  # of trial 1 none: it fails; trial 4 breaks its constraint


def study(directions: list[str]) -> StudySummary:
    """Five trials of two parameters, one a number and one a text."""
    made = optuna.create_study(directions=directions, sampler=optuna.samplers.RandomSampler(seed=0), study_name="ranks")

    def objective(trial: optuna.Trial) -> Any:
        trial.suggest_int("lora.r", 1, 64)
        trial.suggest_categorical("lora.rslora", [True, False])
        trial.set_constraint("size<=1", 1.0 if trial.number == 4 else 0.0)
        value = VALUES[trial.number]
        if value is None:
            raise ValueError
        return value if len(directions) == 1 else (value, trial.number)

    made.optimize(objective, len(VALUES), catch=(ValueError,))
    return summarize(made, None, lambda trial: Notes(reason="no memory" if trial.number == 1 else None))


@pytest.fixture
def mirrored(tmp_path, monkeypatch, read_wandb_run):
    """mirrored(summary): the records of the run that W&B has of it."""
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "home"))
    (tmp_path / "report.html").write_text("<!doctype html><title>ranks</title>")

    def tell(summary: StudySummary) -> list[dict[str, Any]]:
        tracking = TrackingConfig(TrackingName.wandb, TrackingMode.offline, "trials", None, [], None, False)
        place = Place(tmp_path, "study001", "ranks", "ranks", "study")
        described = mirror_study(tracking, place, summary, tmp_path / "report.html", {"seed": 7})
        assert described is not None and described.startswith("offline; wandb sync ")
        return read_wandb_run(tmp_path, "study001")

    return tell


def merged(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary that all its updates come to."""
    whole: dict[str, Any] = {}
    for record in records:
        if record["type"] == "summary":
            whole |= record["summary"]["update"]
    return whole


def media(directory: Path, pattern: str) -> str:
    """The text of the one file of the run that `pattern` names."""
    (path,) = directory.glob(f"wandb/*study001/files/media/{pattern}")
    return path.read_text()


def test_stands_in_the_group_of_its_trials(mirrored):
    (run,) = [record["run"] for record in mirrored(study(["minimize"])) if record["type"] == "run"]
    assert (run["run_id"], run["display_name"], run["job_type"]) == ("study001", "ranks", "study")
    assert "ranks" in {value for key, value in run.items() if "group" in key}
    assert run["config"]["update"]["seed"] == 7


def test_has_the_history_by_trial_and_the_best_that_kept_its_constraints(mirrored):
    items = [record["history"]["item"] for record in mirrored(study(["minimize"])) if record["type"] == "history"]
    told = [
        (item["trial"], item.get("trials/value"), item.get("best/value")) for item in items if "trials/value" in item
    ]
    assert told == [(0, 3.0, 3.0), (2, 2.0, 2.0), (3, 2.5, 2.0), (4, 1.0, None)]


def test_has_all_trials_as_a_table(mirrored, tmp_path):
    summary = study(["minimize"])
    mirrored(summary)
    table = json.loads(media(tmp_path, "table/trials_*.table.json"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["trial"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["value"] for row in rows] == VALUES
    assert [row["lora.r"] for row in rows] == [trial.params["lora.r"] for trial in summary.trials]
    assert {row["lora.rslora"] for row in rows} == {"true", "false"}
    assert [row["reason"] for row in rows] == [None, "no memory", None, None, None]
    assert [row["feasible"] for row in rows] == [True, True, True, True, False]


def test_has_importances_page_and_best(mirrored, tmp_path):
    summary = study(["minimize"])
    assert summary.importances is not None
    records = mirrored(summary)
    table = json.loads(media(tmp_path, "table/importances_*.table.json"))
    assert dict(table["data"]) == pytest.approx(summary.importances)
    assert "<title>ranks</title>" in media(tmp_path, "html/report_*.html")
    headline = merged(records)
    assert headline["best"] == {"trial": 2, "params": summary.trials[2].params}
    assert headline["states"] == {"complete": 4, "failed": 1}
    assert [record["exit"].get("exit_code", 0) for record in records if record["type"] == "exit"] == [0]


def test_of_several_objectives_it_has_the_front(mirrored):
    headline = merged(mirrored(study(["minimize", "minimize"])))
    assert headline["pareto_front"] == [0, 2] and "best" not in headline


def test_what_wandb_cannot_take_leaves_the_study_as_it_is(tmp_path, caplog):
    tracking = TrackingConfig(TrackingName.wandb, TrackingMode.offline, "trials", None, [], None, False)
    place = Place(tmp_path, "study001", "ranks", "ranks", "study")
    missing = tmp_path / "no" / "report.html"
    assert mirror_study(tracking, place, study(["minimize"]), missing, {}) is None
    assert "W&B has no run of the study, its files are complete" in caplog.text
