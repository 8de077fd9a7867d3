"""Whether the pruner of a search of our own application will ever have something to go by."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from medbot_exp.objectives import REPORTED
from medbot_exp.rules import typed
from medbot_exp.sweep.grid import without_hydra

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

log = logging.getLogger(__name__)


def warn_where_nothing_is_pruned(pruner: "BasePruner", base: DictConfig, points: Sequence[DictConfig]) -> None:
    """Say so where `pruner` will prune no trial, and what to change.

    Args:
        base: what the fixed overrides compose to.
        points: composed configs of trials; none where that is known only to a custom search space.
    """
    from optuna.pruners import NopPruner

    if isinstance(pruner, NopPruner):
        return
    name = type(pruner).__name__
    (metric,) = typed(without_hydra(base)).objective.goals()  # where there are several, the pruner was refused
    if metric not in REPORTED:
        log.warning(
            "hydra.sweeper.pruner: %s will prune no trial, as %s is known only when a trial ends, and %s while it "
            "trains; try objective=loss, or hydra/sweeper/pruner=none",
            name,
            metric,
            " and ".join(REPORTED),
        )
        return
    lengths = [(point.trainer.max_steps, point.trainer.eval_steps) for point in points]
    if lengths and all(max_steps is not None and eval_steps >= max_steps for max_steps, eval_steps in lengths):
        max_steps, eval_steps = max(lengths)
        log.warning(
            "hydra.sweeper.pruner: %s will prune no trial, as %s is not measured before the last step with "
            "trainer.eval_steps=%d and trainer.max_steps=%d; try trainer.eval_steps=%d, or hydra/sweeper/pruner=none",
            name,
            metric,
            eval_steps,
            max_steps,
            max(1, max_steps // 4),
        )
