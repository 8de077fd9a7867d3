"""The same objective in a plain Optuna script, set up as Optuna's documentation advises for crashes.

Several processes of this script share a study (Optuna's "Easy Parallelization"). RDBStorage gets a heartbeat with
RetryHeartbeatStaleTrialCallback, at the shortest interval that it takes; JournalStorage has no heartbeat. The study is
loaded where it exists, stale trials are failed before anything else, no trial begins where all are complete, and
MaxTrialsCallback ends the optimisation.

usage: bare.py sqlite|journal|<url> <n_trials> <nap>
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from optuna.trial import Trial, TrialState

from campaign import ledger, points

REPORTS = 3
HEARTBEAT_SECONDS, GRACE_SECONDS = 1, 2


def open_storage(name: str) -> BaseStorage:
    """The storage as the documentation sets it up."""
    if name == "journal":
        return JournalStorage(JournalFileBackend("study.log"))
    url = "sqlite:///study.db" if name == "sqlite" else name
    return RDBStorage(
        url,
        engine_kwargs={"connect_args": {"timeout": 60}} if name == "sqlite" else {"pool_pre_ping": True},
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=GRACE_SECONDS,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
    )


def main() -> None:
    points.install("controller")
    name, n_trials, nap = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])

    def objective(trial: Trial) -> float:
        x = trial.suggest_float("x", -5, 5)
        directory = Path("trials", str(trial.number)).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        ledger.note("begin", number=trial.number, directory=str(directory))
        for step in range(REPORTS):
            time.sleep(nap / REPORTS)
            ledger.note("report", number=trial.number, step=step)
            trial.report(x, step)
            trial.should_prune()
        ledger.note("end", number=trial.number, value=x**2)
        return x**2

    study = optuna.create_study(study_name="study", storage=open_storage(name), load_if_exists=True)
    optuna.storages.fail_stale_trials(study)
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < n_trials:
        study.optimize(objective, callbacks=[MaxTrialsCallback(n_trials, states=(TrialState.COMPLETE,))])


if __name__ == "__main__":
    main()
