"""A trial in its own process: takes up its ticket, reports, learns whether it is pruned, and ends itself.

Any Hydra application's task function can ask for `current_trial()` to report to it and to be pruned:

    import optuna
    from medbot_exp.sweep.job import current_trial
    ...
    trial = current_trial()
    if trial is not None:
        trial.report(loss, step)
        if trial.should_prune():
            raise optuna.TrialPruned
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import TaskFunction
from omegaconf import DictConfig

from medbot_exp.errors import ConfigError, TrialPruned, disk_full, reason
from medbot_exp.sweep.constraints import Constraint, excesses
from medbot_exp.sweep.outcome import Outcome, correct_result
from medbot_exp.sweep.owner import Owner, beating
from medbot_exp.sweep.patience import patiently
from medbot_exp.sweep.study import BEAT, JOB, TICKET, UID, Place, Ticket, run_id, tell

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

log = logging.getLogger(__name__)


class TrialLost(Exception):
    """The study gave this trial up: it was declared dead, or its ticket went to another process."""


@dataclass
class RunningTrial:
    """The trial that this process runs.

    Attributes:
        directory: where it writes.
        predecessors: the directories of the trials that it tries again, the last one first.
        uid: tells its study from every other.
        constraints: the bounds on metrics that the command asked for.
        unmeasured: those of them whose metric the task function has yet to tell.
    """

    study: "Study"
    trial_id: int
    number: int
    directory: Path
    predecessors: tuple[Path, ...]
    uid: str
    constraints: Sequence[Constraint] = ()
    lost: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.unmeasured = set(map(str, self.constraints))

    @property
    def run_id(self) -> str:
        """The trial's id in W&B: the same however often it is told, another in every other study."""
        return run_id(self.uid, str(self.number))

    @property
    def study_name(self) -> str:
        """The study's name."""
        return self.study.study_name

    def report(self, value: float, step: int) -> None:
        """Tell the study the objective's value at `step`; arguments as in optuna.Trial.report.

        Raises:
            TrialLost: the study gave this trial up.
            ValueError: `step` is no whole number from 0 on.
        """
        if not isinstance(step, Integral) or step < 0:
            raise ValueError(f"`step` must be a whole number from 0 on, but got {step!r}; report(value, step)")
        self._write(lambda: self._storage.set_trial_intermediate_value(self.trial_id, int(step), float(value)))

    def should_prune(self) -> bool:
        """Whether the study wants the trial to end here.

        Raises:
            TrialLost: the study gave this trial up.
        """
        if self.lost.is_set():
            raise TrialLost(self._gone())
        trial = patiently(lambda: self._storage.get_trial(self.trial_id))
        return bool(trial.intermediate_values) and patiently(lambda: self.study.pruner.prune(self.study, trial))

    def set_constraint(self, key: str, value: float) -> None:
        """Note a constraint, which is met where `value` is at most zero; samplers and the best trial regard it."""
        self._write(lambda: self._storage.set_trial_system_attr(self.trial_id, f"constraints:{key}", float(value)))

    def measured(self, metrics: Mapping[str, Any]) -> None:
        """Tell the study which of `metrics` are beyond the bounds of hydra.sweeper.constraints, and how far."""
        found = excesses(self.constraints, metrics)
        for name, excess in found.items():
            self.set_constraint(name, excess)
        self.unmeasured -= found.keys()

    def set_user_attr(self, key: str, value: Any) -> None:
        """Note something about the trial that JSON can hold."""
        self._write(lambda: self._storage.set_trial_user_attr(self.trial_id, key, value))

    def end(self, outcome: Outcome) -> None:
        """Write `outcome` down and tell the study.

        Raises:
            TrialLost: the study gave this trial up.
        """
        outcome.write(self.directory)
        try:
            patiently(lambda: tell(self.study, self._storage.get_trial(self.trial_id), outcome))
        except Exception as error:
            told = patiently(lambda: self._storage.get_trial(self.trial_id))
            if not told.state.is_finished():
                raise
            # Where the storage took it and its answer got lost, it was told a second time.
            if told.state.name != outcome.trial_state() or (outcome.values and told.values != outcome.values):
                lost = Outcome("failed", reason=self._gone())
                lost.write(self.directory)
                correct_result(self.directory, lost)
                raise TrialLost(lost.reason) from error

    def beat(self, count: int) -> None:
        """Show other hosts that this process lives, and learn from them whether the trial was given up."""
        try:
            self._storage.set_trial_system_attr(self.trial_id, BEAT, count)
        except Exception as error:  # a database that is away comes back; what it lost, the next beat makes good
            self._notice(error)

    @property
    def _storage(self) -> Any:
        return self.study._storage

    def _notice(self, error: Exception) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError

        if isinstance(error, UpdateFinishedTrialError):
            self.lost.set()
        return self.lost.is_set()

    def _write(self, action: Callable[[], None]) -> None:
        try:
            patiently(action)
        except Exception as error:
            if self._notice(error):
                raise TrialLost(self._gone()) from error
            raise

    def _gone(self) -> str:
        return f"trial {self.number} of {self.study_name} was given up by its study: its result does not count"


