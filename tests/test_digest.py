"""The digest of a model: of all bytes of its config and weights, and kept while the files stay as they are."""

import hashlib
import os
from pathlib import Path
from threading import Event

import pytest

from medbot_exp.digest import model_digest
from medbot_exp.errors import Interrupted


@pytest.fixture
def directory(tmp_path) -> Path:
    """A directory with a config and a file of weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"rope_theta": 10000}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 1000)
    return folder


def test_equals_sha256_over_the_files_digests(directory, tmp_path):
    (directory / "another.safetensors").write_bytes(b"")
    files = [directory / name for name in ("config.json", "another.safetensors", "model.safetensors")]
    each = [hashlib.sha256(path.read_bytes()).digest() for path in files]
    assert model_digest(directory, tmp_path) == hashlib.sha256(b"".join(each)).hexdigest()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_changes_with_the_bytes(directory, tmp_path, name):
    weights = directory / name
    before = model_digest(directory, tmp_path)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert model_digest(directory, tmp_path) != before


def test_is_kept_while_size_and_time_stay(directory, tmp_path):
    weights = directory / "model.safetensors"
    before, status = model_digest(directory, tmp_path), weights.stat()
    weights.write_bytes(bytes(status.st_size))
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert model_digest(directory, tmp_path) == before
    assert model_digest(directory, tmp_path / "empty") != before


def test_is_stopped_between_pieces(directory, tmp_path):
    stop = Event()
    stop.set()
    with pytest.raises(Interrupted):
        model_digest(directory, tmp_path, stop)
    assert not (tmp_path / "digests").exists()
