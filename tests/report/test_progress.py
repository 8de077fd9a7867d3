"""What a person sees while a training goes on."""

import io
import logging
import time

import pytest
from rich.console import Console

from medbot_exp.report.console import stderr_console
from medbot_exp.report.progress import Bar, Lines, RemainingTime, duration, progress_for


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.6, "1 s"),
        (42.4, "42 s"),
        (59.6, "1 min 00 s"),
        (60, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7620, "2 h 07 min"),
        (100 * 3600, "100 h 00 min"),
    ],
)
def test_duration_is_written_in_its_two_largest_units(seconds, text):
    assert duration(seconds) == text


class TestClock:
    def test_time_left_follows_from_the_speed_so_far(self):
        clock = RemainingTime(0, 10)
        clock.started = time.monotonic() - 400  # 4 steps in 400 s: 6 more take 600 s
        assert clock.left(4) == "10 min 00 s"

    def test_steps_of_an_earlier_attempt_are_not_counted_as_speed(self):
        clock = RemainingTime(6, 10)
        clock.started = time.monotonic() - 100  # 2 steps in 100 s: 2 more take 100 s
        assert clock.left(8) == "1 min 40 s"

    def test_nothing_is_promised_before_the_first_step(self):
        assert RemainingTime(6, 10).left(6) == "-"

    def test_nothing_is_left_at_the_end(self):
        assert RemainingTime(0, 10).left(10) == "0 s"


class TestLines:
    @pytest.fixture
    def said(self, caplog):
        """The lines that were logged."""
        caplog.set_level(logging.INFO, logger="medbot_exp")
        return caplog

    def test_step_shows_loss_speed_and_time_left(self, said):
        lines = Lines()
        lines.begin(0, 12)
        lines.remaining.started = time.monotonic() - 40
        lines.update(4, {"train/loss": 1.23456, "train/tokens_per_second": 251.7})
        assert said.messages == ["step 4/12: loss 1.2346, 252 tokens/s, 1 min 20 s left"]

    def test_evaluation_shows_the_held_out_loss(self, said):
        lines = Lines()
        lines.begin(0, 12)
        lines.update(6, {"validation/loss": 2.5, "validation/perplexity": 12.18})
        assert said.messages == ["step 6/12: held-out loss 2.5000"]

    def test_end_without_beginning_is_fine(self):
        Lines().end()


class TestBar:
    def shown(self, *updates: tuple[int, dict[str, float]]) -> str:
        """What a terminal got for `updates` of a training of 12 steps."""
        console = Console(file=io.StringIO(), force_terminal=True, width=160, color_system=None)
        bar = Bar(console)
        bar.begin(0, 12)
        for step, metrics in updates:
            bar.update(step, metrics)
        bar.end()
        return [line for line in console.file.getvalue().splitlines() if "training" in line][-1]

    def test_shows_loss_held_out_loss_and_speed(self):
        line = self.shown((6, {"train/loss": 1.23456, "train/tokens_per_second": 251.7}), (6, {"validation/loss": 2.5}))
        for part in ("6/12", "loss 1.235", "held-out 2.500", "252 tokens/s", "0 s left"):
            assert part in line

    def test_dashes_stand_for_what_is_not_known_yet(self):
        assert "loss - held-out - - tokens/s" in self.shown()

    def test_end_without_beginning_is_fine(self):
        Bar(Console(file=io.StringIO())).end()


def test_terminal_gets_a_bar_and_a_file_gets_lines():
    assert isinstance(progress_for(Console(file=io.StringIO(), force_terminal=True)), Bar)
    assert isinstance(progress_for(Console(file=io.StringIO(), force_terminal=False)), Lines)


def test_progress_leaves_stdout_to_results(capsys):
    stderr_console().print("on its way")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "on its way\n")
