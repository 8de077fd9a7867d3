"""How a search goes, for a person: one live table on a terminal, a line per event elsewhere."""

import logging
import statistics
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from medbot_exp.errors import first_line
from medbot_exp.report.progress import duration, plural
from medbot_exp.report.study import RETRIED, best_of, counts, rows_of, states_of
from medbot_exp.report.svg import number, shown
from medbot_exp.sweep.study import JOB, Settled, counted, reason_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

ROWS = 20


class Lines:
    """One plain line for each trial that begins, reports or ends."""

    def __init__(self, directions: Sequence[str]):
        self.directions = directions
        self.states: dict[int, str] = {}
        self.steps: dict[int, int] = {}
        self.known = False

    def look(self, trials: "list[FrozenTrial]", left: int) -> None:
        """Tell what is new in `trials`."""
        if not self.known and any(trial.state.is_finished() for trial in trials):
            finished = sum(trial.state.is_finished() for trial in counted(trials))
            to_come = max(left, 0) + sum(trial.state.name == "WAITING" for trial in trials)
            log.info("going on with the study: %s finished, %d to come", plural(finished, "trial"), to_come)
            self.states = {trial.number: trial.state.name for trial in trials if trial.state.is_finished()}
        self.known = True
        for trial in trials:
            self.tell(trial, trials)

    def tell(self, trial: "FrozenTrial", trials: "list[FrozenTrial]") -> None:
        """Tell what is new in `trial`."""
        before, now = self.states.get(trial.number), trial.state.name
        if now == "WAITING" or (now == "RUNNING" and JOB not in trial.system_attrs):
            return
        if before is None:
            log.info("trial %d: %s", trial.number, words(trial))
        step = trial.last_step
        if step is not None and step != self.steps.get(trial.number) and not trial.state.is_finished():
            log.info("trial %d: step %d: %s", trial.number, step, number(trial.intermediate_values[step], 5))
            self.steps[trial.number] = step
        if before != now and trial.state.is_finished():
            log.info("trial %d: %s", trial.number, ending(trial, trials, self.directions))
        self.states[trial.number] = now

    def settled(self, settled: Settled) -> None:
        """Tell what became of a trial that did not end by itself."""
        if settled.successor is not None:
            why = first_line(settled.outcome.reason or settled.outcome.state)
            log.info("trial %d: %s; it goes on as trial %d", settled.number, why, settled.successor)

    def end(self) -> None:
        """Nothing is left open."""


class Board:
    """A live table of the trials."""

    def __init__(self, console: Console, directions: Sequence[str], metrics: Sequence[str], n_jobs: int):
        self.directions, self.metrics, self.n_jobs = directions, metrics, n_jobs
        self.live = Live(console=console, auto_refresh=False)
        self.live.start()

    def look(self, trials: "list[FrozenTrial]", left: int) -> None:
        """Draw the table anew."""
        table = Table(box=box.SIMPLE_HEAD, caption=self.caption(trials, left), caption_justify="left")
        for name, justify in (("trial", "right"), ("parameters", "left"), ("state", "left"), ("step", "right")):
            table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
        table.add_column("\n".join(self.metrics), justify="right")
        table.add_column("time", justify="right", no_wrap=True)
        best = best_number(trials, self.directions)
        states = states_of(trials)
        begun = [trial for trial in trials if trial.state.name != "WAITING"]
        for trial in begun[-ROWS:]:
            state = "best" if trial.number == best else states[trial.number]
            step = "" if trial.last_step is None else str(trial.last_step)
            value = shown_value(trial)
            style = "bold" if trial.number == best else "dim" if trial.state.name == "FAIL" else ""
            cells = (str(trial.number), words(trial), state, step, value, duration(seconds_of(trial)))
            table.add_row(*map(escape, cells), style=style)
        self.live.update(table, refresh=True)

    def caption(self, trials: "list[FrozenTrial]", left: int) -> str:
        """How many trials there are of each state, the best, which may have left the rows, and the time left."""
        states = counts(states_of(trials).values())
        parts = [f"{count} {name}" for name, count in states.items()] + ([f"{left} to come"] if left > 0 else [])
        best = best_number(trials, self.directions)
        if best is not None:
            parts.append(f"best {shown_value(trials[best])} (trial {best})")
        done = [seconds_of(trial) for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
        todo = max(left, 0) + states.get("running", 0) + states.get("waiting", 0)
        if done and todo:
            parts.append(f"about {duration(statistics.fmean(done) * todo / self.n_jobs)} left")
        return "  " + ", ".join(parts)

    def settled(self, settled: Settled) -> None:
        """Tell what became of a trial that did not end by itself, above the table."""
        why = first_line(settled.outcome.reason or settled.outcome.state)
        onward = "" if settled.successor is None else f"; it goes on as trial {settled.successor}"
        self.live.console.print(f"trial {settled.number}: {escape(why)}{onward}", highlight=False)

    def end(self) -> None:
        """Leave the table as it stands."""
        self.live.stop()


def display_for(console: Console, directions: Sequence[str], metrics: Sequence[str], n_jobs: int) -> Lines | Board:
    """A table where somebody watches, lines where a file does."""
    return Board(console, directions, metrics, n_jobs) if console.is_terminal else Lines(directions)


def words(trial: "FrozenTrial") -> str:
    """The parameters of `trial`."""
    return " ".join(f"{key}={shown(value)}" for key, value in trial.params.items()) or "-"


def shown_value(trial: "FrozenTrial") -> str:
    """The value of `trial`, or the last that it reported."""
    if trial.state.name == "COMPLETE":
        return " ".join(number(value, 5) for value in trial.values)
    return "" if trial.last_step is None else number(trial.intermediate_values[trial.last_step], 5)


def ending(trial: "FrozenTrial", trials: "list[FrozenTrial]", directions: Sequence[str]) -> str:
    """How `trial` ended."""
    state, took = states_of(trials)[trial.number], duration(seconds_of(trial))
    if state in ("failed", RETRIED):
        again = ", tried again" if state == RETRIED else ""
        return f"failed after {took}{again}: {first_line(reason_of(trial) or 'no reason is known')}"
    if state == "pruned":
        return f"pruned after step {trial.last_step}, {took}"
    best = best_number(trials, directions)
    exceeded = [name for name, excess in trial.constraints.items() if excess > 0]
    if exceeded:
        return f"complete: {shown_value(trial)}, but not {' and '.join(exceeded)}, {took}"
    compared = "" if best is None else ", the best so far" if best == trial.number else f", trial {best} is best"
    return f"complete: {shown_value(trial)}{compared}, {took}"


def best_number(trials: "list[FrozenTrial]", directions: Sequence[str]) -> int | None:
    """The number of the best complete trial of one objective; None where there is none, or are several."""
    if len(directions) > 1:
        return None
    best = best_of(rows_of(trials), list(directions))
    return best[0].number if best else None


def seconds_of(trial: "FrozenTrial") -> float:
    """Wall time of `trial` so far, in seconds."""
    if trial.datetime_start is None:
        return 0.0
    return max(0.0, ((trial.datetime_complete or datetime.now()) - trial.datetime_start).total_seconds())
