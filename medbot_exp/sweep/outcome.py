"""How a trial ended, in its own directory: written before the study is told, so that a kill between them loses nothing.

trial.json of any Hydra application; where the kill came before it, result.json of this one.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medbot_exp.rundir import RunDirectory, write_json

FILE = "trial.json"


@dataclass(frozen=True)
class Outcome:
    """The end of a trial.

    Attributes:
        state: complete, pruned, failed, stopped (by the user: it can go on).
        values: of the objectives, where it is complete.
        reason: why it failed.
    """

    state: str
    values: list[float] | None = None
    reason: str | None = None

    def trial_state(self) -> str:
        """Optuna's name of the state that a trial ends in."""
        return {"complete": "COMPLETE", "pruned": "PRUNED"}.get(self.state, "FAIL")

    def write(self, directory: Path) -> None:
        """Leave this in the directory of the trial."""
        write_json(directory / FILE, asdict(self))


def read_outcome(directory: Path) -> Outcome | None:
    """How the trial in `directory` ended; None where it did not come so far."""
    try:
        return Outcome(**json.loads((directory / FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        pass
    try:
        result: dict[str, Any] = json.loads(RunDirectory(directory).result.read_text(encoding="utf-8"))
        values = [float(value) for value in result["objective"].values()] if result["status"] == "complete" else None
        return Outcome(result["status"], values, result.get("error"))
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None  # no result yet, or a result.json of another application
