"""The controller of a search: asks for trials, starts them, closes what they leave open, until n_trials are done."""

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hydra.plugins.launcher import Launcher

from medbot_exp.errors import Interrupted, StorageError, TrialError, disk_full, first_line, reason
from medbot_exp.sweep import launch_submitit
from medbot_exp.sweep.child import DISK_FULL_STATUS
from medbot_exp.sweep.job import TrackedTask
from medbot_exp.sweep.launch_batches import Batches
from medbot_exp.sweep.launch_local import Ended, Pool, end_group, too_long
from medbot_exp.sweep.outcome import Outcome
from medbot_exp.sweep.owner import STALE_SECONDS, beating
from medbot_exp.sweep.search import Search
from medbot_exp.sweep.study import Settled, Ticket, counted, failed, reason_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

# How often the study is looked at: for the display, and for jobs that died elsewhere.
LOOK_SECONDS = 1.0


class Workers(Protocol):
    """What runs trials: the Pool of launch_local, launch_submitit or launch_ray, or launch_batches.Batches."""

    running: list[Any]

    def free(self) -> int:
        """How many more trials may start."""

    def start(self, number: int, overrides: Sequence[str]) -> None:
        """Start a trial."""

    def ended(self, wait_seconds: float) -> list[Ended]:
        """Those that ended."""

    def stop(self) -> list[Ended]:
        """End all."""


class Display(Protocol):
    """Shows a person how the search goes."""

    def look(self, trials: "list[FrozenTrial]", left: int) -> None:
        """The trials as they are now, and how many are still to come."""

    def settled(self, settled: Settled) -> None:
        """A trial was closed by the controller."""

    def end(self) -> None:
        """The search is over, however it ended."""


def run(search: Search, task: TrackedTask, workers: Workers, display: Display) -> None:
    """Run trials until the study has all that it is to have.

    Raises:
        TrialError: more trials failed than `max_failure_rate` lets.
        KeyboardInterrupt: the user stopped it; trials that were running are enqueued again.
    """
    controller = Controller(search, task, workers, display)
    try:
        with beating(controller.ledger.beat):
            controller.work()
    except KeyboardInterrupt as stop:
        controller.stop()
        raise Interrupted(f"To go on: {search.again()}") from stop
    except BaseException:
        controller.stop()
        raise
    finally:
        display.end()


