"""A study as one HTML page that needs nothing beside itself: no network, no font, no script of others.

Everything can be read without JavaScript; page.js sorts the table, copies the command, and lights up one trial in all
charts. The colours, for light and dark and for print, are in page.css.
"""

import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from urllib.parse import quote

from medbot_exp.report.charts import curves, fronts, history, importances, kind, objective, parallel, slices
from medbot_exp.report.progress import duration
from medbot_exp.report.study import RETRIED, StudySummary, TrialRow, counts, plain
from medbot_exp.report.svg import number, shown

EMPTY = "<td>–</td>"


def page(summary: StudySummary, facts: Mapping[str, str], again: str | None) -> str:
    """The page.

    Args:
        facts: more to say at the top, such as the wall time, by name.
        again: the command that repeats the best trial; None where there is none.
    """
    if len(summary.directions) == 1:
        figures = [history(summary), curves(summary), importances(summary), parallel(summary)]
        wide = slices(summary)
    else:
        figures = [*fronts(summary), importances(summary), parallel(summary)]
        wide = ""
    sections = [
        heading(summary, facts),
        best(summary, again),
        "".join(figures) and f'<div class="figures">{"".join(figures)}</div>',
        wide,
        failures(summary),
        table(summary, "All trials", summary.trials, "all") if summary.trials else "",
    ]
    resources = files("medbot_exp.report")
    style, script = (resources.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    body = "\n".join(section for section in sections if section)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(summary.name)}: {len(summary.trials)} trials</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>
{script}</script>
</body>
</html>
"""


def heading(summary: StudySummary, facts: Mapping[str, str]) -> str:
    """The study's name and what it came to in a line."""
    states = counts(row.state for row in summary.trials)
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    told = {"trials": f"{len(summary.trials)}: {counted}" if summary.trials else "none has begun"}
    if len(summary.directions) > 1:
        told["Pareto front"] = f"{len(summary.best)} trials" if len(summary.best) != 1 else "1 trial"
    elif summary.best:
        told[f"best {summary.metric_names[0]}"] = f"{objective(summary.best[0])} (trial {summary.best[0].number})"
    told |= facts
    goals = " and ".join(
        f"{direction} <b>{escape(name)}</b>"
        for direction, name in zip(summary.directions, summary.metric_names, strict=True)
    )
    listed = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in told.items())
    return f'<header><h1>{escape(summary.name)}</h1><p class="goal">{goals}</p><dl class="facts">{listed}</dl></header>'


def best(summary: StudySummary, again: str | None) -> str:
    """The best trial's parameters, or the trials of the Pareto front, and the command that repeats it."""
    command = (
        f'<p class="label">Run it again</p><div class="command"><pre id="again">{escape(again)}</pre>'
        '<button type="button" data-copy="again" hidden>Copy</button></div>'
        if again
        else ""
    )
    if not summary.best:
        none = "No trial is complete, so none is best." if summary.trials else "No trial has begun."
        infeasible = any(row.state == "complete" for row in summary.trials)
        return f'<p class="note">{"No complete trial keeps the constraints." if infeasible else none}</p>{command}'
    if len(summary.directions) > 1:
        return table(summary, "Pareto front", summary.best, "front") + (command and f"<section>{command}</section>")
    (row,) = summary.best
    rows = "".join(f"<div><dt>{breakable(k)}</dt><dd>{breakable(plain(v))}</dd></div>" for k, v in row.params.items())
    return f'<section><h2>Best: trial {row.number}</h2><dl class="params">{rows}</dl>{command}</section>'


def failures(summary: StudySummary) -> str:
    """Why trials failed, for good or to be tried again, each reason once."""
    trials: dict[str, list[TrialRow]] = {}
    for row in summary.trials:
        if row.reason and row.state in ("failed", RETRIED):
            trials.setdefault(row.reason, []).append(row)
    listed = "".join(f"<li>{escape(reason)} <span>({numbered(rows)})</span></li>" for reason, rows in trials.items())
    return f'<section><h2>What went wrong</h2><ul class="reasons">{listed}</ul></section>' if listed else ""


def numbered(rows: list[TrialRow]) -> str:
    """The numbers of trials that failed, those that were tried again apart: trial 3, 5; trial 0, tried again."""
    groups = {
        end: [str(row.number) for row in rows if row.state == state]
        for end, state in (("", "failed"), (", tried again", RETRIED))
    }
    return "; ".join(f"trial {', '.join(numbers)}{end}" for end, numbers in groups.items() if numbers)


def table(summary: StudySummary, title: str, rows: list[TrialRow], name: str) -> str:
    """`rows` as a table that sorts by any column."""
    retried = any(row.retry_of is not None for row in rows)
    columns = ["trial", "state", *summary.metric_names, *summary.spaces, "time", *(["retry of"] if retried else [])]
    head = "".join(f'<th scope="col">{breakable(column)}</th>' for column in columns)
    lines = []
    for row in rows:
        cells = [trial_cell(row), f'<td class="state {kind(summary, row)}">{state(summary, row)}</td>']
        cells += (
            [cell(number(value, 5), value) for value in row.values] if row.values else [EMPTY] * len(summary.directions)
        )
        cells += [
            cell(shown(row.params[key]), row.params[key]) if key in row.params else EMPTY for key in summary.spaces
        ]
        cells.append(EMPTY if row.seconds is None else cell(duration(row.seconds), row.seconds))
        if retried:
            cells.append(EMPTY if row.retry_of is None else cell(str(row.retry_of), row.retry_of))
        lines.append(f'<tr data-trial="{row.number}">{"".join(cells)}</tr>')
    body = "\n".join(lines)
    return (
        f'<section><h2 id="{name}">{escape(title)}</h2>'
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}">'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div></section>"
    )


def breakable(name: str) -> str:
    """`name`, which may go over to the next line where its words end."""
    return re.sub(r"([._/,])", r"\1<wbr>", escape(name))


def state(summary: StudySummary, row: TrialRow) -> str:
    """How a trial ended, in a word."""
    marked = "Pareto front" if len(summary.directions) > 1 else "best"
    return marked if row in summary.best else row.state if row.feasible else f"{row.state}, infeasible"


def trial_cell(row: TrialRow) -> str:
    """The trial's number, leading to its directory where that is below the page's."""
    inside = row.directory is not None and not row.directory.startswith(("/", "..", "~"))
    leads = f'<a href="./{quote(row.directory or "")}">{row.number}</a>' if inside else str(row.number)
    return f'<td class="number" data-value="{row.number}">{leads}</td>'


def cell(label: str, value: object) -> str:
    """A cell that sorts by `value`, which its title tells in full."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td>{escape(label)}</td>"
    return f'<td class="number" data-value="{value}" title="{value}">{escape(label)}</td>'
