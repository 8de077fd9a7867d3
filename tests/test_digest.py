"""The digest of weights: of all their bytes, and kept while the files stay as they are."""

import hashlib
import os
from pathlib import Path

import pytest

from medbot_exp.digest import weights_digest


@pytest.fixture
def directory(tmp_path) -> Path:
    """A directory with a file of weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 1000)
    return folder


def test_equals_sha256_over_the_files_digests(directory, tmp_path):
    contents = {"another.safetensors": b"", "model.safetensors": (directory / "model.safetensors").read_bytes()}
    (directory / "another.safetensors").write_bytes(b"")
    each = [hashlib.sha256(content).digest() for content in contents.values()]
    assert weights_digest(directory, tmp_path) == hashlib.sha256(b"".join(each)).hexdigest()


def test_changes_with_the_bytes(directory, tmp_path):
    weights = directory / "model.safetensors"
    before = weights_digest(directory, tmp_path)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert weights_digest(directory, tmp_path) != before


def test_is_kept_while_size_and_time_stay(directory, tmp_path):
    weights = directory / "model.safetensors"
    before, status = weights_digest(directory, tmp_path), weights.stat()
    weights.write_bytes(bytes(status.st_size))
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert weights_digest(directory, tmp_path) == before
    assert weights_digest(directory, tmp_path / "empty") != before
