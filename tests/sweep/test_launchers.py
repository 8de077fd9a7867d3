"""The same search through joblib, Submitit and Ray: pruned, and none the worse for trials that fail or are killed."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import pytest
from hydra.errors import MissingConfigException

from medbot_exp.errors import ConfigError
from medbot_exp.explain import missing_option
from medbot_exp.sweep.launch_batches import in_a_row, prepare_joblib
from medbot_exp.sweep.launch_ray import share
from medbot_exp.sweep.launch_submitit import refuse_unfit

APPLICATION = """
import hydra
from omegaconf import DictConfig

@hydra.main(version_base=None, config_path=None, config_name=None)
def task(cfg: DictConfig):
    import os, pathlib, signal, subprocess, sys, time
    import optuna
    from medbot_exp.sweep.job import current_trial
    folder, trial = pathlib.Path(cfg.folder), current_trial()
    has_password = os.environ.get("MEDBOT_EXP_STORAGE_PASSWORD", "").startswith("s3")
    with (folder / "ledger").open("a") as file:
        file.write(f"{trial.number} {os.getpid()} {has_password}\\n")
    exec((folder / "do.py").read_text())
    return cfg.x**2

if __name__ == "__main__":
    task()
"""

PRUNED = """
for step in range(3):
    trial.report(trial.number, step)
    if trial.should_prune(): raise optuna.TrialPruned
while trial.number == 0 and len((folder / "ledger").read_text().splitlines()) < 2: time.sleep(0.1)
"""
# Each in its own way; trials 4 and 5 are the second tries of two that were killed.
FAULTS = """
class Odd(Exception):
    def __init__(self, one, two): super().__init__("odd")
if trial.number == 0: os.kill(os.getpid(), signal.SIGKILL)
if trial.number == 1: raise Odd(1, 2)
if trial.number == 2: sys.exit(3)
"""
MEDIAN = ("hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=1")
LENIENT = "hydra.sweeper.max_failure_rate=0.9"

joblib = pytest.param("joblib", id="joblib")
slowly_joblib = pytest.param("joblib", id="joblib", marks=pytest.mark.slow)
submitit = pytest.param("submitit_local", id="submitit")
slowly_submitit = pytest.param("submitit_local", id="submitit", marks=pytest.mark.slow)
ray = pytest.param("ray", id="ray", marks=pytest.mark.services)  # a cluster of a dozen processes, which starts slowly


@pytest.fixture
def search(tmp_path):
    """search(launcher, *overrides, do=""): run the application, a password in its environment; what it printed."""

    def run(launcher, *overrides, do=""):
        with begin(tmp_path, launcher, *overrides, do=do) as process:
            output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
        return output

    return run


def begin(folder, launcher, *overrides, do):
    """The process of a search in `folder`."""
    needed = {"joblib": "hydra_plugins.hydra_joblib_launcher", "ray": "ray"}
    pytest.importorskip(needed.get(launcher, "hydra_plugins.hydra_submitit_launcher"), reason="extra launchers")
    (folder / "app.py").write_text(APPLICATION)
    (folder / "do.py").write_text(do)
    (folder / "ledger").touch()
    command = [
        *(
            sys.executable,
            "app.py",
            "-m",
            "hydra/sweeper=optuna",
            f"hydra/launcher={launcher}",
            "hydra.sweep.dir=study",
        ),
        *("hydra.sweeper.n_trials=4", "hydra.sweeper.sampler.seed=1", "+x=interval(-5.5,5.5)", f"+folder={folder}"),
        *overrides,
    ]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment |= {"MEDBOT_EXP_STORAGE_PASSWORD": "s3cr3t", "RAY_AUTH_MODE": "disabled"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def trials(folder):
    return optuna.load_study(study_name="study", storage=f"sqlite:///{folder}/study/study.db").trials


def states(folder):
    return [trial.state.name for trial in trials(folder)]


def begun(folder):
    """Number, process and whether it has the password, of every start of the task function."""
    lines = [line.split() for line in (folder / "ledger").read_text().splitlines()]
    return [(int(number), int(pid), password == "True") for number, pid, password in lines]


def alive(folder):
    """The processes of trials that are still there."""
    return [pid for _, pid, _ in begun(folder) if Path(f"/proc/{pid}").exists()]


def reasons(folder):
    ends = [trial.system_attrs.get("medbot_exp:end") for trial in trials(folder)]
    return ["" if end is None else end["reason"] for end in ends]


def wait_for(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come so far"
        time.sleep(0.05)


@pytest.mark.parametrize("launcher", [joblib, submitit, ray])
def test_trials_are_pruned_and_have_the_password_that_no_file_holds(search, tmp_path, launcher):
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as cluster:  # Ray's sockets want a short path
        own = [f"+hydra.launcher.ray.init._temp_dir={cluster}"] if launcher == "ray" else []
        output = search(launcher, *MEDIAN, *own, do=PRUNED)
        written = [path for folder in (tmp_path, Path(cluster)) for path in folder.rglob("*") if path.is_file()]
        assert not [path for path in written if b"s3cr3t" in path.read_bytes()]
    assert "s3cr3t" not in output
    found = states(tmp_path)
    assert found.count("PRUNED") >= 2 and set(found) == {"COMPLETE", "PRUNED"}
    assert sorted(number for number, _, _ in begun(tmp_path)) == [0, 1, 2, 3]
    assert all(has_password for _, _, has_password in begun(tmp_path))
    assert sorted(path.parent.name for path in tmp_path.glob("study/*/trial.json")) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("launcher", [slowly_joblib, submitit, ray])
def test_trials_that_fail_or_are_killed_are_told_and_the_others_go_on(search, tmp_path, launcher):
    search(launcher, LENIENT, do=FAULTS)
    found = trials(tmp_path)
    again = [trial for trial in found if "retry_of" in trial.user_attrs]
    settled = [trial for trial in found if trial.number not in {trial.user_attrs["retry_of"] for trial in again}]
    assert len(settled) == 4
    assert 0 in {trial.user_attrs["retry_of"] for trial in again}
    assert sum("odd" in text for text in reasons(tmp_path)) == 1
    assert sum("SystemExit: 3" in text for text in reasons(tmp_path)) == 1
    assert [trial.state.name for trial in settled].count("COMPLETE") == 2


def test_a_worker_of_joblib_that_dies_takes_no_other_trial_with_it(search, tmp_path):
    """One trial kills its worker each time; beside it, joblib kills a sound one, which costs that one nothing."""
    do = "poison = cfg.x < -3\ntime.sleep(0.2 if poison else 1)\nif poison: os._exit(7)"
    search("joblib", LENIENT, "hydra/sweeper/sampler=grid", "+x=choice(-4,1,2,3)", do=do)
    found = trials(tmp_path)
    last = {trial.params["+x"]: trial for trial in found}
    assert {trial.params["+x"]: trial.state.name for trial in last.values()} == {
        x: "FAIL" if x < -3 else "COMPLETE" for x in last
    }
    assert all(trial.user_attrs.get("retries", 0) == 0 for trial in found if trial.params["+x"] >= -3)
    assert any("EXIT(7)" in text for text in reasons(tmp_path))


def test_a_job_that_its_queue_ends_goes_on_in_another(search, tmp_path):
    """Slurm tells of a time limit by SIGUSR2, and of a preemption by SIGTERM, twice."""
    do = """
