"""Consoles for a person: results on stdout, progress on stderr."""

import os
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape


class Stdout(Console):
    """Standard output; a reader that went away (`| head`) ends the output and not the program."""

    def on_broken_pipe(self) -> None:
        """Send the rest nowhere: rich would leave with status 1 in the middle of a grid."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def stdout_console() -> Stdout:
    """The console for results."""
    return Stdout(emoji=False)


def stderr_console() -> Console:
    """The console for progress: stdout stays free for results."""
    return Console(file=sys.stderr)


def print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Print one `name  value` line each, the names in a column; values are never cut."""
    width = max(map(len, facts))
    for name, value in facts.items():
        console.print(f"  {name:<{width}}  {escape(value)}", soft_wrap=True, highlight=False)
