"""MedQA: questions of the US medical licensing exams, with four options; 1,273 in the test part.

Address: https://huggingface.co/datasets/GBaker/MedQA-USMLE-4-options, or the .jsonl files of
https://github.com/jind11/MedQA (data_clean/questions/US/4_options). Licence: MIT; the hub's copy says CC-BY-4.0.
Paper: Jin et al. 2020, https://arxiv.org/abs/2009.13081.
One row, in both: {"question": "A 30-year-old … Which drug is given?", "answer": "Atropine", "options":
{"A": "Atropine", "B": "Digoxin", "C": "Heparin", "D": "Insulin"}, "meta_info": "step1", "answer_idx": "A"}
"""

import hashlib
import json

from medbot_exp.errors import DataError
from medbot_exp.evaluation.harness import Words
from medbot_exp.evaluation.item import Item
from medbot_exp.evaluation.rows import LETTERS, Row, lettered, no_option, text
from medbot_exp.evaluation.source import Source, read_rows

FIELDS = ("question", "options", "answer", "answer_idx")


def rows(source: Source) -> list[Row]:
    """The rows of `source`."""
    return read_rows(source, FIELDS)


def item(row: Row) -> Item:
    """The question in `row`, called by its contents: the publishers give no id."""
    options = lettered(row, by_letter(row))
    label, question = row.fields["answer_idx"], text(row, "question")
    if label not in LETTERS:
        raise no_option(row, label, ", ".join(LETTERS))
    if text(row, "answer") != options[label]:
        raise DataError(
            f"the field 'answer' must be the text of 'answer_idx', but {row.place} has {row.fields['answer']!r}, and "
            f"{label} is {options[label]!r}; mend the row, or take it out"
        )
    digest = hashlib.sha256(json.dumps([question, options], ensure_ascii=False).encode())
    return Item(f"medqa-{digest.hexdigest()[:12]}", question, options, label)


def by_letter(row: Row) -> list[object]:
    """The texts of the options in the order of their letters.

    Raises:
        DataError: they are no mapping, or not of four letters.
    """
    options = row.fields["options"]
    if not isinstance(options, dict) or sorted(options) != list(LETTERS):
        has = ", ".join(sorted(options)) if isinstance(options, dict) else repr(options)
        raise DataError(
            f"the field 'options' must map A, B, C, D to texts, but {row.place} has {has}; read the edition with "
            "four options"
        )
    return [options[letter] for letter in LETTERS]


def harness_question(item: Item) -> str:
    """The question in the words of the harness's task medqa_4options."""
    return f"Question: {item.question}\n{item.listed}\nAnswer:"


HARNESS = Words(harness_question)
