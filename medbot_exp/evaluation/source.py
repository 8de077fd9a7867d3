"""Where a benchmark's rows come from: a local file, or the Hugging Face hub; and whose format they are in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medbot_exp.config import BenchmarkConfig
from medbot_exp.data.sources import hub_reason, hub_rows
from medbot_exp.errors import ConfigError, DataError
from medbot_exp.evaluation.rows import Row, read_file

FIELDS_SHOWN = 8
# Fields that rows of one benchmark have and those of no other, in each of the forms that it is published in.
SIGNS = (
    ("cases", {"specialty", "basis"}),
    ("medqa", {"options", "answer_idx"}),
    ("medmcqa", {"opa", "opb", "opc", "opd"}),
    ("pubmedqa", {"QUESTION", "CONTEXTS", "final_decision"}),
    ("pubmedqa", {"pubid", "context", "final_decision"}),
    ("mmlu_medical", {"question", "choices", "answer"}),
)


@dataclass(frozen=True)
class Source:
    """Where rows come from, and what the user typed to say so.

    Attributes:
        benchmark: its name.
        path: of a local file or folder; it goes before the hub.
        split: of the hub's parts, or of the files in a folder.
        path_key: the config path that `path` was given under, `benchmark.medqa.path`.
        split_key: that of `split`.
    """

    benchmark: str
    path: str | None
    hub: str | None
    hub_config: str | None
    split: str | None
    revision: str | None
    path_key: str
    split_key: str


def asked(name: str, benchmark: BenchmarkConfig) -> Source:
    """Where the questions of the benchmark `name` come from."""
    return Source(
        name,
        benchmark.path,
        benchmark.hub,
        benchmark.hub_config,
        benchmark.split,
        benchmark.revision,
        path_key=f"benchmark.{name}.path",
        split_key=f"benchmark.{name}.split",
    )


def shown(name: str, benchmark: BenchmarkConfig) -> Source:
    """Where its worked examples come from: never from `benchmark.path`, which holds what is asked.

    Raises:
        DataError: no source is given for them.
    """
    if benchmark.shots_path is None and benchmark.shots_split is None:
        raise DataError(
            f"worked examples must come from another part than the questions, but got benchmark.{name}.shots="
            f"{benchmark.shots} with no source for them; give benchmark.{name}.shots_path=<file> or "
            f"benchmark.{name}.shots_split=<part>"
        )
    return Source(
        name,
        benchmark.shots_path,
        benchmark.hub,
        benchmark.hub_config,
        benchmark.shots_split,
        benchmark.revision,
        path_key=f"benchmark.{name}.shots_path",
        split_key=f"benchmark.{name}.shots_split",
    )


def developed(name: str, benchmark: BenchmarkConfig) -> Source:
    """Where the development part of the benchmark `name` comes from, where it has a source of its own."""
    return Source(
        name,
        benchmark.development_path,
        benchmark.hub,
        benchmark.hub_config,
        benchmark.development_split,
        benchmark.revision,
        path_key=f"benchmark.{name}.development_path",
        split_key=f"benchmark.{name}.development_split",
    )


def read_rows(source: Source, *forms: Sequence[str]) -> list[Row]:
    """The rows of the file `source.path`, or of the hub, each with all fields of one of `forms`.

    Raises:
        ConfigError: neither a file nor the hub is named, or no part of what the hub has.
        DataError: there is no such file, the hub does not answer, or the rows are in another format.
    """
    rows = read_hub(source) if source.path is None else read_file(existing(source))
    for row in rows:
        if not any(row.fields.keys() >= set(form) for form in forms):
            raise other_format(source, row, forms)
    return rows


def existing(source: Source) -> Path:
    """The local file of `source`, once it is there."""
    path = Path(str(source.path)).expanduser()
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise DataError(f"`{source.path_key}` must name a file, but there is {found} at {path}; mend the path")
    return path


def read_hub(source: Source) -> list[Row]:
    """The rows of the hub's data set.

    Raises:
        ConfigError: no data set is named, or no part of it.
        DataError: the hub does not answer, or does not know it.
    """
    name, split = source.benchmark, source.split
    if source.hub is None or split is None:
        raise ConfigError(
            f"a benchmark must have a source, but got {source.path_key}=null, benchmark.{name}.hub={null(source.hub)} "
            f"and {source.split_key}={null(split)}; name a local file with {source.path_key}=<file>"
        )
    part = " ".join(filter(None, [source.hub_config, split]))
    try:
        found = hub_rows(source.hub, source.hub_config, split, source.revision)
    except Exception as error:
        raise DataError(
            f"`benchmark.{name}.hub` must be reachable and have the split {part}, but got "
            f"benchmark.{name}.hub={source.hub}: {hub_reason(error)}\n"
            f"Offline, give the rows as a local file: {source.path_key}=<file>"
        ) from error
    return [Row(f"{source.hub} {part}, row {number}", fields) for number, fields in enumerate(found, start=1)]


def null(value: str | None) -> str:
    """`value` as the user types it."""
    return "null" if value is None else value


def other_format(source: Source, row: Row, forms: Sequence[Sequence[str]]) -> DataError:
    """The error for a row that has the fields of none of `forms`, saying whose it looks like."""
    key = f"benchmark.{source.benchmark}.hub" if source.path is None else source.path_key
    wanted = " or ".join(", ".join(form) for form in forms)
    names = list(map(str, row.fields))
    has = ", ".join(names[:FIELDS_SHOWN]) + (f", … ({len(names)} in all)" if len(names) > FIELDS_SHOWN else "")
    likely = looks_like(row)
    if row.fields and all(value in ("yes", "no", "maybe") for value in row.fields.values()):
        remedy = (
            "it has PubMedQA's labels without the questions, as test_ground_truth.json does: name ori_pqal.json of the "
            "same publisher, which has both, with benchmark.pubmedqa.path=<file>"
        )
    elif likely is None or likely == source.benchmark:
        remedy = "mend the rows, or name another source"
    else:
        remedy = f"it looks like {likely}'s: name it under benchmark.{likely}, with benchmark=[{likely}]"
    return DataError(
        f"`{key}` must hold rows in {source.benchmark}'s format ({wanted}), but {row.place} has: {has}\n{remedy}"
    )


def looks_like(row: Row) -> str | None:
    """The benchmark that `row` looks like a row of; None where it looks like none."""
    return next((name for name, signs in SIGNS if row.fields.keys() >= signs), None)
