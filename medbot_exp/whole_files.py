"""Files that are whole or not there: a writer that is killed leaves the old one, or a last line that does not count."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from medbot_exp.errors import RunDirectoryError


def write_text(path: Path, text: str) -> None:
    """Replace `path` so that a reader sees the old file or the whole new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Replace `path` by `content` as one JSON value, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"it is a {type(content).__name__}")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """As `read_object`, of a record of ours.

    Raises:
        RunDirectoryError: it is not there, or holds something else.
    """
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"a record must be one whole JSON object, but {path} is not: {error}; restore it"
        ) from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file of ours; a torn last line (a killed writer's) does not count.

    Raises:
        RunDirectoryError: a line before the last is no JSON.
    """
    if not path.is_file():
        return []
    # Not splitlines: a text may hold U+2028, which JSON leaves as it is.
    *lines, last = path.read_bytes().split(b"\n")
    try:
        rows = [json.loads(line) for line in lines]
    except ValueError as error:
        raise RunDirectoryError(f"a record must hold one JSON object a line, but {path} does not: {error}") from error
    with suppress(ValueError):
        rows.append(json.loads(last))
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replace `path` by `rows`, one JSON object a line, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
