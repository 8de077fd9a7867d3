"""A Hydra application whose trials take 50 ms and write down all that they mean to do and did.

Run by the campaign; by hand:  python tests/benchmarks/campaign/toy.py -m hydra/sweeper=optuna hydra/launcher=local
hydra.sweep.dir=study '+x=interval(-5,5)' +nap=0.05
"""

import os
import sys
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

# Processes of trials load this file as multiprocessing does, without the directory that it lies in.
sys.path.insert(0, str(Path(__file__).parents[1]))

from campaign import ledger, points

REPORTS = 3

# Here, so that it comes into the controller and into each trial before either does anything.
points.install("trial" if __name__ == "__mp_main__" else "controller")


@hydra.main(version_base=None, config_path=None, config_name=None)
def task(cfg: DictConfig) -> float:
    from medbot_exp.sweep.job import current_trial

    trial = current_trial()
    assert trial is not None
    ledger.note("begin", number=trial.number, directory=str(trial.directory), run_id=trial.run_id)
    for step in range(REPORTS):
        time.sleep(cfg.nap / REPORTS)
        ledger.note("report", number=trial.number, step=step)
        trial.report(cfg.x, step)
        trial.should_prune()
    value = float(cfg.x) ** 2
    ledger.note("end", number=trial.number, value=value)
    return value


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    task()
