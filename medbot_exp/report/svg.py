"""Axes and marks of hand-made SVG charts: nice ticks, logarithms, choices, labels that do not collide.

Sizes are in units of the drawing, of which a column of the page has `WIDTH`. Colours are in page.css.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

WIDTH = 460.0
LETTER = 6.7  # width of an average letter of a label
DECADES_FOR_LOG = 2.0
LARGEST = 1e150  # far beyond it, differences and margins are infinite
LEAST_EXPONENT = -323  # of a float that is not 0


def plottable(value: float | None) -> bool:
    """Whether `value` has a place on an axis."""
    return value is not None and math.isfinite(value) and abs(value) < LARGEST


def number(value: float, digits: int = 4) -> str:
    """`value` with so many significant digits, and an exponent where that is shorter: 0.25, 1e-4, 3.142e7."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.{digits}g}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def shown(value: Any) -> str:
    """A parameter's value as one types it in Hydra, numbers shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return number(value) if isinstance(value, float) else str(value)


def clipped(text: str, room: float) -> str:
    """`text`, its middle left out where it is wider than `room`."""
    letters = max(3, int(room / LETTER))
    if len(text) <= letters:
        return text
    head = (letters - 1) // 2
    return f"{text[:head]}…{text[len(text) - (letters - 1 - head) :]}"


@dataclass(frozen=True)
class Numbers:
    """A numeric axis from `low` at `start` to `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False

    @classmethod
    def over(
        cls, values: Sequence[float], start: float, end: float, *, log: bool | None = None, whole: bool = False
    ) -> "Numbers":
        """An axis that holds `values`, at least one; logarithmic, where `log` is None, if they span two decades."""
        low, high = min(values), max(values)
        if log is None:
            log = low > 0 and high / low >= 10**DECADES_FOR_LOG
        log = log and low > 0
        if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value: it stands in the middle
            margin = 0.5 if whole else abs(low) / 2 or 1.0
            return cls(low - margin, high + margin, start, end, False, whole)
        return cls(low, high, start, end, log, whole)

    def padded(self, share: float = 0.06) -> "Numbers":
        """The axis with room for a mark at either end."""
        inset = share * (self.end - self.start)
        inner = replace(self, start=self.start + inset, end=self.end - inset)
        return replace(self, low=inner.reverse(self.start), high=inner.reverse(self.end))

    def reverse(self, place: float) -> float:
        """The value that stands at `place`."""
        low, high = (math.log10(x) if self.log else x for x in (self.low, self.high))
        value = low + (place - self.start) / (self.end - self.start) * (high - low)
        return 10.0 ** max(value, LEAST_EXPONENT) if self.log else value

    def at(self, value: Any) -> float:
        """Where `value` stands; at the edge if it lies outside."""
        value = min(max(value, self.low), self.high)
        low, high, value = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int) -> list[tuple[float, str]]:
        """(place, label) of about `count` nice values."""
        values = self.log_values(count) if self.log else self.linear_values(count)
        labels = [number(value) for value in values]
        if not self.log and not any("e" in label for label in labels):  # as many decimals for one as for all
            decimals = max((len(label.partition(".")[2]) for label in labels), default=0)
            labels = [f"{value + 0.0:.{decimals}f}" for value in values]
        return [(self.at(value), label) for value, label in zip(values, labels, strict=True)]

    def linear_values(self, count: int) -> list[float]:
        """Multiples of 1, 2 or 5 times a power of ten."""
        raw = (self.high - self.low) / max(count, 1)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
        if self.whole:
            step = max(1.0, step)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        # The sum of a large first and a small step is rounded away by `round`.
        return [round(index * step, 12 - math.floor(math.log10(step))) for index in range(first, last + 1)]

    def log_values(self, count: int) -> list[float]:
        """Powers of ten, with their multiples where there are too few; linear ones within one decade."""
        first, last = math.floor(math.log10(self.low) + 1e-9), math.ceil(math.log10(self.high) - 1e-9)
        for factors in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
            every = max(1, math.ceil((last - first) / count)) if factors == (1.0,) else 1
            values = [
                factor * 10.0**exponent
                for exponent in range(first, last + 1)
                if exponent % every == 0
                for factor in factors
            ]
            inside = [value for value in values if self.low * 0.999 <= value <= self.high * 1.001]
            if len(inside) >= min(count, 3):
                return inside
        return self.linear_values(count)


@dataclass(frozen=True)
class Choices:
    """An axis with a slot for each of `options`, as they are shown."""

    options: list[str]
    start: float
    end: float

    @property
    def slot(self) -> float:
        """The width of one option."""
        return abs(self.end - self.start) / len(self.options)

    def at(self, value: Any) -> float:
        """The middle of the slot of `value`."""
        return self.start + (self.end - self.start) * (self.options.index(shown(value)) + 0.5) / len(self.options)

    def ticks(self, count: int) -> list[tuple[float, str]]:
        """(place, label) of every option, shortened to its slot; every second or third where even that is too much."""
        every = math.ceil(4 * LETTER / self.slot)
        room = self.slot * every - 8
        labels = [clipped(option, room) for option in self.options]
        if len(set(labels)) < len(labels):  # the beginnings may differ where the ends do not
            labels = [
                option if len(option) * LETTER <= room else option[: int(room / LETTER) - 1] + "…"
                for option in self.options
            ]
        return [(self.at(option), label) for option, label in zip(self.options, labels, strict=True)][::every]


Axis = Numbers | Choices


def apart(ticks: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Those of the horizontal `ticks` whose labels do not touch the one before."""
    kept: list[tuple[float, str]] = []
    for place, label in ticks:
        if not kept or abs(place - kept[-1][0]) > LETTER * (len(label) + len(kept[-1][1])) / 2 + 4:
            kept.append((place, label))
    return kept


def text(x: float, y: float, content: str, anchor: str = "start", kind: str = "") -> str:
    """A label."""
    described = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{described}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def path(points: Sequence[tuple[float, float]], kind: str, trial: int | None = None, tip: str = "") -> str:
    """A line through `points`, of a trial if it has one."""
    joined = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="{kind}"{of_trial(trial)} d="M{joined}">{titled(tip)}</path>'


def dot(x: float, y: float, kind: str, trial: int, tip: str, radius: float = 3.5) -> str:
    """A trial's point."""
    return f'<circle class="{kind}"{of_trial(trial)} cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}">{titled(tip)}</circle>'


def of_trial(trial: int | None) -> str:
    """The attribute by which page.js finds the marks of one trial."""
    return "" if trial is None else f' data-trial="{trial}"'


def titled(tip: str) -> str:
    """What a browser shows where the pointer rests."""
    return f"<title>{escape(tip)}</title>" if tip else ""


def drawing(height: float, label: str, marks: list[str], width: float = WIDTH) -> str:
    """The whole SVG; `label` says to those who do not see it what it shows."""
    body = "\n".join(mark for mark in marks if mark)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">\n{body}\n</svg>'


def frame(across: Axis, up: Axis, names: tuple[str, str], width: float = WIDTH) -> list[str]:
    """Grid lines, tick labels and names of two axes, the name of the upright one above it."""
    left, right, bottom, top = across.start, across.end, up.start, up.end
    marks = []
    for y, label in up.ticks(5):
        marks += [line(left, y, right, y, "grid"), text(left - 6, y + 4, clipped(label, left - 8), "end")]
    for x, label in apart(across.ticks(6)):
        marks += [line(x, bottom, x, bottom + 4, "axis"), text(x, bottom + 17, label, "middle")]
    logs = [" (log)" if isinstance(axis, Numbers) and axis.log else "" for axis in (across, up)]
    titles = [clipped(name, width - 70) + log for name, log in zip(names, logs, strict=True)]
    marks.append(line(left, bottom, right, bottom, "axis"))
    marks += [text(right, bottom + 34, titles[0], "end", "name"), text(4, top - 12, titles[1], "start", "name")]
    return marks
