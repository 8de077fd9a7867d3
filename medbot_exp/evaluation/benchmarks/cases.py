"""The bundled held-out cases: 45 of 180, three of each of 15 specialties, never trained on by default.

Address: medbot_exp/data/bundled/clinical_cases.jsonl, rows with split=validation. Licence: Apache-2.0.
One row: {"id": "cardiology-03", "specialty": "cardiology", "split": "validation", "question": "A …",
"reasoning": "…", "answer": "…", "options": {"A": "…", "B": "…", "C": "…", "D": "…"}, "label": "B", "basis": "…"}
"""

from collections import Counter

from medbot_exp.data.sources import BUNDLED, numbered_lines
from medbot_exp.errors import ConfigError
from medbot_exp.evaluation.item import Item
from medbot_exp.evaluation.rows import Row
from medbot_exp.evaluation.source import Source, null

FILE = "clinical_cases.jsonl"
HARNESS = None  # which does not have them


def rows(source: Source) -> list[Row]:
    """The rows of the part `source.split`: validation is held out, train is what data=clinical_cases trains on.

    Raises:
        ConfigError: a place to read them from is given, or there is no such part.
    """
    if source.path is not None or source.hub is not None:
        raise ConfigError(
            f"the cases are in the package, but got {source.path_key}={null(source.path)} and benchmark.cases.hub="
            f"{null(source.hub)}; leave both null, or choose another benchmark"
        )
    every = [Row(f"{FILE}, line {number}", fields) for number, fields in numbered_lines(BUNDLED / FILE)]
    parts = sorted({row.fields["split"] for row in every})
    if source.split not in parts:
        raise ConfigError(
            f"`{source.split_key}` must be one of {', '.join(parts)}, but got {source.split_key}={source.split}"
        )
    seen: Counter[str] = Counter()
    turns = []
    for row in every:
        if row.fields["split"] == source.split:
            specialty = row.fields["specialty"]
            turns.append((seen[specialty], specialty, row))
            seen[specialty] += 1
    return [row for _, _, row in sorted(turns, key=lambda turn: turn[:2])]


def item(row: Row) -> Item:
    """The case in `row`."""
    fields = row.fields
    return Item(fields["id"], fields["question"], fields["options"], fields["label"], group=fields["specialty"])
