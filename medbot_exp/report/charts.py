"""The charts of a study's page: each function gives one, or nothing where there is nothing to show."""

import math
from collections.abc import Sequence
from html import escape
from itertools import accumulate, combinations

from medbot_exp.report.study import FEWEST_FOR_IMPORTANCES, RETRIED, StudySummary, TrialRow
from medbot_exp.report.svg import (
    WIDTH,
    Axis,
    Choices,
    Numbers,
    apart,
    clipped,
    dot,
    drawing,
    frame,
    line,
    number,
    path,
    plottable,
    shown,
    text,
)

PARAMETERS_SHOWN = 12
PAIRS_SHOWN = 3
POINTS_PER_CURVE = 200
SHADES = 5
NO_CHOICE = "–"
FAR = 6  # a value so many interquartile ranges beyond the worse quartile is drawn at the edge
FEWEST_FOR_QUARTILES = 8


def objective(row: TrialRow) -> str:
    """The values of `row`, shortened."""
    return ", ".join(number(value, 5) for value in row.values) if row.values else "–"


def tip(row: TrialRow) -> str:
    """`row` in a few lines, for where the pointer rests."""
    settings = [f"{name} = {shown(value)}" for name, value in row.params.items()]
    return "\n".join([f"trial {row.number}, {row.state}: {objective(row)}", *settings])


def kind(summary: StudySummary, row: TrialRow) -> str:
    """The class of a trial's mark."""
    if row in summary.best:
        return "best"
    return row.state if row.feasible else "infeasible"


def placed(summary: StudySummary, states: tuple[str, ...] = ("complete",)) -> list[TrialRow]:
    """Trials in one of `states` whose values have a place on an axis; the best last, so that they are on top."""
    rows = [row for row in summary.trials if row.state in states and row.values and all(map(plottable, row.values))]
    return sorted(rows, key=lambda row: row in summary.best)


