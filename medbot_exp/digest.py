"""sha256 of files, quick for large ones."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from medbot_exp.errors import Interrupted
from medbot_exp.whole_files import write_json

PIECE_BYTES = 64 * 2**20


def model_digest(directory: Path, cache_dir: Path, stop: Event | None = None) -> str:
    """sha256 over config.json and the safetensors files of `directory`; kept, as hashing 16 GB takes half a minute.

    Args:
        stop: ends it between two pieces, once it is set; also where the caller is interrupted itself.

    Raises:
        Interrupted: `stop` was set.
    """
    stop = stop or Event()
    files = [path for path in (directory / "config.json", *sorted(directory.glob("*.safetensors"))) if path.is_file()]
    identity = repr([(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files])
    kept = cache_dir / "digests" / f"{hashlib.sha256(identity.encode()).hexdigest()}.json"
    if kept.is_file():
        return kept.read_text(encoding="utf-8").strip().strip('"')
    digest = hashlib.sha256()
    # Side by side: hashing leaves Python's lock alone.
    with ThreadPoolExecutor(4) as pool:
        try:
            for each in pool.map(lambda path: file_digest(path, stop), files):
                digest.update(each)
        except BaseException:
            stop.set()  # leaving the pool waits for its threads
            raise
    write_json(kept, digest.hexdigest())
    return digest.hexdigest()


def file_digest(path: Path, stop: Event | None = None) -> bytes:
    """sha256 of a file; arguments and errors as of `model_digest`."""
    digest = hashlib.sha256()
    # Large pieces: between two of them the thread has to wait for Python's lock, which importing libraries holds.
    piece = memoryview(bytearray(min(PIECE_BYTES, max(1, path.stat().st_size))))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(piece):
            if stop is not None and stop.is_set():
                raise Interrupted("while a model was hashed")
            digest.update(piece[:count])
    return digest.digest()
