"""MedMCQA: questions of Indian medical entrance exams, with four options; 4,183 in the validation part.

Address: https://huggingface.co/datasets/openlifescienceai/medmcqa, or the .json files (an object a line) of
https://github.com/medmcqa/medmcqa. Licence: MIT; the hub's copy says Apache-2.0. The test part has no answers.
Paper: Pal et al. 2022, https://arxiv.org/abs/2203.14371.
One row: {"question": "Atropine blocks:", "exp": null, "cop": 1, "opa": "Muscarinic receptors", "opb": "Nicotinic
receptors", "opc": "Beta receptors", "opd": "Alpha receptors", "subject_name": "Pharmacology", "topic_name": null,
"id": "0a1b…", "choice_type": "single"}; `cop`, the right option, counts from 1 there, and from 0 on the hub.
"""

from collections.abc import Sequence
from dataclasses import replace

from medbot_exp.errors import DataError
from medbot_exp.evaluation.harness import Words
from medbot_exp.evaluation.item import Item
from medbot_exp.evaluation.rows import Row, letter_at, lettered, text
from medbot_exp.evaluation.source import Source, read_rows

OPTIONS = ("opa", "opb", "opc", "opd")
FIELDS = ("id", "question", *OPTIONS, "subject_name", "choice_type")  # the publishers' test file has no `cop`


def rows(source: Source) -> list[Row]:
    """The rows of `source`, whose `cop` counts from 0 now.

    Raises:
        ConfigError, DataError: as `read_rows`; it cannot be told what `cop` counts from.
    """
    found = read_rows(source, FIELDS)
    for row in found:
        check_answer(source, row)
    base = first_number(found) if found else 0
    return [replace(row, fields=row.fields | {"cop": row.fields["cop"] - base}) for row in found]


def check_answer(source: Source, row: Row) -> None:
    """Raise a DataError for a row without an answer, or with one that neither way of counting knows."""
    answer = row.fields.get("cop")
    if answer is None or answer == -1:
        raise DataError(
            f"every question must have its answer, but {row.place} has cop={answer}, as MedMCQA's test part has "
            f"throughout; use {source.split_key}=validation, or its file with {source.path_key}"
        )
    if not isinstance(answer, int) or not 0 <= answer <= 4:
        raise DataError(
            "`cop` must be a whole number from 1 to 4, or on the hub from 0 to 3, but "
            f"{row.place} has cop={answer!r}; mend the row, or take it out"
        )


def first_number(found: Sequence[Row]) -> int:
    """What `cop` counts from, 0 or 1, as its values tell: from 0 there is no 4, from 1 there is no 0.

    Raises:
        DataError: there are both, or neither.
    """
    zero, four = ([row.place for row in found if row.fields["cop"] == end] for end in (0, 4))
    if zero and four:
        raise DataError(
            f"`cop` must count from 0 or from 1 throughout, but {zero[0]} has 0 and {four[0]} has 4; "
            "do not mix the publishers' rows with the hub's"
        )
    if not zero and not four:
        raise DataError(
            f"a 0 or a 4 must show whether `cop` counts from 0 or from 1, but the {len(found)} rows from "
            f"{found[0].place} on have neither; give the whole file, and ask a part of it with benchmark.medmcqa.limit"
        )
    return 1 if four else 0


def item(row: Row) -> Item:
    """The question in `row`, whose `cop` counts from 0."""
    return Item(
        id=text(row, "id"),
        question=text(row, "question"),
        options=lettered(row, [row.fields[name] for name in OPTIONS]),
        label=letter_at(row, row.fields["cop"]),
        group=text(row, "subject_name"),
        tags=("multi",) if row.fields["choice_type"] == "multi" else (),
    )


def harness_question(item: Item) -> str:
    """The question in the words of the harness's task medmcqa."""
    return f"Question: {item.question}\nChoices:\n{item.listed}\nAnswer:"


HARNESS = Words(harness_question)