if trial.number == 0: os.kill(os.getpid(), signal.SIGUSR2); time.sleep(60)
if trial.number == 1:
    queue = subprocess.Popen(f"sleep 0.5; for _ in 1 2; do kill -TERM {os.getpid()}; done", shell=True)
    time.sleep(60)
"""
    search("submitit_local", "hydra.sweeper.n_trials=2", do=do)
    found = trials(tmp_path)
    assert [trial.state.name for trial in found] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert "hydra.launcher.timeout_min" in reasons(tmp_path)[0]
    retries = {trial.user_attrs["retry_of"]: trial.user_attrs["retries"] for trial in found[2:]}
    assert retries == {0: 1, 1: 0}  # a time limit counts, a preemption is nobody's fault


@pytest.mark.parametrize("launcher", [slowly_joblib, slowly_submitit, ray])
def test_the_next_controller_goes_on_where_one_was_killed(search, tmp_path, launcher):
    do = "if trial.number < 2: time.sleep(6)"
    with begin(tmp_path, launcher, "hydra.sweeper.n_trials=3", do=do) as controller:
        wait_for(lambda: len(begun(tmp_path)) == 2)
        controller.kill()
    search(launcher, "hydra.sweeper.n_trials=3", do=do)
    wait_for(lambda: not alive(tmp_path), 10)
    if launcher == "ray":  # ends a controller's tasks with it
        assert states(tmp_path) == ["FAIL", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"], reasons(tmp_path)
    else:
        assert states(tmp_path) == ["COMPLETE"] * 3
        assert sorted(number for number, _, _ in begun(tmp_path)) == [0, 1, 2]


@pytest.mark.parametrize("launcher", [slowly_joblib, slowly_submitit, ray])
def test_ctrl_c_ends_the_trials_and_the_same_command_goes_on(search, tmp_path, launcher):
    overrides = ("hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2")
    do = "for _ in range(600): time.sleep(0.1)"  # Ray interrupts Python, not what it waits in
    with begin(tmp_path, launcher, *overrides, do=do) as controller:
        wait_for(lambda: len(begun(tmp_path)) == 2)
        controller.send_signal(signal.SIGINT)
        controller.communicate(timeout=30)
    assert states(tmp_path) == ["FAIL", "FAIL", "WAITING", "WAITING"]
    wait_for(lambda: not alive(tmp_path), 10)
    search(launcher, *overrides)
    assert states(tmp_path) == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]


@pytest.mark.services
def test_ray_ends_a_trial_that_takes_too_long(search, tmp_path):
    do = "if trial.number == 0: time.sleep(60)"
    search("ray", LENIENT, "hydra.sweeper.n_trials=2", "hydra.sweeper.timeout_seconds=8", do=do)
    assert states(tmp_path) == ["FAIL", "COMPLETE"]
    assert "hydra.sweeper.timeout_seconds" in reasons(tmp_path)[0]


def test_ray_is_told_missing_before_a_study_is_made(run_python_in, tmp_path):
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "sys.argv[1:] = ['-m', '+sweep=lora_quick', 'model=tiny', 'tracking=none', 'hydra/launcher=ray']\n"
        "from medbot_exp.cli import entrypoint; entrypoint()"
    )
    finished = run_python_in(tmp_path, "-c", code)
    assert finished.status == 2, finished.stderr
    assert finished.stderr.endswith("Ray is not installed\n  Run: pip install ray\n")
    assert not (tmp_path / "multirun").exists()


@pytest.mark.parametrize(
    "option, package", [("joblib", "hydra-joblib-launcher"), ("submitit_slurm", "hydra-submitit-launcher")]
)
def test_the_package_of_a_missing_launcher_is_named(option, package):
    error = MissingConfigException(f"Could not find 'hydra/launcher/{option}'", None, ["basic", "local", "ray"])
    assert missing_option(error) == (
        f"`hydra/launcher={option}` must have its package, but {package} is not installed\nRun: pip install {package}"
    )


class JoblibOptions:
    """What prepare_joblib knows of a launcher."""

    def __init__(self, n_jobs):
        self.joblib = {"n_jobs": n_jobs}


def test_joblib_runs_as_many_as_the_search_asks_for_each_in_a_process(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for asked, given, expected in [(4, -1, 4), (1, -1, 2), (4, 3, 3)]:
        launcher = JoblibOptions(given)
        prepare_joblib(launcher, asked)
        assert launcher.joblib["n_jobs"] == expected


def test_joblib_is_refused_where_its_trials_would_share_a_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    prepare_joblib(JoblibOptions(-1), 1)
    with pytest.raises(ConfigError, match="all 2 that run at a time the first one"):
        prepare_joblib(JoblibOptions(-1), 2)


def test_submitit_is_refused_what_a_trial_cannot_use():
    params = {"nodes": 2, "tasks_per_node": 1, "gpus_per_node": 1, "max_num_timeout": 3}
    with pytest.raises(ConfigError) as caught:
        refuse_unfit(params, "slurm", 2)
    assert [line.split("=")[0] for line in str(caught.value).splitlines()] == [
        "`hydra.launcher.nodes",
        "`hydra.launcher.max_num_timeout",
    ]
    with pytest.raises(ConfigError, match="submitit_local gives all the same ones"):
        refuse_unfit({**params, "nodes": 1, "max_num_timeout": 0}, "local", 2)


@pytest.mark.parametrize(
    "nodes, n_jobs, cpus, gpus",
    [
        ([{"CPU": 8}], 2, 4, 0),
        ([{"CPU": 2}], 4, 1, 0),
        ([{"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 2}], 4, 4, 1),
        ([{"CPU": 8}, {"CPU": 8}], 1, 8, 0),  # all sixteen fit on no node
    ],
)
def test_ray_shares_out_what_fits_on_a_node(nodes, n_jobs, cpus, gpus):
    assert share(nodes, n_jobs) == {"num_cpus": cpus, "num_gpus": gpus}


def test_batches_are_numbered_in_a_row():
    trials = [(0, ()), (1, ()), (4, ()), (6, ()), (7, ())]
    assert [[number for number, _ in group] for group in in_a_row(trials)] == [[0, 1], [4], [6, 7]]
