"""Searches of small Hydra applications, as their users start them, and what is left after the death of a process."""

import csv
import io
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import optuna
import pytest
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from omegaconf import OmegaConf
from rich.console import Console
from rich.text import Text

from medbot_exp.errors import TrialError
from medbot_exp.report.live import Board, Lines
from medbot_exp.sweep.launch_local import Ended
from medbot_exp.sweep.owner import started
from medbot_exp.sweep.search import Search, Settings
from medbot_exp.sweep.space import SearchSpace
from medbot_exp.sweep.storage import Address, file_url
from medbot_exp.sweep.study import Place, open_study
from medbot_exp.sweep.sweeper import run

APPLICATION = """
import hydra
from omegaconf import DictConfig

@hydra.main(version_base=None, config_path=None, config_name=None)
def task(cfg: DictConfig):
    import os, signal, time
    from medbot_exp.sweep.job import current_trial
    trial = current_trial()
    with open(cfg.ledger, "a") as file:
        file.write(f"{trial.number} {os.getpid()}\\n")
    exec(open(os.path.join(os.path.dirname(cfg.ledger), "do.py")).read())
    return cfg.x**2 + cfg.y**2 if cfg.objectives == 1 else [cfg.x**2, cfg.y**2]

if __name__ == "__main__":
    task()
"""


@pytest.fixture
def sweep(tmp_path, run_python_in):
    """sweep(*overrides, do=""): run the application in tmp_path; (finished process, trials of its study)."""

    def start(*overrides, do="pass"):
        finished = run_python_in(tmp_path, *command(tmp_path, *overrides, do=do))
        return finished, trials(tmp_path)

    return start


def command(folder, *overrides, do="pass"):
    (folder / "app.py").write_text(APPLICATION)
    (folder / "do.py").write_text(do)
    return [
        "app.py",
        "-m",
        "hydra/sweeper=optuna",
        "hydra/launcher=local",
        "hydra.sweep.dir=study",
        "hydra.sweeper.n_trials=4",
        "hydra.sweeper.sampler.seed=1",
        "+x=interval(-5.5,5.5)",
        "+y=choice(-5,0,5)",
        "++objectives=1",
        f"+ledger={folder}/ledger",
        *overrides,
    ]


def trials(folder):
    path = folder / "study" / "study.db"
    if not path.is_file():
        return []
    (study,) = optuna.get_all_study_summaries(f"sqlite:///{path}")
    return optuna.load_study(study_name=study.study_name, storage=f"sqlite:///{path}").trials


def begun(folder):
    """The trial numbers of every start of the task function."""
    return [int(line.split()[0]) for line in (folder / "ledger").read_text().splitlines()]


def states(found):
    return [trial.state.name for trial in found]


def test_the_same_command_again_runs_only_what_is_missing(sweep, tmp_path):
    finished, found = sweep("hydra.sweeper.n_trials=2")
    assert (finished.status, states(found)) == (0, ["COMPLETE"] * 2)
    finished, found = sweep("hydra.sweeper.n_trials=2")
    assert (finished.status, states(found)) == (0, ["COMPLETE"] * 2)
    finished, found = sweep("hydra.sweeper.n_trials=3")
    assert (finished.status, states(found)) == (0, ["COMPLETE"] * 3)
    assert sorted(begun(tmp_path)) == [0, 1, 2]
    assert len({trial.params["+x"] for trial in found}) == 3  # a seed makes no command draw the same again
    assert all(trial.value == trial.params["+x"] ** 2 + trial.params["+y"] ** 2 for trial in found)


