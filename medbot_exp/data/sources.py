"""Where rows come from: the package, a local file, or the Hugging Face hub; and which of them are held out."""

import csv
import hashlib
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medbot_exp.config import DataConfig
from medbot_exp.data.example import Example, Split, normalised
from medbot_exp.errors import DataError, first_line

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "bundled"
Row = dict[str, Any]


def load(data: DataConfig) -> Split:
    """The examples of `data`, split into training and held-out rows.

    Raises:
        DataError: the source is missing, malformed, empty, or a row lacks what the prompt needs.
    """
    place, rows = read(data)
    if data.limit is not None:
        rows = rows[: data.limit]
    if not rows:
        raise DataError(f"a data set must hold at least one row, but {place} holds none; name another data.path")
    for number, row in enumerate(rows, start=1):
        check_columns(data, row, f"{place}, row {number},")
    examples = [to_example(row, number, data, place) for number, row in enumerate(rows, start=1)]
    seen: dict[str, int] = {}
    for number, example in enumerate(examples, start=1):
        if example.id in seen:
            raise DataError(
                f"row ids must be unique, but {place} has {example.id!r} in rows {seen[example.id]} and {number}\n"
                "Mend the file, or use data.columns.id=null to number the rows"
            )
        seen[example.id] = number
    split = divide(examples, rows, data)
    if not split.train or not split.validation:
        raise DataError(
            f"both parts must hold a row, but {place} gave {len(split.train)} to train on and "
            f"{len(split.validation)} held out; change "
            + (
                "data.validation or data.limit"
                if data.columns.split is None
                else f"data.limit, or the values of column {data.columns.split!r}"
            )
        )
    return split


def read(data: DataConfig) -> tuple[str, list[Row]]:
    """What to call the source in messages, and its rows."""
    if data.path is not None:
        return data.path, read_file(Path(data.path).expanduser())
    if data.bundled is not None:
        return data.bundled, read_file(BUNDLED / data.bundled)
    return str(data.hub), read_hub(data)


def read_file(path: Path) -> list[Row]:
    """The rows of a JSON, JSONL, CSV or Parquet file.

    Raises:
        DataError: no such file, an unknown kind, or malformed content (with its line).
    """
    readers = {".json": read_json, ".jsonl": read_jsonl, ".csv": read_csv, ".parquet": read_parquet}
    if not path.is_file():
        raise no_file(path)
    if path.suffix.lower() not in readers:
        raise DataError(f"a data file must end in {', '.join(readers)}, but got {path}; convert or rename it")
    with told(path):
        return list(readers[path.suffix.lower()](path))


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Within it, what the encoding or the file system holds against reading `path` is told as a DataError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"a data file must be UTF-8 text, but {path} is not: {error}; convert it first") from error
    except OSError as error:
        raise DataError(f"a data file must be readable, but {path} is not: {error}; mend its permissions") from error


def check_file(data: DataConfig) -> None:
    """Raise a DataError where `data.path` leads to no file; nothing is read."""
    if data.path is not None and not Path(data.path).expanduser().is_file():
        raise no_file(Path(data.path))


def no_file(path: Path) -> DataError:
    """The error for a data file that is not there."""
    return DataError(f"`data.path` must name a file, but there is none at {path}; mend the path")


def read_json(path: Path) -> list[Row]:
    """The objects of a JSON array."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"a .json file must be valid JSON, but {path}, line {error.lineno}, {fault_in(error)}; mend it"
        ) from error
    if not isinstance(content, list):
        raise DataError(f"a .json file must hold a list of objects, but {path} holds a {type(content).__name__}")
    return [as_row(row, f"{path}, element {number}") for number, row in enumerate(content, start=1)]


def fault_in(error: json.JSONDecodeError) -> str:
    """Where in its line JSON is wrong, and how."""
    return f"column {error.colno}: {error.msg.removesuffix(' at')}"


def read_jsonl(path: Path) -> Iterator[Row]:
    """One object a line; blank lines do not count."""
    return (row for _, row in numbered_lines(path))


def numbered_lines(path: Path) -> Iterator[tuple[int, Row]]:
    """The number of each line that is not blank, from 1, and its object."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, as_row(json.loads(line), f"{path}, line {number}")
                except json.JSONDecodeError as error:
                    raise DataError(
                        f"each line of a .jsonl must be valid JSON, but {path}, line {number}, {fault_in(error)}; "
                        "mend it"
                    ) from error


def read_csv(path: Path) -> Iterator[Row]:
    """Rows under the header in the first line."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            header = reader.fieldnames or [""]
            other = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
            if other is not None:
                raise DataError(
                    f"the columns of a .csv file are divided by commas, but those of {path} by {other!r}; "
                    "save it with commas, or as JSONL"
                )
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"each row of a .csv file must have the header's {len(reader.fieldnames or [])} columns, "
                        f"but {path}, line {reader.line_num} has not; quote commas inside a cell"
                    )
                yield row
        except csv.Error as error:
            raise DataError(
                f"a .csv file must be well-formed, but {path}, line {reader.reader.line_num}: {error}"
            ) from error


def read_parquet(path: Path) -> list[Row]:
    """The rows of a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"a .parquet file must be valid Parquet, but {path}: {error}") from error


def read_hub(data: DataConfig) -> list[Row]:
    """The first `limit` rows of a data set on the Hugging Face hub, at `revision`.

    Raises:
        DataError: the hub cannot be reached, or does not know the data set.
    """
    split = str(data.hub_split) + (f"[:{data.limit}]" if data.limit is not None else "")
    try:
        return hub_rows(str(data.hub), data.hub_config, split, data.revision)
    except Exception as error:
        raise DataError(
            f"`data.hub` must be reachable and have config {data.hub_config} with split {data.hub_split}, but got "
            f"data.hub={data.hub}: {hub_reason(error)}\nOffline, give the rows as a local file: data.path=<file>"
        ) from error


