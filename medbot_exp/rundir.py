"""The run directory: the only file that names the files in it.

multirun/runs/<date>/<time>-<name>/  or  multirun/<study>/trial-0007/
  .hydra/  config.yaml (resolved)  manifest.json  metrics.jsonl  result.json  predictions/<benchmark>.jsonl
  leaks.jsonl  adapter/ (PEFT format)  checkpoints/  wandb/  run.log
  evaluations/  <benchmark>.json  <benchmark>.jsonl  <benchmark>-base.jsonl
"""

import json
import logging
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from medbot_exp.config import checked_label
from medbot_exp.errors import RunDirectoryError
from medbot_exp.override_text import assignment, written
from medbot_exp.whole_files import read_json

DIFFERENCES_SHOWN = 5
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
CHECKPOINT_PATTERN = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class HydraFiles:
    """What Hydra would have written into .hydra/, and the resolved config, as YAML texts."""

    config: str
    hydra: str
    overrides: str
    resolved: str

    @classmethod
    def read(cls, directory: "RunDirectory") -> "HydraFiles":
        """Those of a run that was begun."""
        texts = {name: path.read_text(encoding="utf-8") for name, path in directory.hydra_files().items()}
        return cls(**texts, resolved=directory.config.read_text(encoding="utf-8"))

    def task_overrides(self) -> list[str]:
        """The overrides of this run, those of Hydra itself left out."""
        return yaml.safe_load(self.overrides) or []

    def command(self, *more: str, without: tuple[str, ...] = (), multirun: bool = False) -> str:
        """The command line that repeats this run, with `more` overrides and without those that start with `without`."""
        settings = yaml.safe_load(self.hydra)["hydra"]
        sources = settings["runtime"]["config_sources"]
        flags = [f"--config-dir={source['path']}" for source in sources if source["provider"] == "command-line"]
        root = settings["job"]["config_name"]
        flags += [] if root == "config" else [f"--config-name={root}"]
        flags += ["-m"] if multirun else []
        words = [word for word in self.task_overrides() if not word.startswith(without)]
        last = {word.partition("=")[0]: word for word in words}  # of a key given twice the last prevails
        words = [word for word in words if last[word.partition("=")[0]] is word]
        return shlex.join(["python", "-m", "medbot_exp", *flags, *words, *more])