class Controller:
    """One process that runs trials of a study."""

    def __init__(self, search: Search, task: TrackedTask, workers: Workers, display: Display):
        self.search, self.task, self.workers, self.display = search, task, workers, display
        self.ledger = search.ledger()
        self.error: BaseException | None = None  # of the last trial that raised one
        self.mine: set[int] = set()
        self.left_over = 0  # trials of dead controllers that still run on this host
        self.waited_for: set[int] = set()
        self.looked = -LOOK_SECONDS

    def work(self) -> None:
        """Until nothing is left to do, here or elsewhere."""
        if self.search.settings.retry_failed:
            self.tell(self.ledger.retry_failed())
        self.look()
        while True:
            started = self.start_all()
            if not self.workers.running or time.monotonic() - self.looked > LOOK_SECONDS:
                self.look()
            if not self.workers.running:
                # Others' trials are waited for: one whose process dies comes back here.
                states = {trial.number: trial.state.name for trial in self.ledger.trials()}
                others = [number for number, state in states.items() if state == "RUNNING"]
                if started and not others and "WAITING" not in states.values():
                    return
                self.say_waiting(others)
                time.sleep(LOOK_SECONDS)
            self.close_all(self.workers.ended(LOOK_SECONDS))

    def say_waiting(self, others: Sequence[int]) -> None:
        """Tell a person once which trials of other processes are waited for."""
        new = [number for number in others if number not in self.waited_for]
        if new:
            log.info(
                "waiting for trial %s of other processes; one that shows no sign of life for %.0f s is given up",
                ", ".join(map(str, new)),
                STALE_SECONDS,
            )
            self.waited_for.update(new)

    def start_all(self) -> bool:
        """Start trials while there is room, of which a dead controller's take up some; whether no other is to start."""
        while self.workers.free() > self.left_over:
            ticket = self.ledger.next()
            if ticket is None:
                return True
            self.start(ticket)
        return False

    def start(self, ticket: Ticket) -> None:
        """Start the trial of `ticket`."""
        self.mine.add(ticket.number)
        self.task.tickets = {**self.still_needed(), ticket.number: ticket}
        self.workers.start(ticket.number, ticket.overrides)

    def still_needed(self) -> dict[int, Ticket]:
        """The tickets of trials that a batch has yet to start."""
        return {number: ticket for number, ticket in self.task.tickets.items() if number in self.mine}

    def close_all(self, ended: Sequence[Ended]) -> None:
        """See to it that the study knows how trials ended.

        Raises:
            StorageError: for want of room; the parameters are enqueued again.
            TrialError: too many failed.
        """
        for each in ended:
            self.close(each, outcome_of(each))
        full = [each.number for each in ended if disk_was_full(each)]
        if full:
            raise StorageError(
                f"a trial must find room to write, but the disk was full in trial {', '.join(map(str, full))}\n"
                f"Free some space, then go on: {self.search.again()}"
            )
        if ended:
            self.refuse_failures(self.ledger.trials())
            self.looked = -LOOK_SECONDS  # is shown next, once others have started

    def close(self, ended: Ended, outcome: Outcome) -> None:
        """Close the trial whose process ended, by `outcome` where it left no result."""
        settled = self.ledger.ended(ended.number, outcome)
        self.mine.discard(ended.number)
        error = None if ended.returned is None else ended.returned._return_value
        self.error = error if isinstance(error, BaseException) else self.error
        self.tell([] if settled is None else [settled])

    def tell(self, settled: Sequence[Settled]) -> None:
        """Tell a person what was closed."""
        for each in settled:
            self.display.settled(each)

    def refuse_failures(self, trials: "list[FrozenTrial]") -> None:
        """Raise a TrialError where more of all the study's trials failed than may."""
        failures, allowed = failed(trials), self.search.settings.max_failure_rate * self.ledger.n_trials
        if len(failures) > allowed:
            raise TrialError(
                f"`hydra.sweeper.max_failure_rate` lets {allowed:g} of {self.ledger.n_trials} trials fail, but "
                f"{len(failures)} did: {told(failures)}\n"
                "Mend the cause and add hydra.sweeper.retry_failed=true, which has them again, or raise "
                "hydra.sweeper.max_failure_rate"
            ) from self.error

    def look_after_left(self) -> None:
        """Count what dead controllers left running here, and end what takes too long; this one's own its Pool ends."""
        allowed = self.search.settings.timeout_seconds
        if not isinstance(self.workers, Pool):
            return
        left = self.ledger.jobs(self.mine)
        self.left_over = len(left)
        for number, owner in left:
            seconds = owner.seconds()
            if allowed is not None and seconds is not None and seconds > allowed and end_group(owner.pid):
                settled = self.ledger.ended_for(owner, number, Outcome("failed", reason=too_long(seconds)))
                self.tell([] if settled is None else [settled])

    def look(self) -> None:
        """Close what died elsewhere, and show how things stand.

        Raises:
            TrialError: more trials failed than `max_failure_rate` lets.
        """
        self.look_after_left()
        self.tell(self.ledger.settle(self.mine))
        trials = self.ledger.trials()
        self.display.look(trials, self.ledger.n_trials - len(counted(trials)))
        self.looked = time.monotonic()
        self.refuse_failures(trials)

    def stop(self) -> None:
        """End the trials that run, keep what they did, and show how all ended."""
        try:
            for ended in self.workers.stop():
                self.close(ended, outcome_of(ended, asked=True))
        finally:
            self.look_last()

    def look_last(self) -> None:
        """Show how the trials ended, those among them whose end made the search give up."""
        try:
            # Asked once: a storage that failed was waited for already.
            trials = self.search.study.get_trials(deepcopy=False)
            self.display.look(trials, self.ledger.n_trials - len(counted(trials)))
        except Exception as error:  # the first one is to be told: this may well be of the same cause
            log.warning("how the last trials ended is not shown: %s: %s", type(error).__name__, first_line(error))


def outcome_of(ended: Ended, asked: bool = False) -> Outcome:
    """What to make of a process that left no result.

    Args:
        asked: it was asked to end.
    """
    if asked and not ended.timed_out:
        return Outcome("stopped", reason="stopped by the user")
    if ended.outcome is not None:
        return ended.outcome
    if disk_was_full(ended):
        return Outcome("stopped", reason="the disk was full")
    error = None if ended.returned is None else ended.returned._return_value
    if isinstance(error, BaseException):
        return Outcome("failed", reason=reason(error))
    if ended.killed():
        return Outcome("died", reason=ended.reason())
    return Outcome("failed", reason=ended.reason())


def disk_was_full(ended: Ended) -> bool:
    """Whether the process ended for want of room to write: that is no fault of its trial."""
    error = None if ended.returned is None else ended.returned._return_value
    return ended.status == DISK_FULL_STATUS or (isinstance(error, BaseException) and disk_full(error))


def told(failures: "Sequence[FrozenTrial]") -> str:
    """The failures of one reason together, the first line of it."""
    groups: dict[str, list[int]] = {}
    for trial in failures:
        groups.setdefault((reason_of(trial) or "no reason is known").partition("\n")[0], []).append(trial.number)
    return "; ".join(f"trial {', '.join(map(str, numbers))}: {text}" for text, numbers in groups.items())


def workers(search: Search, launcher: Launcher) -> Workers:
    """What runs the trials of `search` by `launcher`: the next starts when one ends, or a batch when all of one has."""
    settings = search.settings
    if hasattr(launcher, "pool"):
        pool: Workers = launcher.pool(settings.n_jobs, settings.timeout_seconds)
        return pool
    if settings.timeout_seconds is not None:
        log.warning(
            "hydra.sweeper.timeout_seconds is for hydra/launcher=local and ray; Submitit has hydra.launcher.timeout_min"
        )
    if launch_submitit.is_submitit(launcher):
        return launch_submitit.Pool(launcher, settings.n_jobs)
    return Batches(launcher, settings.n_jobs)
