"""What answering a benchmark in batches brings beside one item at a time: the same rows, limits and model, in turns.

Replies are greedy, in the run's prompt, and pass through all that an evaluation does with them: put in order by their
lengths, padded on the left, written, read, and appended to the kept answers. What one item at a time answers is held
against what a batch does: a padded row's numbers differ in their last bits, and where two tokens are as likely as
each other to within these, a reply goes another way from there.

The rows are those in the middle when all of the file are put in order by their lengths: in a whole evaluation a batch
has rows of about one length. The processors' seconds are told besides, as those of the clock mean little where other
programs run; with several threads, waiting for one another counts among them.

Measured with two threads on two cores (AMD EPYC), 32 rows: tiny, three rounds, 2.99 times the rows per second in
batches of 8, 3.60 of 16, 4.24 of 32; SmolLM2-135M, one round, 2.85 of 8, 4.30 of 16, 5.65 of 32. No reply differed.

usage: OMP_NUM_THREADS=2 python tests/benchmarks/batches.py --data ../shared/data/medqa_us_test_300.jsonl
       [--models tiny smollm2_135m] [--batch-sizes 8 16 32] [--rows 32] [--rounds 3] [--prompt medbot]
       [--thinking-tokens 256] [--answer-tokens 64]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import hydra
import torch

import medbot_exp.cli  # noqa: F401  # registers the schema and the resolvers that conf/ names
from medbot_exp.config import Precision, RunConfig, conf_directory
from medbot_exp.evaluation.benchmarks.registry import Benchmark
from medbot_exp.evaluation.examine import Candidate, batched, examine, questions_of
from medbot_exp.evaluation.generate import Transformers
from medbot_exp.evaluation.paper import Paper, paper_of
from medbot_exp.evaluation.prediction import Prediction
from medbot_exp.model import load
from medbot_exp.processes import ALONE
from medbot_exp.rules import typed
from medbot_exp.training.allocator import keep_freed_memory

BOUND = 3.0


def composed(model: str, options: argparse.Namespace) -> RunConfig:
    """The config of an evaluation of `model`."""
    overrides = [
        f"model={model}",
        f"prompt={options.prompt}",
        "benchmark=[medqa]",
        f"benchmark.medqa.path={options.data.resolve()}",
        f"benchmark.medqa.thinking_tokens={options.thinking_tokens}",
        f"benchmark.medqa.answer_tokens={options.answer_tokens}",
    ]
    with hydra.initialize_config_dir(config_dir=str(conf_directory()), version_base="1.3"):
        return typed(hydra.compose("config", overrides=overrides))


@dataclass(frozen=True)
class Taken:
    """Seconds of the clock, and of this process's processors."""

    clock: float
    processors: float


def middle(config: RunConfig, rows: int, candidate: Candidate) -> Paper:
    """The `rows` of the benchmark that stand in the middle by their lengths."""
    read = Benchmark("medqa", config.benchmark["medqa"])
    paper = paper_of(read, "medqa", read.published)
    questions = questions_of(paper, config.prompt, [], candidate.tokenizer)
    (ranked,) = batched(questions, len(questions))
    first = (len(ranked) - rows) // 2
    return replace(paper, items=[question.item for question in ranked[first : first + rows]])


def answered(candidate: Candidate, paper: Paper, batch_size: int) -> tuple[Taken, list[Prediction]]:
    """What an evaluation takes that finds no kept answers, and its predictions."""
    sized = replace(paper, benchmark=replace(paper.benchmark, batch_size=batch_size))
    with tempfile.TemporaryDirectory() as cache_dir:
        clock, processors = time.perf_counter(), time.process_time()
        predictions, _ = examine(candidate, sized, Path(cache_dir), ALONE)
        return Taken(time.perf_counter() - clock, time.process_time() - processors), predictions


def compare(model: str, options: argparse.Namespace) -> list[str]:
    """The lines of the table about `model`."""
    config = composed(model, options)
    loaded = load(config.model, Path(config.cache_dir).expanduser(), torch.device("cpu"))
    writer = Transformers(loaded.model, loaded.tokenizer, Precision.fp32)
    candidate = Candidate(writer, loaded.tokenizer, config.prompt, [], {"model": model})
    sizes = [1, *options.batch_sizes]
    paper = middle(config, options.rows, candidate)
    answered(candidate, replace(paper, items=paper.items[:2]), 2)  # the first passes are slower than any other
    taken: dict[int, list[Taken]] = {size: [] for size in sizes}
    found: dict[int, list[Prediction]] = {}
    for number in range(options.rounds):
        for size in sizes:
            seconds, found[size] = answered(candidate, paper, size)
            taken[size].append(seconds)
        told = ", ".join(f"{taken[size][-1].clock:.1f} s in batches of {size}" for size in sizes)
        print(f"{model}, round {number + 1}: {told}", flush=True)
    return [line(model, size, taken, found) for size in sizes]


def line(model: str, size: int, taken: dict[int, list[Taken]], found: dict[int, list[Prediction]]) -> str:
    """What batches of `size` come to beside those of one, as a line of the table."""
    alone, together = found[1], found[size]
    rate = statistics.median(len(together) / each.clock for each in taken[size])
    # The two sides of one round were measured closest to each other.
    pairs = list(zip(taken[1], taken[size], strict=True))
    clock = [one.clock / other.clock for one, other in pairs]
    processors = statistics.median(one.processors / other.processors for one, other in pairs)
    tokens = statistics.mean(each.completion_tokens for each in together)
    otherwise = sum(one.completion != other.completion for one, other in zip(alone, together, strict=True))
    scored = sum(one.state != other.state for one, other in zip(alone, together, strict=True))
    spread = f"{statistics.median(clock):.2f} ({min(clock):.2f}-{max(clock):.2f})"
    return (
        f"| {model} | {size} | {rate:.2f} | {spread} | {BOUND:g} | {processors:.2f} | {tokens:.0f} "
        f"| {otherwise} of {len(together)} | {scored} |"
    )


def print_table(lines: Sequence[str]) -> None:
    """All `lines`, and what they were measured on."""
    print("\n| model | batch | rows per second | times those of one | at least ", end="")
    print("| by processors' seconds | tokens a reply | replies that differ | scored otherwise |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    print(f"\n{torch.get_num_threads()} threads, load {os.getloadavg()[1]:.1f}; {packages}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["tiny", "smollm2_135m"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", default="medbot")
    parser.add_argument("--thinking-tokens", type=int, default=256)
    parser.add_argument("--answer-tokens", type=int, default=64)
    options = parser.parse_args()
    keep_freed_memory()  # as task=evaluate does
    print_table([line for model in options.models for line in compare(model, options)])


if __name__ == "__main__":
    main()