class RunDirectory:
    """The paths of one run. Readers use it on any run; the run itself calls `claim` or `resume` first."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.manifest = self.path / "manifest.json"
        self.metrics = self.path / "metrics.jsonl"
        self.result = self.path / "result.json"
        self.adapter = self.path / "adapter"
        self.checkpoints = self.path / "checkpoints"
        self.log = self.path / "run.log"
        self.leaks = self.path / "leaks.jsonl"
        self.evaluations = self.path / "evaluations"

    def __str__(self) -> str:
        """The path as a user would type it: relative where it lies below the working directory."""
        return os.path.relpath(self.path) if self.path.is_relative_to(Path.cwd()) else str(self.path)

    def override(self, key: str) -> str:
        """The override that gives `key` this directory, whatever its path holds; a shell wants it quoted besides."""
        return assignment(key, written(str(self)))

    def predictions(self, benchmark: str) -> Path:
        """The JSONL file with one line per answered item of `benchmark`."""
        return self.path / "predictions" / f"{benchmark}.jsonl"

    def evaluation(self, benchmark: str) -> Path:
        """The JSON file with what task=evaluate found on `benchmark`, the last time."""
        return self.evaluations / f"{benchmark}.json"

    def evaluated(self, benchmark: str) -> Path:
        """The JSONL file with the answers that `evaluation` is of: predictions/ has those that result.json is of."""
        return self.evaluations / f"{benchmark}.jsonl"

    def hydra_files(self) -> dict[str, Path]:
        """The files of .hydra/ by the field of `HydraFiles` that they hold."""
        return {name: self.path / ".hydra" / f"{name}.yaml" for name in ("config", "hydra", "overrides")}

    def claim(self, hydra_files: HydraFiles) -> None:
        """Make the directory this run's own.

        Raises:
            RunDirectoryError: it holds a file already.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        # run.log is created exclusively: of two processes that want the directory, one gets it.
        try:
            taken = any(self.path.iterdir())
            if not taken:
                self.log.touch(exist_ok=False)
        except FileExistsError:
            taken = True
        if taken:
            unfinished = self.config.is_file() and self.status() != "complete"
            instead = f", or go on with that run: {shlex.quote(self.override('trainer.resume'))}" if unfinished else ""
            raise RunDirectoryError(f"a run directory must be new, but {self} is not empty\nChoose another{instead}")
        (self.path / ".hydra").mkdir()
        for name, path in self.hydra_files().items():
            path.write_text(getattr(hydra_files, name), encoding="utf-8")
        self.config.write_text(hydra_files.resolved, encoding="utf-8")

    def resume(self, hydra_files: HydraFiles) -> int:
        """The step of the checkpoint to go on from, after making sure that it is the same run.

        Raises:
            RunDirectoryError: no run, a finished run, or a run of another config.
        """
        self.require_run()
        if self.status() == "complete":
            raise RunDirectoryError(
                f"an unfinished run can be resumed, but {self} is complete; see its {self.result.name}"
            )
        begun = HydraFiles.read(self)
        differing = differences(begun.resolved, hydra_files.resolved)
        if differing:
            shown = [f"  {key}: {old} there, {new} here" for key, old, new in differing[:DIFFERENCES_SHOWN]]
            if len(differing) > DIFFERENCES_SHOWN:
                shown.append(f"  and {len(differing) - DIFFERENCES_SHOWN} more")
            command = begun.command(self.override("trainer.resume"), without=("trainer.resume=",))
            raise RunDirectoryError(
                "\n".join((f"a run is resumed with its own config, but {self} differs in", *shown, f"Type: {command}"))
            )
        checkpoint = self.last_checkpoint()
        return 0 if checkpoint is None else step_of(checkpoint)

    def take_over(self, other: "RunDirectory") -> int | None:
        """Copy what `other`, a run of the same config that ended midway, got done; the step that this one goes on from.

        None where there is nothing to go on from.
        """
        checkpoint = other.last_checkpoint()
        if checkpoint is None or not other.metrics.is_file():
            return None
        kept = [checkpoint]
        try:
            best = other.best_checkpoint(checkpoint)
            kept = [checkpoint] if best is None else [best, checkpoint]
            for path in kept:
                # Without its mark, so that a copy does not count before everything is there.
                copy, mark = self.checkpoints / path.name, shutil.ignore_patterns("complete")
                shutil.copytree(path, copy, ignore=mark, dirs_exist_ok=True)
        except OSError:
            if all(map(is_whole, kept)):
                raise
        if not all(map(is_whole, kept)):
            return None  # a process that was given up still runs, and removed its older checkpoints meanwhile
        shutil.copy2(other.metrics, self.metrics)
        answers = other.path / "predictions"
        if answers.is_dir():
            shutil.copytree(answers, self.path / answers.name)
        for path in kept:  # the newest last: up to then the best one is an earlier state of the run
            self.seal_checkpoint(step_of(path))
        return step_of(checkpoint)

    def require_run(self, key: str = "trainer.resume") -> None:
        """Raise a RunDirectoryError unless a run was begun here; `key` is the config path that named it."""
        if self.config.is_file():
            return
        remedy = "give multirun/runs/<date>/<time>-<name>, without checkpoints/ or adapter/"
        trials = [trial for trial in trials_of(self.path) if trial.config.is_file()]
        if trials:
            complete = [trial for trial in trials if trial.status() == "complete"]
            trial = (complete or trials)[0] if key == "task.run" else trials[0]
            remedy = f"it is a study: give one of its {len(trials)} trials, as {shlex.quote(trial.override(key))}"
        raise RunDirectoryError(f"`{key}` must name a run directory, but {self} holds no config.yaml; {remedy}")

    def require_adapter(self, key: str) -> None:
        """Raise a RunDirectoryError unless a run ended here with an adapter; `key` is the config path that named it."""
        self.require_run(key)
        if self.status() != "complete":
            raise RunDirectoryError(
                f"`{key}` must name a run that is complete, but {self} is {self.status() or 'unfinished'}; "
                f"go on with it first: {shlex.quote(self.override('trainer.resume'))}"
            )
        missing = [name for name in ADAPTER_FILES if not (self.adapter / name).is_file()]
        if missing:
            raise RunDirectoryError(
                f"`{key}` must name a run with an adapter, but {self.adapter} has no {' and no '.join(missing)}; "
                "name another run, or restore them"
            )

    def status(self) -> str | None:
        """`status` of result.json; None while the run has not ended."""
        return read_json(self.result).get("status") if self.result.is_file() else None

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that was written to its end."""
        whole = filter(is_whole, self.checkpoints.glob("checkpoint-*"))
        return max(whole, key=step_of, default=None)

    def best_checkpoint(self, checkpoint: Path) -> Path | None:
        """The older checkpoint that was the best when `checkpoint` was written; None where there is no whole one."""
        best = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["best_model_checkpoint"]
        if best is None:
            return None
        path = self.checkpoints / Path(best).name  # it was written as a whole path, and the run may have been moved
        return path if path != checkpoint and is_whole(path) else None

    def seal_checkpoint(self, step: int) -> None:
        """Mark the checkpoint of `step` as written to its end: without the mark it does not count."""
        folder = self.checkpoints / f"checkpoint-{step}"
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        (folder / "complete").touch()

    def prune_checkpoints(self, limit: int, best: str | None) -> None:
        """Remove all whole checkpoints but the newest `limit` and the one named `best`, and all torn ones."""
        folders = sorted(self.checkpoints.glob("checkpoint-*"), key=step_of)
        whole = list(filter(is_whole, folders))
        for path in folders:
            if path not in whole[-limit:] and path.name != best:
                (path / "complete").unlink(missing_ok=True)  # first, so that a half removed one does not count
                shutil.rmtree(path)

    def open_log(self) -> logging.Handler:
        """A handler that adds every log record to run.log; the caller removes it."""
        handler = logging.FileHandler(self.log, encoding="utf-8")
        # A disk that is full is told once, by the error that ends the run: logging would print a traceback per line.
        handler.handleError = lambda record: None  # type: ignore[method-assign]
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        return handler

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from writing into the run while the body runs; a killed process lets go.

        Raises:
            RunDirectoryError: no run is there, or another process is at it.
        """
        self.require_run()
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunDirectoryError(
                f"one process at a time writes a run, but another is at {self}; wait for it"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def discard_empty(self) -> None:
        """Remove the directory and what Hydra made above it, while empty: a refused run leaves nothing behind.

        The working directory was not made for the run, and stays.
        """
        if Path.cwd().is_relative_to(self.path.absolute()):
            return
        inside = self.path.absolute().is_relative_to(Path.cwd())
        above = [
            path for path in self.path.absolute().parents if path.is_relative_to(Path.cwd()) and path != Path.cwd()
        ]
        for path in (self.path, *(above if inside else self.path.parents[:2])):
            try:
                path.rmdir()
            except OSError:
                return


def run_directory(root: str, name: str, resume: str | None) -> str:
    """Where a single run goes: `resume`, or a new directory below `root`, made here so that no other run takes it."""
    if resume is not None:
        RunDirectory(resume).require_run()  # here, as Hydra would make the directory next
        return resume
    now = datetime.now()
    day = Path(root, "runs", f"{now:%Y-%m-%d}")
    path = day / f"{now:%H-%M-%S}-{checked_label('name', name)}"
    count = 1
    while True:
        try:
            path.mkdir(parents=True)
            return str(path)
        except FileExistsError:
            count += 1
            path = day / f"{now:%H-%M-%S}-{name}-{count}"
        except OSError:  # told by Hydra, which makes it next
            return str(path)


def study_directory(root: str, study: str) -> str:
    """Where the trials of a study go."""
    return str(Path(root, checked_label("study", study)))


def trial_name(number: int) -> str:
    """The directory of trial `number` below its study."""
    return f"trial-{int(number):04d}"


def base_of(metric: str) -> str:
    """What the predictions of the base model are called beside those of the tuned one, those of `metric`."""
    return f"{metric}-base"


def trials_of(study: Path) -> list[RunDirectory]:
    """The trials below `study`, by number."""
    return [RunDirectory(path) for path in sorted(study.glob("trial-*"), key=lambda path: (len(path.name), path.name))]


def others_evaluated(run: RunDirectory, metric: str) -> list[RunDirectory]:
    """The other trials of the study of `run` with an evaluation of `metric`; none where it is no trial."""
    own = run.path.absolute()  # it may be given as . from within
    others = (trial for trial in trials_of(own.parent) if trial.path != own)
    return [trial for trial in others if trial.evaluation(metric).is_file()]


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end, and its removal has not begun."""
    return (checkpoint / "complete").is_file()


def step_of(checkpoint: Path) -> int:
    """The optimizer step in a checkpoint's name."""
    found = CHECKPOINT_PATTERN.fullmatch(checkpoint.name)
    return int(found.group(1)) if found else -1


# What may differ between a run and its resumption: none of it changes what is computed.
RESUME_IGNORES = (
    "trainer.resume",
    "trainer.ignore_memory_plan",
    "trainer.sharding",
    "tracking.",
    "name",
    "study",
    "root",
    "cache_dir",
)


def differences(old: str, new: str) -> list[tuple[str, Any, Any]]:
    """Keys whose values differ between two resolved configs, where that matters to the computation."""
    from omegaconf import OmegaConf

    before = dict(leaves(OmegaConf.to_container(OmegaConf.create(old))))
    after = dict(leaves(OmegaConf.to_container(OmegaConf.create(new))))
    # The names of groups first: they say most.
    keys = sorted(before.keys() | after.keys(), key=lambda key: (not key.endswith(".name"), key))
    return [
        (key, before.get(key), after.get(key))
        for key in keys
        if before.get(key) != after.get(key) and not key.startswith(RESUME_IGNORES)
    ]


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of nested dicts."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node
