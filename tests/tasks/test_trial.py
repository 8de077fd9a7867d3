"""task=train as a trial of a study: what the study learns of it, however often it is tried again."""

import json
import shutil

import optuna
import pytest

from medbot_exp.errors import TrialPruned
from medbot_exp.rundir import HydraFiles, RunDirectory
from medbot_exp.sweep.constraints import read_constraints
from medbot_exp.sweep.job import RunningTrial
from medbot_exp.tasks import train

SMALL = (
    "model=tiny",
    "prompt=direct",
    "benchmark=[]",
    "tracking=none",
    "lora.r=4",
    "data.limit=40",
    "trainer.max_steps=6",
    "trainer.eval_steps=1",
    "trainer.checkpoint_steps=2",
    "trainer.checkpoint_limit=9",
    "trainer.eval_limit=2",
    "trainer.samples=0",
)


def study_of(pruner):
    return optuna.create_study(study_name="study", pruner=pruner)


@pytest.fixture
def run_trial(compose, tmp_path):
    """run_trial(name, study, *overrides, after=()): a trial in tmp_path/name that tries those in `after` again."""

    def run(name, study, *overrides, after=(), constraints=()):
        config = compose(*SMALL, *overrides)
        config.cache_dir = str(tmp_path / "cache")
        directory = RunDirectory(tmp_path / name)
        trial = None
        if study is not None:
            asked = study.ask()
            before = tuple(other.path for other in after)
            trial = RunningTrial(study, asked._trial_id, asked.number, directory.path, before, "uid", constraints)
        train.run(config, directory, HydraFiles("", "", "", "{}"), "study", trial)
        return directory

    return run


@pytest.fixture
def killed(run_trial):
    """killed(name, step, *overrides): a run as a kill leaves it that came before the checkpoint after `step`."""

    def leave(name, step, *overrides):
        directory = run_trial(name, None, *overrides)
        directory.result.unlink()
        shutil.rmtree(directory.adapter)
        for path in directory.checkpoints.iterdir():
            if int(path.name.rpartition("-")[2]) > step:
                shutil.rmtree(path)
        return directory

    return leave


def result_of(directory):
    return json.loads(directory.result.read_text())


def test_a_trial_that_is_tried_again_leaves_the_pruner_what_an_unbroken_one_does(run_trial, killed):
    def reported(*after):
        study = study_of(optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2))
        directory = run_trial("again" if after else "whole", study, after=after)
        return study.trials[0], result_of(directory)

    whole, _ = reported()
    assert sorted(whole.intermediate_values) == [1, 2, 3, 4, 5, 6]  # of step 0 nothing is told
    assert {key for key in whole.system_attrs if "rung" in key} == {
        "completed_rung_0",
        "completed_rung_1",
        "completed_rung_2",
    }
    again, result = reported(killed("killed", 4))
    assert result["resumed_from"] == 4
    assert again.intermediate_values == whole.intermediate_values
    assert again.system_attrs == whole.system_attrs


def test_values_that_are_told_again_are_those_of_the_objective(run_trial, killed):
    perplexity = ("objective.metric=validation/perplexity",)
    studies = [study_of(optuna.pruners.NopPruner()) for _ in range(2)]
    run_trial("whole", studies[0], *perplexity)
    run_trial("again", studies[1], *perplexity, after=[killed("killed", 4, *perplexity)])
    whole, again = (study.trials[0].intermediate_values for study in studies)
    assert min(whole.values()) > 100 and again == whole


# A rate that first helps and then harms, so that the best checkpoint is not the last.
EARLY_STOPPING = (
    "optimizer.lr=8.0",
    "optimizer.schedule=constant",
    "trainer.early_stopping_patience=9",
    "trainer.checkpoint_steps=1",
)


def checkpoints(directory):
    return sorted(int(path.name.rpartition("-")[2]) for path in directory.checkpoints.iterdir())


def weights(directory):
    return (directory.adapter / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("last", [6, 5])
def test_a_trial_that_is_tried_again_keeps_the_best_adapter_of_its_predecessor(run_trial, killed, tmp_path, last):
    """Killed while the trained model was measured, or at the last step but one."""
    study = study_of(optuna.pruners.NopPruner())
    whole = run_trial("whole", study, *EARLY_STOPPING)
    best = result_of(whole)["adapter_step"]
    assert 0 < best < 5
    # Moved: what its checkpoints call the best one is not where they say.
    before = RunDirectory(killed("killed", last, *EARLY_STOPPING).path.rename(tmp_path / "moved"))
    again = run_trial("again", study, *EARLY_STOPPING, "trainer.checkpoint_limit=1", after=[before])
    assert checkpoints(again) == [best, 6]
    assert (result_of(again)["resumed_from"], result_of(again)["adapter_step"]) == (last, best)
    assert weights(again) == weights(whole)
    assert result_of(again)["metrics"] == result_of(whole)["metrics"]


def test_a_pruned_trial_tells_the_bounds_that_are_known_by_then(run_trial):
    study = study_of(optuna.pruners.ThresholdPruner(upper=1.0))
    bounds = ["trainable_parameters<=8000", "peak_memory_gib<=500", "validation/loss<=1"]
    with pytest.raises(TrialPruned, match="after step 1"):
        run_trial("pruned", study, constraints=read_constraints(bounds, None))
    excess = study.trials[0].constraints
    assert set(excess) == set(bounds[:2])
    assert excess["trainable_parameters<=8000"] == 8192 - 8000 and excess["peak_memory_gib<=500"] < 0
