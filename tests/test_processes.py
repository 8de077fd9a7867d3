"""Several processes are one run to whoever looks: one directory, one voice; what does not go with them is told."""

import json
import os
import threading
import time

import pytest
from torch.distributed import HashStore

from medbot_exp.errors import ConfigError, ModelError, ToldElsewhere
from medbot_exp.processes import ALONE, Processes, forget_place, launched, refuse, share_of
from medbot_exp.rundir import RunDirectory
from medbot_exp.whole_files import read_jsonl

SMALL = (
    "model=tiny",
    "prompt=direct",
    "lora.r=4",
    "data.limit=40",
    "benchmark=[]",
    "trainer.max_steps=4",
    "trainer.eval_steps=2",
    "trainer.eval_limit=2",
    "trainer.samples=1",
    "trainer.sample_answer_tokens=3",
)
LAUNCHED = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}
TWO = Processes(rank=0, count=2)
# Runs the command; where a third step begins, process 1, or both, do what FAIL says.
FAILING = """
import os
import time
from medbot_exp.training import solo

step = solo.Trainer.training_step

def failing(self, *arguments, **keywords):
    how = os.environ["FAIL"]
    if self.state.global_step == 2 and how == "both":
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB.")
    if self.state.global_step == 2 and os.environ["RANK"] == "1":
        if how == "kill":
            os.kill(os.getpid(), 9)
        raise MemoryError("this one alone")
    if self.state.global_step == 2 and how == "before":
        time.sleep(1)
        raise RuntimeError("another, while process 1 waits for it to be told")
    return step(self, *arguments, **keywords)

solo.Trainer.training_step = failing
from medbot_exp.cli import entrypoint

entrypoint()
"""


@pytest.mark.parametrize(
    "batch_size, accumulated, count, share",
    [
        (2, 4, 1, (2, 4)),
        (2, 4, 2, (2, 2)),
        (2, 4, 4, (2, 1)),
        (2, 4, 8, (1, 1)),
        (2, 3, 2, (1, 3)),
        (6, 1, 2, (3, 1)),
        (4, 3, 2, (3, 2)),
        (8, 1, 8, (1, 1)),
    ],
)
def test_processes_share_the_rows_of_a_step(compose, batch_size, accumulated, count, share):
    trainer = compose(f"trainer.batch_size={batch_size}", f"trainer.gradient_accumulation_steps={accumulated}").trainer
    own = share_of(trainer, count)
    assert (own.batch_size, own.gradient_accumulation_steps) == share
    assert own.batch_size * own.gradient_accumulation_steps * count == batch_size * accumulated


@pytest.mark.parametrize(
    "overrides, processes, words",
    [
        (["trainer.batch_size=3"], TWO, ["trainer.batch_size=3", "make 3", "gradient_accumulation_steps=2"]),
        (["backend=unsloth"], TWO, ["backend=unsloth trains in one process", "use backend=peft"]),
        (["trainer.sharding=full"], ALONE, ["trainer.sharding=full", "torchrun --nproc-per-node", "medbot_exp, or"]),
        (["trainer.sharding=full", "backend=unsloth"], ALONE, ["-m medbot_exp and backend=peft, or use"]),
        (
            ["trainer.sharding=full", "model=deepseek_r1_llama_8b", "model.quantization=nf4"],
            TWO,
            ["model.quantization=nf4", "use model.quantization=none"],
        ),
        (["backend=unsloth", "trainer.batch_size=1"], TWO, ["make 1", "backend=unsloth"]),
    ],
)
def test_what_does_not_go_with_so_many_processes_is_refused_by_name(compose, overrides, processes, words):
    with pytest.raises(ConfigError) as caught:
        refuse(compose(*overrides), processes)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    "name, value, remedy",
    [
        ("ACCELERATE_USE_FSDP", "true", "trainer.sharding=full"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "trainer.sharding=full"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "--mixed_precision no"),
    ],
)
def test_what_accelerate_would_decide_is_refused(compose, monkeypatch, name, value, remedy):
    refuse(compose(), TWO)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"accelerate has set {name}={value}; launch with .*{remedy}"):
        refuse(compose(), TWO)


@pytest.mark.parametrize("missing", [None, *LAUNCHED])
def test_process_is_one_of_several_where_its_launcher_says_all_of_it(monkeypatch, missing):
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    if missing is None:
        assert launched() == Processes(rank=1, count=2, local_rank=1)
    else:
        monkeypatch.delenv(missing)
        assert launched() == ALONE


def test_place_is_forgotten_and_nothing_else(monkeypatch):
    environment = LAUNCHED | {"HOME": "kept"}
    forget_place(environment)
    assert set(environment) == {"MASTER_ADDR", "MASTER_PORT", "HOME"}


