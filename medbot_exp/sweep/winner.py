"""The best trial of a search or a grid, put to the test that nothing was chosen by: once, in a process of its own."""

import json
import logging
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from medbot_exp.config import ObjectiveConfig
from medbot_exp.objectives import DEVELOPMENT
from medbot_exp.rundir import HydraFiles, RunDirectory, others_evaluated

log = logging.getLogger(__name__)

# What of the trial's command an evaluation of it takes.
TAKEN_OVER = ("tracking", "cache_dir=")


def test_facts(winner: RunDirectory) -> dict[str, str]:
    """What the model of `winner` makes of the tests whose development parts it was chosen by, a line for each.

    Empty where it was chosen by something else, or the test was not to be had. A study that went on has had other
    winners: the line says of how many the test was read.
    """
    files = HydraFiles.read(winner)
    metrics = tests_of(files)
    if not metrics:
        return {}
    words = evaluation_of(winner, files)
    earlier = {metric: others_evaluated(winner, metric) for metric in metrics}
    if not any(earlier.values()):  # else the evaluation says for which
        log.info("the test is read once, for %s", winner)
    done = subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL)
    if done.returncode:
        command = shlex.join(["python", *words])
        log.warning("the test of the best trial ended with status %d; to try again: %s", done.returncode, command)
        return {}
    return {
        f"test on {metric}": told(
            metric, json.loads(winner.evaluation(metric).read_text(encoding="utf-8")), len(earlier[metric])
        )
        for metric in metrics
    }


def front_facts(front: Sequence[RunDirectory]) -> dict[str, str]:
    """The line that says how the test is read once of several objectives, none of whose best trials is the winner.

    Empty where they were chosen by something else.

    Args:
        front: the best trials.
    """
    files = HydraFiles.read(front[0])
    metrics = tests_of(files)
    if not metrics:
        return {}
    command = shlex.join(["python", *evaluation_of(front[0], files)])
    return {
        f"test on {' and '.join(metrics)}": "not read, as of several objectives no trial is the winner; choose one of "
        f"the {len(front)} best, and read it once: {command}"
    }


def tests_of(files: HydraFiles) -> list[str]:
    """The tests whose development parts the run of `files` was chosen by, sorted."""
    goals = ObjectiveConfig(**yaml.safe_load(files.resolved)["objective"]).goals()
    return sorted({metric.split("/")[1].removesuffix(DEVELOPMENT) for metric in goals if f"{DEVELOPMENT}/" in metric})


def evaluation_of(run: RunDirectory, files: HydraFiles) -> list[str]:
    """The words behind `python` that read the tests of `run`, whose command is in `files`."""
    own = [word for word in files.task_overrides() if word.startswith(TAKEN_OVER)]
    return ["-m", "medbot_exp", "task=evaluate", run.override("task.run"), *own]


def told(metric: str, evaluation: dict[str, Any], others: int) -> str:
    """The accuracy in `evaluation`, with its interval, beside that of the base model.

    Args:
        others: trials of its study that the test was read for as well.
    """
    tuned, base = evaluation["tuned"], evaluation["base"]
    accuracy, low, high, count = (
        tuned[f"eval/{metric}/{key}"] for key in ("accuracy", "accuracy_low", "accuracy_high", "n")
    )
    again = f"; the test was read for {others + 1} trials of this study" if others else ""
    return (
        f"{accuracy:.1%} ({low:.1%} to {high:.1%}) of {int(count)} items that no trial was chosen by, "
        f"{base[f'eval/{metric}/accuracy']:.1%} by the base{again}"
    )
