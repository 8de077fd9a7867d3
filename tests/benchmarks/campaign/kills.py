"""Random kills, and a kill at every point."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

from campaign import ledger, points
from campaign.case import COMMAND_SECONDS, Case, Verdict
from campaign.contestants import Contestant, Setup
from campaign.options import Job, Options

TARGETS = ("controller", "trial", "both", "recovery")


def random_kills(contestant: Contestant, options: Options, killed: Callable[[], int]) -> Iterator[Job]:
    """Studies under random kills, until there were as many as asked for."""
    for seed in count(options.seed):
        if killed() >= options.kills:
            return
        yield partial(storm, contestant, seed=seed)


def storm(contestant: Contestant, folder: Path, seed: int, longest: int = 10) -> Verdict:
    """One study under at most `longest` random kills; every fourth is kept in a journal."""
    rng = random.Random(seed)
    setup = Setup(trials=rng.randint(3, 6), storage="journal" if seed % 4 == 3 else "sqlite")
    case = Case(f"random kills: --only random --seed {seed} --kills 1", contestant, setup, folder)
    case.start()
    for _ in range(rng.randint(4, longest)):
        target = rng.choice(TARGETS)
        if target == "recovery":
            # Again, before what the last kill left behind is in order.
            case.kill("both" if rng.random() < 0.5 else "controller")
            case.start()
            case.wait(rng.uniform(0.0, 1.8))
            case.kill(rng.choice(("controller", "both")))
        else:
            aim(case, rng)
            case.kill(target)
        if not case.alive() and done(case):
            break
        case.start()
    case.finish()
    return case.verdict()


def aim(case: Case, rng: random.Random) -> None:
    """Wait for a random moment: anywhere in the life of a command, or close to the work of a trial."""
    if rng.random() < 0.5:
        case.wait(rng.uniform(0.0, 2.5))
        return
    count = len(begun(case))
    case.wait_for(lambda: len(begun(case)) > count or not case.alive(), 4.0)
    case.wait(rng.uniform(0.0, 0.15))


def begun(case: Case) -> list[ledger.Event]:
    """The trials that began so far."""
    return [event for event in ledger.read(case.ledger) if event.kind == "begin"]


def done(case: Case) -> bool:
    """Whether the last command that left was done with its work."""
    left = [event for event in ledger.read(case.ledger) if event.kind == "left"]
    return bool(left) and left[-1].fields["status"] == 0


# What is killed: a study's first command, or the one that finds a dead controller and a dead trial.
SITUATIONS = ("first", "repeated")


def every_point(contestant: Contestant, options: Options, killed: Callable[[], int]) -> Iterator[Job]:
    """A kill before and after every call that changes something, in either situation."""
    for situation in SITUATIONS:
        if options.point.startswith(situation) or not options.point:
            for point in recorded(contestant, options.scratch / f"{contestant.key}-{situation}", situation):
                if f"{situation}/{point}".startswith(options.point):
                    yield partial(kill_at, contestant, situation=situation, point=point)


def recorded(contestant: Contestant, folder: Path, situation: str) -> list[str]:
    """Every point that the processes of a small study come to, in order."""
    case = small_study(contestant, folder, "recording", situation)
    record = case.folder / "points"
    case.start(**{points.RECORD: str(record)})
    case.wait(COMMAND_SECONDS)
    return list(dict.fromkeys(record.read_text().split("\n")[:-1]))


def kill_at(contestant: Contestant, folder: Path, situation: str, point: str) -> Verdict:
    """A small study in which the first process that comes to `point` is killed there."""
    case = small_study(contestant, folder, f"a point: --only points --point {situation}/{point}", situation)
    flag = case.folder / "flag"
    case.start(**{points.POINT: point, points.FLAG: str(flag)})
    for command in case.commands:
        command.killed = point.startswith("controller")
    case.wait_for(lambda: not case.alive(), COMMAND_SECONDS)
    case.kills += flag.is_file()
    case.finish()
    return case.verdict()


def small_study(contestant: Contestant, folder: Path, name: str, situation: str) -> Case:
    """A study of two trials one after the other, in the situation."""
    case = Case(name, contestant, Setup(trials=2, jobs=1), folder)
    if situation == "repeated":
        case.start()
        case.wait_for(lambda: any(event.kind == "report" for event in ledger.read(case.ledger)), COMMAND_SECONDS)
        case.kill("both")
    return case
