"""A pruner that would prune nothing is told before the first trial."""

import optuna
import pytest
from hydra import compose, initialize_config_dir

from medbot_exp.config import conf_directory
from medbot_exp.sweep.pruning import warn_where_nothing_is_pruned

ACCURACY = (
    "MedianPruner will prune no trial, as eval/cases_development/accuracy is known only when a trial ends, and "
    "validation/loss and validation/perplexity while it trains; try objective=loss, or hydra/sweeper/pruner=none"
)
LAST_STEP = (
    "MedianPruner will prune no trial, as validation/loss is not measured before the last step with "
    "trainer.eval_steps=8 and trainer.max_steps=8; try trainer.eval_steps=2"
)


@pytest.fixture
def told(caplog):
    """told(pruner, *overrides, points=((),)): the warnings about a search by `pruner` with trials of `points`."""

    def warn(pruner, *overrides, points=((),)):
        with initialize_config_dir(str(conf_directory()), version_base="1.3"):
            base, *composed = (
                compose("config", ["model=tiny", *overrides, *more], return_hydra_config=True) for more in ((), *points)
            )
        warn_where_nothing_is_pruned(pruner, base, composed)
        return caplog.text

    return warn


@pytest.mark.parametrize("points", [[[]], []])
def test_an_objective_that_is_known_at_the_end_alone(told, points):
    assert ACCURACY in told(optuna.pruners.MedianPruner(), "objective=accuracy", points=points)


def test_no_evaluation_before_the_last_step(told):
    overrides = ("trainer.max_steps=8", "trainer.eval_steps=8")
    assert LAST_STEP in told(optuna.pruners.MedianPruner(), *overrides, points=[["lora.r=4"], ["lora.r=8"]])


@pytest.mark.parametrize(
    "pruner, overrides, points",
    [
        (optuna.pruners.NopPruner(), ["objective=accuracy"], [[]]),
        (optuna.pruners.NopPruner(), ["objective=loss_and_size"], [[]]),
        (optuna.pruners.MedianPruner(), ["objective.metric=validation/perplexity"], [[]]),
        (optuna.pruners.MedianPruner(), ["trainer.max_steps=8", "trainer.eval_steps=7"], [[]]),
        (optuna.pruners.MedianPruner(), ["trainer.max_steps=8"], [["trainer.eval_steps=8"], ["trainer.eval_steps=4"]]),
        # How many steps there are, only the rows tell.
        (optuna.pruners.MedianPruner(), ["trainer.max_steps=null", "trainer.epochs=1", "trainer.eval_steps=99"], [[]]),
        # What a custom search space makes of them, only it knows.
        (optuna.pruners.MedianPruner(), ["trainer.max_steps=8", "trainer.eval_steps=8"], []),
    ],
)
def test_a_search_that_can_prune_or_is_not_meant_to_is_told_nothing(told, pruner, overrides, points):
    assert told(pruner, *overrides, points=points) == ""


def test_a_search_says_it_before_its_first_trial(run_cli):
    search = ("-m", "hydra/sweeper=optuna", "model=tiny", "objective=accuracy", "lora.r=4,8", "tracking=none")
    missing = ("hydra.sweeper.storage=postgresql://nobody@127.0.0.1:9/nothing", "hydra/sweeper/pruner=median")
    finished = run_cli(*search, *missing)
    assert finished.status == 2 and ACCURACY in " ".join(finished.stderr.split())
