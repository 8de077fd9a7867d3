"""The table that ends a grid, from the trials' own files."""

import json

import pytest

from medbot_exp.config import Direction
from medbot_exp.report.grid import best_of, print_grid, read
from medbot_exp.rundir import HydraFiles, RunDirectory

HYDRA = "hydra: {runtime: {config_sources: []}, job: {config_name: config}}"
RESOLVED = "objective:\n  metric: {metric}\n  direction: {direction}\n"


@pytest.fixture
def trial(tmp_path):
    """trial(number, *overrides, loss, ...): a trial in tmp_path/grid, as a run would leave it."""

    def make(number, *overrides, loss=None, status="complete", error=None, direction="minimize", held_out="f"):
        directory = RunDirectory(tmp_path / "grid" / f"trial-{number:04d}")
        metric = "validation/loss" if direction == "minimize" else "eval/cases/accuracy"
        listed = "".join(f"- {word}\n" for word in overrides)
        directory.claim(HydraFiles("", HYDRA, listed, RESOLVED.format(metric=metric, direction=direction)))
        result = {"status": status, "error": error, "seconds": {"total": 65.0}}
        if loss is not None:
            metrics = {"validation/loss": loss, "eval/cases/accuracy": 1 / loss}
            result |= {"metrics": metrics, "objective": {metric: metrics[metric]}}
        directory.manifest.write_text(json.dumps({"tokenized": {"validation": {"fingerprint": held_out}}}))
        if status != "stopped":
            directory.result.write_text(json.dumps(result))
        return directory

    return make


def lines(capsys, study, points):
    print_grid(study, points)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_table_has_a_row_for_each_trial_and_names_the_best(trial, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    trial(0, "model=tiny", "lora.r=8", loss=2.5)
    trial(1, "model=tiny", "lora.r=16", loss=2.0)
    trial(2, "model=tiny", "lora.r=0", status="failed", error="`lora.r >= 1` must hold\nand more")
    trial(3, "model=tiny", "lora.r=4", status="stopped")
    header, *rows = [" ".join(line.split()) for line in lines(capsys, tmp_path / "grid", 5)]
    assert header == "held-out accuracy"
    assert rows.pop(0) == "trial overrides loss on cases time status"
    assert set(rows.pop(0)) == {"─"}
    assert rows == [
        "trial-0000 lora.r=8 2.5000 40.0% 1 min 05 s complete",
        "trial-0001 lora.r=16 2.0000 50.0% 1 min 05 s best",
        "trial-0002 lora.r=0 - - 1 min 05 s failed",
        "trial-0003 lora.r=4 - - - stopped",
        "trial-0002 failed: `lora.r >= 1` must hold",
        f"study {tmp_path / 'grid'} (4 of 5 trials begun)",
        f"best {tmp_path / 'grid' / 'trial-0001'}, by validation/loss",
        "again python -m medbot_exp model=tiny lora.r=16",
    ]


def test_offline_trials_get_one_line_that_uploads_them_all(trial, tmp_path, capsys):
    directory = trial(0, "lora.r=8", loss=2.5)
    (directory.path / "wandb" / "offline-run-1").mkdir(parents=True)
    assert lines(capsys, tmp_path / "grid", 1)[-1].endswith(
        f"offline; wandb sync {tmp_path}/grid/trial-*/wandb/offline-run-*"
    )


def test_a_grid_whose_first_trial_never_began_prints_nothing(tmp_path, capsys):
    assert lines(capsys, tmp_path / "grid", 3) == []


@pytest.mark.parametrize("direction, best", [("minimize", 1), ("maximize", 0)])
def test_best_follows_the_direction_and_the_first_of_equals_wins(trial, direction, best):
    # An accuracy of 1 / loss: the smallest loss is the largest accuracy, so maximising a loss would differ.
    trials = [read(trial(n, loss=loss, direction="minimize")) for n, loss in enumerate((3.0, 2.0, 2.0, 3.0))]
    assert best_of(trials, Direction[direction]) is trials[best]


def test_losses_of_different_held_out_tokens_have_no_best(trial, tmp_path, capsys):
    trial(0, "prompt=medbot", loss=2.5)
    trial(1, "prompt=direct", loss=2.0, held_out="g")
    text = "\n".join(lines(capsys, tmp_path / "grid", 2))
    assert "none: the trials' held-out tokens differ" in text and "again" not in text


def test_accuracies_compare_whatever_the_held_out_tokens(trial, tmp_path, capsys):
    trial(0, "prompt=medbot", loss=2.5, direction="maximize")
    trial(1, "prompt=direct", loss=2.0, held_out="g", direction="maximize")
    assert "trial-0001, by eval/cases/accuracy" in "\n".join(lines(capsys, tmp_path / "grid", 2))


def test_a_grid_without_a_complete_trial_has_no_best(trial):
    trials = [read(trial(0, status="failed", error="x")), read(trial(1, status="stopped"))]
    assert best_of(trials, Direction.minimize) is None
