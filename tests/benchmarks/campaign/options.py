"""What a campaign is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from campaign.case import Verdict

# A case, to be run in the directory that it is given.
Job = Callable[[Path], Verdict]


class Skipped(Exception):
    """A fault cannot be brought about here: a tool is absent."""


@dataclass(frozen=True)
class Options:
    """How much, and what.

    Attributes:
        kills: at least so many random ones.
        seed: of the first study under random kills.
        point: what the points to be killed at begin with.
        keep: where the directories of failed cases stay.
        scratch: where the others come and go.
    """

    kills: int
    seed: int
    point: str
    keep: Path | None
    scratch: Path
