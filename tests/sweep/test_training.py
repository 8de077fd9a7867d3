"""Searches of our own application: real trainings that end well, are pruned, fail, or are killed and tried again."""

import csv
import html
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import yaml

from medbot_exp.whole_files import read_jsonl

SMALL = (
    "model=tiny",
    "benchmark=[]",
    "prompt=direct",
    "data.limit=40",
    "trainer.samples=0",
    "trainer.eval_limit=2",
    "trainer.checkpoint_steps=2",
)

# Four trials, whatever their order: a small adapter and a large one that learn, one that learns nothing and is pruned
# for it, one that diverges and is all that may fail. In one process, as its start takes longer than the trials.
FOUR_ENDS = (
    "hydra/sweeper=optuna",
    "hydra/sweeper/sampler=brute_force",
    "hydra/sweeper/pruner=threshold",
    "hydra/launcher=basic",
    "study=ends",
    "trainer.max_steps=4",
    "trainer.eval_steps=1",
    "optimizer.warmup_ratio=0",
    "optimizer.lr=3.0e-3,1.0e-12,1.0e30",
    "lora.r=4,64",
    "+hydra.sweeper.when={lora.r: 'optimizer.lr=3.0e-3'}",
    "hydra.sweeper.n_jobs=1",
    "hydra.sweeper.pruner.upper=5.79",
    "hydra.sweeper.max_failure_rate=0.25",
    "hydra.sweeper.constraints=['trainable_parameters<=100000']",
)


def study_in(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder}/study.db")


def printed(output: str, fact: str) -> str:
    """What the end of a search tells as `fact`; before it, trials of the same process may have told theirs."""
    line = [line for line in output.splitlines() if line.strip().startswith(f"{fact}  ")][-1]
    return line.strip().removeprefix(fact).strip()


@pytest.fixture(scope="module")
def ended(tmp_path_factory, run_python_in):
    """FOUR_ENDS, run: its process, folder, study and the directory of each trial by how it ended."""
    home = tmp_path_factory.mktemp("ends")
    finished = run_python_in(home, "-m", "medbot_exp", "-m", *SMALL, *FOUR_ENDS)
    assert finished.status == 0, finished.stderr
    folder = home / "multirun" / "ends"
    study = study_in(folder)
    names = {(0.003, 4): "small", (0.003, 64): "large", (1e-12, None): "idle", (1e30, None): "diverged"}
    trials = {names[trial.params["optimizer.lr"], trial.params.get("lora.r")]: trial for trial in study.trials}
    directories = {name: folder / f"trial-{trial.number:04d}" for name, trial in trials.items()}
    return SimpleNamespace(
        home=home, finished=finished, folder=folder, study=study, trials=trials, directories=directories
    )


@pytest.fixture(scope="module")
def wandb_of(ended, read_wandb_run):
    """wandb_of(name): the run in W&B of the trial `name`, as its last state has it, its exit code and its summary."""

    def read(name):
        directory = ended.directories[name]
        run_id = json.loads((directory / "manifest.json").read_text())["run_id"]
        records = read_wandb_run(directory, run_id)
        run = [record["run"] for record in records if record["type"] == "run"][-1]
        summary = {}
        for record in records:
            if record["type"] == "summary":
                summary |= record["summary"]["update"]
        (code,) = [record["exit"].get("exit_code", 0) for record in records if record["type"] == "exit"]
        return run, code, summary

    return read


def result_of(directory):
    return json.loads((directory / "result.json").read_text())


def test_every_trial_has_its_state_in_the_study_and_in_its_record(ended):
    states = {name: trial.state.name for name, trial in ended.trials.items()}
    assert states == {"small": "COMPLETE", "large": "COMPLETE", "idle": "PRUNED", "diverged": "FAIL"}
    statuses = {name: result_of(directory)["status"] for name, directory in ended.directories.items()}
    assert statuses == {"small": "complete", "large": "complete", "idle": "pruned", "diverged": "failed"}
    for name in ("small", "large"):
        assert ended.trials[name].value == result_of(ended.directories[name])["metrics"]["validation/loss"]


