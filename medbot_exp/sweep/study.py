"""The study as a ledger: which trial is whose, which ones count, and what a crash left open.

Beside what Optuna keeps, a trial has three notes: the `ticket` that a controller wrote when it asked for the trial,
the `job` that a process wrote when it took the ticket up, and the `end`, where the trial failed. A ticket without a
living holder and without a job is given out again under the same number: nothing of it began. A trial whose job died
is failed, and then its parameters are enqueued under a new number, up to `max_retry` times: whoever wakes up late
finds its own trial failed and its own directory to itself.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from medbot_exp.errors import ConfigError
from medbot_exp.sweep.outcome import Outcome, correct_result, read_outcome
from medbot_exp.sweep.owner import STALE_SECONDS, Owner, Watch
from medbot_exp.sweep.patience import patiently
from medbot_exp.sweep.storage import Address
from medbot_exp.whole_files import write_json

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from medbot_exp.sweep.space import SearchSpace

TICKET, JOB, BEAT, END = "medbot_exp:ticket", "medbot_exp:job", "medbot_exp:beat", "medbot_exp:end"
PLAN, UID, EXHAUSTED = "medbot_exp:plan", "medbot_exp:uid", "medbot_exp:exhausted"
CONTROLLER = "medbot_exp:controller"
RETRY_OF, RETRIES = "retry_of", "retries"


@dataclass(frozen=True)
class Place:
    """How any process finds the study: holds no secret and can be pickled."""

    address: Address
    name: str

    def load(self, sampler: "BaseSampler | None", pruner: "BasePruner | None") -> "Study":
        """The study, which exists."""
        import optuna

        return optuna.load_study(study_name=self.name, storage=self.address.open(), sampler=sampler, pruner=pruner)


@dataclass(frozen=True)
class Ticket:
    """The right to run a trial, once.

    Attributes:
        predecessors: the directories of the trials that this one tries again, the last one first: the first of them
            that got something done is gone on with.
    """

    number: int
    key: str
    overrides: tuple[str, ...]
    predecessors: tuple[str, ...]


@dataclass(frozen=True)
class Settled:
    """A trial that its job left open, and what became of it.

    Attributes:
        successor: the number under which its parameters are tried again, its own where nothing of it began.
    """

    number: int
    outcome: Outcome
    successor: int | None


def open_study(
    place: Place,
    directions: Sequence[str],
    sampler: "BaseSampler",
    pruner: "BasePruner",
    plan: Mapping[str, Any],
    folder: Path,
) -> "Study":
    """The study of `plan` in `folder`, made where there was none.

    Raises:
        ConfigError: the study that is there was begun with another plan, or the folder is another study's.
        StorageError: the storage cannot be used.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # what there is to tell, the display tells
    storage = place.address.open()  # a server that is not there is told at once
    told = json.loads(json.dumps(plan, default=str))  # as the storage will give it back
    return patiently(lambda: _open_study(storage, place, directions, sampler, pruner, told, folder))


def _open_study(
    storage: "BaseStorage",
    place: Place,
    directions: Sequence[str],
    sampler: "BaseSampler",
    pruner: "BasePruner",
    plan: Mapping[str, Any],
    folder: Path,
) -> "Study":
    import optuna

    with place.address.exclusive():
        study = optuna.create_study(
            study_name=place.name,
            storage=storage,
            sampler=sampler,
            pruner=pruner,
            directions=list(directions),  # type: ignore[arg-type]
            load_if_exists=True,
        )
        attrs = storage.get_study_system_attrs(study._study_id)
        found = [direction.name.lower() for direction in study.directions]
        if found != list(directions):
            differing = [("direction", found, list(directions))]
        else:
            differing = [] if PLAN not in attrs else differences(attrs[PLAN], dict(plan))
        if differing:
            shown = "\n".join(f"  {key}: {old} there, {new} here" for key, old, new in differing[:5])
            more = f"\n  and {len(differing) - 5} more" if len(differing) > 5 else ""
            raise ConfigError(
                f"a study goes on with the command that began it, but {place.name} differs in\n{shown}{more}\n"
                "Type its own command, or add hydra.sweeper.on_mismatch=new for a new study beside it"
            )
        uid = attrs.get(UID) or uuid.uuid4().hex
        if UID not in attrs:
            # Before the directory is claimed for it: a crash between the two leaves a study that can go on.
            storage.set_study_system_attr(study._study_id, UID, uid)
        claim_folder(folder, place, uid)
        if PLAN not in attrs:
            storage.set_study_system_attr(study._study_id, PLAN, dict(plan))
    return study


