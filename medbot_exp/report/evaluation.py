"""The end of an evaluation: the tuned model beside its base, and how far that can be trusted."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from medbot_exp.report.console import print_facts
from medbot_exp.report.summary import accuracy_label, benchmarks_of, doubts, metrics_table
from medbot_exp.rundir import RunDirectory


def print_evaluation(
    console: Console, evaluations: Mapping[str, Mapping[str, Any]], directory: RunDirectory, tracking: str | None
) -> None:
    """Print what `evaluations` came to.

    Args:
        evaluations: by metric, the content of evaluations/<metric>.json.
        directory: where the record is.
        tracking: where the mirror is; None without one.
    """
    base = {key: value for each in evaluations.values() for key, value in each["base"].items()}
    tuned = {key: value for each in evaluations.values() for key, value in (each["tuned"] or {}).items()}
    against = {metric: each["against_base"] for metric, each in evaluations.items() if each["against_base"]}
    console.print()
    console.print(metrics_table(("base", "tuned"), base, tuned, against) if tuned else base_table(base))
    facts = {
        **doubts(tuned or base, against),
        "answers": f"{directory}/{directory.evaluations.name}",
        "record": str(directory),
        **({"W&B": tracking} if tracking else {}),
    }
    print_facts(console, facts)


def base_table(base: Mapping[str, Any]) -> Table:
    """The accuracies of a base model alone."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("base", justify="right")
    for name in benchmarks_of(base):
        table.add_row(accuracy_label(base, name), f"{base[f'eval/{name}/accuracy']:.1%}")
        clean = f"eval/{name}/clean/accuracy"
        if clean in base:
            table.add_row(f"  of {int(base[f'eval/{name}/clean/n'])} not given away", f"{base[clean]:.1%}")
    return table
