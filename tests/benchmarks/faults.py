"""A fault campaign: searches whose processes are killed, stopped and starved, beside bare Optuna under the same faults.

A toy application (campaign/toy.py, trials of 50 ms) and a plain Optuna script (campaign/bare.py) keep a ledger of what
they mean to do and did. After the faults of a case the same command is repeated until it exits with status 0, and then
must hold, for each contestant alike (campaign/judge.py):

  as many trials are complete as were planned, numbered without a gap, and none is left running or waiting
  no result that was there is lost, changed, or worked for again
  each number has one result, the one that its process wrote into the ledger
  no directory is written by two processes, and each trial has a W&B run id of its own
  no process is left, and no command failed that nobody killed

Recovery is the time from the start of a repeated command (or from the kill of a trial whose controller lives) to the
next progress: a trial begins, or the command is done. Python's start and that of the trial's process are in it.

Bare Optuna gets its best documented setup: see campaign/bare.py. A fault whose tool is absent is skipped, with a word.

usage: python tests/benchmarks/faults.py [--kills 1000] [--only random,points] [--seed 0] [--lanes 1] [--keep DIR]
"""

import argparse
import importlib.metadata
import os
import platform
import statistics
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from campaign.case import Verdict, discard, end_all, told
from campaign.contestants import Bare, Ours
from campaign.judge import RECOVERY_SECONDS, Violation
from campaign.options import Job, Options, Skipped
from campaign.parts import PARTS, Part


@dataclass
class Tally:
    """What came of the cases of one part for one contestant."""

    cases: int = 0
    kills: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    recovered: list[float] = field(default_factory=list)
    skipped: str | None = None

    def add(self, verdict: Verdict) -> None:
        """Count a case."""
        self.cases += 1
        self.kills += verdict.kills
        self.violations.update(found.kind for found in verdict.violations)
        self.failed += bool(verdict.violations)
        self.recovered += verdict.recovered

    def told_violations(self) -> str:
        """How many, in how many cases, and of which kinds."""
        if self.skipped is not None:
            return f"not run: {self.skipped}"
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.violations.most_common())
        if not kinds:
            return f"0 in {self.cases} cases"
        return f"{self.violations.total()} in {self.failed} of {self.cases} cases ({kinds})"

    def told_recovery(self, bounded: bool) -> str:
        """Median and maximum in seconds, where the fault does not say how long it takes."""
        if not self.recovered or not bounded:
            return "–"
        slow = sum(seconds > RECOVERY_SECONDS for seconds in self.recovered)
        more = f" ({slow} of {len(self.recovered)} above {RECOVERY_SECONDS:g} s)" if slow else ""
        return f"{statistics.median(self.recovered):.1f} / {max(self.recovered):.1f} s{more}"


def run(jobs: Iterator[Job], tally: Tally, lanes: int, options: Options) -> None:
    """Run all of `jobs`, `lanes` at a time."""
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                job = next(jobs, None)
            if job is None:
                return
            verdict = judged(job, Path(tempfile.mkdtemp(dir=options.keep or options.scratch)) / "case")
            with lock:
                tally.add(verdict)
                if verdict.violations:
                    print(told(verdict, options.keep), file=sys.stderr, flush=True)
                print(
                    f"{tally.cases} cases, {tally.kills} kills, {tally.told_violations()}", file=sys.stderr, flush=True
                )
            discard(verdict, options.keep)

    with ThreadPoolExecutor(lanes) as pool:
        for future in [pool.submit(work) for _ in range(lanes)]:
            future.result()


def judged(job: Job, folder: Path) -> Verdict:
    """The verdict of `job`, also where the campaign itself could not go through with it."""
    try:
        return job(folder)
    except Exception as error:
        print(traceback.format_exc(), file=sys.stderr)
        return Verdict(str(job), [Violation("campaign failed", repr(error))], [], 0, folder)
    finally:
        end_all(folder)


def versions() -> str:
    """The machine, and what runs on it."""
    names = ("medbot-exp", "optuna", "hydra-core", "sqlalchemy")
    found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, " + ", ".join(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="random kills of our processes")
    parser.add_argument("--bare-kills", type=int, default=200, help="random kills of bare Optuna's")
    parser.add_argument("--seed", type=int, default=0, help="of the first study under random kills")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, of {','.join(PARTS)}")
    parser.add_argument(
        "--point", default="", help="points that begin so: <situation>/<role>:<name>:<count>:<before or after>"
    )
    parser.add_argument("--contestants", default="ours,bare")
    parser.add_argument("--lanes", type=int, default=1, help="cases at a time; each keeps two cores busy")
    parser.add_argument("--keep", type=Path, help="where directories of failed cases stay")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"`--only` must name parts, but got {', '.join(unknown)}; they are {', '.join(PARTS)}")
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    violations = 0
    rows = []
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        for name in options.only.split(","):
            part, tallies = PARTS[name], {}
            for contestant in [each for each in (Ours(), Bare()) if each.key in options.contestants.split(",")]:
                tally = tallies[contestant.key] = Tally()
                print(f"{name}, {contestant.name}", file=sys.stderr, flush=True)
                asked = Options(
                    kills=options.kills if contestant.key == "ours" else options.bare_kills,
                    seed=options.seed,
                    point=options.point,
                    keep=options.keep,
                    scratch=Path(scratch),
                )
                try:
                    jobs = part.jobs(contestant, asked, lambda tally=tally: tally.kills)
                    run(jobs, tally, part.lanes or options.lanes, asked)
                except Skipped as reason:
                    tally.skipped = str(reason)
            rows.append(row(part, tallies))
            violations += tallies["ours"].violations.total() if "ours" in tallies else 0
    print(f"\n{versions()}\n")
    print("| fault | cases, ours / bare | kills | ours: violations | recovery median / max | bare Optuna: violations |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))
    return 1 if violations else 0


def row(part: Part, tallies: dict[str, Tally]) -> str:
    """A line of the table."""
    ours, bare = tallies.get("ours"), tallies.get("bare")
    each = [tally for tally in (ours, bare) if tally is not None and tally.skipped is None]
    cells = [
        part.label,
        " / ".join(str(tally.cases) for tally in each),
        " / ".join(str(tally.kills) for tally in each),
        ours.told_violations() if ours else "–",
        ours.told_recovery(part.bounded) if ours else "–",
        bare.told_violations() if bare else "–",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
