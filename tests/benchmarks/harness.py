"""What asking a model by likelihood costs beside lm-evaluation-harness: the same rows, words, model, in turns.

Both are given the loaded model and the rows that were read: timed is all from there to the scored answers. The harness
has the size of batch that it is quickest with on the first rows; ours asks by likelihood one question at a time. The
processors' seconds are told besides, as those of the clock mean little where other programs run.

Measured with two threads on two cores (AMD EPYC), 300 rows, one round: 79.6 s and 103.4 s, 0.77; the same 300 choices.
The largest difference of a log-likelihood, 0.2, is of the one question that begins with a space, which ours is put
without; no other differs by 0.001.

usage: OMP_NUM_THREADS=2 python tests/benchmarks/harness.py --data ../shared/data/medqa_us_test_300.jsonl
       [--rows 300] [--rounds 3] [--batch-sizes 1 8] [--trial-rows 24]
needs: pip install ".[harness]"
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

BOUND = 1.1
# What the rows are asked with, so that the harness's own task asks the same.
OVERRIDES = (
    "benchmark=[medqa]",
    "benchmark.medqa.method=loglikelihood",
    "benchmark.medqa.ask=harness",
    "benchmark.medqa.order=published",
)
# The harness cuts prompts to the length that the model was made for; ours are asked whole.
LONGEST = 16_384
Row = dict[str, Any]


def local_task(asked: Sequence[Row], shown: Sequence[Row], folder: Path) -> Any:
    """The harness's own task medqa_4options, on rows of the publishers instead of the hub's.

    Args:
        shown: worked examples in front of each question, in their order.
        folder: for the task's files.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager

    files = {}
    for part, rows in (("test", asked), ("train", shown)):
        if rows:
            files[part] = str(folder / f"{part}.jsonl")
            Path(files[part]).write_text("".join(json.dumps(hub_row(row)) + "\n" for row in rows), encoding="utf-8")
    part = "train" if shown else None
    settings = {
        "include": str(Path(lm_eval.__file__).parent / "tasks" / "medqa" / "medqa.yaml"),
        "task": "medqa_local",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "datasets")},
        "training_split": part,
        "validation_split": None,
        "fewshot_split": part,
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": len(shown),
    }
    file = folder / "medqa_local.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return TaskManager(include_defaults=False).load(str(file))["tasks"]["medqa_local"]


def hub_row(row: Row) -> Row:
    """A row of the publishers with the names of the copy on the hub that the harness reads."""
    endings = {f"ending{place}": row["options"][letter] for place, letter in enumerate("ABCD")}
    return {"sent1": row["question"], **endings, "label": "ABCD".index(row["answer_idx"])}


def harness_model(model: Any, tokenizer: Any, batch_size: int) -> Any:
    """`model` as the harness wants it."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=LONGEST)


def by_harness(model: Any, task: Any) -> tuple[list[Row], float]:
    """What the harness says of each row of `task`, in their order, and its accuracy."""
    from lm_eval.evaluator import evaluate

    found = evaluate(model, {"tasks": {task.task_name: task}, "groups": {}, "group_map": {}})
    samples = sorted(found["samples"][task.task_name], key=lambda sample: sample["doc_id"])
    return samples, found["results"][task.task_name]["acc,none"]


def sums(sample: Row) -> dict[str, float]:
    """The log-likelihood of each letter behind its space, as the harness found it."""
    return {letter: value[0] for letter, value in zip("ABCD", sample["filtered_resps"], strict=True)}


@dataclass(frozen=True)
class Taken:
    """Seconds of the clock, and of this process's processors."""

    clock: float
    processors: float


def timed(measure: Callable[[], Any]) -> tuple[Taken, Any]:
    """What `measure` takes, and what it gives."""
    clock, processors = time.perf_counter(), time.process_time()
    found = measure()
    return Taken(time.perf_counter() - clock, time.process_time() - processors), found


def line(name: str, ours: Sequence[float], harness: Sequence[float]) -> str:
    """The medians and their ratio, as a line of the table."""
    one, other = statistics.median(ours), statistics.median(harness)
    spread = ", ".join(f"{min(each):.1f}-{max(each):.1f} s" for each in (ours, harness))
    return f"| {name} | {one:.1f} s | {other:.1f} s | {one / other:.2f} | {BOUND} | {spread} |"