def claim_folder(folder: Path, place: Place, uid: str) -> None:
    """Make `folder` that of the study `uid`: what a trial's directory in it holds is taken for that trial's.

    Raises:
        ConfigError: it holds the trials of another study.
    """
    file = folder / "study.json"
    if file.is_file():
        taken = json.loads(file.read_text(encoding="utf-8"))["uid"] != uid
    else:
        taken = any(any(folder.glob(pattern)) for pattern in ("*/.hydra", "*/trial.json"))
    if taken:
        raise ConfigError(
            f"a study must have a directory of its own, but {folder} holds the trials of another one: its storage is "
            f"gone, or is not {place.address.url}\n"
            "Give its storage back, move that directory away, or add hydra.sweeper.on_mismatch=new for a new study "
            "beside it"
        )
    if not file.is_file():
        write_json(file, {"uid": uid, "name": place.name, "storage": place.address.url})


def differences(old: Any, new: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, old, new) of every leaf that two nested dicts do not share."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            line
            for key in keys
            for line in differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
        ]
    # As JSON, which is what the storage keeps: there NaN is NaN.
    return [] if json.dumps(old) == json.dumps(new) else [(prefix, old, new)]


class Ledger:
    """What one controller does with a study. Several controllers, on several hosts, may do so at once."""

    def __init__(
        self,
        place: Place,
        study: "Study",
        space: "SearchSpace",
        config: DictConfig,
        n_trials: int,
        max_retry: int,
        seed: int | None,
    ):
        """
        Args:
            n_trials: that the study is to have in all.
            seed: of the sampler; None where each trial may be drawn as it comes.
        """
        self.place, self.study, self.space, self.config = place, study, space, config
        self.n_trials, self.max_retry, self.seed = n_trials, max_retry, seed
        self.storage = study._storage
        self.id = uuid.uuid4().hex
        self.owner = Owner.this()
        self.watch = Watch()
        self.keys: dict[int, str] = {}  # of the tickets that this controller gave out, by number

    def trials(self) -> "list[FrozenTrial]":
        """All trials, by number."""
        return patiently(lambda: self.storage.get_all_trials(self.study._study_id, deepcopy=False))

    def next(self) -> Ticket | None:
        """A ticket for the next trial; None while those that there are make `n_trials`."""
        return patiently(self._next)

    def _next(self) -> Ticket | None:
        import optuna

        from medbot_exp.sweep.samplers import reseed

        with self.place.address.exclusive():
            trials = self.trials()
            controllers = self.controllers()
            orphan = next((trial for trial in trials if self.ownerless(trial, controllers)), None)
            waiting = next((trial for trial in trials if trial.state.name == "WAITING"), None)
            if orphan is None and waiting is None and (len(counted(trials)) >= self.n_trials or self.exhausted()):
                return None
            if self.seed is not None:
                following = orphan or waiting
                reseed(self.study.sampler, self.seed, len(trials) if following is None else following.number)
            trial = self.study.ask() if orphan is None else optuna.trial.Trial(self.study, orphan._trial_id)
            overrides = self.space.suggest(trial, self.config)
            key = uuid.uuid4().hex
            note: dict[str, Any] = {
                "key": key,
                "owner": self.owner.content(),
                "controller": self.id,
                "overrides": overrides,
            }
            self.storage.set_trial_system_attr(trial._trial_id, TICKET, note)
            self.keys[trial.number] = key
            return Ticket(trial.number, key, tuple(overrides), predecessors(trial.user_attrs, trials))

    def exhausted(self) -> bool:
        """Whether the sampler has said that nothing is left to try."""
        return EXHAUSTED in self.storage.get_study_system_attrs(self.study._study_id)

    def beat(self, count: int) -> None:
        """Show other hosts that this controller lives: its tickets may wait long, in a queue or behind each other."""
        # A database that is away comes back; what it lost, the next beat makes good.
        with suppress(Exception):
            self.storage.set_study_system_attr(self.study._study_id, f"{CONTROLLER}:{self.id}", count)

    def controllers(self) -> dict[str, int]:
        """The beats of all controllers that there were, by id."""
        attrs = self.storage.get_study_system_attrs(self.study._study_id)
        return {key.rpartition(":")[2]: count for key, count in attrs.items() if key.startswith(f"{CONTROLLER}:")}

    def ownerless(self, trial: "FrozenTrial", controllers: Mapping[str, int]) -> bool:
        """Whether nobody will ever run `trial`, which was asked for by one of `controllers`."""
        if trial.state.name != "RUNNING" or JOB in trial.system_attrs:
            return False
        # Both are written under the lock that is held now, so a trial without a ticket lost its controller between.
        if TICKET not in trial.system_attrs or trial.system_attrs[TICKET]["owner"] is None:
            return True
        ticket = trial.system_attrs[TICKET]
        return self.dead(ticket, ticket["controller"], controllers.get(ticket["controller"]))

    def dead(self, note: Mapping[str, Any], name: str, beat: int | None) -> bool:
        """Whether the owner in a ticket or a job is no more.

        Args:
            name: what the owner's `beat` is watched under.
        """
        lives = Owner.of(note["owner"]).lives()
        return not lives if lives is not None else self.watch.still(name, beat) > STALE_SECONDS

    def job_is_dead(self, trial: "FrozenTrial") -> bool:
        """Whether the process that took `trial` up is no more."""
        job = trial.system_attrs[JOB]
        return self.dead(job, f"job {job['key']}", trial.system_attrs.get(BEAT))

    def settle(self, besides: Container[int]) -> list[Settled]:
        """Close what dead jobs left open, but for the trials `besides`, whose end the caller sees itself.

        A result that was written counts, whether or not its job came to tell it.
        """
        return patiently(lambda: self._settle(besides))

    def _settle(self, besides: Container[int]) -> list[Settled]:
        def to_settle() -> "tuple[list[FrozenTrial], list[FrozenTrial]]":
            trials = self.trials()
            running = [trial for trial in trials if trial.state.name == "RUNNING" and JOB in trial.system_attrs]
            foreign = [trial for trial in running if trial.number not in besides]
            return [trial for trial in foreign if self.job_is_dead(trial)], owed(trials)

        if not any(to_settle()):
            return []
        with self.place.address.exclusive():
            dead, promised = to_settle()
            closed = [self.close(trial, Outcome("died", reason="its process is gone")) for trial in dead]
            return [self.try_again(trial) for trial in promised] + [each for each in closed if each is not None]

    def jobs(self, besides: Container[int]) -> list[tuple[int, Owner]]:
        """The processes of this host that run trials of controllers that died here, but for the trials `besides`."""
        running = [trial for trial in self.trials() if trial.state.name == "RUNNING" and JOB in trial.system_attrs]
        left = [trial for trial in running if Owner.of(trial.system_attrs[TICKET]["owner"]).lives() is False]
        owners = [(trial.number, Owner.of(trial.system_attrs[JOB]["owner"])) for trial in left]
        return [(number, owner) for number, owner in owners if number not in besides and owner.lives()]

    def ended(self, number: int, otherwise: Outcome) -> Settled | None:
        """Close trial `number`, whose job has ended; None where it is closed, or another controller's by now.

        Args:
            otherwise: what to make of it if it left no result.
        """

        def over(trial: "FrozenTrial") -> bool:
            # A controller that slept was taken for dead: its ticket went to another, whose job it knows nothing of.
            closed = trial.state.is_finished() and not owed(self.trials(), trial.number)
            return closed or trial.system_attrs[TICKET]["key"] != self.keys[number]

        return patiently(lambda: self._close_unless(over, number, otherwise))

    def ended_for(self, owner: Owner, number: int, otherwise: Outcome) -> Settled | None:
        """Close trial `number` of a dead controller, whose job's process `owner` has ended; None where it is closed."""

        def over(trial: "FrozenTrial") -> bool:
            return trial.state.is_finished() or Owner.of(trial.system_attrs[JOB]["owner"]) != owner

        return patiently(lambda: self._close_unless(over, number, otherwise))

    def _close_unless(self, over: "Callable[[FrozenTrial], bool]", number: int, otherwise: Outcome) -> Settled | None:
        if over(self.trial(number)):
            return None
        with self.place.address.exclusive():
            trial = self.trial(number)
            if over(trial):
                return None
            return self.try_again(trial) if trial.state.is_finished() else self.close(trial, otherwise)

    def trial(self, number: int) -> "FrozenTrial":
        """Trial `number` as it is now."""
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
        return self.storage.get_trial(trial_id)

    def close(self, trial: "FrozenTrial", otherwise: Outcome) -> Settled | None:
        """End `trial`, which no process runs: by the result in its directory, else by `otherwise`.

        None where it ended at this moment by itself: a process that was taken for dead was only slow.
        """
        job = trial.system_attrs.get(JOB)
        found = None if job is None else read_outcome(Path(job["directory"]))
        outcome = found or otherwise
        if job is None and outcome.state == "stopped":
            self.give_back(trial)
            return Settled(trial.number, outcome, trial.number)
        again = outcome.state in ("died", "stopped") and self.may_retry(trial, outcome)
        try:
            tell(self.study, trial, outcome, again)
        except Exception:
            if not self.trial(trial.number).state.is_finished():
                raise
            return None
        if job is not None and outcome.state in ("failed", "died"):
            correct_result(Path(job["directory"]), outcome)
        # Once it failed, so that no trial is tried again that ends well after all. A crash between the two leaves the
        # promise in its note, for whoever settles next.
        return self.try_again(self.trial(trial.number)) if again else Settled(trial.number, outcome, None)

    def give_back(self, trial: "FrozenTrial") -> None:
        """Let `trial`, of which nothing began, be given out again under its number."""
        from optuna.trial import TrialState

        # First nobody's: a controller that dies between asking for it and writing its own ticket leaves it ownerless.
        nobody: dict[str, Any] = {"key": None, "owner": None, "controller": None, "overrides": []}
        self.storage.set_trial_system_attr(trial._trial_id, TICKET, nobody)
        self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def may_retry(self, trial: "FrozenTrial", outcome: Outcome) -> bool:
        """Whether the parameters of `trial` are to be tried again."""
        return outcome.state == "stopped" or trial.user_attrs.get(RETRIES, 0) < self.max_retry

    def retry_failed(self) -> list[Settled]:
        """Enqueue the parameters of all trials that failed for good once more, at no cost to them."""
        return patiently(self._retry_failed)

    def _retry_failed(self) -> list[Settled]:
        with self.place.address.exclusive():
            trials = self.trials()
            return [self.enqueue(trial, 0) for trial in counted(trials) if trial.state.name == "FAIL"]

    def try_again(self, trial: "FrozenTrial") -> Settled:
        """Enqueue the parameters of `trial`, which failed with the promise of another try."""
        died = trial.system_attrs[END]["state"] == "died"
        return self.enqueue(trial, trial.user_attrs.get(RETRIES, 0) + died)

    def enqueue(self, trial: "FrozenTrial", retries: int) -> Settled:
        """Enqueue the parameters of the failed `trial`, whose tries so far count as `retries`."""
        end = trial.system_attrs[END]
        self.study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number, RETRIES: retries})
        return Settled(trial.number, Outcome(end["state"], reason=end["reason"]), successor_of(trial, self.trials()))


