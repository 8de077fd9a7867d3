"""sha256 of files, quick for large ones."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medbot_exp.rundir import write_json

PIECE_BYTES = 64 * 2**20


def weights_digest(directory: Path, cache_dir: Path) -> str:
    """sha256 over the safetensors files of `directory`; kept, as hashing 16 GB takes half a minute."""
    files = sorted(directory.glob("*.safetensors"))
    identity = repr([(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files])
    kept = cache_dir / "digests" / f"{hashlib.sha256(identity.encode()).hexdigest()}.json"
    if kept.is_file():
        return kept.read_text(encoding="utf-8").strip().strip('"')
    digest = hashlib.sha256()
    # Side by side: hashing leaves Python's lock alone.
    with ThreadPoolExecutor(4) as pool:
        for each in pool.map(file_digest, files):
            digest.update(each)
    write_json(kept, digest.hexdigest())
    return digest.hexdigest()


def file_digest(path: Path) -> bytes:
    """sha256 of a file."""
    digest = hashlib.sha256()
    # Large pieces: between two of them the thread has to wait for Python's lock, which importing libraries holds.
    piece = memoryview(bytearray(min(PIECE_BYTES, max(1, path.stat().st_size))))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(piece):
            digest.update(piece[:count])
    return digest.digest()