def test_a_pruned_training_ends_at_its_step_and_is_tagged(ended, wandb_of):
    result = result_of(ended.directories["idle"])
    assert (result["steps"], result["adapter"], result["error"]) == (1, None, None)
    assert ended.trials["idle"].intermediate_values == {1: result["metrics"]["validation/loss"]}
    run, code, summary = wandb_of("idle")
    assert (run["tags"], run["job_type"], code) == (["pruned"], "trial", 0)
    assert (summary["status"], summary["steps"]) == ("pruned", 1)


def test_a_failed_training_says_why_and_is_tagged(ended, wandb_of):
    reason = "the held-out loss must stay finite, but was nan at step 1"
    assert ended.trials["diverged"].system_attrs["medbot_exp:end"]["reason"].startswith(reason)
    assert reason in ended.finished.stderr
    run, code, summary = wandb_of("diverged")
    assert (run["tags"], code) == (["failed"], 1)
    assert summary["status"] == "failed" and summary["error"].startswith(reason)


def test_a_complete_training_has_no_tag(wandb_of):
    run, code, summary = wandb_of("small")
    assert (run.get("tags"), code, summary["status"]) == (None, 0, "complete")


def test_the_best_keeps_the_constraints_that_a_better_one_breaks(ended):
    key = "trainable_parameters<=100000"
    told = {name: trial.constraints.get(key) for name, trial in ended.trials.items()}
    assert told == {"small": 8192 - 1e5, "large": 131072 - 1e5, "idle": 32768 - 1e5, "diverged": None}
    assert ended.trials["large"].value < ended.trials["small"].value
    number = ended.trials["small"].number
    assert printed(ended.finished.stdout, "best").startswith(f"trial {number}, validation/loss")
    results = yaml.safe_load((ended.folder / "optimization_results.yaml").read_text())
    assert results == {
        "name": "optuna",
        "best_params": {"optimizer.lr": 0.003, "lora.r": 4},
        "best_value": ended.trials["small"].value,
    }


def test_the_table_has_every_trial(ended):
    with (ended.folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["number"]) for row in rows] == [0, 1, 2, 3]
    by_name = {name: rows[trial.number] for name, trial in ended.trials.items()}
    assert {name: row["state"] for name, row in by_name.items()} == {
        "small": "complete",
        "large": "complete",
        "idle": "pruned",
        "diverged": "failed",
    }
    assert float(by_name["large"]["validation/loss"]) == ended.trials["large"].value
    assert (by_name["small"]["params.lora.r"], by_name["idle"]["params.lora.r"]) == ("4", "")
    assert (by_name["small"]["feasible"], by_name["large"]["feasible"]) == ("true", "false")
    assert by_name["diverged"]["reason"].startswith("the held-out loss must stay finite")


def test_the_page_needs_no_other_file(ended):
    page = (ended.folder / "report.html").read_text()
    assert printed(ended.finished.stdout, "page") == "multirun/ends/report.html"
    assert printed(ended.finished.stdout, "again") in html.unescape(page)
    assert not any(word in page for word in ("<link", " src=", "@import", "url("))


def test_one_line_sends_the_study_and_all_trials_to_one_group(ended, wandb_of, read_wandb_run):
    words = printed(ended.finished.stdout, "W&B").removeprefix("offline; ").split()
    assert words[:2] == ["wandb", "sync"]
    runs = [path for path in ended.home.rglob("offline-run-*") if path.is_dir()]
    assert len(runs) == 5
    for run in runs:
        # As a shell expands it, where * stays within a folder's name.
        parts = run.relative_to(ended.home).parts
        patterns = [Path(word).parts for word in words[2:]]
        assert any(len(each) == len(parts) and all(map(fnmatch, parts, each)) for each in patterns), run
    (own,) = (ended.folder / "wandb").glob("offline-run-*")
    records = read_wandb_run(ended.folder, own.name.rpartition("-")[2])
    (study,) = [record["run"] for record in records if record["type"] == "run"]
    assert (study["job_type"], study["display_name"], study["run_group"]) == ("study", "ends", "ends")
    assert {wandb_of(name)[0]["run_group"] for name in ended.trials} == {"ends"}


