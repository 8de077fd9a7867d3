"""What a search costs beyond its trials, and what it saves: measured in turns in one run.

  overhead   from the end of a trial's process to the start of the next one's, one at a time, default storage; and a
             whole search beside the same processes as a grid without a study
  pair       trials of model=tiny, two at a time beside one at a time
  pruning    +sweep=lora on model=tiny with its pruner beside the same without one, over several seeds: the steps, and
             whether the best losses differ by more than those of the seeds do

usage: python tests/benchmarks/search.py [--only overhead|pair|pruning] [--trials 32] [--seeds 3]
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

import optuna

TOY = """
import hydra

@hydra.main(version_base=None, config_path=None, config_name=None)
def task(cfg):
    return cfg.x ** 2

if __name__ == "__main__":
    task()
"""
LOCAL = ("hydra/launcher=local", "hydra.sweep.dir=study")
# As +sweep=lora at a size that leaves minutes: the first rung at a sixth of the steps, a value every twelfth part.
SMALL = ("prompt=direct", "trainer.max_steps=24", "trainer.eval_steps=2", "trainer.eval_limit=12")
SMALL_PRUNER = "hydra.sweeper.pruner.min_resource=4"
TINY = ("-m", "medbot_exp", "-m", "model=tiny", "tracking=none", "benchmark=[]")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(folder: Path, *arguments: str, environment: dict[str, str] = ENVIRONMENT) -> float:
    """Seconds that the interpreter takes for `arguments`, which must go well."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    elapsed = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{arguments} left with {done.returncode}:\n{done.stderr}")
    return elapsed


def child_of(pid: int) -> int | None:
    """The process that `pid` has started and that still runs."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        states = {child: Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] for child in children}
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((int(child) for child, state in states.items() if state not in "ZX"), None)


def gaps(folder: Path, *arguments: str) -> list[float]:
    """Seconds from the end of each process that the interpreter starts for `arguments` to the start of the next."""
    found, ended, present = [], None, None
    with subprocess.Popen([sys.executable, *arguments], cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE) as parent:
        while parent.poll() is None:
            child, now = child_of(parent.pid), time.perf_counter()
            if child is None and present is not None:
                ended = now
            elif child is not None and present is None and ended is not None:
                found.append(now - ended)
            present = child
            time.sleep(0.0005)
    if parent.returncode:
        sys.exit(f"{arguments} left with {parent.returncode}")
    return found


def overhead(scratch: Path, trials: int) -> None:
    """Print what the sweeper adds to its trials' own processes."""
    search = ("app.py", "-m", "hydra/sweeper=optuna", *LOCAL, "+x=interval(0,1)", "hydra.sweeper.n_jobs=1")
    rounds: dict[str, list[float]] = {"gap": [], "search": [], "grid": []}
    for number in range(3):
        folder = scratch / f"overhead-{number}"
        folder.mkdir()
        (folder / "app.py").write_text(TOY)
        rounds["gap"] += gaps(folder, *search, f"hydra.sweeper.n_trials={trials}")
        few, many = 4, 4 + trials
        for name, command in (("search", search), ("grid", ("app.py", "-m", "hydra/sweeper=basic", *LOCAL))):
            times = []
            for count in (few, many):
                count_of = [f"hydra.sweeper.n_trials={count}", f"hydra.sweep.dir={name}-{count}"]
                grid = [f"hydra.sweep.dir={name}-{count}", f"+x=range({count})"]
                times.append(run(folder, *command, *(count_of if name == "search" else grid)))
            rounds[name].append((times[1] - times[0]) / trials)
    spread = f"{min(rounds['gap']) * 1000:.0f}-{max(rounds['gap']) * 1000:.0f} ms"
    print(f"| between two trials' processes | {statistics.median(rounds['gap']) * 1000:.0f} ms | 50 ms | {spread} |")
    one, other = statistics.median(rounds["search"]), statistics.median(rounds["grid"])
    shown = f"{one * 1000:.0f} ms a trial, a grid of the same processes {other * 1000:.0f} ms"
    print(f"| all that the study adds to a trial | {(one - other) * 1000:.0f} ms | - | {shown} |", flush=True)


def pair(scratch: Path) -> None:
    """Print how long two trials at a time take beside one at a time."""
    command = (*TINY, "+sweep=lora_quick", "hydra/sweeper/pruner=none", "hydra.sweeper.n_trials=8", "seed=1")
    # Without a cap of ours, as a user's shell has it: the launcher shares the cores out.
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "OMP_NUM_THREADS"}
    times: dict[int, list[float]] = {1: [], 2: []}
    for number in range(3):
        for n_jobs, kept in times.items():
            names = (f"hydra.sweeper.n_jobs={n_jobs}", f"study=pair-{n_jobs}-{number}", f"root={scratch}")
            kept.append(run(scratch, *command, *names, environment=environment))
    one, two = statistics.median(times[1]), statistics.median(times[2])
    spread = ", ".join(f"{min(kept):.0f}-{max(kept):.0f} s" for kept in times.values())
    print(f"| 8 trials, two at a time by one at a time | {two / one:.2f} | 0.65 | {spread} |", flush=True)


def pruning(scratch: Path, trials: int, seeds: int) -> None:
    """Print best losses and training steps with the pruner of +sweep=lora and without."""
    best: dict[str, list[float]] = {"pruned": [], "full": []}
    steps: dict[str, list[int]] = {"pruned": [], "full": []}
    for seed in range(seeds):
        for name, more in (("full", ["hydra/sweeper/pruner=none"]), ("pruned", [SMALL_PRUNER])):
            # One process for all: a tiny trial is mostly the loading of libraries.
            own = [f"hydra.sweeper.sampler.seed={seed}", f"study={name}-{seed}", f"root={scratch}", *more]
            run(scratch, *TINY, *SMALL, "+sweep=lora", "hydra/launcher=basic", f"hydra.sweeper.n_trials={trials}", *own)
            path = scratch / f"{name}-{seed}"
            found = optuna.load_study(study_name=path.name, storage=f"sqlite:///{path / 'study.db'}")
            best[name].append(found.best_value)
            results = [json.loads(file.read_text()) for file in path.glob("*/result.json")]
            steps[name].append(sum(result["steps"] for result in results))
            print(f"seed {seed}, {name}: best {found.best_value:.4f}, {steps[name][-1]} steps", file=sys.stderr)
    share = sum(steps["pruned"]) / sum(steps["full"])
    spread = f"without {', '.join(f'{value:.4f}' for value in best['full'])}"
    ours = f"with {', '.join(f'{value:.4f}' for value in best['pruned'])}"
    print(f"| training steps with pruning by without | {share:.2f} | 0.5 | {trials} trials, {seeds} seeds |")
    mean = {name: statistics.mean(values) for name, values in best.items()}
    between = max(best["full"]) - min(best["full"])
    difference = mean["pruned"] - mean["full"]
    print(f"| mean best loss, with less without | {difference:+.4f} | {between:.4f} | {ours}; {spread} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("overhead", "pair", "pruning"))
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print("| | measured | at most | spread |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.only in (None, "overhead"):
            overhead(folder, options.trials)
        if options.only in (None, "pair"):
            pair(folder)
        if options.only in (None, "pruning"):
            pruning(folder, options.trials, options.seeds)


if __name__ == "__main__":
    main()
