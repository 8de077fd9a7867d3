"""A benchmark as it is put to models: which items, in which order, behind which worked examples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from medbot_exp.config import BenchmarkConfig, RunConfig, TooLong
from medbot_exp.errors import DataError
from medbot_exp.evaluation.ask import Question
from medbot_exp.evaluation.benchmarks import registry
from medbot_exp.evaluation.item import Item, fingerprint
from medbot_exp.evaluation.order import ordered
from medbot_exp.rules import development_name, is_developed, metric_name

NAMED = 3  # items that a message names


@dataclass(frozen=True)
class Paper:
    """A benchmark, ready to be put to any model.

    Attributes:
        name: of the benchmark.
        metric: what its results are called.
        source: sha256 of all items as they were published, by which `benchmark.fingerprint` pins them.
        items: in the order of their options that they are asked in.
        worked: items shown with their answers in front of each question.
        too_long: ids of items that were left out, as the model has no room for them.
    """

    name: str
    metric: str
    source: str
    benchmark: BenchmarkConfig
    items: Sequence[Item]
    worked: Sequence[Item]
    too_long: tuple[str, ...] = ()


def read_tests(config: RunConfig) -> list[Paper]:
    """What the benchmarks of `config` ask: without what was set apart of them to choose its run by.

    Raises:
        ConfigError, DataError: a source is missing, malformed, or not the one that is wanted.
    """
    papers = []
    for name, benchmark in config.benchmark.items():
        chosen_by = is_developed(config, name) and registry.is_set_apart(benchmark)
        items = registry.read(name, benchmark, registry.development(name, benchmark) if chosen_by else ())
        papers.append(paper_of(name, metric_name(name, benchmark), benchmark, items))
    return papers


def read_developments(config: RunConfig) -> list[Paper]:
    """The development parts that runs of `config` are chosen by; errors as of `read_tests`."""
    return [
        paper_of(name, development_name(name, benchmark), benchmark, registry.development(name, benchmark))
        for name, benchmark in config.benchmark.items()
        if is_developed(config, name)
    ]


def paper_of(name: str, metric: str, benchmark: BenchmarkConfig, items: Sequence[Item]) -> Paper:
    """`items` of the benchmark `name`, in the order that it wants their options in."""
    asked = ordered(items, benchmark.order, benchmark.seed)
    source = fingerprint(registry.published(name, benchmark))
    return Paper(name, metric, source, benchmark, asked, registry.shots(name, benchmark))


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
    if left_out and (asked.benchmark.on_too_long is TooLong.error or len(left_out) == len(asked.items)):
        raise DataError(
            f"an item must fit into the model's {positions} tokens with what may be written, but {len(left_out)} of "
            f"{len(asked.items)} items of {asked.metric} do not ({', '.join(left_out[:NAMED])}: up to "
            f"{max(needed.values())} tokens); lower {key}.thinking_tokens or .shots, or leave them out with "
            f"{key}.on_too_long=drop"
        )
    kept = [item for item in asked.items if item.id not in set(left_out)]
    return replace(asked, items=kept, too_long=tuple(left_out))
