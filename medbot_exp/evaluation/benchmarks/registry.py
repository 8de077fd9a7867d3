"""The benchmarks by their names: the items that a run is asked, and the worked examples in front of them."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Protocol

from medbot_exp.config import BenchmarkConfig
from medbot_exp.data.example import normalised
from medbot_exp.errors import ConfigError, DataError
from medbot_exp.evaluation.benchmarks import cases, medmcqa, medqa, mmlu_medical, pubmedqa
from medbot_exp.evaluation.harness import Words
from medbot_exp.evaluation.item import Item, fingerprint
from medbot_exp.evaluation.order import tagged
from medbot_exp.evaluation.rows import Row, distinct, identified
from medbot_exp.evaluation.source import Source, asked, developed, shown


class Reader(Protocol):
    """What the module of each benchmark offers."""

    @property
    def HARNESS(self) -> Words | None:
        """Its words in lm-evaluation-harness; None where that does not have it."""

    def rows(self, source: Source) -> list[Row]:
        """The rows of `source`, one an item, in the published order."""

    def item(self, row: Row) -> Item:
        """The item in `row`, checked."""


READERS: Mapping[str, Reader] = MappingProxyType(
    {"cases": cases, "medqa": medqa, "medmcqa": medmcqa, "pubmedqa": pubmedqa, "mmlu_medical": mmlu_medical}
)


class Benchmark:
    """The items of a benchmark by what they are for; each source is read once, when it is wanted.

    Args:
        name: of the benchmark.
        config: where its items come from, and which of them are wanted.

    Raises:
        ConfigError: there is no such benchmark.
    """

    def __init__(self, name: str, config: BenchmarkConfig) -> None:
        if name not in READERS:
            raise ConfigError(f"`benchmark` must be one of {', '.join(READERS)}, but got benchmark.{name}")
        self.name, self.config, self.reader = name, config, READERS[name]
        self.known: dict[tuple[str | None, ...], list[Row]] = {}

    def rows(self, source: Source) -> list[Row]:
        """The rows of `source`; errors as of its reader."""
        place = (source.path, source.hub, source.hub_config, source.split, source.revision)
        if place not in self.known:
            self.known[place] = self.reader.rows(source)
        return self.known[place]

    @cached_property
    def published(self) -> list[Item]:
        """All items of the part that is asked, as its source has them: what `benchmark.fingerprint` is of.

        Tags that this package finds are not on them: a better rule for these leaves the fingerprint alone.

        Raises:
            ConfigError: its source is not named rightly.
            DataError: the source is missing, malformed or empty; or its items have another fingerprint.
        """
        name, config = self.name, self.config
        items = distinct(self.rows(asked(name, config)), self.reader.item)
        if not items:
            place = f"{config.path or config.hub} (part {config.split})"
            remedy = f"benchmark.{name}.split, or another source with benchmark.{name}.path"
            raise DataError(f"a benchmark must have an item, but {place} has none of {name}'s; choose another {remedy}")
        found = fingerprint(items)
        if config.fingerprint is not None and found != config.fingerprint:
            raise DataError(
                f"the items must be those of `benchmark.{name}.fingerprint`, but got benchmark.{name}.fingerprint="
                f"{config.fingerprint}, and the {len(items)} items read have {found}\n"
                f"Name the source that it was taken of, or null to take these (results are then not comparable)"
            )
        return items

    @property
    def is_set_apart(self) -> bool:
        """Whether the development part is taken from the items that are asked, as it has no source of its own."""
        return self.config.development_path is None and self.config.development_split is None

    @cached_property
    def development(self) -> list[Item]:
        """The `config.development` items that a search chooses by; none of them is a test's.

        Those with a source of their own are drawn as worked examples are, and are none of these.

        Raises:
            ConfigError, DataError: as of `published` and `worked`.
        """
        count, key = self.config.development, f"benchmark.{self.name}.development"
        if self.is_set_apart:
            every = ranked(self.name, self.published)
            if len(every) <= count:
                raise DataError(
                    f"a development part must leave items for the test, but got {key}={count} of {len(every)} items; "
                    f"set fewer apart, or give them a source of their own with {key}_path=<file>"
                )
            return [tagged(item) for item in every[-count:]]
        shown_before = {normalised(item.question) for item in self.worked}
        drawn = self.draw(developed(self.name, self.config), count, key, shown_before)
        return self.unasked(drawn, "development item", key)

    @cached_property
    def worked(self) -> list[Item]:
        """`config.shots` worked examples, drawn by `config.seed`; more of them contain the fewer.

        Rows that are not drawn are not checked: MedQA's train part has one whose question is cut off.

        Raises:
            ConfigError, DataError: no source is given for them, it is malformed or has too few, or one of them is
                asked.
        """
        if self.config.shots == 0:
            return []
        key = f"benchmark.{self.name}.shots"
        drawn = self.draw(shown(self.name, self.config), self.config.shots, key, ())
        return self.unasked(drawn, "worked example", key)

    def left(self, apart: Collection[str]) -> list[Item]:
        """The published items without those `apart`, which are content hashes; errors as of `published`."""
        return [item for item in self.published if item.content_hash not in apart]

    def asked(self, apart: Collection[str] = ()) -> list[Item]:
        """The items that a run is asked: `config.limit` at most of those `left`, tagged."""
        return [tagged(item) for item in limited(self.name, self.left(apart), self.config.limit)]

    def unasked(self, drawn: list[Item], kind: str, key: str) -> list[Item]:
        """`drawn`, once none of them is among the items that are asked.

        Args:
            kind: what they are, and `key` what the keys of their source begin with.

        Raises:
            DataError: one is.
        """
        published = {normalised(item.question): item.id for item in self.published}
        for item in drawn:
            if normalised(item.question) in published:
                raise DataError(
                    f"no {kind} may be asked, but {item.id!r} of the {kind}s of {self.name} has the question "
                    f"of item {published[normalised(item.question)]!r}; take them from another part with "
                    f"{key}_path or {key}_split, or draw others with benchmark.{self.name}.seed"
                )
        return drawn

    def draw(self, source: Source, count: int, key: str, passed_over: Collection[str]) -> list[Item]:
        """`count` items of `source` with different questions, drawn by `config.seed`; more contain the fewer.

        Args:
            key: the config path that asks for as many.
            passed_over: normalised questions that are not drawn.

        Raises:
            DataError: there are fewer.
        """
        rows = self.rows(source)
        drawn: dict[str, Item] = {}
        for number in sorted(range(len(rows)), key=lambda number: digest(f"{self.config.seed} {number}")):
            if len(drawn) == count:
                break
            item = tagged(identified(rows[number], self.reader.item(rows[number])))
            if normalised(item.question) not in passed_over:
                drawn.setdefault(normalised(item.question), item)
        if len(drawn) < count:
            raise DataError(
                f"there must be as many items as `{key}` says, but {count} are to be drawn, and their source has "
                f"{len(drawn)} different ones{' besides the worked examples' if passed_over else ''}; take fewer, or "
                "name a larger source"
            )
        return list(drawn.values())


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


def digest(text: str) -> str:
    """sha256 of `text`, as 64 hex digits: an order by it is like one by lot, and the same each time."""
    return hashlib.sha256(text.encode()).hexdigest()
