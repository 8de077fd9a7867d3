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

MANY_CUT = 0.1  # share of replies without an answer that were cut, from which the remedy is told


def print_summary(
    console: Console,
    result: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    directory: RunDirectory,
    tracking: str | None,
    following: str | None,
    test: str | None = None,
) -> None:
    """Print how the run of `result` (result.json) went.

    Args:
        samples: rows of predictions/samples.jsonl.
        tracking: where the mirror is; None without one.
        following: the command to type next, if there is one.
        test: the command that reads the test of a run that is chosen by something else; None where there is none.
    """
    for sample in samples:
        console.print(f"\n[bold]{escape(sample['question'])}[/bold]")
        answers = Table.grid(padding=(0, 2, 0, 0))  # its second column keeps long answers apart from their names
        answers.add_column(justify="right", min_width=len("  reference"), style="dim")
        answers.add_column(overflow="fold")
        for name in ("reference", "before", "after"):
            answers.add_row(name, escape(final_words(sample[name])))
        console.print(answers)
    console.print()
    console.print(metrics_table(("before", "after"), result["before"], result["metrics"], result["against_base"]))
    seconds = result["seconds"]
    spent = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items() if name != "total")
    since = f" since step {result['resumed_from']}" if result["resumed_from"] else ""
    facts = {
        **doubts(result["metrics"], result["against_base"]),
        "time": f"{duration(seconds['total'])} ({spent})",
        "training": f"{plural(result['steps'], 'step')}, {plural(result['tokens'], 'token')}{since}, "
        f"{result['tokens_per_second']:.0f} tokens/s",
        "memory": f"{result['peak_memory_gib']:.2f} GiB at most",
        "adapter": f"{directory}/{directory.adapter.name} ({result['trainable_parameters']:,} parameters)",
        "record": str(directory),
        **({"W&B": tracking} if tracking else {}),
        **({"test": f"not read yet; {test}"} if test else {}),
        **({"next": following} if following else {}),
    }
    print_facts(console, facts)


def metrics_table(
    columns: tuple[str, str], before: Mapping[str, Any], after: Mapping[str, Any], against_base: Mapping[str, Any]
) -> Table:
    """What two models measure, under the two `columns`, and the change, with its interval where they were compared."""
    table = Table(box=box.SIMPLE_HEAD)
    for column, justify in (("", "left"), *((name, "right") for name in columns), ("change", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    intervals = {f"eval/{name}/accuracy": each["interval"] for name, each in against_base.items()}
    for label, key, form in rows_of(before, after):
        if key in before and key in after:
            changed = change(key, before[key], after[key], intervals.get(key))
            table.add_row(label, form(before[key]), form(after[key]), changed)
    return table


def rows_of(
    before: Mapping[str, float], after: Mapping[str, float]
) -> Iterator[tuple[str, str, Callable[[float], str]]]:
    """(label, metric, format) of every row of the table."""
    yield "held-out loss (nats/token)", "validation/loss", "{:.4f}".format
    yield "held-out perplexity", "validation/perplexity", "{:.2f}".format
    for name in benchmarks_of(after):
        yield accuracy_label(after, name), f"eval/{name}/accuracy", "{:.1%}".format
        clean = f"eval/{name}/clean/accuracy"
        if clean in after:
            yield f"  of {int(after[f'eval/{name}/clean/n'])} not given away", clean, "{:.1%}".format


def accuracy_label(metrics: Mapping[str, Any], name: str) -> str:
    """What the accuracy on `name` is of: how many answers, of how many where some items found no room."""
    count, left_out = (int(metrics[f"eval/{name}/{key}"]) for key in ("n", "too_long"))
    items = metrics.get(f"eval/{name}/items")
    turns = f", {int(items)} items in turns" if items else ""
    return f"accuracy on {name} (n={count}{f' of {count + left_out}' if left_out else ''}{turns})"


def benchmarks_of(metrics: Mapping[str, Any]) -> list[str]:
    """The names of the benchmarks that `metrics` are of; an accuracy of some of the items has a longer name."""
    keys = (key.split("/") for key in metrics)
    return [parts[1] for parts in keys if len(parts) == 3 and parts[0] == "eval" and parts[2] == "accuracy"]


def change(key: str, before: float, after: float, interval: Mapping[str, float] | None = None) -> str:
    """The difference in the metric's own terms, points for shares and percent for the rest, with its `interval`."""
    if not key.endswith("accuracy"):
        return f"{signed(100 * (after / before - 1))}%"
    bounds = "" if interval is None else f" ({signed(100 * interval['low'])} to {signed(100 * interval['high'])})"
    return f"{signed(100 * (after - before))} points{bounds}"


def signed(value: float) -> str:
    """`value` with its sign and one decimal; round() first, as -0.04 would be shown as -0.0."""
    return f"{round(value, 1) + 0.0:+.1f}"


def doubts(metrics: Mapping[str, Any], against_base: Mapping[str, Any]) -> dict[str, str]:
    """How far the accuracies among `metrics` can be trusted, a line for each benchmark."""
    facts = {}
    for name in benchmarks_of(metrics):
        told = doubts_of(metrics, name)
        compared = against_base.get(name)
        if compared is not None:
            smallest = compared["detectable"]
            shown = (
                f"differences show from {100 * smallest:.1f} points on" if smallest < 1 else "no difference can show"
            )
            told.append(f"against the base p {compared['p']:.2g}, where {shown}")
        facts[name] = "; ".join(told)
    return facts


def doubts_of(metrics: Mapping[str, Any], name: str) -> list[str]:
    """What stands beside the accuracy on `name`: its interval, what needs no model, and what has no answer."""
    values = {key.removeprefix(f"eval/{name}/"): value for key, value in metrics.items()}
    over = f", over {int(values['subjects'])} subjects" if "subjects" in values else ""
    told = [
        f"{values['accuracy_low']:.1%} to {values['accuracy_high']:.1%} (95%{over})",
        f"chance {values['chance']:.1%}, most frequent label {values['majority']:.1%}",
    ]
    states = ("unparsed", "truncated", "unclosed_think")
    missing = [f"{values[state]:.1%} {state.replace('_', ' ')}" for state in states if values[state]]
    if missing:
        told.append(f"no answer: {', '.join(missing)} (at best {values['accuracy_best']:.1%})")
    if values["truncated"] + values["unclosed_think"] > MANY_CUT:
        told.append("more thinking_tokens and answer_tokens let it write on")
    if values["too_long"]:
        told.append(f"{plural(int(values['too_long']), 'item')} too long for the model")
    return told


def final_words(text: str, width: int = 300) -> str:
    """The answer behind the reasoning, on one line, cut at `width` characters."""
    answer = text.rpartition("</think>")[2].split()
    line = " ".join(answer) or "(nothing)"
    return line if len(line) <= width else f"{line[:width]}…"
