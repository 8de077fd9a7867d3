"""The run directory: who owns it, and what can be resumed."""

import json
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from subprocess import PIPE

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from medbot_exp import rundir
from medbot_exp.errors import ConfigError, RunDirectoryError
from medbot_exp.rundir import HydraFiles, RunDirectory
from medbot_exp.whole_files import write_json

CONFIG = "lora:\n  r: 16\nmodel:\n  name: tiny\ntracking:\n  name: none\nname: a\ntrainer:\n  resume: null\n"
HYDRA = (
    "hydra:\n  runtime:\n    config_sources:\n    - path: {path}\n      provider: {provider}\n"
    "  job:\n    config_name: config\n"
)
FILES = HydraFiles("c: 1\n", HYDRA.format(path="/conf", provider="main"), "- lora.r=16\n", CONFIG)


def contents(folder):
    """Every path below `folder` with its bytes, None for a directory."""
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def checkpoint(directory, step, sealed, best=None):
    folder = directory.checkpoints / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    state = {"best_model_checkpoint": None if best is None else f"/elsewhere/checkpoints/checkpoint-{best}"}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    if sealed:
        directory.seal_checkpoint(step)
    return folder


@pytest.fixture
def run(tmp_path):
    """A claimed run directory."""
    directory = RunDirectory(tmp_path / "multirun" / "run")
    directory.claim(FILES)
    return directory


def test_claim_writes_the_config_and_hydras_files(run):
    assert run.config.read_text() == CONFIG
    assert {path.name: path.read_text() for path in (run.path / ".hydra").iterdir()} == {
        "config.yaml": "c: 1\n",
        "hydra.yaml": FILES.hydra,
        "overrides.yaml": "- lora.r=16\n",
    }
    assert run.status() is None


@pytest.mark.parametrize("name", ["result.json", "notes.txt", ".hidden", "run.log"])
def test_claim_refuses_a_directory_with_a_file_and_leaves_it_untouched(tmp_path, name):
    (tmp_path / name).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(RunDirectoryError, match="must be new.*\nChoose another$"):
        RunDirectory(tmp_path).claim(FILES)
    assert contents(tmp_path) == before


def test_claim_refuses_a_directory_that_it_claimed_before(run):
    before = contents(run.path)
    with pytest.raises(RunDirectoryError, match="go on with that run: trainer.resume="):
        RunDirectory(run.path).claim(FILES)
    assert contents(run.path) == before
    run.result.write_text('{"status": "complete"}')
    with pytest.raises(RunDirectoryError, match="Choose another$"):
        RunDirectory(run.path).claim(FILES)


def test_study_in_the_place_of_a_run_is_answered_by_one_of_its_trials(tmp_path):
    study = RunDirectory(tmp_path / "ranks")
    for number, status in enumerate(["failed", "complete"]):
        trial = RunDirectory(study.path / f"trial-000{number}")
        trial.claim(FILES)
        trial.result.write_text(json.dumps({"status": status}))
    with pytest.raises(RunDirectoryError, match="it is a study: give one of its 2 trials, as task.run=.*/trial-0001$"):
        study.require_adapter("task.run")
    with pytest.raises(RunDirectoryError, match="one of its 2 trials, as trainer.resume=.*/trial-0000$"):
        study.require_run()


def test_of_two_processes_exactly_one_claims_a_directory(tmp_path):
    """Both try 50 directories, each at the same appointed moment."""
    racer = (
        "import sys, time\n"
        "from medbot_exp.errors import RunDirectoryError\n"
        "from medbot_exp.rundir import HydraFiles, RunDirectory\n"
        "print('ready', flush=True)\n"
        "start = float(input())\n"
        "for number in range(50):\n"
        "    while time.time() < start + number * 0.01:\n"
        "        pass\n"
        "    try:\n"
        "        RunDirectory(f'{sys.argv[1]}/{number}').claim(HydraFiles('', '', '', ''))\n"
        "        print(number)\n"
        "    except RunDirectoryError:\n"
        "        pass\n"
    )
    command = [sys.executable, "-c", racer, str(tmp_path)]
    racers = [subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) for _ in range(2)]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 2
    start = f"{time.time() + 0.2}\n"
    for racer in racers:
        racer.stdin.write(start)
        racer.stdin.flush()
    claimed = [line for racer in racers for line in racer.communicate(timeout=60)[0].split()]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert sorted(map(int, claimed)) == list(range(50))