@pytest.mark.slow
def test_trial_of_a_local_launcher_is_no_part_of_what_its_controller_was_started_as(run_cli, tmp_path):
    """Trainers of transformers wait for others where a scheduler has left its WORLD_SIZE."""
    place = {name: LAUNCHED[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    words = ("-m", *SMALL, "tracking=none", "study=one", "hydra/launcher=local", "hydra/sweeper=optuna")
    finished = run_cli(*words, "lora.r=choice(4)", "hydra.sweeper.n_trials=1", env=place)
    assert finished.status == 0, finished.stderr
    assert json.loads((tmp_path / "multirun/one/trial-0000/manifest.json").read_text())["processes"] == 1


def test_two_processes_are_one_run_to_whoever_looks(torchrun, tmp_path):
    finished = torchrun(tmp_path, "-m", "medbot_exp", *SMALL, "name=both", env={"WANDB_MODE": "offline"})
    assert finished.status == 0, finished.stderr
    (path,) = tmp_path.glob("multirun/runs/*/*")
    directory = RunDirectory(path)
    assert directory.status() == "complete" and json.loads(directory.manifest.read_text())["processes"] == 2
    assert len(list(path.glob("wandb/offline-run-*"))) == 1
    assert {name for name in os.listdir(tmp_path) if not name.startswith(".")} == {"multirun", "cache"}
    assert finished.stdout.count("held-out loss (nats/token)") == 1
    for line in (
        "2 processes, each with 1 row of a step",
        "measuring the trained model",
        "step 4/4: loss",
    ):
        assert finished.stderr.count(line) == 1
    assert "2 processes, each with 1 row of a step" in directory.log.read_text()


@pytest.mark.parametrize(
    "words, told",
    [
        (["-m", "lora.r=2,4"], "a sweep must be started by one process"),
        pytest.param(["task=plan", "model=tiny"], "a plan must be made by one process", marks=pytest.mark.slow),
        (["lora.dropuot=0.1"], "`lora.dropuot` is no key"),
        (["trainer.batch_size=3", "model=tiny", "tracking=none"], "trainer.batch_size=3"),
        pytest.param(
            ["data=file", "data.path=none.json", "tracking=none"],
            "`data.path` must name a file",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_error_of_all_is_told_once_and_leaves_nothing(torchrun, tmp_path, words, told):
    finished = torchrun(tmp_path, "-m", "medbot_exp", *words)
    assert finished.status != 0 and finished.stdout == ""
    assert finished.stderr.count("medbot_exp: ConfigError") + finished.stderr.count("medbot_exp: DataError") == 1
    assert finished.stderr.count(told) == 1
    assert not (tmp_path / "multirun").exists()


@pytest.mark.parametrize(
    "how, block, recorded",
    [
        ("one", "OutOfMemoryError", "process 1 of 2 had: the run must fit into memory, but: this one alone"),
        pytest.param(
            "before",
            "ProcessError",
            "process 1 of 2 had: the run must fit into memory, but: this one alone",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "both", "OutOfMemoryError", "the run must fit into memory, but: CUDA out of memory", marks=pytest.mark.slow
        ),
        pytest.param("kill", "ProcessError", "one ended without a word", marks=pytest.mark.slow),
    ],
)
def test_error_in_a_step_is_told_once_and_recorded(torchrun, tmp_path, how, block, recorded):
    (tmp_path / "failing.py").write_text(FAILING)
    words = ("failing.py", *SMALL, "tracking=none", "hydra.run.dir=run")
    finished = torchrun(tmp_path, *words, env={"FAIL": how})
    assert finished.status != 0
    assert finished.stderr.count("medbot_exp: ") == finished.stderr.count(f"medbot_exp: {block}") == 1
    result = json.loads(RunDirectory(tmp_path / "run").result.read_text())
    assert result["status"] == "failed" and recorded in result["error"]


@pytest.mark.slow
def test_stop_ends_both_behind_the_same_step_with_a_checkpoint(start_torchrun, torchrun, tmp_path):
    words = ("-m", "medbot_exp", *SMALL, "tracking=none", "trainer.max_steps=300")
    process = start_torchrun(tmp_path, *words, "hydra.run.dir=run")
    directory = RunDirectory(tmp_path / "run")
    while not any("train/loss" in line for line in read_jsonl(directory.metrics)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert error.count("medbot_exp: stopped") == 1
    assert "To go on: torchrun --nproc-per-node 2 -m medbot_exp model=tiny" in error
    assert directory.status() is None and directory.last_checkpoint() is not None
    finished = torchrun(tmp_path, *words, "trainer.resume=run")
    assert finished.status == 0, finished.stderr
    assert directory.status() == "complete"
    logged = [line["step"] for line in read_jsonl(directory.metrics) if "train/loss" in line]
    assert logged == list(range(1, 301))


def test_stop_that_reached_another_process_first_is_told_as_a_stop():
    store = HashStore()
    with pytest.raises(KeyboardInterrupt), Processes(1, count=2, local_rank=1, store=store).one_voice():
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), Processes(0, count=2, store=store).one_voice():
        raise RuntimeError("gloo: Connection closed by peer")


@pytest.mark.parametrize("failing", [(1, 2), (0, 1), (0, 1, 2), (2,)])
def test_one_process_alone_tells_of_an_error_that_several_have(failing, monkeypatch):
    monkeypatch.setattr("medbot_exp.processes.TELL_SECONDS", 0.3)
    store, ended = HashStore(), {}

    def process(rank):
        together = Processes(rank, count=3, local_rank=rank, store=store)
        try:
            with together.one_voice(), together.one_voice():  # a run's own, and that of all processes
                if rank in failing:
                    raise ModelError("the same")
                while not any(other in ended for other in failing):
                    time.sleep(0.01)
                raise RuntimeError("gloo: Connection closed by peer")
        except Exception as error:
            ended[rank] = error

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    told = [error for error in ended.values() if not isinstance(error, ToldElsewhere)]
    assert len(ended) == 3 and len(told) == 1 and "the same" in str(told[0])
