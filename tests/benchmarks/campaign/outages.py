"""Faults besides kills: stopped processes, full disks, torn journals, held locks, clock jumps, a server's crash."""

import fcntl
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from campaign import ledger, points
from campaign.case import COMMAND_SECONDS, Case, Verdict
from campaign.contestants import Contestant, Ours, Setup
from campaign.options import Job, Options, Skipped
from campaign.postgres import PostgresServer, running_server

LOCK_SECONDS = 60.0
# Another host, as far as a process can tell: only beats say whether its processes live.
ELSEWHERE = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh")


def count(case: Case, kind: str) -> int:
    """How many events of `kind` there were."""
    return sum(event.kind == kind for event in ledger.read(case.ledger))


# Where a trial is stopped until it was declared dead: before it takes up its ticket, between reports, with its value
# found but not written, with its result written but not told.
STOPS = ("trial:claim:0:before", "trial:report:1:before", "trial:write:0:before", "trial:tell:0:before")
BARE_STOPS = ("controller:report:1:before", "controller:tell:0:before")


def stopped(contestant: Contestant, options: Options, killed: Callable[[], int]) -> Iterator[Job]:
    """A trial of another host that is stopped, declared dead, and wakes up."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        raise Skipped("unshare --uts needs util-linux and root")
    for point in STOPS if contestant.key == "ours" else BARE_STOPS:
        for controller_too in (False, True) if contestant.key == "ours" else (False,):
            yield partial(stop_at, contestant, point=point, controller_too=controller_too)


def stop_at(contestant: Contestant, folder: Path, point: str, controller_too: bool) -> Verdict:
    """A trial stopped at `point`; its controller is killed, or stopped and woken with it."""
    how = "with its controller" if controller_too else "its controller killed"
    setup = Setup(trials=3, jobs=1, nap=2)
    case = Case(f"a trial stopped at {point}, {how}: --only stopped", contestant, setup, folder)
    flag = case.folder / "flag"
    environment = {points.POINT: point, points.FLAG: str(flag), points.SIGNAL: "SIGSTOP"}
    case.start(ELSEWHERE, None, 0, **environment)
    case.wait_for(flag.is_file, COMMAND_SECONDS)
    sleepers = [int(flag.read_text())]
    if controller_too:
        sleepers += case.processes("controller")
        stop_without_lock(sleepers[1], contestant.file(case.setup, case.folder))
    else:
        case.kill_all("controller", case.processes("controller") if contestant.key == "ours" else [])
    began = count(case, "begin")
    case.start(more=1 if case.alive() else 0)
    other = case.commands[-1].process
    # The other host runs the two trials that are left, declares this one dead and, unless its result was written,
    # begins a third one in its stead: that is when it wakes.
    case.wait_for(lambda: count(case, "begin") > began + 2 or other.poll() is not None, COMMAND_SECONDS)
    for pid in sleepers:
        os.kill(pid, signal.SIGCONT)
    case.wait(COMMAND_SECONDS)
    case.finish()
    return case.verdict()


def stop_without_lock(pid: int, database: Path) -> None:
    """Stop a process at a moment when it does not keep `database` locked: that is a fault of its own."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        with closing(sqlite3.connect(database, timeout=0.5, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
                return
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.05)


# Bytes that a file may have: from nothing at all to what a study of these needs.
SIZES = {
    "sqlite": (0, 8_192, 65_536, 131_072, 180_224, 262_144, 393_216),
    "journal": (0, 300, 700, 1_500, 2_500, 4_000),
}


def full_disk(contestant: Contestant, options: Options, killed: Callable[[], int]) -> Iterator[Job]:
    """A disk that fills up, for all processes from the beginning or for one of them in the midst of its work."""
    for storage, sizes in SIZES.items():
        for size in sizes:
            yield partial(starve_from_start, contestant, storage=storage, size=size)
        for role in ("controller", "trial") if contestant.key == "ours" else ("controller",):
            yield partial(starve_midway, contestant, storage=storage, role=role)


