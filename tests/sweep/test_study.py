"""The ledger of a study, as a controller and a job of one process see it: what neither may undo of the other's."""

import json
import math
import sqlite3
import threading
import time

import optuna
import pytest
from omegaconf import OmegaConf

from medbot_exp.errors import ConfigError
from medbot_exp.sweep import database
from medbot_exp.sweep import study as study_module
from medbot_exp.sweep.job import RunningTrial, TrackedTask, TrialLost
from medbot_exp.sweep.outcome import Outcome, read_outcome
from medbot_exp.sweep.space import SearchSpace
from medbot_exp.sweep.storage import Address, file_url
from medbot_exp.sweep.study import JOB, TICKET, Ledger, Place, open_study, tell

SAMPLER, PRUNER = optuna.samplers.RandomSampler(seed=0), optuna.pruners.NopPruner()


@pytest.fixture
def place(tmp_path):
    return Place(Address(file_url("sqlite", tmp_path / "study.db")), "study")


@pytest.fixture
def controller(place, tmp_path):
    """controller(): a new one of the study."""
    space = SearchSpace({"x": optuna.distributions.FloatDistribution(0, 1)}, {}, {}, {}, None, None)

    def start() -> Ledger:
        study = open_study(place, ["minimize"], SAMPLER, PRUNER, {}, tmp_path)
        return Ledger(place, study, space, OmegaConf.create(), 1, 1, None)

    return start


def claimed(place, ticket, directory) -> RunningTrial:
    """The trial of `ticket`, taken up by this process."""
    directory.mkdir()
    return TrackedTask(lambda cfg: None, place, SAMPLER, PRUNER, 1, ()).claim(ticket, directory)


def test_a_controller_that_slept_leaves_a_trial_alone_that_another_gave_out_again(controller, place, tmp_path):
    slept, other = controller(), controller()
    ticket = slept.next()
    # What the other host makes of a ticket whose owner showed no sign of life.
    trial = other.trial(ticket.number)
    note = {**trial.system_attrs[TICKET], "owner": {"place": slept.owner.place, "pid": 0, "started": ""}}
    other.storage.set_trial_system_attr(trial._trial_id, TICKET, note)
    again = other.next()
    assert again.number == ticket.number and again.key != ticket.key
    running = claimed(place, again, tmp_path / "0")
    assert slept.ended(ticket.number, Outcome("failed", reason="TrialLost")) is None
    assert slept.trial(ticket.number).state.name == "RUNNING"
    running.end(Outcome("complete", [0.5]))
    assert slept.trial(ticket.number).value == 0.5


def test_a_trial_that_was_given_up_leaves_no_result_behind(controller, place, tmp_path):
    ledger = controller()
    ticket = ledger.next()
    running = claimed(place, ticket, tmp_path / "0")
    ledger.close(ledger.trial(ticket.number), Outcome("died", reason="no beat"))
    with pytest.raises(TrialLost):
        running.end(Outcome("complete", [0.5]))
    assert read_outcome(tmp_path / "0").state == "failed"


def test_a_promise_of_another_try_outlives_its_controller(controller, place, tmp_path):
    ledger = controller()
    ticket = ledger.next()
    claimed(place, ticket, tmp_path / "0")
    # What a crash between the failure and the new try leaves.
    tell(ledger.study, ledger.trial(ticket.number), Outcome("died", reason="it was"), again=True)
    (settled,) = controller().settle(())
    assert (settled.number, settled.successor, settled.outcome.reason) == (0, 1, "it was")
    assert controller().settle(()) == []
    assert [trial.state.name for trial in ledger.trials()] == ["FAIL", "WAITING"]


def test_a_trial_that_ends_as_it_is_declared_dead_is_not_tried_again(controller, place, tmp_path):
    ledger = controller()
    ticket = ledger.next()
    running = claimed(place, ticket, tmp_path / "0")
    seen = ledger.trial(ticket.number)
    running.end(Outcome("complete", [0.5]))
    (tmp_path / "0" / "trial.json").unlink()  # the controller looked before it was there
    assert ledger.close(seen, Outcome("died", reason="no beat")) is None
    assert [(trial.state.name, trial.value) for trial in ledger.trials()] == [("COMPLETE", 0.5)]