def test_resume_of_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"`trainer\.resume` must name a run directory.*config\.yaml"):
        RunDirectory(tmp_path).resume(FILES)


def test_resume_of_a_complete_run_is_refused(run):
    write_json(run.result, {"status": "complete"})
    with pytest.raises(RunDirectoryError, match="is complete"):
        run.resume(FILES)


def test_resume_with_another_config_names_every_difference(run):
    other = CONFIG.replace("r: 16", "r: 8").replace("tiny", "other") + "seed: 1\n"
    with pytest.raises(RunDirectoryError) as caught:
        run.resume(HydraFiles("", "", "", other))
    for line in ("lora.r: 16 there, 8 here", "model.name: tiny there, other here", "seed: None there, 1 here"):
        assert line in str(caught.value)
    assert str(caught.value).endswith(f"Type: python -m medbot_exp lora.r=16 trainer.resume={run}")


@pytest.mark.parametrize("name", ["a run", "[a,b]", "{a: b}", "a=1", "it's", '"x"', "~a", "(a)", "a\\", "null", "ä b"])
def test_command_that_resumes_a_run_is_read_as_its_path(tmp_path, monkeypatch, name):
    run = RunDirectory(tmp_path / name)
    run.claim(FILES)
    monkeypatch.chdir(tmp_path)  # where the path is the name alone
    with pytest.raises(RunDirectoryError) as caught:
        run.resume(replace(FILES, resolved=CONFIG.replace("16", "8")))
    *_, word = shlex.split(str(caught.value).rpartition("Type: ")[2])
    override = OverridesParser.create().parse_override(word)
    assert (override.key_or_group, override.value()) == ("trainer.resume", name)


def test_resume_with_quite_another_config_names_the_first_differences_and_counts_the_rest(run):
    with pytest.raises(RunDirectoryError) as caught:
        run.resume(HydraFiles("", "", "", CONFIG + "".join(f"key{number}: 1\n" for number in range(8))))
    lines = str(caught.value).splitlines()
    assert [line.strip() for line in lines[1:7]] == [*(f"key{n}: None there, 1 here" for n in range(5)), "and 3 more"]


def test_command_repeats_the_run_with_the_config_directory_of_the_user():
    files = HydraFiles("", HYDRA.format(path="/my conf", provider="command-line"), "- lora.r=16\n- name=a\n", "")
    assert files.command("seed=1", without=("name=",)) == (
        "python -m medbot_exp '--config-dir=/my conf' lora.r=16 seed=1"
    )
    other = replace(files, hydra=files.hydra.replace("config_name: config", "config_name: mine"))
    assert "--config-name=mine" in other.command() and "--config-name" not in files.command()
    assert files.command(multirun=True).startswith("python -m medbot_exp '--config-dir=/my conf' -m lora.r=16")


def test_command_has_each_key_once():
    twice = replace(FILES, overrides="- lora.r=8\n- seed=1\n- lora.r=16\n")
    assert twice.command() == "python -m medbot_exp seed=1 lora.r=16"


def test_resume_overlooks_what_changes_no_result(run):
    other = CONFIG.replace("name: a", "name: b\nroot: x\nstudy: y\ncache_dir: z").replace("null", "multirun/run")
    other += "  sharding: full\n"
    assert run.resume(HydraFiles("", "", "", other.replace("name: none", "name: wandb"))) == 0


@pytest.mark.parametrize("status", ["failed", "pruned", None])
def test_resume_of_an_unfinished_run_goes_on_from_its_last_whole_checkpoint(run, status):
    if status is not None:
        write_json(run.result, {"status": status})
    checkpoint(run, 9, sealed=True)
    checkpoint(run, 10, sealed=True)
    checkpoint(run, 11, sealed=False)
    before = contents(run.path)
    assert run.resume(FILES) == 10
    assert contents(run.path) == before


