"""An evaluation that is killed (SIGKILL) and started again gives the bytes of an unbroken one, and asks little twice.

200 made-up items are answered in writing by model=tiny, greedily. For each moment there is an evaluation of its own,
killed once and started again; its kept answers and its record's predictions are held against those of a run that was
let be. Moment k lies behind k answers: the kept file is watched until it has the batches that are whole by then, and
the kill comes as far into the next batch as k is, by what a batch takes. A process notes in a ledger what it is about
to ask, which tells what was asked twice: at most the one batch at work.

Each evaluation is `python -m medbot_exp task=evaluate` in a process and session of its own, but for one thing: it is
forked from this one, which has loaded the libraries and computed nothing, as their seconds would be most of the time.

Measured, 200 kills, one behind each item: no answer differed, and at most 8 items, one batch, were asked twice.

usage: OMP_NUM_THREADS=1 python tests/benchmarks/kills.py [--kills 40 | --every-item] [--items 200] [--batch-size 8]
"""

import argparse
import contextlib
import os
import random
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# All that an evaluation loads; the forked ones begin behind that.
import peft  # noqa: F401
import transformers.generation  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

import medbot_exp.tasks.evaluate  # noqa: F401
from medbot_exp.cli import entrypoint
from medbot_exp.evaluation import examine, key_values  # noqa: F401
from medbot_exp.whole_files import read_jsonl, write_jsonl

LIMIT_SECONDS = 300


@dataclass(frozen=True)
class Evaluation:
    """An evaluation with a cache, a ledger and a root of its own in `folder`, which may be started several times."""

    folder: Path
    data: Path
    batch_size: int

    @property
    def ledger(self) -> Path:
        """The id of each item that was asked, in the order of asking."""
        return self.folder / "ledger"

    def command(self) -> list[str]:
        """What stands behind `python -m medbot_exp`."""
        return [
            "task=evaluate",
            "model=tiny",
            "prompt=direct",
            "tracking=none",
            "benchmark=[medqa]",
            f"benchmark.medqa.path={self.data}",
            f"benchmark.medqa.batch_size={self.batch_size}",
            "benchmark.medqa.method=generate",
            "benchmark.medqa.answer_tokens=8",
            f"cache_dir={self.folder / 'cache'}",
            f"root={self.folder / 'multirun'}",
        ]

    def start(self) -> int:
        """The id of a process that evaluates, at the head of a session of its own."""
        self.folder.mkdir(exist_ok=True)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            status = 1
            try:
                status = evaluate(self)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        return pid

    def kept(self) -> bytes:
        """The answers that are kept."""
        paths = list(self.folder.glob("cache/evaluations/*/predictions.jsonl"))
        return paths[0].read_bytes() if paths else b""

    def recorded(self) -> list[bytes]:
        """The predictions of each record."""
        return [path.read_bytes() for path in self.folder.glob("multirun/runs/*/*/evaluations/medqa-base.jsonl")]

    def asked(self) -> Counter[str]:
        """How often each item was asked."""
        return Counter(self.ledger.read_text().split()) if self.ledger.is_file() else Counter()


def evaluate(evaluation: Evaluation) -> int:
    """Be `python -m medbot_exp task=evaluate`, with a ledger; its exit status."""
    replies = examine.replies

    def noting(candidate: object, benchmark: object, batch: list) -> list:
        with evaluation.ledger.open("a") as file:
            file.write("".join(f"{question.item.id}\n" for question in batch))
        return replies(candidate, benchmark, batch)

    examine.replies = noting
    output = os.open(evaluation.folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["medbot_exp", *evaluation.command()]
    try:
        entrypoint()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def let_be(evaluation: Evaluation) -> None:
    """Start `evaluation` and wait for its end, which must be good."""
    pid = evaluation.start()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        sys.exit(f"{evaluation.folder} left with {status}:\n{(evaluation.folder / 'output').read_text()}")


def kill_behind(evaluation: Evaluation, answers: int, batch_seconds: float) -> bool:
    """Start `evaluation` and kill it behind `answers`; whether it was still at work."""
    pid = evaluation.start()
    whole = answers // evaluation.batch_size * evaluation.batch_size
    until(lambda: evaluation.kept().count(b"\n") >= whole and evaluation.asked().total() >= min(whole + 1, answers))
    time.sleep(answers % evaluation.batch_size / evaluation.batch_size * batch_seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def until(there: Callable[[], bool]) -> None:
    """Return as soon as `there` says so."""
    began = time.monotonic()
    while not there():
        if time.monotonic() - began > LIMIT_SECONDS:
            sys.exit(f"nothing was answered for {LIMIT_SECONDS} s")
        time.sleep(0.001)


def made_up(items: int) -> list[dict]:
    """Rows of MedQA's form, of many lengths."""
    rng = random.Random(0)
    words = [
        "fever",
        "cough",
        "a",
        "rash",
        "oedema",
        "of",
        "the",
        "kidney",
        "woman",
        "man",
        "weeks",
        "since",
        "returns",
    ]
    rows = []
    for number in range(items):
        question = f"Case {number}: {' '.join(rng.choices(words, k=rng.randint(5, 60)))}. What now?"
        options = {letter: f"{rng.choice(words)} {number}{letter}" for letter in "ABCD"}
        rows.append({"question": question, "options": options, "answer": options["B"], "answer_idx": "B"})
    return rows


def moments(options: argparse.Namespace) -> list[int]:
    """Behind how many answers each kill comes: spread over the whole evaluation."""
    if options.every_item:
        return list(range(1, options.items + 1))
    return [round(options.items * (number + 0.5) / options.kills) for number in range(options.kills)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--every-item", action="store_true", help="a kill behind each item")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        data = Path(scratch, "medqa.jsonl")
        write_jsonl(data, made_up(options.items))
        whole = Evaluation(Path(scratch, "whole"), data, options.batch_size)
        let_be(whole)
        (predictions,) = whole.recorded()
        (times,) = whole.folder.glob("cache/evaluations/*/seconds.jsonl")
        batch_seconds = statistics.median(row["seconds"] for row in read_jsonl(times))
        late = kept_otherwise = recorded_otherwise = 0
        twice: list[int] = []
        at_kill: list[int] = []
        for answers in moments(options):
            evaluation = Evaluation(Path(scratch, f"behind-{answers}"), data, options.batch_size)
            late += not kill_behind(evaluation, answers, batch_seconds)
            at_kill.append(evaluation.kept().count(b"\n"))
            let_be(evaluation)
            kept_otherwise += evaluation.kept() != whole.kept()
            recorded_otherwise += set(evaluation.recorded()) != {predictions}
            twice.append(sum(count - 1 for count in evaluation.asked().values()))
            if len(evaluation.asked()) != options.items:
                sys.exit(f"{evaluation.folder}: {len(evaluation.asked())} of {options.items} items were asked")
            print(f"behind {answers}: {at_kill[-1]} kept, {twice[-1]} asked twice", file=sys.stderr, flush=True)
    print(f"\n{options.items} items in batches of {options.batch_size}, {time.monotonic() - began:.0f} s in all\n")
    print("| kills | too late | answers kept by then | kept answers differ | predictions differ ", end="")
    print("| most items asked twice | at most | in all |\n|---|---|---|---|---|---|---|---|")
    print(
        f"| {len(twice)} | {late} | {min(at_kill)}-{max(at_kill)} | {kept_otherwise} | {recorded_otherwise} "
        f"| {max(twice)} | {options.batch_size} | {sum(twice)} |"
    )
    return int(kept_otherwise or recorded_otherwise or max(twice) > options.batch_size)


if __name__ == "__main__":
    sys.exit(main())
