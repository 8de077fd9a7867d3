"""What a person sees while a search goes on."""

import io
import logging
import re
from datetime import datetime, timedelta

import optuna
import pytest
from rich.console import Console
from rich.text import Text

from medbot_exp.report.live import ROWS, Board, Lines, display_for
from medbot_exp.sweep.outcome import Outcome
from medbot_exp.sweep.study import END, JOB, Settled

SECONDS = 65
SPACE = {"lr": optuna.distributions.FloatDistribution(1e-5, 1.0)}
KILLED = "its process was killed by SIGKILL\nsecond line"


def made(
    number, state, value=None, *, reason=None, reported=(), job=True, constraints=None, seconds=SECONDS, **user_attrs
):
    """A trial as a study would give it; `reported` are its values at step 1, 2 and so on."""
    notes = ({JOB: {}} if job else {}) | ({END: {"reason": reason}} if reason else {})
    trial = optuna.trial.create_trial(
        state=optuna.trial.TrialState[state],
        value=value,
        params={"lr": 0.25},
        distributions=SPACE,
        user_attrs=user_attrs,
        system_attrs=notes,
        intermediate_values=dict(enumerate(reported, 1)),
        constraints=constraints,
    )
    trial.number = number
    if state != "WAITING":
        trial.datetime_start = datetime.now() - timedelta(seconds=seconds)
    if trial.state.is_finished():
        trial.datetime_complete = trial.datetime_start + timedelta(seconds=seconds)
    return trial


@pytest.fixture
def lines(caplog):
    """lines(look, ...): what Lines tells at each look at (trials, how many are to come)."""
    caplog.set_level(logging.INFO, logger="medbot_exp.report.live")

    def told(*looks, directions=("minimize",)):
        display, found = Lines(directions), []
        for trials, left in looks:
            display.look(trials, left)
            found.append(caplog.messages[sum(map(len, found)) :])
        return found

    return told


class TestLines:
    def test_a_trial_is_told_when_it_begins_reports_and_ends_and_once_each(self, lines):
        begun, stepped = made(0, "RUNNING"), made(0, "RUNNING", reported=[2.5, 2.0])
        ended = made(0, "COMPLETE", 1.5, reported=[2.5, 2.0])
        assert lines(([begun], 1), ([begun], 1), ([stepped], 1), ([stepped], 1), ([ended], 1), ([ended], 1)) == [
            ["trial 0: lr=0.25"],
            [],
            ["trial 0: step 2: 2"],
            [],
            ["trial 0: complete: 1.5, the best so far, 1 min 05 s"],
            [],
        ]

    def test_a_trial_that_no_process_took_up_is_not_told(self, lines):
        assert lines(([made(0, "WAITING"), made(1, "RUNNING", job=False)], 0)) == [[]]

    @pytest.mark.parametrize(
        "trial, ending",
        [
            (made(1, "FAIL", reason="ValueError: 41\nat line 3"), "failed after 1 min 05 s: ValueError: 41"),
            (made(1, "FAIL"), "failed after 1 min 05 s: no reason is known"),
            (made(1, "PRUNED", reported=[3.0, 2.0]), "pruned after step 2, 1 min 05 s"),
            (made(1, "COMPLETE", 2.0), "complete: 2, trial 0 is best, 1 min 05 s"),
            (made(1, "COMPLETE", 0.5), "complete: 0.5, the best so far, 1 min 05 s"),
            (made(1, "COMPLETE", 0.5, constraints={"memory": 1.0}), "complete: 0.5, but not memory, 1 min 05 s"),
        ],
    )
    def test_each_ending_has_its_words(self, lines, trial, ending):
        first = made(0, "COMPLETE", 1.0)
        assert lines(([first], 1), ([first, trial], 0))[1] == ["trial 1: lr=0.25", f"trial 1: {ending}"]

    def test_a_trial_that_was_tried_again_is_told_apart_from_one_that_failed_for_good(self, lines):
        killed, running = made(0, "FAIL", reason=KILLED), made(1, "RUNNING", retry_of=0)
        failed = made(1, "FAIL", reason=KILLED, retry_of=0)
        before = [made(0, "RUNNING")]
        _, first, second = lines((before, 1), ([killed, running], 0), ([killed, failed], 0))
        why = "its process was killed by SIGKILL"
        assert first == [f"trial 0: failed after 1 min 05 s, tried again: {why}", "trial 1: lr=0.25"]
        assert second == [f"trial 1: failed after 1 min 05 s: {why}"]

    def test_a_study_that_goes_on_is_told_in_a_line_without_the_trials_that_were_tried_again(self, lines):
        old = [made(0, "FAIL", reason=KILLED), made(1, "COMPLETE", 1.0, retry_of=0)]
        assert lines((old, 3)) == [["going on with the study: 1 trial finished, 3 to come"]]
        more = [*old, made(2, "FAIL", reason=KILLED)]
        assert lines((more, -1))[0][-1] == "going on with the study: 2 trials finished, 0 to come"

    def test_several_objectives_have_no_best(self, lines):
        trial = made(0, "COMPLETE", 1.0)
        trial.values = [1.0, 2.5]
        (told,) = lines(([made(0, "RUNNING")], 0), ([trial], 0), directions=["minimize"] * 2)[1:]
        assert told == ["trial 0: complete: 1 2.5, 1 min 05 s"]

    def test_a_trial_that_was_closed_names_the_one_that_goes_on(self, caplog):
        caplog.set_level(logging.INFO, logger="medbot_exp.report.live")
        Lines(["minimize"]).settled(Settled(3, Outcome("died", reason=KILLED), 5))
        Lines(["minimize"]).settled(Settled(4, Outcome("failed", reason="it is told when it is seen"), None))
        assert caplog.messages == ["trial 3: its process was killed by SIGKILL; it goes on as trial 5"]