def starve_from_start(contestant: Contestant, folder: Path, storage: str, size: int) -> Verdict:
    """No file grows beyond `size` until the command ended; then it is repeated with room."""
    name = f"disk full at {size} bytes, {storage}: --only disk"
    case = Case(name, contestant, Setup(trials=3, storage=storage), folder, starved=True)
    case.start(preexec=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    return with_room_again(case)


def starve_midway(contestant: Contestant, folder: Path, storage: str, role: str) -> Verdict:
    """The first process of `role` can write nothing any more once the second trial has begun."""
    name = f"disk full for a {role}, {storage}: --only disk"
    case = Case(name, contestant, Setup(trials=4, nap=1, storage=storage), folder, starved=True)
    case.start()
    case.wait_for(lambda: count(case, "begin") > 1, COMMAND_SECONDS)
    for pid in case.processes(role)[:1]:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))
    return with_room_again(case)


def with_room_again(case: Case) -> Verdict:
    """The verdict, once the command has ended for want of room and was repeated with room."""
    if not case.wait(COMMAND_SECONDS):
        case.kill_all("both", case.processes())
    case.wait_for(lambda: not case.processes(), 10)
    case.starved = False
    case.finish()
    return case.verdict()


def torn_journal(contestant: Contestant, options: Options, killed: Callable[[], int]) -> Iterator[Job]:
    """A journal whose last record, the end of the last trial, was written up to any of its bytes."""
    whole = Case(
        "the journal to be cut", contestant, Setup(2, jobs=1, storage="journal"), options.scratch / contestant.key
    )
    whole.finish()
    journal = contestant.file(whole.setup, whole.folder).read_bytes()
    last = len(journal) - (journal.rstrip(b"\n").rfind(b"\n") + 1)
    for missing in range(1, last + 1):
        yield partial(cut, contestant, whole=whole, missing=missing)


def cut(contestant: Contestant, folder: Path, whole: Case, missing: int) -> Verdict:
    """The command again, on a journal without its last bytes."""
    case = Case(f"a journal without its last {missing} bytes: --only journal", contestant, whole.setup, folder)
    shutil.copytree(whole.folder, folder, dirs_exist_ok=True)
    file = contestant.file(case.setup, folder)
    os.truncate(file, file.stat().st_size - missing)
    case.finish()
    return case.verdict()


def held_lock(contestant: Contestant, options: Options, killed: Callable[[], int]) -> Iterator[Job]:
    """Another process that keeps the storage locked for a minute."""
    for storage in ("sqlite", "journal"):
        for killed_too in (False, True):
            yield partial(hold, contestant, storage=storage, killed_too=killed_too)


def hold(contestant: Contestant, folder: Path, storage: str, killed_too: bool) -> Verdict:
    """The storage locked in the midst of a study, whose processes may be killed meanwhile and started again."""
    more = ", processes killed meanwhile" if killed_too else ""
    case = Case(f"{storage} locked{more}: --only lock", contestant, Setup(4, nap=0.5, storage=storage), folder)
    case.start()
    case.wait_for(lambda: count(case, "report") > 1, COMMAND_SECONDS)
    file = contestant.file(case.setup, case.folder)
    holder = threading.Thread(target={"sqlite": lock_database, "journal": lock_journal}[storage], args=(file,))
    holder.start()
    if killed_too:
        time.sleep(5)
        case.kill_all("both", case.processes())
        case.start()
    holder.join()
    case.wait(COMMAND_SECONDS)
    case.finish()
    return case.verdict()