def upright(
    summary: StudySummary, values: list[float], index: int = 0, bottom: float = 250, top: float = 34
) -> Numbers:
    """The axis of an objective; single values that are far worse than the rest do not squeeze it."""
    sign = 1 if summary.directions[index] == "minimize" else -1
    log = min(values) > 0
    losses = sorted(sign * (math.log10(value) if log else value) for value in values)
    lower, upper = losses[len(losses) // 4], losses[3 * len(losses) // 4]
    limit = upper + FAR * (upper - lower)
    if len(values) < FEWEST_FOR_QUARTILES or upper == lower:
        limit = losses[-1]
    near = [value for value in values if sign * (math.log10(value) if log else value) <= limit]
    return Numbers.over(near, bottom, top).padded()


def figure(title: str, note: str, legend: Sequence[tuple[str, str]], content: str) -> str:
    """A drawing under its title, with what its marks mean."""
    keys = "".join(f'<span class="key {kind}">{escape(label)}</span>' for kind, label in legend)
    explained = f'<p class="legend">{keys}{escape(note)}</p>' if keys or note else ""
    return f"<figure><figcaption><h2>{escape(title)}</h2>{explained}</figcaption>{content}</figure>"


def history(summary: StudySummary) -> str:
    """Every trial's value in the order of the trials, and the best so far; trials without a value as ticks below."""
    rows = placed(summary, ("complete", "pruned"))
    if not summary.trials or not rows:
        return ""
    marked = {id(row) for row in rows}
    ended = ("complete", "pruned", "failed", RETRIED)
    lost = [row for row in summary.trials if id(row) not in marked and row.state in ended]
    numbers = [row.number for row in summary.trials]
    across = Numbers.over([float(n) for n in numbers], 58, WIDTH - 12, log=False, whole=True)
    up = upright(summary, [row.values[0] for row in rows if row.values])
    marks = frame(across, up, ("trial", summary.metric_names[0]))
    # Infinities move no step but the first: they have no place to stand on.
    steps = [row for row in placed(summary) if row.feasible]
    steps.sort(key=lambda row: row.number)
    if steps:
        pick = min if summary.directions[0] == "minimize" else max
        reached = list(accumulate((row.values[0] for row in steps if row.values), pick))
        points: list[tuple[float, float]] = []
        for row, value in zip(steps, reached, strict=True):
            points += [(across.at(row.number), points[-1][1])] if points else []
            points.append((across.at(row.number), up.at(value)))
        marks.append(path([*points, (across.at(numbers[-1]), points[-1][1])], "so-far"))
    for row in rows:
        assert row.values is not None
        radius = 5 if row in summary.best else 3 if len(rows) <= 100 else 2
        marks.append(dot(across.at(row.number), up.at(row.values[0]), kind(summary, row), row.number, tip(row), radius))
    for row in lost:
        x = across.at(row.number)
        told = f"trial {row.number}, {row.state}: {row.reason or objective(row)}"
        marks.append(path([(x, 241), (x, 250)], tick(row), row.number, told))
    seen = {kind(summary, row) for row in rows}
    legend: list[tuple[str, str]] = [(key, key) for key in ("best", "complete", "infeasible", "pruned") if key in seen]
    legend += [("so-far", "best so far")] if steps else []
    ticks = {tick(row) for row in lost}
    told_ticks = (("lost", "failed, or no number"), (f"lost {RETRIED}", RETRIED))
    legend += [(key, label) for key, label in told_ticks if key in ticks]
    label = f"Value of {summary.metric_names[0]} by trial, {len(rows)} points"
    return figure(
        "History", beyond(up, [row.values[0] for row in rows if row.values]), legend, drawing(290, label, marks)
    )


def tick(row: TrialRow) -> str:
    """The class of the tick of a trial without a value."""
    return f"lost {RETRIED}" if row.state == RETRIED else "lost"


def curves(summary: StudySummary) -> str:
    """The values that the trials reported by step, a line each."""
    rows = [row for row in summary.trials if any(map(plottable, row.intermediate.values()))]
    if not rows:
        return ""
    rows.sort(key=lambda row: (row in summary.best, row.state != "pruned"))
    steps = [float(step) for row in rows for step in row.intermediate]
    across = Numbers.over(steps, 58, WIDTH - 12, log=False, whole=True)
    reported = [value for row in rows for value in row.intermediate.values() if plottable(value)]
    up = upright(summary, reported)
    marks = frame(across, up, ("step", summary.metric_names[0]))
    for row in rows:
        look = kind(summary, row) + (" faint" if len(rows) > 40 and row not in summary.best else "")
        pieces: list[list[tuple[float, float]]] = [[]]
        for step, value in row.intermediate.items():
            if plottable(value):
                pieces[-1].append((across.at(step), up.at(value)))
            elif pieces[-1]:
                pieces.append([])  # the line is broken where the value is no number
        pieces = [thinned(piece) for piece in pieces if piece]
        marks += [path(piece, f"curve {look}", row.number, tip(row)) for piece in pieces if len(piece) > 1]
        marks.append(dot(*pieces[-1][-1], look, row.number, tip(row), 4 if row in summary.best else 2.5))
    seen = {kind(summary, row) for row in rows}
    known = ("best", "complete", "infeasible", "pruned", "failed", RETRIED, "running")
    legend = [(f"line {key}", key) for key in known if key in seen]
    label = f"Reported values of {summary.metric_names[0]} by step, {len(rows)} trials"
    return figure("Learning curves", beyond(up, reported), legend, drawing(290, label, marks))


def beyond(axis: Numbers, values: list[float]) -> str:
    """A note on those of `values` that are drawn at the edge of `axis`."""
    count = sum(not axis.low <= value <= axis.high for value in values)
    return f"{count} at the edge: far beyond the others" if count else ""


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most about `POINTS_PER_CURVE` of `points`, the last among them: a page has no room for more."""
    every = math.ceil(len(points) / POINTS_PER_CURVE)
    return points if every == 1 else [*points[:-1:every], points[-1]]


def importances(summary: StudySummary) -> str:
    """How much each parameter counts, as bars; in place of them what it takes to say so, where trials are few."""
    complete = sum(row.state == "complete" for row in summary.trials)
    if summary.importances is None:
        few = 0 < complete < FEWEST_FOR_IMPORTANCES and len(summary.spaces) > 1
        note = f"Shown from {FEWEST_FOR_IMPORTANCES} complete trials on, of which the study has {complete}."
        return figure("Parameter importances", note, [], "") if few else ""
    longest = max(summary.importances.values())
    marks = []
    bars = list(summary.importances.items())[:PARAMETERS_SHOWN]
    for index, (name, share) in enumerate(bars):
        y = 14 + 36 * index
        width = (WIDTH - 60) * share / longest
        marks.append(text(4, y, clipped(name, WIDTH - 12), "start", "name"))
        marks.append(f'<rect class="bar" x="4" y="{y + 5:.1f}" width="{max(width, 1):.1f}" height="12" rx="2"/>')
        marks.append(text(width + 12, y + 15, "<1%" if share < 0.01 else f"{share:.0%}"))
    label = "Parameter importances: " + ", ".join(f"{k} {v:.0%}" for k, v in summary.importances.items())
    content = drawing(36 * len(bars) + 6, label, marks)
    note = f"What sets the best apart (PED-ANOVA, {complete} complete trials)."
    note += " From so few, a hint at most." if complete < 20 else ""
    left = len(summary.importances) - len(bars)
    note += f" {left} more count less." if left else ""
    return figure("Parameter importances", note, [], content)


def axis_of(summary: StudySummary, name: str, start: float, end: float) -> Axis:
    """The axis of a parameter, over the space where it was looked for."""
    space = summary.spaces[name]
    if space.choices:
        return Choices(list(dict.fromkeys(map(shown, space.choices))), start, end)
    return Numbers.over([float(space.low), float(space.high)], start, end, log=space.log, whole=space.whole)


def by_importance(summary: StudySummary, rows: list[TrialRow]) -> list[str]:
    """The parameters that `rows` have, the most important first."""
    ranked = dict.fromkeys([*(summary.importances or {}), *summary.spaces])
    return [name for name in ranked if any(name in row.params for row in rows)]


def parallel(summary: StudySummary) -> str:
    """Parallel coordinates, an axis a row, so that long names and a phone's width fit."""
    rows = placed(summary)
    if not rows or len(summary.spaces) + len(summary.directions) < 2:
        return ""
    several = len(summary.directions) > 1
    names = by_importance(summary, rows)[:PARAMETERS_SHOWN]
    partial = {name for name in names if not all(name in row.params for row in rows)}
    axes: list[tuple[str, Axis]] = [
        (name, axis_of(summary, name, 60 if name in partial else 20, WIDTH - 20)) for name in names
    ]
    for index, metric in enumerate(summary.metric_names):
        axes.append((metric, Numbers.over([row.values[index] for row in rows if row.values], 20, WIDTH - 20)))
    heights = [36 + 62 * index for index in range(len(axes))]
    lines = []
    for rank, row in enumerate(shaded_order(summary, rows)):
        assert row.values is not None
        places = [axis.at(row.params[name]) if name in row.params else 24 for name, axis in axes[: len(names)]]
        places += [axis.at(value) for (_, axis), value in zip(axes[len(names) :], row.values, strict=True)]
        rank_shade = SHADES // 2 if several else rank * SHADES // len(rows)
        shade = "best" if row in summary.best else f"shade{rank_shade}"
        lines.append(path(list(zip(places, heights, strict=True)), f"thread {shade}", row.number, tip(row)))
    marks = []
    for (name, axis), y in zip(axes, heights, strict=True):
        log = " (log)" if isinstance(axis, Numbers) and axis.log else ""
        marks += [
            line(axis.start, y, axis.end, y, "axis"),
            text(4, y - 11, clipped(name, WIDTH - 60) + log, kind="name halo"),
        ]
        ticks = apart(([(24.0, NO_CHOICE)] if name in partial else []) + axis.ticks(6))
        for x, label in ticks:
            marks += [line(x, y - 3, x, y + 3, "axis"), text(x, y + 17, label, "middle", "halo")]
    others = [("line shade2", "other")] if several else [("line shade4", "better"), ("line shade0", "worse")]
    legend = [("line best", "Pareto front" if several else "best")] if summary.best else []
    legend += others if len(rows) > len(summary.best) else []
    label = f"Parallel coordinates of {len(rows)} complete trials over {', '.join(name for name, _ in axes)}"
    left = len(summary.spaces) - len(names)
    note = (f"{NO_CHOICE} where a trial has none. " if partial else "") + (f"{left} more not shown." if left else "")
    return figure("Parallel coordinates", note, legend, drawing(heights[-1] + 28, label, [*lines, *marks]))


def shaded_order(summary: StudySummary, rows: list[TrialRow]) -> list[TrialRow]:
    """`rows` from worst to best, in which they are drawn; those of several objectives have no such order."""
    if len(summary.directions) > 1:
        return rows
    sign = 1 if summary.directions[0] == "maximize" else -1
    return sorted(rows, key=lambda row: (row in summary.best, sign * row.values[0] if row.values else 0))


def slices(summary: StudySummary) -> str:
    """The objective over each parameter by itself, the most important first."""
    rows = placed(summary)
    names = by_importance(summary, rows)
    if not names or len(rows) < 2:
        return ""
    drawings = []
    for name in names[:PARAMETERS_SHOWN]:
        across = axis_of(summary, name, 52, 290)
        up = upright(summary, [row.values[0] for row in rows if row.values], 0, 140, 30)
        marks = frame(across, up, (name, summary.metric_names[0]), 300)
        for row in rows:
            if name in row.params and row.values:
                x = across.at(row.params[name])
                if isinstance(across, Choices):  # beside each other rather than on top, the same way every time
                    x += (row.number * 0.618 % 1 - 0.5) * across.slot * 0.5
                radius = 4.5 if row in summary.best else 3
                marks.append(dot(x, up.at(row.values[0]), kind(summary, row), row.number, tip(row), radius))
        drawings.append(drawing(180, f"{summary.metric_names[0]} over {name}", marks, 300))
    cut = f'<p class="note">{PARAMETERS_SHOWN} of {len(names)}.</p>' if len(names) > PARAMETERS_SHOWN else ""
    return f'<section><h2>One parameter at a time</h2>{cut}<div class="slices">{"".join(drawings)}</div></section>'


def fronts(summary: StudySummary) -> list[str]:
    """A scatter of each pair of objectives, the Pareto front marked."""
    rows = placed(summary)
    if not rows:
        return []
    made = []
    for first, second in list(combinations(range(len(summary.directions)), 2))[:PAIRS_SHOWN]:
        names = summary.metric_names[first], summary.metric_names[second]
        pairs = {row.number: (row.values[first], row.values[second]) for row in rows if row.values}
        across = upright(summary, [pair[0] for pair in pairs.values()], first, 58, WIDTH - 16)
        up = upright(summary, [pair[1] for pair in pairs.values()], second)
        marks = frame(across, up, names)
        if len(summary.directions) == 2:
            front = sorted(pairs[row.number] for row in rows if row in summary.best)
            corners = [(across.at(a), up.at(b)) for a, b in front]
            marks.append(path(corners, "so-far") if len(corners) > 1 else "")
        for row in rows:
            x, y = pairs[row.number]
            radius = 5 if row in summary.best else 3
            marks.append(dot(across.at(x), up.at(y), kind(summary, row), row.number, tip(row), radius))
        goals = ", ".join(f"{summary.directions[index]} {summary.metric_names[index]}" for index in (first, second))
        legend = [("best", "Pareto front"), ("complete", "complete")]
        legend += [("infeasible", "infeasible")] if any(not row.feasible for row in rows) else []
        label = f"{names[1]} over {names[0]}, {len(rows)} complete trials"
        made.append(figure("Trade-off", f"({goals})", legend, drawing(290, label, marks)))
    return made
