"""How a training goes, for a person: a bar on a terminal, a line per log step elsewhere."""

import logging
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

log = logging.getLogger(__name__)


class Bar:
    """A live bar with loss, tokens per second and remaining time."""

    def __init__(self, console: Console):
        self.console = console
        self.live: Progress | None = None

    def begin(self, step: int, steps: int) -> None:
        """Draw the bar at `step` of `steps`."""
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("held-out {task.fields[held_out]}"),
            TextColumn("{task.fields[speed]} tokens/s"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left"),
        )
        self.live = Progress(*columns, console=self.console)
        self.remaining = RemainingTime(step, steps)
        self.task = self.live.add_task("", total=steps, completed=step, loss="-", held_out="-", speed="-", left="-")
        self.live.start()

    def update(self, step: int, metrics: dict[str, float]) -> None:
        """Show what is new in `metrics`."""
        assert self.live is not None
        shown = {"left": self.remaining.left(step)}
        for field, key, form in (
            ("loss", "train/loss", "{:.3f}"),
            ("held_out", "validation/loss", "{:.3f}"),
            ("speed", "train/tokens_per_second", "{:.0f}"),
        ):
            if key in metrics:
                shown[field] = form.format(metrics[key])
        self.live.update(self.task, completed=step, **shown)  # type: ignore[arg-type]

    def end(self) -> None:
        """Leave the bar as it stands."""
        if self.live is not None:
            self.live.stop()
            self.live = None


class Lines:
    """One plain line per log step, for files and pipes."""

    def begin(self, step: int, steps: int) -> None:
        """Note where the training starts."""
        self.remaining = RemainingTime(step, steps)

    def update(self, step: int, metrics: dict[str, float]) -> None:
        """Print the line of `step`."""
        place = f"step {step}/{self.remaining.steps}"
        if "validation/loss" in metrics:
            log.info("%s: held-out loss %.4f", place, metrics["validation/loss"])
        else:
            log.info(
                "%s: loss %.4f, %.0f tokens/s, %s left",
                place,
                metrics["train/loss"],
                metrics["train/tokens_per_second"],
                self.remaining.left(step),
            )

    def end(self) -> None:
        """Nothing is left open."""


class RemainingTime:
    """Remaining time, from the steps done since the start."""

    def __init__(self, step: int, steps: int):
        self.step, self.steps, self.started = step, steps, time.monotonic()

    def left(self, step: int) -> str:
        """Minutes and seconds to the last step at the speed so far."""
        done = step - self.step
        if done <= 0:
            return "-"
        return duration((time.monotonic() - self.started) / done * (self.steps - step))


def duration(seconds: float) -> str:
    """`seconds` as 42 s, 3 min 05 s or 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plural(number: int, noun: str) -> str:
    """`number` with its noun: 1 step, 2 steps."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def progress_for(console: Console) -> Bar | Lines:
    """A bar where somebody watches, lines where a file does."""
    return Bar(console) if console.is_terminal else Lines()