@pytest.mark.parametrize(
    "do, reason",
    [
        ("raise ValueError(41)", "ValueError: 41"),
        ("os._exit(7)", "exit status 7"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("cfg.x = float('nan')", "must return a number"),
        ("time.sleep(60)", "hydra.sweeper.timeout_seconds"),
    ],
)
def test_a_trial_that_fails_says_why_and_the_others_go_on(sweep, do, reason):
    finished, found = sweep(
        "hydra.sweeper.max_failure_rate=0.5",
        "hydra.sweeper.timeout_seconds=6",
        "hydra.sweeper.n_trials=2",
        do=f"if trial.number == 0: {do}",
    )
    assert finished.status == 0, finished.stderr
    assert states(found) == ["FAIL", "COMPLETE"]
    assert reason in found[0].system_attrs["medbot_exp:end"]["reason"]
    assert reason in finished.stderr + finished.stdout


def test_a_full_disk_ends_the_search_and_fails_no_trial(sweep, tmp_path):
    do = "import resource; trial.number == 0 and resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
    finished, found = sweep("hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=2", do=do)
    assert finished.status == 1
    assert (
        "the disk was full in trial 0\nFree some space, then go on: python app.py -m hydra/sweeper=optuna"
        in finished.stderr
    )
    assert states(found) == ["FAIL", "WAITING"]
    finished, found = sweep("hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=2", do=do)
    assert finished.status == 0, finished.stderr
    assert states(found) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert found[1].user_attrs["retries"] == 0


def test_too_many_failures_end_the_search_with_their_reason(sweep):
    finished, found = sweep("hydra.sweeper.max_failure_rate=0.25", "hydra.sweeper.n_jobs=1", do="raise ValueError(41)")
    assert finished.status == 1
    assert states(found) == ["FAIL"] * 2
    assert "lets 1 of 4 trials fail, but 2 did: trial 0, 1: ValueError: 41" in finished.stderr
    assert re.findall(r"trial (\d): failed after .*: ValueError: 41", finished.stdout) == ["0", "1"]


class Failing:
    """Workers that run nothing: all trials that were started fail at once."""

    def __init__(self, log):
        self.running, self.log = [], log

    def free(self):
        return 2 - len(self.running)

    def start(self, number, overrides):
        self.running.append(number)

    def ended(self, wait_seconds):
        over, self.running = self.running, []
        return [Ended(number, 7, False, 1.0, None, self.log) for number in over]

    def stop(self):
        return self.ended(0)


@pytest.fixture
def search(tmp_path):
    """A search of two trials, neither of which may fail, in this process."""
    sampler, pruner = optuna.samplers.RandomSampler(seed=0), optuna.pruners.NopPruner()
    unset = dict.fromkeys(field.name for field in fields(Settings))
    settings = Settings(**unset | {"sampler": sampler, "n_trials": 2, "max_failure_rate": 0.0, "max_retry": 0})
    space = SearchSpace({"x": optuna.distributions.FloatDistribution(0, 1)}, {}, {}, {}, None, None)
    place = Place(Address(file_url("sqlite", tmp_path / "study.db")), "study")
    study = open_study(place, ["minimize"], sampler, pruner, {}, tmp_path)
    empty = OmegaConf.create()
    loader = ConfigLoaderImpl(ConfigSearchPathImpl())
    return Search(settings, empty, empty, space, ["minimize"], (), sampler, pruner, place, study, loader)


def test_lines_tell_every_trial_whose_end_made_the_search_give_up(search, tmp_path, caplog):
    with caplog.at_level("INFO"), pytest.raises(TrialError):
        run(search, search.task(print), Failing(tmp_path / "log"), Lines(["minimize"]))
    told = [message for message in caplog.messages if "failed after" in message]
    assert [message.partition(":")[0] for message in told] == ["trial 0", "trial 1"]
    assert all("exit status 7" in message for message in told)


def test_the_table_ends_with_the_failures_that_made_the_search_give_up(search, tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with pytest.raises(TrialError):
        run(search, search.task(print), Failing(tmp_path / "log"), Board(console, ["minimize"], ["loss"], 2))
    frame = Text.from_ansi(console.file.getvalue().rpartition("parameters")[2]).plain
    assert len(re.findall(r"x=\S+ +failed", frame)) == 2 and "2 failed" in frame and "running" not in frame


def test_a_storage_that_fails_hides_neither_the_first_error_nor_the_cursor(search, tmp_path, caplog):
    class Losing(Failing):
        def ended(self, wait_seconds):
            with closing(sqlite3.connect(tmp_path / "study.db")) as database:
                database.execute("DROP TABLE trials")
            raise ValueError("the first")

        def stop(self):
            return []

    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with pytest.raises(ValueError, match="the first"):
        run(search, search.task(print), Losing(tmp_path / "log"), Board(console, ["minimize"], ["loss"], 2))
    assert any("how the last trials ended is not shown" in message for message in caplog.messages)
    assert console.file.getvalue().rpartition("\x1b[?25")[2][0] == "h"  # the table was ended


def test_failures_count_over_all_commands_and_are_had_again_where_asked(sweep, tmp_path):
    overrides = ("hydra.sweeper.max_failure_rate=0.25", "hydra.sweeper.n_jobs=1")
    sweep(*overrides, do="raise ValueError(41)")
    finished, found = sweep(*overrides)
    assert finished.status == 1
    assert "hydra.sweeper.retry_failed=true" in finished.stderr
    assert states(found) == ["FAIL"] * 2
    finished, found = sweep(*overrides, "hydra.sweeper.retry_failed=true")
    assert finished.status == 0, finished.stderr
    assert states(found) == ["FAIL"] * 2 + ["COMPLETE"] * 4
    assert [trial.params for trial in found[2:4]] == [trial.params for trial in found[:2]]


@pytest.mark.slow
def test_brute_force_tries_each_point_once(sweep):
    points = ("hydra/sweeper/sampler=brute_force", "+x=choice(1,2)", "+y=choice(0,5)", "+hydra.sweeper.when.y='x=1'")
    do = "from omegaconf import open_dict\nwith open_dict(cfg): cfg.setdefault('y', 0)"
    finished, found = sweep(*points, "hydra.sweeper.n_trials=9", "hydra.sweeper.n_jobs=1", do=do)
    assert finished.status == 0, finished.stderr
    tried = sorted((trial.params["+x"], trial.params.get("+y")) for trial in found)
    assert tried == [(1, 0), (1, 5), (2, None)]


def test_the_results_of_another_study_are_not_taken_for_its_own(sweep, tmp_path):
    sweep("hydra.sweeper.n_trials=1")
    other = (f"hydra.sweeper.storage='journal:///{tmp_path}/other.log'", "hydra.sweeper.n_trials=1")
    finished, _ = sweep(*other)
    assert finished.status == 1 and "holds the trials of another" in finished.stderr
    assert begun(tmp_path) == [0]
    finished, _ = sweep(*other, "hydra.sweeper.on_mismatch=new")
    assert finished.status == 0, finished.stderr
    assert (tmp_path / "study-2" / "0" / "trial.json").is_file()


def test_a_killed_trial_is_tried_again_under_a_new_number(sweep, tmp_path):
    finished, found = sweep("hydra.sweeper.n_trials=2", do="trial.number == 0 and os.kill(os.getpid(), 9)")
    assert finished.status == 0, finished.stderr
    assert sorted(states(found)) == ["COMPLETE", "COMPLETE", "FAIL"]
    again = next(trial for trial in found if "retry_of" in trial.user_attrs)
    assert (again.user_attrs, again.params) == ({"retry_of": 0, "retries": 1}, found[0].params)
    assert sorted(begun(tmp_path)) == [0, 1, 2]


def test_a_trial_that_is_killed_each_time_fails_for_good(sweep):
    _, found = sweep("hydra.sweeper.n_trials=1", "hydra.sweeper.max_failure_rate=1", do="os.kill(os.getpid(), 9)")
    assert states(found) == ["FAIL", "FAIL"]
    assert "SIGKILL" in found[1].system_attrs["medbot_exp:end"]["reason"]


def test_a_pruned_trial_is_no_failure(sweep):
    do = (
        "import optuna\n"
        "for step in range(4):\n"
        "    trial.report(trial.number, step)\n"
        "    if trial.should_prune(): raise optuna.TrialPruned"
    )
    finished, found = sweep(
        "hydra.sweeper.n_jobs=1", "hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=1", do=do
    )
    assert finished.status == 0, finished.stderr
    assert states(found) == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]
    assert found[1].intermediate_values == {0: 1.0}


def test_a_controller_that_is_killed_loses_nothing(sweep, tmp_path, run_python_in):
    """The trial that was running ends by itself and is not run again."""
    do = "time.sleep(3) if trial.number == 1 else None"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = command(tmp_path, "hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=3", do=do)
    with subprocess.Popen([sys.executable, *arguments], cwd=tmp_path, env=environment) as controller:
        wait_for(lambda: (tmp_path / "ledger").is_file() and 1 in begun(tmp_path))
        controller.send_signal(signal.SIGKILL)
    finished, found = sweep("hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=3", do=do)
    assert finished.status == 0, finished.stderr
    assert states(found) == ["COMPLETE"] * 3
    assert begun(tmp_path) == [0, 1, 2]
    assert found[2].datetime_start >= found[1].datetime_complete  # one at a time, the one that was left among them


@pytest.mark.slow
def test_a_trial_of_a_dead_controller_is_ended_when_it_takes_too_long(sweep, tmp_path):
    do = "trial.number == 0 and time.sleep(60)"
    overrides = ("hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=2", "hydra.sweeper.timeout_seconds=8")
    overrides += ("hydra.sweeper.max_failure_rate=0.5",)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = command(tmp_path, *overrides, do=do)
    with subprocess.Popen([sys.executable, *arguments], cwd=tmp_path, env=environment) as controller:
        wait_for(lambda: (tmp_path / "ledger").is_file() and begun(tmp_path) == [0])
        controller.send_signal(signal.SIGKILL)
    pid = int((tmp_path / "ledger").read_text().split()[1])
    assert started(pid)
    began = time.monotonic()
    finished, found = sweep(*overrides, do=do)
    assert finished.status == 0, finished.stderr
    assert time.monotonic() - began < 30
    assert states(found) == ["FAIL", "COMPLETE"]
    assert "hydra.sweeper.timeout_seconds" in found[0].system_attrs["medbot_exp:end"]["reason"]
    assert not started(pid)


def test_a_result_that_was_not_told_is_told_by_the_next_controller(sweep, tmp_path):
    """Killed between writing its result and telling the study."""
    do = "import medbot_exp.sweep.job as job; job.tell = lambda *a: os.killpg(0, 9) if trial.number == 0 else None"
    finished, found = sweep("hydra.sweeper.n_trials=1", do=do)
    assert finished.status == 0, finished.stderr
    assert states(found) == ["COMPLETE"]
    assert begun(tmp_path) == [0]


def test_ctrl_c_keeps_what_ran_and_the_same_command_goes_on(sweep, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    overrides = ("hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=2")
    do = "trial.number < 2 and time.sleep(30)"
    arguments = command(tmp_path, *overrides, do=do)
    program, said = [sys.executable, *arguments], subprocess.PIPE
    with subprocess.Popen(program, cwd=tmp_path, env=environment, stdout=said, stderr=said, text=True) as controller:
        wait_for(lambda: (tmp_path / "ledger").is_file() and sorted(begun(tmp_path)) == [0, 1])
        began = time.monotonic()
        controller.send_signal(signal.SIGINT)
        printed, told = controller.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert controller.returncode == 130
    assert "To go on: python app.py -m hydra/sweeper=optuna" in told and "Traceback" not in told
    assert re.findall(r"trial (\d): failed after .*, tried again: stopped by the user", printed) == ["0", "1"]
    assert states(trials(tmp_path)) == ["FAIL", "FAIL", "WAITING", "WAITING"]
    pids = [int(line.split()[1]) for line in (tmp_path / "ledger").read_text().splitlines()]
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    finished, found = sweep(*overrides, do=do)
    assert finished.status == 0, finished.stderr
    assert states(found) == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.user_attrs["retries"] for trial in found[2:]] == [0, 0]  # the user's doing counts as no failure


def test_another_search_space_is_refused_and_named(sweep, tmp_path):
    sweep("hydra.sweeper.n_trials=1")
    finished, _ = sweep("hydra.sweeper.n_trials=1", "+y=choice(-5,5)")
    assert finished.status == 1
    assert "a study goes on with the command that began it, but study differs in" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert "space.distributions.+y" in finished.stderr
    finished, _ = sweep("hydra.sweeper.n_trials=1", "+y=choice(-5,5)", "hydra.sweeper.on_mismatch=new")
    assert finished.status == 0, finished.stderr
    assert (tmp_path / "study-2" / "0" / "trial.json").is_file()
    assert begun(tmp_path) == [0, 0]


def test_two_controllers_share_one_study(sweep, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = command(tmp_path, "hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=7", do="time.sleep(0.1)")
    both = [subprocess.Popen([sys.executable, *arguments], cwd=tmp_path, env=environment) for _ in range(2)]
    assert [controller.wait(100) for controller in both] == [0, 0]
    assert states(trials(tmp_path)) == ["COMPLETE"] * 7
    assert len({trial.params["+x"] for trial in trials(tmp_path)}) == 7
    assert sorted(begun(tmp_path)) == list(range(7))


def test_several_objectives(sweep):
    finished, found = sweep("++objectives=2", "hydra.sweeper.direction=[minimize,maximize]", "hydra.sweeper.n_trials=2")
    assert finished.status == 0, finished.stderr
    assert [trial.values for trial in found] == [[t.params["+x"] ** 2, t.params["+y"] ** 2] for t in found]


def test_a_password_stays_out_of_every_file(tmp_path, run_python_in):
    storage = "hydra.sweeper.storage='postgresql+psycopg2://me:s3cr3t@127.0.0.1:1/none'"
    finished = run_python_in(tmp_path, *command(tmp_path, storage))
    assert finished.status == 1
    assert "s3cr3t" not in finished.stdout + finished.stderr
    written = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in written if "s3cr3t" in text]


@pytest.mark.parametrize(
    "more, words",
    [
        (["hydra/sweeper/sampler=grid"], "+x from -5.5 to 5.5 without a step"),
        (["hydra/sweeper/pruner=median", "hydra.sweeper.direction=[minimize,maximize]"], "objectives"),
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0"),
        (["hydra.sweeper.on_mismatch=maybe"], "must be refuse or new"),
        (["+hydra.sweeper.n_trails=3"], "`hydra.sweeper.n_trails` is no key"),
    ],
)
def test_bad_input_is_told_before_a_study_is_made(sweep, tmp_path, more, words):
    finished, found = sweep(*more)
    assert finished.status == 1
    assert words in finished.stderr and "Traceback" not in finished.stderr
    assert found == [] and not (tmp_path / "study").exists()


def test_best_values_are_written_as_the_published_plugin_does(sweep, tmp_path):
    _, found = sweep()
    best = min(found, key=lambda trial: trial.value)
    written = yaml.safe_load((tmp_path / "study" / "optimization_results.yaml").read_text())
    assert written == {"name": "optuna", "best_params": best.params, "best_value": best.value}


def test_a_trial_beyond_its_constraints_is_not_the_best(sweep, tmp_path):
    grid = ("hydra/sweeper/sampler=grid", "+x=choice(1,2,-3)", "+y=choice(0)")
    finished, found = sweep("hydra.sweeper.constraints=['width>=2']", *grid, do="trial.measured({'width': abs(cfg.x)})")
    assert finished.status == 0, finished.stderr
    assert {t.params["+x"]: t.constraints for t in found} == {x: {"width>=2": 2.0 - abs(x)} for x in (1, 2, -3)}
    written = yaml.safe_load((tmp_path / "study" / "optimization_results.yaml").read_text())
    assert (written["best_params"]["+x"], written["best_value"]) == (2, 4.0)
    assert "complete: 1, but not width>=2" in finished.stderr + finished.stdout


def test_a_constraint_that_nothing_is_told_of_fails_its_trial_by_name(sweep):
    finished, found = sweep("hydra.sweeper.constraints=['width<=3']", "hydra.sweeper.n_trials=1")
    assert finished.status == 1
    assert "it told nothing of width<=3" in found[0].system_attrs["medbot_exp:end"]["reason"]


def wait_for(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come so far"
        time.sleep(0.05)


@pytest.mark.services
def test_two_controllers_on_one_postgresql_study(postgres, tmp_path):
    postgres.create_database("sweep")
    storage = f"hydra.sweeper.storage='{postgres.url_of('sweep')}'"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = command(tmp_path, storage, "hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=7", do="time.sleep(0.1)")
    both = [subprocess.Popen([sys.executable, *arguments], cwd=tmp_path, env=environment) for _ in range(2)]
    assert [controller.wait(100) for controller in both] == [0, 0]
    with (tmp_path / "study" / "trials.csv").open() as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["complete"] * 7
    assert sorted(begun(tmp_path)) == list(range(7))
    written = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in written if "p%40ss" in text or "p@ss" in text]


def test_a_launcher_of_another_application_tells_what_can_be_mended(tmp_path, run_python_in):
    (tmp_path / "app.py").write_text(APPLICATION)
    finished = run_python_in(tmp_path, "app.py", "-m", "+x=1,2", "hydra/launcher=local", "hydra.launcher.n_jobs=0")
    assert finished.status == 1
    assert finished.stderr.splitlines()[0].startswith("`n_jobs >= 1` must hold, but got n_jobs=0")
    assert "Traceback" not in finished.stderr


def test_ctrl_c_names_the_directory_where_it_is_one_of_the_time(tmp_path):
    arguments = [word for word in command(tmp_path, do="time.sleep(30)") if not word.startswith("hydra.sweep.dir=")]
    said = subprocess.PIPE
    with subprocess.Popen([sys.executable, *arguments], cwd=tmp_path, stderr=said, text=True) as controller:
        wait_for(lambda: (tmp_path / "ledger").is_file())
        controller.send_signal(signal.SIGINT)
        _, told = controller.communicate(timeout=20)
    (study,) = tmp_path.glob("multirun/*/*")
    assert told.splitlines()[-1].endswith(f" hydra.sweep.dir={study.relative_to(tmp_path)}")