@pytest.mark.slow
def test_the_best_config_repeats_the_best_trial(ended, run_python_in):
    words = shlex.split(printed(ended.finished.stdout, "as a config"))
    assert words == ["python", "-m", "medbot_exp", "--config-dir=multirun/ends", "+experiment=best"]
    finished = run_python_in(ended.home, *words[1:], "hydra.run.dir=best", "tracking=none")
    assert finished.status == 0, finished.stderr
    best = ended.directories["small"]
    assert losses(ended.home / "best") == losses(best)
    assert weights(ended.home / "best") == weights(best)


def test_the_best_trial_of_a_preset_is_a_config_by_itself(run_cli, tmp_path):
    small = ("model=tiny", "tracking=none", "benchmark=[]", "trainer.max_steps=2", "trainer.samples=1", "lora.r=8")
    preset = ("+sweep=lora_quick", "hydra.sweeper.n_trials=1", "hydra/sweeper/pruner=none", "study=quick")
    finished = run_cli("-m", *small, *preset)
    assert finished.status == 0, finished.stderr
    words = shlex.split(printed(finished.stdout, "as a config"))
    again = run_cli(*words[3:], "--cfg", "job", "--resolve")
    assert again.status == 0, again.stderr
    trial, best = (
        yaml.safe_load((tmp_path / "multirun/quick/trial-0000/config.yaml").read_text()),
        yaml.safe_load(again.stdout),
    )
    differing = {key for key in trial if trial[key] != best[key]}
    assert differing == {"study"}
    assert best["trainer"]["samples"] == 1 and best["trainer"]["eval_steps"] == 2  # its own, and the preset's


def losses(directory):
    lines = read_jsonl(directory / "metrics.jsonl")
    return [(line["step"], line.get("train/loss"), line.get("validation/loss")) for line in lines]


def weights(directory):
    return (directory / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_killed_training_goes_on_in_another_trial_to_the_end_of_an_unbroken_one(
    tmp_path, run_python_in, read_wandb_run
):
    search = ("+sweep=lora_quick", *SMALL, "trainer.max_steps=40", "lora.dropout=0.1", "hydra.sweeper.n_trials=1")
    own = {"HOME": str(tmp_path), "MEDBOT_EXP_CACHE": str(tmp_path / "cache"), "MKL_NUM_THREADS": "1"}
    environment = os.environ | own
    environment = {key: value for key, value in environment.items() if not key.startswith("WANDB_")}
    controller = subprocess.Popen(
        [sys.executable, "-m", "medbot_exp", "-m", *search],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = tmp_path / "multirun" / "lora_quick"
    while not any(line["step"] >= 6 for line in read_jsonl(folder / "trial-0000" / "metrics.jsonl")):
        assert controller.poll() is None, controller.communicate()
        time.sleep(0.05)
    (begun,) = study_in(folder).trials
    os.kill(begun.system_attrs["medbot_exp:job"]["owner"]["pid"], signal.SIGKILL)
    output, error = controller.communicate(timeout=120)
    assert controller.returncode == 0, error

    killed, again = study_in(folder).trials
    assert (killed.state.name, again.state.name) == ("FAIL", "COMPLETE")
    assert again.user_attrs["retry_of"] == 0 and again.params == killed.params
    directory = folder / "trial-0001"
    assert 4 <= result_of(directory)["resumed_from"] < 40
    # Every second step is measured: the study has the whole curve, and so has the pruner.
    assert sorted(again.intermediate_values) == list(range(2, 41, 2))
    assert {"completed_rung_0", "completed_rung_1", "completed_rung_2"} <= set(again.system_attrs)

    words = shlex.split(printed(output, "again"))
    whole = run_python_in(tmp_path, *words[1:], "hydra.run.dir=whole", "tracking=none")
    assert whole.status == 0, whole.stderr
    assert losses(tmp_path / "whole") == losses(directory)
    assert weights(tmp_path / "whole") == weights(directory)
    assert again.value == result_of(tmp_path / "whole")["objective"]["validation/loss"]

    run_id = json.loads((directory / "manifest.json").read_text())["run_id"]
    items = [record["history"]["item"] for record in read_wandb_run(directory, run_id) if record["type"] == "history"]
    assert {item["_step"] for item in items} == set(range(41))