def tell(study: "Study", trial: "FrozenTrial", outcome: Outcome, again: bool = False) -> None:
    """End `trial` in the study as `outcome` says.

    Args:
        again: a failed one is to be tried again, which its note promises.

    Raises:
        ValueError: it ended before, or its values are no numbers.
        optuna.exceptions.UpdateFinishedTrialError: another process ended it at this moment.
    """
    from optuna.trial import TrialState

    state = TrialState[outcome.trial_state()]
    if state is TrialState.FAIL:
        note = {"state": outcome.state, "reason": outcome.reason, "again": again}
        study._storage.set_trial_system_attr(trial._trial_id, END, note)
    try:
        study.tell(trial.number, outcome.values if state is TrialState.COMPLETE else None, state)
    except RuntimeError as error:
        # Samplers that have nothing left to suggest stop a loop of Optuna's own, which this is not.
        if "Study.stop" not in str(error):
            raise
        study._storage.set_study_system_attr(study._study_id, EXHAUSTED, True)


def run_id(uid: str, what: str) -> str:
    """The id in W&B of `what` belongs to the study `uid`: a trial's number, or the study itself."""
    return hashlib.sha256(f"{uid} {what}".encode()).hexdigest()[:8]


def predecessors(user_attrs: Mapping[str, Any], trials: "list[FrozenTrial]") -> tuple[str, ...]:
    """The directories of the trials that one with `user_attrs` tries again, the last one first."""
    found = []
    while RETRY_OF in user_attrs:
        trial = trials[user_attrs[RETRY_OF]]
        # One that died before any process took it up has none, and is itself another try.
        if JOB in trial.system_attrs:
            found.append(str(trial.system_attrs[JOB]["directory"]))
        user_attrs = trial.user_attrs
    return tuple(found)