_current: ContextVar[RunningTrial | None] = ContextVar("medbot_exp_trial", default=None)


def current_trial() -> RunningTrial | None:
    """The trial that the calling task function is run for; None outside of a study."""
    return _current.get()


class TrackedTask:
    """A Hydra task function that ends its trial itself: wherever a launcher takes it, a dead parent loses nothing."""

    def __init__(
        self,
        task_function: TaskFunction,
        place: Place,
        sampler: "BaseSampler",
        pruner: "BasePruner",
        objectives: int,
        constraints: Sequence[Constraint],
    ):
        self.task_function = task_function
        self.place, self.sampler, self.pruner = place, sampler, pruner
        self.objectives, self.constraints = objectives, constraints
        self.tickets: dict[int, Ticket] = {}

    def __call__(self, cfg: DictConfig) -> Any:
        import optuna

        settings = HydraConfig.get()
        ticket = self.tickets[settings.job.num]
        trial = self.claim(ticket, Path(settings.runtime.output_dir))
        token = _current.set(trial)
        try:
            with beating(trial.beat):
                outcome = Outcome("complete", self.values(self.task_function(cfg)))
                if trial.unmeasured:
                    raise ConfigError(
                        "`hydra.sweeper.constraints` must bound what the task function tells, but it told nothing of "
                        f"{', '.join(sorted(trial.unmeasured))}; current_trial().measured({{<metric>: <value>}}) tells"
                    )
        except TrialLost:
            raise
        except KeyboardInterrupt:
            # The controller closes it: the parameters are enqueued again, which takes the ledger.
            Outcome("stopped", reason="stopped by the user").write(trial.directory)
            raise
        except BaseException as error:
            if disk_full(error):
                # As above: it goes on once there is room.
                with suppress(OSError):
                    Outcome("stopped", reason=reason(error)).write(trial.directory)
                raise
            if isinstance(error, TrialPruned | optuna.TrialPruned):
                outcome = Outcome("pruned")
            else:
                trial.end(Outcome("failed", reason=reason(error)))
                raise
        finally:
            _current.reset(token)
        trial.end(outcome)
        return outcome.values if self.objectives > 1 or outcome.values is None else outcome.values[0]

    def claim(self, ticket: Ticket, directory: Path) -> RunningTrial:
        """Take up `ticket` for this process.

        Raises:
            TrialLost: another process has it.
        """
        study = patiently(lambda: self.place.load(self.sampler, self.pruner))
        storage: Any = study._storage
        find = storage.get_trial_id_from_study_id_trial_number
        trial_id = patiently(lambda: find(study._study_id, ticket.number))
        job = {"key": ticket.key, "owner": Owner.this().content(), "directory": str(directory.absolute())}

        def take() -> bool:
            with self.place.address.exclusive():
                trial = storage.get_trial(trial_id)
                held: Mapping[str, Any] = trial.system_attrs.get(TICKET, {})
                taken = trial.system_attrs.get(JOB, {}).get("key")
                # The same key in the job: this process took it, and the answer of the storage got lost.
                if trial.state.name != "RUNNING" or held.get("key") != ticket.key or taken not in (None, ticket.key):
                    return False
                if taken is not None and trial.system_attrs[JOB]["owner"] != job["owner"]:
                    return False
                # A job begins with a beat: others have watched its ticket for as long as it waited.
                storage.set_trial_system_attr(trial_id, BEAT, 0)
                storage.set_trial_system_attr(trial_id, JOB, job)
                return True

        if not patiently(take):
            raise TrialLost(f"trial {ticket.number} of {self.place.name} was given to another process")
        uid = patiently(lambda: storage.get_study_system_attrs(study._study_id))[UID]
        predecessors = tuple(map(Path, ticket.predecessors))
        return RunningTrial(study, trial_id, ticket.number, directory.absolute(), predecessors, uid, self.constraints)

    def values(self, returned: Any) -> list[float]:
        """The objectives' values that a task function returned.

        Raises:
            ValueError: it returned something else.
        """
        expected = "a number" if self.objectives == 1 else f"{self.objectives} numbers"
        try:
            values = [float(value) for value in (returned if self.objectives > 1 else [returned])]
        except (TypeError, ValueError) as error:
            raise ValueError(f"the task function must return {expected}, but returned {returned!r}") from error
        if len(values) != self.objectives or any(value != value for value in values):
            raise ValueError(f"the task function must return {expected}, but returned {returned!r}")
        return values
