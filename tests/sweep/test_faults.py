"""The fault campaign in short: a seeded sample of what `python tests/benchmarks/faults.py` does at length."""

import pytest
from campaign import kills
from campaign.contestants import Ours
from campaign.judge import Row, judge, recoveries
from campaign.ledger import Event

# Spread over a study's life: a directory that was claimed before the plan was kept, a ticket without a process, a claim
# without a report, a result that was not told, another try that was promised.
POINTS = [
    pytest.param("first", "controller:rename:0:after", marks=pytest.mark.slow),
    ("first", "controller:ticket:0:after"),
    pytest.param("first", "trial:claim:0:after", marks=pytest.mark.slow),
    ("first", "trial:rename:0:after"),
    ("repeated", "controller:enqueue:0:after"),
]


@pytest.mark.parametrize("situation, point", POINTS)
def test_a_kill_at_a_point_breaks_nothing(tmp_path, situation, point):
    verdict = kills.kill_at(Ours(), tmp_path / "case", situation, point)
    assert verdict.violations == []
    assert verdict.kills == (1 if situation == "first" else 2)


@pytest.mark.parametrize(
    "seed", [pytest.param(2, marks=pytest.mark.slow), 7]
)  # the second keeps its study in a journal
def test_random_kills_break_nothing(tmp_path, seed):
    verdict = kills.storm(Ours(), tmp_path / "case", seed, longest=4)
    assert verdict.violations == []
    assert verdict.kills > 0


def begin(number, pid, directory):
    return Event("begin", 0.0, pid, {"number": number, "directory": directory})


def end(number, value):
    return Event("end", 0.0, 1, {"number": number, "value": value})


SOUND_ROWS = [Row(0, "FAIL", None, None), Row(1, "COMPLETE", 1.0, None), Row(2, "COMPLETE", 4.0, 0)]
SOUND_EVENTS = [begin(0, 1, "0"), begin(1, 2, "1"), begin(2, 3, "2"), end(1, 1.0), end(2, 4.0)]


def test_the_judge_passes_what_is_sound():
    assert judge(SOUND_ROWS, SOUND_EVENTS, 2, {1: 1.0}, {2: 4.0}) == []


@pytest.mark.parametrize(
    "rows, events, seen, kinds",
    [
        (SOUND_ROWS[:2], [], {}, {"too few"}),
        ([*SOUND_ROWS, Row(3, "COMPLETE", 9.0, None)], [end(3, 9.0)], {}, {"too many"}),
        ([*SOUND_ROWS, Row(3, "RUNNING", None, None)], [], {}, {"left open"}),
        ([*SOUND_ROWS, Row(4, "FAIL", None, None)], [], {}, {"gap"}),
        (SOUND_ROWS, [], {1: 2.0}, {"result lost"}),
        ([*SOUND_ROWS, Row(3, "FAIL", None, 1)], [], {}, {"run again", "too few"}),
        (SOUND_ROWS, [end(1, 2.0)], {}, {"two results"}),
        ([*SOUND_ROWS[:2], Row(2, "COMPLETE", 5.0, 0)], [], {}, {"wrong result"}),
        (SOUND_ROWS, [begin(2, 4, "2")], {}, {"directory written twice", "run twice"}),
        (SOUND_ROWS, [begin(3, 4, "2")], {}, {"directory written twice"}),
    ],
)
def test_the_judge_names_each_violation(rows, events, seen, kinds):
    assert {found.kind for found in judge(rows, [*SOUND_EVENTS, *events], 2, seen, {})} == kinds


def test_recovery_goes_from_the_repeated_command_or_the_dead_trial_to_the_next_one():
    events = [
        Event("start", 0.0, 1, {"repeated": False}),
        Event("kill", 5.0, 1, {"target": "controller"}),
        Event("start", 6.0, 1, {"repeated": True}),
        Event("begin", 7.5, 2, {"number": 1}),
        Event("kill", 9.0, 1, {"target": "trial"}),
        Event("begin", 9.5, 3, {"number": 2}),
    ]
    assert recoveries(events) == [1.5, 0.5]