def hub_rows(hub: str, config: str | None, split: str, revision: str | None) -> list[Row]:
    """The rows of a data set on the Hugging Face hub, or of a local folder that is laid out as one.

    Raises:
        Exception: the hub's client raises over a dozen unrelated types; `hub_reason` tells any of them.
    """
    import datasets
    import huggingface_hub

    log.info("reading %s from the hub", hub)
    datasets.disable_progress_bars()
    huggingface_hub.utils.logging.set_verbosity_error()  # it tells of every retry
    return list(datasets.load_dataset(hub, config, split=split, revision=revision))


def hub_reason(error: Exception) -> str:
    """Why the hub's client failed, without its exception's class, which it adds in parentheses."""
    return re.sub(r" \(\w+\)$", "", first_line(error))


def as_row(value: Any, place: str) -> Row:
    """`value`, once it is an object."""
    if not isinstance(value, dict):
        raise DataError(f"a row must be an object with named fields, but {place} is a {type(value).__name__}")
    return value


def check_columns(data: DataConfig, row: Row, place: str) -> None:
    """Raise a DataError for mapped columns that the source does not have, naming those it has."""
    missing = [
        f"data.columns.{key}={column}"
        for key, column in vars(data.columns).items()
        if column is not None and column not in row
    ]
    if missing:
        raise DataError(
            f"every mapped column must exist, but {place} has no {', '.join(missing)}; "
            f"it has: {', '.join(map(str, row))}\n"
            "Map them with data.columns.<key>=<column>, null where there is none (prompt=direct needs no reasoning)"
        )


def to_example(row: Row, number: int, data: DataConfig, place: str) -> Example:
    """The example in `row`, the `number`th of its source."""
    columns = data.columns

    def text(key: str, column: str | None, needed: bool) -> str:
        value = row.get(column) if column is not None else None
        if isinstance(value, float) and math.isnan(value):
            value = None
        if not isinstance(value, str | int | float | None):
            raise DataError(
                f"{key} must be a text, but {place}, row {number} has a {type(value).__name__} in {column!r}"
            )
        cleaned = "" if value is None else str(value).strip()
        if needed and not cleaned:
            raise DataError(
                f"every row must have its {key}, but {place}, row {number} has an empty {column!r}; "
                "fill it in, or take the row out"
            )
        return cleaned

    options, label = choices(row, columns.options, columns.label, f"{place}, row {number}")
    return Example(
        id=text("id", columns.id, needed=True) if columns.id is not None else f"{data.name}-{number:06d}",
        question=text("question", columns.question, needed=True),
        reasoning=text("reasoning", columns.reasoning, needed=columns.reasoning is not None),
        answer=text("answer", columns.answer, needed=True),
        options=options,
        label=label,
    )


def choices(row: Row, options: str | None, label: str | None, place: str) -> tuple[tuple[str, ...], int | None]:
    """Options in the order of their letters, and the index of the right one."""
    if options is None or label is None:
        return (), None
    value = row[options]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise DataError(f"options must be a mapping of letter to text, but {place} has {value!r}") from error
    if not isinstance(value, dict) or len(value) < 2:
        raise DataError(f"options must map two letters or more to texts, but {place} has {value!r}")
    letters = sorted(value)
    blank = [letter for letter in letters if value[letter] is None or not str(value[letter]).strip()]
    if blank:
        raise DataError(f"every option must have a text, but {place} has none for {', '.join(blank)}")
    if row[label] not in letters:
        raise DataError(f"a label must be one of the options {', '.join(letters)}, but {place} has {row[label]!r}")
    return tuple(str(value[letter]) for letter in letters), letters.index(row[label])


def divide(examples: list[Example], rows: Iterable[Row], data: DataConfig) -> Split:
    """Held out: the rows that the source marks `validation`, else those whose question has a small hash.

    Rows that the source marks `test` are in neither part.

    For a share the hash decides alone, so no seed and no other row moves a row across, the same question asked
    twice is in one part, and the number held out is only about the share. A whole number takes that many of the
    smallest hashes.
    """
    if data.columns.split is not None:
        parts: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
        for number, (example, row) in enumerate(zip(examples, rows, strict=True), start=1):
            part = row[data.columns.split]
            if not isinstance(part, str) or part not in parts:
                raise DataError(
                    f"data.columns.split={data.columns.split} must hold one of {', '.join(parts)}, but row {number} "
                    f"has {part!r}; rename it, or use data.columns.split=null data.validation=0.1"
                )
            parts[part].append(example)
        if data.validation is not None:
            told = "column %r says which rows are held out: data.validation=%g does not apply"
            log.info(told, data.columns.split, data.validation)
        return Split(parts["train"], mixed(parts["validation"]))
    assert data.validation is not None
    by_hash = sorted((hash_share(normalised(example.question)), example.id) for example in examples)
    below = sum(share < data.validation for share, _ in by_hash)
    count = int(data.validation) if data.validation >= 1 else max(1, below)
    while 0 < count < len(by_hash) and by_hash[count][0] == by_hash[count - 1][0]:
        count += 1
    held_out = {name for _, name in by_hash[:count]}
    return Split(
        train=[example for example in examples if example.id not in held_out],
        validation=mixed([example for example in examples if example.id in held_out]),
    )


def mixed(examples: list[Example]) -> list[Example]:
    """`examples` in the order of their ids' hashes: a file is often sorted by subject, and a part of it is one."""
    return sorted(examples, key=lambda example: hash_share(example.id))


def hash_share(name: str) -> float:
    """A number in [0, 1) that `name` alone determines, evenly spread over names."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