class TestBoard:
    def test_each_state_has_its_row_and_the_caption_counts_them(self):
        trials = [
            made(0, "FAIL", reason=KILLED),
            made(1, "COMPLETE", 1.5, reported=[3.0, 1.5], retry_of=0),
            made(2, "COMPLETE", 2.5),
            made(3, "PRUNED", reported=[3.0]),
            made(4, "FAIL", reason="ValueError: 41", seconds=5),
            made(5, "RUNNING", reported=[2.0, 2.25]),
            made(6, "WAITING"),
        ]
        rows, caption = last_frame(trials, 3)
        assert re.fullmatch(r"1 min \d\d s", rows[5].pop())  # it goes on while this is tested
        assert rows == [
            ["0", "lr=0.25", "retried", "1 min 05 s"],
            ["1", "lr=0.25", "best", "2", "1.5", "1 min 05 s"],
            ["2", "lr=0.25", "complete", "2.5", "1 min 05 s"],
            ["3", "lr=0.25", "pruned", "1", "3", "1 min 05 s"],
            ["4", "lr=0.25", "failed", "5 s"],
            ["5", "lr=0.25", "running", "2", "2.25"],
        ]
        # The complete and pruned ones took 65 s each; 3 are to come, 1 runs and 1 waits.
        assert caption == (
            "2 complete, 1 pruned, 1 failed, 1 running, 1 waiting, 1 retried, 3 to come, best 1.5 (trial 1), "
            "about 5 min 25 s left"
        )

    def test_the_time_left_is_shared_by_the_trials_that_run_at_a_time(self):
        _, caption = last_frame([made(0, "PRUNED", reported=[1.0])], 4, n_jobs=2)
        assert caption.endswith("about 2 min 10 s left")

    def test_a_best_trial_that_left_the_rows_stays_in_the_caption(self):
        trials = [made(0, "COMPLETE", 0.5), *(made(number, "COMPLETE", 1.0) for number in range(1, ROWS + 1))]
        rows, caption = last_frame(trials, 0)
        assert [row[0] for row in rows] == [str(number) for number in range(1, ROWS + 1)]
        assert caption == f"{ROWS + 1} complete, best 0.5 (trial 0)"

    def test_what_became_of_a_trial_stands_above_the_table_as_it_is(self):
        console = terminal()
        display = Board(console, ["minimize"], ["loss"], 1)
        display.look([made(0, "RUNNING")], 0)
        display.settled(Settled(0, Outcome("died", reason="[red]killed[/red]"), 1))
        display.settled(Settled(1, Outcome("failed", reason=KILLED), None))
        display.end()
        above, _, _ = written_to(console).rpartition("parameters")
        assert "trial 0: [red]killed[/red]; it goes on as trial 1" in above
        assert re.search(r"trial 1: its process was killed by SIGKILL *\n", above)


def last_frame(trials, left, n_jobs=1):
    """The rows of the table that is left on the terminal, each as its cells that are not empty, and its caption."""
    console = terminal()
    display = Board(console, ["minimize"], ["loss"], n_jobs)
    display.look([], left)
    display.look(trials, left)
    display.end()
    lines = [line.strip() for line in written_to(console).rpartition("parameters")[2].splitlines()[2:]]
    end = lines.index("")
    return [re.split(" {2,}", line) for line in lines[:end]], " ".join(lines[end:]).strip()


def terminal():
    """A terminal that keeps what is written to it."""
    return Console(file=io.StringIO(), force_terminal=True, width=160, height=60)


def written_to(console):
    """What was written to `console`, without colours."""
    return Text.from_ansi(console.file.getvalue()).plain


def test_a_table_is_for_a_terminal_and_lines_are_for_a_file():
    assert isinstance(display_for(Console(file=io.StringIO()), ["minimize"], ["loss"], 1), Lines)
    board = display_for(terminal(), ["minimize"], ["loss"], 1)
    board.end()
    assert isinstance(board, Board)
