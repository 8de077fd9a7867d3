"""What a run was made of: enough to know, a year later, whether two runs could have differed."""

import os
import platform
import secrets
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medbot_exp.errors import RunDirectoryError
from medbot_exp.processes import launched
from medbot_exp.rundir import RunDirectory
from medbot_exp.whole_files import read_json, write_json

PACKAGES = (
    "medbot-exp",
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "accelerate",
    "tokenizers",
    "hydra-core",
    "omegaconf",
    "wandb",
    "optuna",
    "numpy",
    "bitsandbytes",
    "unsloth",
)


def write(directory: RunDirectory, contents: Mapping[str, Any]) -> dict[str, Any]:
    """Write manifest.json with this process's environment and `contents`; what it holds now.

    `contents` may hold a `run_id`; without one the run gets an id of its own.

    A resumed run keeps the manifest of its first attempt, its id among it, and adds the environment of the new one.

    Raises:
        RunDirectoryError: the model or the rows differ from those of the first attempt.
    """
    if directory.manifest.is_file():
        manifest = read_json(directory.manifest)
        changed = changes(manifest, contents)
        if changed:
            raise RunDirectoryError(
                f"a run is resumed on the model and the rows that it began with, but since {directory} was begun "
                f"{' and '.join(changed)} changed; restore the files, or start a new run"
            )
        manifest["resumed"] = [*manifest.get("resumed", []), environment()]
    else:
        manifest = {"run_id": secrets.token_hex(4), **environment(), **contents}
    write_json(directory.manifest, manifest)
    return manifest


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs in two manifests of what a run computes with, in words and by its keys."""
    rows = {"train": "the rows to train on", "validation": "the held-out rows"}
    other = {name: old["data"][name] != new["data"][name] for name in rows}
    recut = {name: old["tokenized"][name]["fingerprint"] != new["tokenized"][name]["fingerprint"] for name in rows}
    model, data = "(model.path, on the hub model.revision)", "(data.path, on the hub data.revision)"
    found = [f"the model {model}"] if old["model"]["version"] != new["model"]["version"] else []
    found += [f"{told} {data}" for name, told in rows.items() if other[name] and recut[name]]
    if any(recut[name] and not other[name] for name in rows):  # the same rows in other tokens
        found.append(f"the tokenizer {model}")
    return found


def environment() -> dict[str, Any]:
    """Command line, code, packages and hardware of this process, and how many processes it is one of."""
    return {
        "command": shlex.join(["python", "-m", "medbot_exp", *sys.argv[1:]]),
        "git": git_state(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := installed(name))},
        "hardware": hardware(),
        "processes": launched().count,
    }


def installed(name: str) -> str | None:
    """The installed version of a distribution; None without one."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_state(directory: Path) -> dict[str, Any] | None:
    """Commit of the checkout that the package runs from and whether it was changed; None outside a checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A wheel may be installed below somebody else's checkout: only files that git tracks count.
    if not git("ls-files", "manifest.py"):
        return None
    commit = git("rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "dirty": bool(git("status", "--porcelain"))}


def hardware() -> dict[str, Any]:
    """Processor, cores, memory in GiB, and the GPUs that torch sees."""
    import torch

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": [{"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)} for gpu in gpus],
    }


def processor_name() -> str:
    """The processor's own name where Linux tells it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