def test_a_try_that_died_early_hides_no_earlier_work(controller, place, tmp_path):
    """Neither one that no process took up, nor one that was killed before it went on with its predecessor."""
    ledger = controller()
    ledger.max_retry = 3
    first = ledger.next()
    claimed(place, first, tmp_path / "0")
    assert ledger.ended(first.number, Outcome("died")).successor == 1
    assert ledger.ended(ledger.next().number, Outcome("died")).successor == 2
    third = ledger.next()
    claimed(place, third, tmp_path / "2")
    assert third.predecessors == (str(tmp_path / "0"),)
    ledger.ended(third.number, Outcome("died"))
    assert ledger.next().predecessors == (str(tmp_path / "2"), str(tmp_path / "0"))


@pytest.mark.parametrize("outcome", [Outcome("complete", [0.5]), Outcome("pruned"), Outcome("failed", reason="it did")])
def test_an_end_whose_answer_got_lost_may_be_told_again(controller, place, tmp_path, outcome):
    ledger = controller()
    running = claimed(place, ledger.next(), tmp_path / "0")
    running.report(0.7, 0)
    running.end(outcome)
    running.end(outcome)
    assert read_outcome(tmp_path / "0") == outcome


def test_a_study_that_is_locked_is_waited_for(controller, place, monkeypatch):
    controller()
    monkeypatch.setattr(database, "PATIENCE_SECONDS", 0.2)  # of the database; the whole is tried again
    holder = sqlite3.connect(place.address.path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    release = threading.Timer(1.0, holder.rollback)
    release.start()
    assert controller().trials() == []
    release.join()
    holder.close()


ELSEWHERE = {"place": "another host", "pid": 1, "started": "1"}


def move(ledger, trial, note):
    """Let a note of `trial` be by a process of another host."""
    content = {**trial.system_attrs[note], "owner": ELSEWHERE}
    ledger.storage.set_trial_system_attr(trial._trial_id, note, content)


def test_a_ticket_of_another_host_is_kept_as_long_as_its_controller_beats(controller, monkeypatch):
    monkeypatch.setattr(study_module, "STALE_SECONDS", 0.3)
    here, there = controller(), controller()
    ticket = there.next()
    move(there, there.trial(ticket.number), TICKET)
    for count in range(5):  # as long as it may take in a queue
        there.beat(count)
        assert here.next() is None
        time.sleep(0.2)
    time.sleep(0.2)
    again = here.next()
    assert again.number == ticket.number and again.key != ticket.key


def test_a_job_that_waited_long_for_its_process_is_not_dead_when_it_begins(controller, place, tmp_path, monkeypatch):
    monkeypatch.setattr(study_module, "STALE_SECONDS", 0.3)
    here, there = controller(), controller()
    ticket = there.next()
    move(there, there.trial(ticket.number), TICKET)
    assert here.next() is None
    time.sleep(0.4)
    claimed(place, ticket, tmp_path / "0")
    move(there, there.trial(ticket.number), JOB)
    assert here.settle(()) == []
    time.sleep(0.4)
    (settled,) = here.settle(())
    assert settled.outcome.state == "died"


def test_only_jobs_of_dead_controllers_are_for_others_to_end(controller, place, tmp_path):
    here, there = controller(), controller()
    ticket = there.next()
    running = claimed(place, ticket, tmp_path / "0")
    assert here.jobs(()) == []
    trial = there.trial(ticket.number)
    dead = {**trial.system_attrs[TICKET], "owner": {"place": here.owner.place, "pid": 0, "started": ""}}
    there.storage.set_trial_system_attr(trial._trial_id, TICKET, dead)
    assert [number for number, _ in here.jobs(())] == [running.number]
    assert here.jobs((running.number,)) == []


def test_a_directory_belongs_to_one_study(controller, place, tmp_path):
    controller()
    assert json.loads((tmp_path / "study.json").read_text())["name"] == "study"
    other = Place(Address(file_url("sqlite", tmp_path / "other.db")), "study")
    with pytest.raises(ConfigError, match="a directory of its own.*holds the trials of another"):
        open_study(other, ["minimize"], SAMPLER, PRUNER, {}, tmp_path)
    (tmp_path / "old" / "0" / ".hydra").mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds the trials of another"):
        open_study(other, ["minimize"], SAMPLER, PRUNER, {}, tmp_path / "old")
    assert not (tmp_path / "old" / "study.json").exists()


def test_a_plan_is_compared_as_the_storage_keeps_it(place, tmp_path):
    plan = {"table": {1: "a"}, "bound": math.nan}
    for _ in range(2):
        open_study(place, ["minimize"], SAMPLER, PRUNER, plan, tmp_path)
    with pytest.raises(ConfigError, match="table.1: a there, b here"):
        open_study(place, ["minimize"], SAMPLER, PRUNER, {**plan, "table": {1: "b"}}, tmp_path)
