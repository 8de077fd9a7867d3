"""Random kills of real training: `+sweep=lora_quick model=tiny`, a checkpoint every other step, W&B offline."""

import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from campaign.case import Case, Verdict
from campaign.contestants import Contestant, Ours, Setup
from campaign.judge import Row, Violation
from campaign.ledger import Event
from campaign.options import Job, Options, Skipped
from medbot_exp.rundir import RunDirectory, step_of, trial_name
from medbot_exp.sweep.outcome import read_outcome

KILLS = 30
KILLS_PER_STUDY = 10


class Tiny(Ours):
    """This package's own application; its records in the directories of trials are the ledger."""

    key, name = "tiny", "medbot_exp, model=tiny"

    def command(self, setup: Setup, folder: Path) -> list[str]:
        words = [sys.executable, "-m", "medbot_exp", "-m", "+sweep=lora_quick", "model=tiny", "benchmark=[]"]
        return [
            *words,
            "tracking=wandb",
            "tracking.mode=offline",
            "root=.",
            "study=study",
            "trainer.max_steps=20",
            "trainer.checkpoint_steps=2",
            "trainer.eval_steps=10",
            "trainer.batch_size=1",
            "hydra.sweeper.pruner.min_resource=20",  # none is pruned: each planned trial is to be complete
            f"hydra.sweeper.n_trials={setup.trials}",
            f"hydra.sweeper.n_jobs={setup.jobs}",
            "hydra.sweeper.max_retry=1000",
        ]

    def events(self, folder: Path) -> list[Event]:
        """What the records of trials say: a run of W&B for each process that wrote, an end for each result."""
        found = []
        for path in sorted((folder / "study").glob("trial-*")):
            about = {"number": number_of(path), "directory": str(path)}
            for run in path.glob("wandb/offline-run-*"):
                found.append(Event("begin", 0.0, 0, {**about, "run_id": run.name.rpartition("-")[2]}))
        return found + [Event("end", 0.0, 0, {"number": n, "value": v}) for n, v in self.results(folder).items()]

    def results(self, folder: Path) -> dict[int, float]:
        # A kill between result.json and trial.json leaves the first, which is as good.
        outcomes = {number_of(path): read_outcome(path) for path in (folder / "study").glob("trial-*")}
        return {number: found.values[0] for number, found in outcomes.items() if found is not None and found.values}

    def report_faults(self, folder: Path, rows: Sequence[Row]) -> list[Violation]:
        """Also where a trial did not go on from the last checkpoint of those that it tries again."""
        found = super().report_faults(folder, rows)
        for row in rows:
            result = RunDirectory(folder / "study" / trial_name(row.number)).result
            if row.state != "COMPLETE" or not result.is_file():
                continue
            expected, resumed = checkpoint_before(folder, rows, row), json.loads(result.read_text())["resumed_from"]
            if resumed != expected:
                text = f"trial {row.number} went on from step {resumed}, the last checkpoint is of step {expected}"
                found.append(Violation("work lost", text))
        return found


def number_of(path: Path) -> int:
    """The trial whose directory this is."""
    return int(path.name.rpartition("-")[2])


def checkpoint_before(folder: Path, rows: Sequence[Row], row: Row) -> int | None:
    """The step of the last checkpoint of the trials that `row` tries again."""
    while row.retry_of is not None:
        row = rows[row.retry_of]
        checkpoint = RunDirectory(folder / "study" / trial_name(row.number)).last_checkpoint()
        if checkpoint is not None:
            return step_of(checkpoint)
    return None


def training(contestant: Contestant, options: Options, killed: Callable[[], int]) -> Iterator[Job]:
    """Studies of two trials at once, until there were KILLS kills."""
    if contestant.key != "ours":
        raise Skipped("it has no training of its own")
    for seed in range(options.seed, options.seed + KILLS):
        if killed() >= min(KILLS, options.kills):
            return
        yield partial(storm, seed=seed, cache=options.scratch / "cache")


def storm(folder: Path, seed: int, cache: Path) -> Verdict:
    """One study under random kills."""
    rng = random.Random(seed)
    environment = {"MEDBOT_EXP_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    case = Case(f"tiny: --only tiny --seed {seed}", Tiny(), Setup(trials=2), folder, environment)
    case.start()
    for _ in range(KILLS_PER_STUDY):
        if case.wait(rng.uniform(0.5, 20.0)):
            break
        case.kill(rng.choice(("controller", "trial", "both")))
        case.start()
    case.finish()
    return case.verdict()
