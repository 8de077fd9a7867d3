"""A grid as a user meets it: looked at as a whole, run to its end, told in one table."""

import json
from contextlib import nullcontext

import pytest
import torch
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from medbot_exp.errors import ConfigError, DataError, RunDirectoryError, TrialError
from medbot_exp.sweep.grid import claim, raise_failures, refuse_machine

QUICK = (
    "model=tiny",
    "tracking=none",
    "trainer.max_steps=1",
    "trainer.eval_limit=2",
    "trainer.samples=0",
    "benchmark=[]",
)
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")  # of a token in tokenizer.json


def test_grid_runs_every_point_in_its_own_directory_and_ends_in_a_table(run_cli, tmp_path):
    finished = run_cli("lora.r=2,4", *QUICK, "-m", "study=grid")
    assert finished.status == 0, finished.stderr
    results = [json.loads((tmp_path / f"multirun/grid/trial-000{n}/result.json").read_text()) for n in (0, 1)]
    assert results[1]["trainable_parameters"] == 2 * results[0]["trainable_parameters"]
    assert "study  multirun/grid (2 of 2 trials begun)" in finished.stdout
    assert "by validation/loss" in finished.stdout


def test_failed_trial_is_told_once_recorded_and_passed_over(run_cli, tmp_path):
    finished = run_cli("-m", *QUICK, "prompt.shots=500,0", "study=grid")
    assert finished.status == 2, finished.stderr
    assert finished.stderr.count("prompt.shots=500 of 135 rows") == 1
    assert "multirun/grid/trial-0000: DataError" in finished.stderr
    assert "TrialError" in finished.stderr and "1 of 2 failed" in finished.stderr
    assert "Traceback" not in finished.stderr and "Error executing job" not in finished.stderr
    statuses = [json.loads((tmp_path / f"multirun/grid/trial-000{n}/result.json").read_text()) for n in (0, 1)]
    assert [result["status"] for result in statuses] == ["failed", "complete"]
    assert "trial-0000 failed: `prompt.shots` must leave rows" in finished.stdout


def test_study_that_holds_trials_is_left_alone(run_cli, tmp_path):
    (tmp_path / "multirun" / "grid" / "trial-0000").mkdir(parents=True)
    finished = run_cli("-m", *QUICK, "lora.r=2,4", "study=grid")
    assert finished.status == 2
    assert "multirun/grid exists; choose another name: study=<name>" in finished.stderr
    assert [path.name for path in (tmp_path / "multirun" / "grid").iterdir()] == ["trial-0000"]


def test_study_is_claimed_by_one_grid_alone(tmp_path):
    claim(tmp_path / "grid", OmegaConf.create({"study": "grid"}))
    assert (tmp_path / "grid" / "multirun.yaml").read_text() == "study: grid\n"
    with pytest.raises(RunDirectoryError):
        claim(tmp_path / "grid", OmegaConf.create({"study": "other"}))
    assert (tmp_path / "grid" / "multirun.yaml").read_text() == "study: grid\n"


def test_points_are_looked_at_before_any_of_them_runs(run_cli, tmp_path):
    targets = "lora.target_modules=[q_proj],[nowhere],all-linear"
    finished = run_cli("-m", *QUICK, "data.path=null,none.csv", "lora.r=2,0", targets, "study=grid")
    assert finished.status == 2 and finished.stderr.count("it has no nowhere") == 1
    assert finished.stderr.count("lora.r=0") == 1 and finished.stderr.count("none at none.csv") == 1
    assert not (tmp_path / "multirun").exists()


def test_what_trials_lack_of_this_machine_is_told_before_any_of_them_runs(run_cli, tmp_path):
    save_model(tmp_path / "model")
    words = ("model=directory", "model.path=model", "optimizer=adamw,adamw_8bit", "trainer.precision=auto,fp16")
    finished = run_cli("-m", *QUICK[1:], *words, "study=grid", env={"CUDA_VISIBLE_DEVICES": ""})
    assert finished.status == 2
    told = ("optimizer.name=adamw_8bit needs a CUDA GPU", "trainer.precision=fp16 needs a CUDA GPU", "must pad with")
    assert [finished.stderr.count(words) for words in told] == [1, 1, 1], finished.stderr
    assert not (tmp_path / "multirun").exists()


def save_model(directory):
    """A model's directory, as far as it is looked at before a run: the end token is its only special one, and pads."""
    tokenizer = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"<end>": 0, "yes": 1}, "unk_token": "yes"}}
    tokenizer["added_tokens"] = [{"id": 0, "content": "<end>", "special": True} | dict.fromkeys(FLAGS, False)]
    directory.mkdir()
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    (directory / "tokenizer_config.json").write_text('{"eos_token": "<end>", "pad_token": "<end>"}')
    (directory / "config.json").write_text('{"vocab_size": 300}')
    (directory / "model.safetensors").touch()


@pytest.mark.parametrize("here", [True, False])
def test_another_machine_may_have_the_gpu(compose, here):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="needs a CUDA GPU, but there is none") if here else nullcontext():
        refuse_machine(compose("model=tiny", "trainer.precision=fp16"), here)


@pytest.mark.slow
def test_batches_of_hydras_own_key_are_run_one_after_another(run_cli, tmp_path):
    finished = run_cli("-m", *QUICK, "lora.r=2,3", "study=grid", "hydra.sweeper.max_batch_size=1")
    assert finished.status == 0, finished.stderr
    assert finished.stderr.count("Launching 1 jobs") == 2
    trials = sorted(path.name for path in (tmp_path / "multirun" / "grid").glob("trial-*"))
    assert trials == ["trial-0000", "trial-0001"]


def ended(error=None):
    """What Hydra hands back for a trial that raised `error`, or went well."""
    result = JobReturn(overrides=["lora.r=2"])
    result.status = JobStatus.COMPLETED if error is None else JobStatus.FAILED
    result.return_value = 1.0 if error is None else error
    return result


def test_failures_that_the_user_can_mend_become_one_error(tmp_path):
    raise_failures(tmp_path, [ended(), ended()])
    with pytest.raises(TrialError, match="2 of 3 failed"):
        raise_failures(tmp_path, [ended(DataError("a")), ended(), ended(DataError("b"))])


def test_fault_of_ours_in_a_trial_keeps_its_traceback(tmp_path):
    fault = ZeroDivisionError("ours")
    with pytest.raises(ZeroDivisionError) as caught:
        raise_failures(tmp_path, [ended(DataError("a")), ended(fault)])
    assert caught.value is fault
