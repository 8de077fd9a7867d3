"""The benchmarks by their names: the items that a run is asked, and the worked examples in front of them."""

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from medbot_exp.config import BenchmarkConfig
from medbot_exp.data.example import normalised
from medbot_exp.errors import ConfigError, DataError
from medbot_exp.evaluation.benchmarks import cases, medmcqa, medqa, mmlu_medical, pubmedqa
from medbot_exp.evaluation.item import Item, fingerprint
from medbot_exp.evaluation.order import tagged
from medbot_exp.evaluation.rows import Row
from medbot_exp.evaluation.source import Source, shown


class Reader(Protocol):
    """What the module of each benchmark offers."""

    def read(self, benchmark: BenchmarkConfig) -> list[Item]:
        """All items of the part that is asked, in the published order."""

    def rows(self, source: Source) -> list[Row]:
        """The rows of `source`, one an item."""

    def item(self, row: Row) -> Item:
        """The item in `row`, checked."""


READERS: Mapping[str, Reader] = MappingProxyType(
    {"cases": cases, "medqa": medqa, "medmcqa": medmcqa, "pubmedqa": pubmedqa, "mmlu_medical": mmlu_medical}
)


def read(name: str, benchmark: BenchmarkConfig) -> list[Item]:
    """The items of the benchmark `name` that a run is asked, tagged, `benchmark.limit` of them at most.

    Raises:
        ConfigError, DataError: as `published`.
    """
    return [tagged(item) for item in limited(name, published(name, benchmark), benchmark.limit)]


def published(name: str, benchmark: BenchmarkConfig) -> list[Item]:
    """All items of the benchmark `name`, as its source has them: what `benchmark.fingerprint` is of.

    Tags that this package finds are not on them: a better rule for these leaves the fingerprint alone.

    Raises:
        ConfigError: there is no such benchmark, or its source is not named rightly.
        DataError: the source is missing, malformed or empty; or its items have another fingerprint.
    """
    items = reader(name).read(benchmark)
    if not items:
        place = benchmark.path or benchmark.hub
        raise DataError(
            f"a benchmark must have an item, but part {benchmark.split} of {place} has none of {name}'s; "
            f"choose another benchmark.{name}.split, or another source with benchmark.{name}.path"
        )
    found = fingerprint(items)
    if benchmark.fingerprint is not None and found != benchmark.fingerprint:
        raise DataError(
            f"the items must be those of `benchmark.{name}.fingerprint`, but got benchmark.{name}.fingerprint="
            f"{benchmark.fingerprint}, and the {len(items)} items read have {found}\n"
            f"Name the source that it was taken of, or null to take these (results are then not comparable)"
        )
    return items


def limited(name: str, items: Sequence[Item], limit: int | None) -> list[Item]:
    """A fair sample of `limit` items, which a larger one contains; all in their order for None.

    Args:
        items: all of the benchmark `name`.
    """
    if limit is None:
        return list(items)
    # The cases come in turns of their specialties: the first of them are fairer than any drawn by lot.
    ranked = items if name == "cases" else sorted(items, key=lambda item: digest(item.id))
    return list(ranked[:limit])


def shots(name: str, benchmark: BenchmarkConfig) -> list[Item]:
    """`benchmark.shots` worked examples, drawn by `benchmark.seed`; more of them contain the fewer.

    Rows that are not drawn are not checked: MedQA's train part has one whose question is cut off.

    Raises:
        ConfigError, DataError: no source is given for them, it is malformed or has too few, or one of them is asked.
    """
    if benchmark.shots == 0:
        return []
    drawn = draw(name, benchmark)
    asked = {normalised(item.question): item.id for item in published(name, benchmark)}
    for item in drawn:
        if normalised(item.question) in asked:
            raise DataError(
                f"no worked example may be asked, but {item.id!r} of the worked examples of {name} has the question "
                f"of item {asked[normalised(item.question)]!r}; take them from another part with "
                f"benchmark.{name}.shots_path or .shots_split, or draw others with benchmark.{name}.seed"
            )
    return drawn


def draw(name: str, benchmark: BenchmarkConfig) -> list[Item]:
    """As many items of the source of worked examples as `benchmark.shots` says, with different questions.

    Raises:
        DataError: there are fewer.
    """
    module = reader(name)
    rows = module.rows(shown(name, benchmark))
    drawn: dict[str, Item] = {}
    for number in sorted(range(len(rows)), key=lambda number: digest(f"{benchmark.seed} {number}")):
        if len(drawn) == benchmark.shots:
            break
        item = tagged(module.item(rows[number]))
        drawn.setdefault(normalised(item.question), item)
    if len(drawn) < benchmark.shots:
        raise DataError(
            f"there must be as many worked examples as are shown, but got benchmark.{name}.shots={benchmark.shots}, "
            f"and their source has {len(drawn)} different ones; show fewer, or name a larger source"
        )
    return list(drawn.values())


def metric_name(name: str, benchmark: BenchmarkConfig) -> str:
    """What results on the benchmark `name` are called: another name where other questions are asked."""
    return pubmedqa.metric_name(benchmark) if name == "pubmedqa" else name


def reader(name: str) -> Reader:
    """The module of the benchmark `name`.

    Raises:
        ConfigError: there is none.
    """
    if name not in READERS:
        raise ConfigError(f"`benchmark` must be one of {', '.join(READERS)}, but got benchmark.{name}")
    return READERS[name]


def digest(text: str) -> str:
    """sha256 of `text`, as 64 hex digits: an order by it is like one by lot, and the same each time."""
    return hashlib.sha256(text.encode()).hexdigest()
