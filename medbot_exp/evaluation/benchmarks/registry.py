"""The benchmarks by their names: the items that a run is asked, and the worked examples in front of them."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from medbot_exp.config import BenchmarkConfig
from medbot_exp.data.example import normalised
from medbot_exp.errors import ConfigError, DataError
from medbot_exp.evaluation.benchmarks import cases, medmcqa, medqa, mmlu_medical, pubmedqa
from medbot_exp.evaluation.item import Item, fingerprint
from medbot_exp.evaluation.order import tagged
from medbot_exp.evaluation.rows import Row
from medbot_exp.evaluation.source import Source, developed, shown


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


def read(name: str, benchmark: BenchmarkConfig, apart: Collection[Item] = ()) -> list[Item]:
    """The items of the benchmark `name` that a run is asked, tagged, `benchmark.limit` of them at most.

    Args:
        apart: items of it that are not asked.

    Raises:
        ConfigError, DataError: as `published`.
    """
    others = {item.id for item in apart}
    left = [item for item in published(name, benchmark) if item.id not in others]
    return [tagged(item) for item in limited(name, left, benchmark.limit)]


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
    return ranked(name, items)[:limit]


def ranked(name: str, items: Sequence[Item]) -> list[Item]:
    """`items` of the benchmark `name` in an order in which any first of them are a fair sample."""
    # The cases come in turns of their specialties: the first of them are fairer than any drawn by lot.
    return list(items) if name == "cases" else sorted(items, key=lambda item: digest(item.id))


def is_set_apart(benchmark: BenchmarkConfig) -> bool:
    """Whether the development part is taken from the items that are asked, as it has no source of its own."""
    return benchmark.development_path is None and benchmark.development_split is None


def development(name: str, benchmark: BenchmarkConfig) -> list[Item]:
    """The `benchmark.development` items of the benchmark `name` that a search chooses by; none of them is a test's.

    Those with a source of their own are drawn as worked examples are, and are none of these.

    Raises:
        ConfigError, DataError: as `published` and `shots`.
    """
    if is_set_apart(benchmark):
        every = ranked(name, published(name, benchmark))
        if len(every) <= benchmark.development:
            raise DataError(
                f"a development part must leave items for the test, but got benchmark.{name}.development="
                f"{benchmark.development} of {len(every)} items; set fewer apart, or give them a source of their own "
                f"with benchmark.{name}.development_path=<file>"
            )
        return [tagged(item) for item in every[-benchmark.development :]]
    source = developed(name, benchmark)
    worked = {normalised(item.question) for item in shots(name, benchmark)}
    drawn = draw(name, source, benchmark.development + len(worked), benchmark.seed, f"benchmark.{name}.development")
    left = [item for item in drawn if normalised(item.question) not in worked]
    return unasked(name, benchmark, left[: benchmark.development], "development item", "development")


def shots(name: str, benchmark: BenchmarkConfig) -> list[Item]:
    """`benchmark.shots` worked examples, drawn by `benchmark.seed`; more of them contain the fewer.

    Rows that are not drawn are not checked: MedQA's train part has one whose question is cut off.

    Raises:
        ConfigError, DataError: no source is given for them, it is malformed or has too few, or one of them is asked.
    """
    if benchmark.shots == 0:
        return []
    drawn = draw(name, shown(name, benchmark), benchmark.shots, benchmark.seed, f"benchmark.{name}.shots")
    return unasked(name, benchmark, drawn, "worked example", "shots")


def unasked(name: str, benchmark: BenchmarkConfig, drawn: list[Item], kind: str, key: str) -> list[Item]:
    """`drawn`, once none of them is among the items of the benchmark `name`.

    Args:
        kind: what they are, and `key` what the keys of their source begin with.

    Raises:
        DataError: one is.
    """
    asked = {normalised(item.question): item.id for item in published(name, benchmark)}
    for item in drawn:
        if normalised(item.question) in asked:
            raise DataError(
                f"no {kind} may be asked, but {item.id!r} of the {kind}s of {name} has the question "
                f"of item {asked[normalised(item.question)]!r}; take them from another part with "
                f"benchmark.{name}.{key}_path or .{key}_split, or draw others with benchmark.{name}.seed"
            )
    return drawn


def draw(name: str, source: Source, count: int, seed: int, key: str) -> list[Item]:
    """`count` items of `source` with different questions, drawn by `seed`; more of them contain the fewer.

    Args:
        name: of the benchmark, whose format the rows have.
        key: the config path that asks for as many.

    Raises:
        DataError: there are fewer.
    """
    module = reader(name)
    rows = module.rows(source)
    drawn: dict[str, Item] = {}
    for number in sorted(range(len(rows)), key=lambda number: digest(f"{seed} {number}")):
        if len(drawn) == count:
            break
        item = tagged(module.item(rows[number]))
        drawn.setdefault(normalised(item.question), item)
    if len(drawn) < count:
        raise DataError(
            f"there must be as many items as `{key}` says, but {count} are to be drawn, and their source has "
            f"{len(drawn)} different ones; take fewer, or name a larger source"
        )
    return list(drawn.values())


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
