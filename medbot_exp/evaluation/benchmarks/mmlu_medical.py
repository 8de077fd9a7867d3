"""MMLU's six medical subjects: 1,089 questions in the test part, with four options.

Address: https://huggingface.co/datasets/cais/mmlu (each subject a config), or the folder data/test of
https://github.com/hendrycks/test, a <subject>_test.csv each. Licence: MIT. Paper: Hendrycks et al. 2021,
https://arxiv.org/abs/2009.03300.
One row of a file, which has no header: Which bone is in the arm?,Femur,Tibia,Ulna,Fibula,C
On the hub: {"question": "Which bone is in the arm?", "subject": "anatomy", "choices": ["Femur", "Tibia", "Ulna",
"Fibula"], "answer": 2}
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medbot_exp.errors import ConfigError, DataError
from medbot_exp.evaluation.harness import Words
from medbot_exp.evaluation.item import Item
from medbot_exp.evaluation.rows import LETTERS, Row, letter_at, lettered, no_option, text
from medbot_exp.evaluation.source import Source, read_rows

SUBJECTS = (
    "anatomy",
    "clinical_knowledge",
    "college_biology",
    "college_medicine",
    "medical_genetics",
    "professional_medicine",
)
FIELDS = ("question", "choices", "answer")


def rows(source: Source) -> list[Row]:
    """The rows of all six subjects, or of the one that the file or `hub_config` is of, named `<subject>-<number>`.

    Raises:
        ConfigError: `hub_config` is none of the six.
        DataError: as `read_rows`; a file's name says no subject, or the folder lacks one.
    """
    if source.path is None:
        return [row for subject in hub_subjects(source) for row in of_subject(source, subject)]
    path = Path(source.path).expanduser()
    if path.is_dir():
        return [row for subject in SUBJECTS for row in of_subject(in_folder(source, path, subject), subject)]
    return of_file(source, path)


def of_subject(source: Source, subject: str) -> list[Row]:
    """The rows of `subject`, which `source` is of, or which is its config on the hub."""
    config = subject if source.path is None else None
    return named(read_rows(replace(source, hub_config=config), FIELDS), subject)


def named(found: Sequence[Row], subject: str) -> list[Row]:
    """`found` with their subject, called by it and their number."""
    return [
        replace(row, fields=row.fields | {"subject": subject}, key=f"{subject}-{number}")
        for number, row in enumerate(found, start=1)
    ]


def hub_subjects(source: Source) -> tuple[str, ...]:
    """The one that `hub_config` names, else all six."""
    if source.hub_config is None:
        return SUBJECTS
    if source.hub_config not in SUBJECTS:
        raise ConfigError(
            f"`benchmark.mmlu_medical.hub_config` must be one of {', '.join(SUBJECTS)}, or null for all, but got "
            f"benchmark.mmlu_medical.hub_config={source.hub_config}"
        )
    return (source.hub_config,)


def in_folder(source: Source, folder: Path, subject: str) -> Source:
    """`source`, as the file of `subject` in `folder`; the publishers call the part validation `val`.

    Raises:
        DataError: files of subjects are missing.
    """
    part = "val" if source.split == "validation" else source.split
    missing = [f"{each}_{part}.csv" for each in SUBJECTS if not (folder / f"{each}_{part}.csv").is_file()]
    if missing:
        raise DataError(
            f"the folder `{source.path_key}` must hold a <subject>_{part}.csv of each of the six subjects, but "
            f"{folder} has no {', '.join(missing)}; add them, choose another part with {source.split_key}, or "
            "name one file"
        )
    return replace(source, path=str(folder / f"{subject}_{part}.csv"))


def of_file(source: Source, path: Path) -> list[Row]:
    """The rows of the file `path`, whose name begins with its subject."""
    found = read_rows(source, FIELDS)
    subject = path.stem.rpartition("_")[0]
    if subject not in SUBJECTS:
        raise DataError(
            f"`{source.path_key}` must name a folder, or a file <subject>_<part>.csv of one of {', '.join(SUBJECTS)}, "
            f"but got {path}; write it as the publisher does, a CSV without a header: question, four options, letter"
        )
    return named(found, subject)


def item(row: Row) -> Item:
    """The question in `row`, called `<subject>-<number>`."""
    choices, answer = row.fields["choices"], row.fields["answer"]
    if not isinstance(choices, list):
        raise DataError(f"the field 'choices' must be a list of four, but {row.place} has {choices!r}; mend the row")
    if isinstance(answer, str) and answer not in LETTERS:
        raise no_option(row, answer, ", ".join(LETTERS))
    return Item(
        id=row.key,
        question=text(row, "question"),
        options=lettered(row, choices),
        label=answer if isinstance(answer, str) else letter_at(row, answer),
        group=row.fields["subject"],
    )


def harness_question(item: Item) -> str:
    """The question in the words of the harness's tasks mmlu_<subject>."""
    return f"{item.question.strip()}\n{item.listed}\nAnswer:"


def harness_heading(item: Item) -> str:
    """What they have above it: the subject."""
    return f"The following are multiple choice questions (with answers) about {str(item.group).replace('_', ' ')}.\n\n"


HARNESS = Words(harness_question, harness_heading)