def lock_database(file: Path) -> None:
    """Keep writers out of a database for LOCK_SECONDS."""
    connection = sqlite3.connect(file, timeout=60, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    time.sleep(LOCK_SECONDS)
    connection.execute("ROLLBACK")
    connection.close()


def lock_journal(file: Path) -> None:
    """Hold the lock that writers of a journal take, for LOCK_SECONDS: our flock, and Optuna's file."""
    own, optunas = Path(f"{file}.write.lock"), Path(f"{file}.lock")
    if own.exists():
        with own.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            time.sleep(LOCK_SECONDS)
        return
    while True:
        try:
            optunas.symlink_to(file)
            break
        except FileExistsError:
            time.sleep(0.001)
    time.sleep(LOCK_SECONDS)
    optunas.unlink(missing_ok=True)


def clock_jumps(contestant: Contestant, options: Options, killed: Callable[[], int]) -> Iterator[Job]:
    """The wall clock an hour further or back, in the midst of a study."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Skipped("the clock that jumps needs a C compiler")
    clock = options.scratch / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", clock, Path(__file__).with_name("clock.c")], check=True)
    for seconds in (3600, -3600):
        for target in (None, "trial", "both"):
            yield partial(jump, contestant, clock=clock, seconds=seconds, target=target)


def jump(contestant: Contestant, folder: Path, clock: Path, seconds: int, target: str | None) -> Verdict:
    """A jump of the wall clock, after which processes may be killed."""
    name = f"the clock jumps by {seconds} s, then kills {target}: --only clock"
    case = Case(name, contestant, Setup(4, nap=0.5), folder)
    offset = case.folder / "clock"
    offset.write_text("0")
    case.environment = {"LD_PRELOAD": str(clock), "FAULTS_CLOCK": str(offset)}
    case.start()
    case.wait_for(lambda: count(case, "report") > 1, COMMAND_SECONDS)
    offset.write_text(str(seconds))
    if target is not None:
        case.kill(target)
        case.start()
    case.wait(COMMAND_SECONDS)
    case.finish()
    return case.verdict()


def server_crash(contestant: Contestant, options: Options, killed: Callable[[], int]) -> Iterator[Job]:
    """A PostgreSQL server that crashes in the midst of a study and comes back."""
    try:
        with running_server() as server:
            for seed in range(options.seed, options.seed + 6):
                yield partial(crash, contestant, server=server, seed=seed)
    except FileNotFoundError as error:
        raise Skipped(str(error)) from error


def crash(contestant: Contestant, folder: Path, server: PostgresServer, seed: int) -> Verdict:
    """The server gone for some seconds at a random moment."""
    rng = random.Random(seed)
    database = f"{contestant.key}_{seed}"
    server.create_database(database)
    setup = Setup(trials=6, nap=0.3, storage=server.url_of(database))
    case = Case(f"PostgreSQL crashes: --only postgresql --seed {seed}", contestant, setup, folder)
    case.start()
    case.wait_for(lambda: count(case, "report") > 1, COMMAND_SECONDS)
    case.wait(rng.uniform(0, 1))
    server.stop("immediate")
    time.sleep(rng.uniform(0.5, 4))
    server.start()
    case.wait(COMMAND_SECONDS)
    case.finish()
    return case.verdict()


def two_controllers(contestant: Contestant, options: Options, killed: Callable[[], int]) -> Iterator[Job]:
    """Two commands at once on one study, under random kills of either and of trials."""
    for seed in range(options.seed, options.seed + 8):
        yield partial(share, contestant, seed=seed)


class Two(Ours):
    """The same command typed twice."""

    def processes(self, setup: Setup) -> int:
        return 2


def share(contestant: Contestant, folder: Path, seed: int) -> Verdict:
    """One study of two commands."""
    rng = random.Random(seed)
    name = f"two controllers: --only controllers --seed {seed}"
    twice = Two() if contestant.key == "ours" else contestant
    case = Case(name, twice, Setup(trials=6, jobs=1 if contestant.key == "ours" else 2), folder)
    case.start()
    for _ in range(5):
        case.wait(rng.uniform(0.5, 2.5))
        if not case.alive():
            break
        role = rng.choice(("controller", "controller", "trial")) if contestant.key == "ours" else "controller"
        found = case.processes(role)
        case.kill_all(role, rng.sample(found, min(1, len(found))))
        case.start()
    case.finish()
    return case.verdict()
