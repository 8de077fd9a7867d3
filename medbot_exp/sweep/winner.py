"""The best trial of a search or a grid, put to the test that nothing was chosen by: once, in a process of its own."""

import json
import logging
import shlex
import subprocess
import sys
from typing import Any

import yaml

from medbot_exp.config import ObjectiveConfig
from medbot_exp.rules import DEVELOPMENT
from medbot_exp.rundir import HydraFiles, RunDirectory

log = logging.getLogger(__name__)

# What of the trial's command an evaluation of it takes.
TAKEN_OVER = ("tracking", "cache_dir=")


def test_facts(winner: RunDirectory) -> dict[str, str]:
    """What the model of `winner` makes of the tests whose development parts it was chosen by, a line for each.

    None where it was chosen by something else.
    """
    files = HydraFiles.read(winner)
    config = yaml.safe_load(files.resolved)
    goals = ObjectiveConfig(**config["objective"]).goals()
    chosen_by = {metric.split("/")[1] for metric in goals if f"{DEVELOPMENT}/" in metric}
    if not chosen_by:
        return {}
    own = [word for word in files.task_overrides() if word.startswith(TAKEN_OVER)]
    words = ["-m", "medbot_exp", "task=evaluate", f"task.run={winner}", *own]
    log.info("the test is read once, for %s", winner)
    done = subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL)
    if done.returncode:
        command = shlex.join(["python", *words])
        log.warning("the test of the best trial ended with status %d; to try again: %s", done.returncode, command)
        return {}
    found = {metric: winner.evaluation(metric) for metric in (name.removesuffix(DEVELOPMENT) for name in chosen_by)}
    return {
        f"test on {metric}": told(metric, json.loads(path.read_text(encoding="utf-8")))
        for metric, path in sorted(found.items())
    }


def told(metric: str, evaluation: dict[str, Any]) -> str:
    """The accuracy in `evaluation`, with its interval, beside that of the base model."""
    tuned, base = evaluation["tuned"], evaluation["base"]
    accuracy, low, high, count = (
        tuned[f"eval/{metric}/{key}"] for key in ("accuracy", "accuracy_low", "accuracy_high", "n")
    )
    return (
        f"{accuracy:.1%} ({low:.1%} to {high:.1%}) of {int(count)} items that no trial was chosen by, "
        f"{base[f'eval/{metric}/accuracy']:.1%} by the base"
    )
