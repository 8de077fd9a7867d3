"""How a trial ended, in its own directory: written before the study is told, so that a kill between them loses nothing.

trial.json of any Hydra application; where the kill came before it, result.json of this one.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medbot_exp.rundir import RunDirectory
from medbot_exp.whole_files import write_json

FILE = "trial.json"


@dataclass(frozen=True)
class Outcome:
    """The end of a trial.

    Attributes:
        state: complete; pruned; failed; died (its process was killed: it may be tried again); stopped (by the user, or
            for want of room: it is tried again at no cost).
        values: of the objectives, where it is complete.
        reason: why it came to no result.
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


def correct_result(directory: Path, outcome: Outcome) -> None:
    """Let result.json of a run in `directory` say what `outcome` does, where the run itself could not.

    One that another process ended has none, and one that its study gave up says `complete`.
    """
    run = RunDirectory(directory)
    if not run.config.is_file():
        return  # of another application, or of a run that did not begin
    try:
        result: dict[str, Any] = json.loads(run.result.read_text(encoding="utf-8"))
    except FileNotFoundError:
        began = run.config.stat().st_mtime
        last = max(path.stat().st_mtime for path in (run.config, run.metrics, run.log) if path.is_file())
        result = {"seconds": {"total": round(last - began, 3)}}
    write_json(run.result, result | {"status": "failed", "objective": {}, "error": outcome.reason})
