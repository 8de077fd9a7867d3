"""The end of a run: one table, the written answers, and what to type next."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medbot_exp.report.console import print_facts
from medbot_exp.report.progress import duration, plural
from medbot_exp.rundir import RunDirectory


def print_summary(
    console: Console,
    result: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    directory: RunDirectory,
    tracking: str | None,
    following: str | None,
) -> None:
    """Print how the run of `result` (result.json) went.

    Args:
        samples: rows of predictions/samples.jsonl.
        tracking: where the mirror is; None without one.
        following: the command to type next, if there is one.
    """
    for sample in samples:
        console.print(f"\n[bold]{escape(sample['question'])}[/bold]")
        answers = Table.grid(padding=(0, 2, 0, 0))  # its second column keeps long answers apart from their names
        answers.add_column(justify="right", min_width=len("  reference"), style="dim")
        answers.add_column(overflow="fold")
        for name in ("reference", "before", "after"):
            answers.add_row(name, escape(final_words(sample[name])))
        console.print(answers)
    table = Table(box=box.SIMPLE_HEAD)
    for column, justify in (("", "left"), ("before", "right"), ("after", "right"), ("change", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    before, after = result["before"], result["metrics"]
    for label, key, form in rows_of(before, after):
        if key in before and key in after:
            table.add_row(label, form(before[key]), form(after[key]), change(key, before[key], after[key]))
    console.print()
    console.print(table)
    seconds = result["seconds"]
    spent = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items() if name != "total")
    since = f" since step {result['resumed_from']}" if result["resumed_from"] else ""
    facts = {
        "time": f"{duration(seconds['total'])} ({spent})",
        "training": f"{plural(result['steps'], 'step')}, {plural(result['tokens'], 'token')}{since}, "
        f"{result['tokens_per_second']:.0f} tokens/s",
        "memory": f"{result['peak_memory_gib']:.2f} GiB at most",
        "adapter": f"{directory}/{directory.adapter.name} ({result['trainable_parameters']:,} parameters)",
        "record": str(directory),
        **({"W&B": tracking} if tracking else {}),
        **({"next": following} if following else {}),
    }
    print_facts(console, facts)


def rows_of(
    before: Mapping[str, float], after: Mapping[str, float]
) -> Iterator[tuple[str, str, Callable[[float], str]]]:
    """(label, metric, format) of every row of the table."""
    yield "held-out loss (nats/token)", "validation/loss", "{:.4f}".format
    yield "held-out perplexity", "validation/perplexity", "{:.2f}".format
    for key in after:
        if key.endswith("/accuracy") and key in before:
            name, count = key.split("/")[1], int(after[key.replace("/accuracy", "/n")])
            yield f"accuracy on {name} (n={count})", key, "{:.1%}".format


def change(key: str, before: float, after: float) -> str:
    """The difference in the metric's own terms: points for shares, percent for the rest."""
    points = key.endswith("accuracy")
    difference = 100 * (after - before) if points else 100 * (after / before - 1)
    # round() first: -0.04 would be shown as -0.0.
    return f"{round(difference, 1) + 0.0:+.1f}{' points' if points else '%'}"


def final_words(text: str, width: int = 300) -> str:
    """The answer behind the reasoning, on one line, cut at `width` characters."""
    answer = text.rpartition("</think>")[2].split()
    line = " ".join(answer) or "(nothing)"
    return line if len(line) <= width else f"{line[:width]}…"