def compare(data: Path, rows: int, rounds: int, batch_sizes: Sequence[int], trial_rows: int, scratch: Path) -> None:
    """Print the table."""
    import hydra
    import torch

    import medbot_exp.cli  # noqa: F401  # registers the schema and the resolvers that conf/ names
    from medbot_exp.config import Precision, conf_directory
    from medbot_exp.evaluation.benchmarks.registry import Benchmark
    from medbot_exp.evaluation.examine import Candidate, examine
    from medbot_exp.evaluation.generate import Transformers
    from medbot_exp.evaluation.paper import paper_of
    from medbot_exp.model import load
    from medbot_exp.processes import ALONE
    from medbot_exp.rules import typed

    overrides = [*OVERRIDES, f"benchmark.medqa.path={data.resolve()}"]
    with hydra.initialize_config_dir(config_dir=str(conf_directory()), version_base="1.3"):
        config = typed(hydra.compose("config", overrides=overrides))
    loaded = load(config.model, Path(config.cache_dir).expanduser(), torch.device("cpu"))
    writer = Transformers(loaded.model, loaded.tokenizer, Precision.fp32)
    candidate = Candidate(writer, loaded.tokenizer, config.prompt, [], {"model": "benchmark"})
    read = Benchmark("medqa", config.benchmark["medqa"])
    paper = paper_of(read, "medqa", read.published[:rows])
    raw = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()][:rows]

    def ours(number: int) -> Any:
        # A folder of its own each time: what was answered before would be read from there.
        return examine(candidate, paper, scratch / f"round-{number}", ALONE)[0]

    trial_folder = scratch / "trial"
    trial_folder.mkdir()
    trial = local_task(raw[:trial_rows], [], trial_folder)
    models = {size: harness_model(loaded.model, loaded.tokenizer, size) for size in batch_sizes}
    by_harness(models[batch_sizes[0]], trial)  # the first passes are slower than any other
    trials = {size: timed(lambda size=size: by_harness(models[size], trial))[0].clock for size in batch_sizes}
    size = min(trials, key=trials.__getitem__)
    told = ", ".join(f"{clock:.1f} s with {size}" for size, clock in trials.items())
    print(f"the harness's batches, {len(trial.eval_docs)} rows: {told}", flush=True)

    task = local_task(raw, [], scratch)
    ours_took, harness_took = [], []
    for number in range(rounds):
        taken, predictions = timed(lambda number=number: ours(number))
        ours_took.append(taken)
        taken, (samples, accuracy) = timed(lambda: by_harness(models[size], task))
        harness_took.append(taken)
        print(f"round {number + 1}: {ours_took[-1]}, {harness_took[-1]}", flush=True)

    named = f"| {len(raw)} rows of MedQA | medbot_exp | lm-evaluation-harness, batches of {size} |"
    print(f"\n{named} ratio | at most | least-most (ours, harness) |\n|---|---|---|---|---|---|")
    for name in ("clock", "processors"):
        times = [[getattr(taken, name) for taken in side] for side in (ours_took, harness_took)]
        print(line(f"{config.model.name}, {name}", *times))
    told = [sums(sample) for sample in samples]
    others = sum(found.answer != max(each, key=each.__getitem__) for found, each in zip(predictions, told, strict=True))
    difference = max(
        abs(found.log_likelihoods[letter] - each[letter])
        for found, each in zip(predictions, told, strict=True)
        for letter in "ABCD"
    )
    print(
        f"\naccuracy {sum(each.correct for each in predictions) / len(predictions):.4f} and {accuracy:.4f}, "
        f"{others} items answered otherwise, largest difference of a log-likelihood {difference:.1e}; "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[1]:.1f}"
    )
    print(", ".join(f"{name} {version(name)}" for name in ("lm_eval", "torch", "transformers")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--trial-rows", type=int, default=24)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TQDM_DISABLE"] = "1"
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        compare(options.data, options.rows, options.rounds, options.batch_sizes, options.trial_rows, Path(scratch))


if __name__ == "__main__":
    main()