def test_last_checkpoint_is_the_highest_sealed_step(run):
    assert run.last_checkpoint() is None
    checkpoint(run, 6, sealed=False)
    assert run.last_checkpoint() is None
    nine, ten = checkpoint(run, 9, sealed=True), checkpoint(run, 10, sealed=True)
    checkpoint(run, 100, sealed=False)
    assert run.last_checkpoint() == ten
    (ten / "complete").unlink()
    assert run.last_checkpoint() == nine


@pytest.mark.parametrize("sealed, taken", [(True, {4, 10}), (False, {10})])
def test_take_over_copies_the_newest_whole_checkpoint_and_the_best_one_if_whole(run, tmp_path, sealed, taken):
    checkpoint(run, 4, sealed, best=4)
    for step, whole in ((8, True), (10, True), (12, False)):
        checkpoint(run, step, whole, best=4)
    run.metrics.write_text('{"step": 0}\n')
    other = RunDirectory(tmp_path / "other")
    other.claim(FILES)
    assert other.take_over(run) == 10
    names = {f"checkpoint-{step}" for step in taken}
    assert {path.name for path in other.checkpoints.iterdir()} == names
    for name in names:
        assert contents(other.checkpoints / name) == contents(run.checkpoints / name)
    assert other.metrics.read_text() == run.metrics.read_text()


def test_nothing_is_taken_over_of_a_run_without_a_whole_checkpoint(run, tmp_path):
    checkpoint(run, 4, sealed=False)
    run.metrics.write_text('{"step": 0}\n')
    other = RunDirectory(tmp_path / "other")
    other.claim(FILES)
    before = contents(other.path)
    assert other.take_over(run) is None
    assert contents(other.path) == before


def test_discard_empty_removes_the_directory_and_the_parents_that_it_filled(tmp_path):
    kept = tmp_path / "runs"
    (kept / "other").mkdir(parents=True)
    directory = RunDirectory(kept / "2026-01-01" / "12-00-00-a")
    directory.path.mkdir(parents=True)
    directory.discard_empty()
    assert [path.name for path in kept.iterdir()] == ["other"]


def test_discard_empty_keeps_a_directory_that_holds_something(run):
    before = contents(run.path)
    run.discard_empty()
    assert contents(run.path) == before


def test_discard_empty_leaves_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for path in (".", tmp_path / "here", tmp_path):
        RunDirectory(path).discard_empty()
    assert (tmp_path / "here").is_dir()


def test_run_directory_holds_date_time_and_name_below_root(tmp_path):
    earliest = datetime.now().replace(microsecond=0)
    path = Path(rundir.run_directory(str(tmp_path), "my-run", None))
    stamp = datetime.strptime(f"{path.parent.name} {path.name}", "%Y-%m-%d %H-%M-%S-my-run")
    assert earliest <= stamp <= datetime.now()
    assert path.parent.parent == tmp_path / "runs"


def test_runs_begun_in_one_second_get_directories_of_their_own(tmp_path):
    paths = [rundir.run_directory(str(tmp_path), "a", None) for _ in range(5)]  # before any of them writes
    assert len(set(paths)) == 5
    assert any(path.endswith("-a-2") for path in paths)


def test_resumed_run_stays_in_its_directory(run):
    assert rundir.run_directory("multirun", "a", str(run)) == str(run)


@pytest.mark.parametrize("resume", ["nowhere", "", "/etc/hostname"])
def test_resumption_of_what_is_no_run_is_refused_before_a_directory_is_made(resume):
    with pytest.raises(RunDirectoryError, match="must name a run directory"):
        rundir.run_directory("multirun", "a", resume)


@pytest.mark.parametrize("label", ["../x", "a/b", "..", "", "x" * 65])
def test_no_label_leaves_the_root(label):
    with pytest.raises(ConfigError, match="`name`"):
        rundir.run_directory("multirun", label, None)
    with pytest.raises(ConfigError, match="`study`"):
        rundir.study_directory("multirun", label)


def test_trials_sort_by_number():
    assert rundir.study_directory("multirun", "lora") == "multirun/lora"
    assert [rundir.trial_name(number) for number in (7, 1234, 12345)] == ["trial-0007", "trial-1234", "trial-12345"]


def test_path_reads_as_the_user_would_type_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(RunDirectory(tmp_path / "multirun" / "a")) == "multirun/a"
    assert str(RunDirectory("/elsewhere/a")) == "/elsewhere/a"
