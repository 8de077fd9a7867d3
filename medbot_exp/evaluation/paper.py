"""A benchmark as it is put to models: which items, in which order, behind which worked examples."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from medbot_exp.config import BenchmarkConfig, Method, RunConfig, TooLong
from medbot_exp.errors import DataError
from medbot_exp.evaluation.ask import Question
from medbot_exp.evaluation.benchmarks.registry import Benchmark
from medbot_exp.evaluation.item import Item, fingerprint
from medbot_exp.evaluation.order import ordered
from medbot_exp.objectives import development_name, is_developed, metric_name

log = logging.getLogger(__name__)

NAMED = 3  # items that a message names


@dataclass(frozen=True)
class Paper:
    """A benchmark, ready to be put to any model.

    Attributes:
        name: of the benchmark.
        metric: what its results are called.
        source: sha256 of all items of the source as they were published, by which `benchmark.fingerprint` pins them;
            None where items are drawn from a source that is not read whole.
        items: in the order of their options that they are asked in.
        worked: items shown with their answers in front of each question.
        too_long: ids of items that were left out, as the model has no room for them.
        chooses: runs are chosen by it.
        others: items of the same part that its limit leaves out.
    """

    name: str
    metric: str
    source: str | None
    benchmark: BenchmarkConfig
    items: Sequence[Item]
    worked: Sequence[Item]
    too_long: tuple[str, ...] = ()
    chooses: bool = False
    others: Sequence[Item] = ()

    @property
    def asked(self) -> str:
        """sha256 of what is asked, as 64 hex digits, whatever tags this package finds."""
        return fingerprint([replace(item, tags=()) for item in self.items])

    @property
    def shown(self) -> str | None:
        """sha256 of the worked examples, likewise; None without any."""
        return fingerprint([replace(item, tags=()) for item in self.worked]) if self.worked else None


def read_papers(config: RunConfig) -> tuple[list[Paper], list[Paper]]:
    """The tests of `config`, without what is set apart of them, and the development parts that its runs are chosen by.

    Raises:
        ConfigError, DataError: a source is missing, malformed, or not the one that is wanted.
    """
    tests, developments = [], []
    for name, benchmark in config.benchmark.items():
        read, developed = Benchmark(name, benchmark), is_developed(config, name)
        apart = {item.content_hash for item in read.development} if developed else set()
        items = read.asked(apart)
        ids = {item.id for item in items}
        others = [item for item in read.left(apart) if item.id not in ids]
        tests.append(replace(paper_of(read, metric_name(name, benchmark), items), others=others))
        if developed:
            part = paper_of(read, development_name(name, benchmark), read.development)
            developments.append(replace(part, source=part.source if read.is_set_apart else None, chooses=True))
    return tests, developments


def read_tests(config: RunConfig, chosen_by: Collection[str]) -> list[Paper]:
    """What the benchmarks of `config` ask a run that is there: nothing that it was chosen by, whatever it is called.

    Args:
        chosen_by: content hashes of the items that it was chosen by, of any benchmark.

    Raises:
        ConfigError, DataError: as of `read_papers`; or no item is left.
    """
    papers = []
    for name, benchmark in config.benchmark.items():
        read, metric = Benchmark(name, benchmark), metric_name(name, benchmark)
        every, left = len(read.published), len(read.left(chosen_by))
        if left == 0:
            raise DataError(
                f"a test must have items that its run was not chosen by, but the run was chosen by all {every} of "
                f"{metric}; ask another part with benchmark.{name}.split or .path"
            )
        if left < every:
            log.info("%s: %d of %d items are left out, as the run was chosen by them", metric, every - left, every)
        papers.append(paper_of(read, metric, read.asked(chosen_by)))
    return papers


def questions_of(papers: Sequence[Paper]) -> list[str]:
    """The content hashes of all items of `papers`, sorted."""
    return sorted({item.content_hash for paper in papers for item in paper.items})


def paper_of(read: Benchmark, metric: str, items: Sequence[Item]) -> Paper:
    """`items` of `read`, in the order that it wants their options in."""
    config = read.config
    asked = ordered(items, config.order, config.seed)
    return Paper(read.name, metric, fingerprint(read.published), config, asked, read.worked)


def named(ids: Sequence[str]) -> str:
    """The first of `ids`, and that there are more."""
    return ", ".join(ids[:NAMED]) + (", …" if len(ids) > NAMED else "")


def fitting(asked: Paper, questions: Sequence[Question], room: Sequence[int], positions: int) -> Paper:
    """`asked` with the items that a model of `positions` tokens has room for.

    Args:
        questions: those of its items.
        room: tokens that each may need behind its question.

    Raises:
        DataError: there are others, and `on_too_long` is error; or no item is left.
    """
    needed = {question.item.id: len(question.ids) + tokens for question, tokens in zip(questions, room, strict=True)}
    left_out = [item.id for item in asked.items if needed[item.id] > positions]
    key = f"benchmark.{asked.name}"
    none_left = len(left_out) == len(asked.items)
    if left_out and (asked.benchmark.on_too_long is TooLong.error or none_left):
        writes = asked.benchmark.method is Method.generate
        remedies = [f"lower {key}.thinking_tokens or .answer_tokens"] * writes
        remedies += [f"show fewer worked examples with {key}.shots"] * bool(asked.benchmark.shots)
        remedies += ["take a model with more room"] if none_left else [f"leave them out with {key}.on_too_long=drop"]
        raise DataError(
            f"an item must fit into the model's {positions} tokens{' with what may be written' if writes else ''}, but "
            f"{len(left_out)} of {len(asked.items)} items of {asked.metric} do not ({named(left_out)}: up to "
            f"{max(needed.values())} tokens); {', or '.join(remedies)}"
        )
    kept = [item for item in asked.items if item.id not in set(left_out)]
    return replace(asked, items=kept, too_long=tuple(left_out))