def successor_of(trial: "FrozenTrial", trials: "list[FrozenTrial]") -> int | None:
    """The number of the trial that tries `trial` again."""
    return next((other.number for other in trials if other.user_attrs.get(RETRY_OF) == trial.number), None)


def failed(trials: "list[FrozenTrial]") -> "list[FrozenTrial]":
    """Those of `trials` that failed and are not to be tried again."""
    promised = {trial.number for trial in owed(trials)}
    return [trial for trial in counted(trials) if trial.state.name == "FAIL" and trial.number not in promised]


def owed(trials: "list[FrozenTrial]", number: int | None = None) -> "list[FrozenTrial]":
    """Those of `trials`, or of them the one with `number`, that failed with a promise of another try not kept yet."""
    failed = [trial for trial in counted(trials) if trial.state.name == "FAIL"]
    promised = [trial for trial in failed if trial.system_attrs.get(END, {}).get("again")]
    return [trial for trial in promised if number in (None, trial.number)]


def counted(trials: "list[FrozenTrial]") -> "list[FrozenTrial]":
    """The trials that count towards n_trials: all but those that were tried again."""
    again = tried_again(trials)
    return [trial for trial in trials if trial.number not in again]


def tried_again(trials: "list[FrozenTrial]") -> set[int]:
    """The numbers of the failed ones of `trials` whose place another one took."""
    replaced = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    return {trial.number for trial in trials if trial.number in replaced and trial.state.name == "FAIL"}


def overrides_of(trial: "FrozenTrial") -> list[str]:
    """The overrides that `trial` was started with."""
    return list(trial.system_attrs[TICKET]["overrides"]) if TICKET in trial.system_attrs else []


def directory_of(trial: "FrozenTrial") -> Path | None:
    """Where `trial` writes; None where no process took it up."""
    return Path(trial.system_attrs[JOB]["directory"]) if JOB in trial.system_attrs else None


def reason_of(trial: "FrozenTrial") -> str | None:
    """Why a failed `trial` failed; None for any other."""
    end = trial.system_attrs.get(END) if trial.state.name == "FAIL" else None
    return None if end is None else end["reason"]
