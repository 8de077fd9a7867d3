"""Rows of benchmarks in their publishers' formats, each with the place where it stands, and what they hold.

A file is a list of objects, an object a line, a mapping of ids to objects, a Parquet table, or MMLU's CSV.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medbot_exp.data.sources import as_row, fault_in, numbered_lines, read_parquet, told
from medbot_exp.errors import DataError
from medbot_exp.evaluation.item import TURN, Item

LETTERS = tuple("ABCD")
MMLU_COLUMNS = 6


@dataclass(frozen=True)
class Row:
    """A row as it was published.

    Attributes:
        place: where it stands, as messages name it: `test.jsonl, line 3`.
        fields: what it holds.
        key: what it is called where a mapping holds it; empty elsewhere.
    """

    place: str
    fields: dict[str, Any]
    key: str = ""


def read_file(path: Path) -> list[Row]:
    """The rows of a file.

    Raises:
        DataError: it has an unknown ending, or malformed content (with its line).
    """
    readers = {".json": read_json, ".jsonl": read_lines, ".csv": read_mmlu, ".parquet": read_table}
    ending = path.suffix.lower()
    if ending not in readers:
        raise DataError(f"a benchmark's file must end in {', '.join(readers)}, but got {path}; convert or rename it")
    with told(path):
        return list(readers[ending](path))


def read_lines(path: Path) -> Iterator[Row]:
    """An object a line; blank lines do not count."""
    return (Row(f"{path}, line {number}", fields) for number, fields in numbered_lines(path))


def read_table(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file."""
    return (Row(f"{path}, row {number}", fields) for number, fields in enumerate(read_parquet(path), start=1))


def read_json(path: Path) -> Iterator[Row]:
    """The objects of a list, of a mapping of ids, or of lines: MedMCQA's lines end in .json, too."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=partial(keys_once, path))
    except json.JSONDecodeError as error:
        if error.msg.startswith("Extra data"):  # behind the first object comes another
            return read_lines(path)
        raise DataError(
            f"a .json file must be valid JSON, but {path}, line {error.lineno}, {fault_in(error)}; mend it"
        ) from error
    if isinstance(content, list):
        return (Row(place, as_row(each, place)) for place, each in numbered(path, content))
    fields = as_row(content, str(path))
    if fields and all(isinstance(value, dict) for value in fields.values()):
        return (Row(f"{path}, {key!r}", each, key) for key, each in fields.items())
    return iter([Row(str(path), fields)])


def keys_once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of `pairs`; json's own would keep the last of two with one key, and tell nobody.

    Raises:
        DataError: two have one key.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        repeated = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise DataError(f"ids must be unique, but {path} has duplicate ids: {repeated!r}; take one of them out")
    return content


def numbered(path: Path, content: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Each element with its place."""
    return ((f"{path}, element {number}", each) for number, each in enumerate(content, start=1))


def read_mmlu(path: Path) -> Iterator[Row]:
    """The rows of an MMLU file, by the names that the hub's copy gives them: question, choices, answer."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for cells in reader:
                place = f"{path}, line {reader.line_num}"
                if len(cells) != MMLU_COLUMNS:
                    raise DataError(
                        "a benchmark's .csv file must be as MMLU has them, without a header: question, four options, "
                        f"letter; but {place} has {len(cells)} columns; give the rows as JSONL"
                    )
                yield Row(place, {"question": cells[0], "choices": cells[1:5], "answer": cells[5]})
        except csv.Error as error:
            raise DataError(f"a .csv file must be well-formed, but {path}, line {reader.line_num}: {error}") from error


def text(row: Row, name: str) -> str:
    """What stands in the field `name`, once it is a text that is not blank."""
    return checked_text(row.fields[name], f"field {name!r}", row.place)


def checked_text(value: Any, what: str, place: str) -> str:
    """`value` without the blanks around it, once it is a text with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"{what} must be a text that is not blank, but {place} has {value!r}; fill it in, or take the row out"
        )
    return value.strip()


def lettered(row: Row, texts: Sequence[Any]) -> dict[str, str]:
    """The four options under A, B, C, D.

    Raises:
        DataError: there are not four, or one is blank.
    """
    if len(texts) != len(LETTERS):
        raise DataError(
            f"a question must have the four options {', '.join(LETTERS)}, but {row.place} has {len(texts)}; "
            "read the benchmark's edition with four"
        )
    pairs = zip(LETTERS, texts, strict=True)
    return {letter: checked_text(each, f"option {letter}", row.place) for letter, each in pairs}


def letter_at(row: Row, index: Any) -> str:
    """The letter of the option at `index`, counted from 0."""
    if not isinstance(index, int) or not 0 <= index < len(LETTERS):
        raise no_option(row, index, "0, 1, 2, 3")
    return LETTERS[index]


def no_option(row: Row, label: Any, options: str) -> DataError:
    """The error for a label that names none of its options."""
    return DataError(
        f"the right answer must be one of the options {options}, but {row.place} has {label!r}; "
        "mend the row, or take it out"
    )


def identified(row: Row, item: Item) -> Item:
    """`item`, which is that of `row`, once its id is none of those that turns of an item get.

    Raises:
        DataError: it is like one.
    """
    if TURN in item.id:
        raise DataError(
            f"ids must be without {TURN!r}, which tells the turns of an item apart under order=cyclic, but {row.place} "
            f"has {item.id!r}; rename it"
        )
    return item


def distinct(rows: Sequence[Row], item_of: Callable[[Row], Item]) -> list[Item]:
    """The items of `rows`.

    Raises:
        DataError: two have one id, or one is like those of turns.
    """
    items: list[Item] = []
    places: dict[str, str] = {}
    for row in rows:
        item = identified(row, item_of(row))
        if item.id in places:
            raise DataError(
                f"ids must be unique, but there are duplicate ids: {item.id!r} stands in {places[item.id]} and in "
                f"{row.place}; take one of them out"
            )
        places[item.id] = row.place
        items.append(item)
    return items
