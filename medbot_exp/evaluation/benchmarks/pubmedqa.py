"""PubMedQA: does an abstract answer its title's question with yes, no or maybe; 1,000 labelled by experts.

Address: https://huggingface.co/datasets/qiaojin/PubMedQA (config pqa_labeled), or data/ori_pqal.json of
https://github.com/pubmedqa/pubmedqa. Licence: MIT. Paper: Jin et al. 2019, https://arxiv.org/abs/1909.06146.
One row there, a mapping by PubMed id: "123": {"QUESTION": "Does rest help?", "CONTEXTS": ["We asked …", "It …"],
"LABELS": ["METHODS", "RESULTS"], "MESHES": ["Rest"], "final_decision": "yes", "LONG_ANSWER": "Rest helps."}
On the hub: {"pubid": 123, "question": "Does rest help?", "context": {"contexts": ["We asked …", "It …"], "labels":
["METHODS", "RESULTS"], "meshes": ["Rest"]}, "long_answer": "Rest helps.", "final_decision": "yes"}

The hub keeps all 1,000 in one part, train. The official test is 500 of them, those whose PubMed ids are the keys
of data/test_ground_truth.json in the publishers' repository: pubmedqa_test_ids.txt lists these.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from medbot_exp.errors import ConfigError, DataError
from medbot_exp.evaluation.harness import Words
from medbot_exp.evaluation.item import Item
from medbot_exp.evaluation.rows import Row, checked_text, no_option
from medbot_exp.evaluation.source import Source, read_rows

log = logging.getLogger(__name__)

TEST_IDS = Path(__file__).parent / "pubmedqa_test_ids.txt"
HUB_SPLIT = "train"
PUBLISHED = ("QUESTION", "CONTEXTS", "final_decision")
ON_HUB = ("pubid", "question", "context", "final_decision")
OPTIONS = ("yes", "no", "maybe")


def rows(source: Source) -> list[Row]:
    """The rows of `source` that belong to its part; the log says where a test lacks some of the 500.

    Raises:
        ConfigError: there is no such part.
        DataError: as `read_rows`; or a row has no PubMed id.
    """
    parts = ("test", "train", "labeled")
    if source.split not in parts:
        raise ConfigError(
            f"`{source.split_key}` must be one of {', '.join(parts)}, but got {source.split_key}={source.split}; "
            "test is the official one, labeled is all that have an expert's label"
        )
    labelled = read_rows(replace(source, split=HUB_SPLIT), PUBLISHED, ON_HUB)
    nameless = next((row for row in labelled if not row.key and "pubid" not in row.fields), None)
    if nameless is not None:
        raise DataError(
            f"`{source.path_key}` must hold rows with their PubMed ids, but {nameless.place} has none; give a mapping "
            "by PubMed id, as ori_pqal.json is, or the field pubid"
        )
    official = official_ids()
    if source.split == "labeled":
        return labelled
    if source.split == "train":
        return [row for row in labelled if pubmed_id(row) not in official]
    test = [row for row in labelled if pubmed_id(row) in official]
    if len(test) < len(official):
        log.warning("pubmedqa: the source has %d of the %d questions of the official test", len(test), len(official))
    return test


def official_ids() -> frozenset[str]:
    """The PubMed ids of the 500 questions of the official test."""
    return frozenset(TEST_IDS.read_text(encoding="utf-8").split())


def pubmed_id(row: Row) -> str:
    """The PubMed id of `row`."""
    return row.key or str(row.fields["pubid"])


def item(row: Row) -> Item:
    """The question in `row`, behind its abstract without the conclusion."""
    published = "QUESTION" in row.fields
    question = row.fields["QUESTION"] if published else row.fields["question"]
    contexts = row.fields["CONTEXTS"] if published else hub_contexts(row)
    label = row.fields["final_decision"]
    if label not in OPTIONS:
        raise no_option(row, label, ", ".join(OPTIONS))
    if not isinstance(contexts, list) or not contexts:
        raise DataError(f"the contexts must be a list of texts, but {row.place} has {contexts!r}; take the row out")
    return Item(
        id=pubmed_id(row),
        question=checked_text(question, "the question", row.place),
        options={option: option for option in OPTIONS},
        label=label,
        context="\n\n".join(checked_text(each, "each of the contexts", row.place) for each in contexts),
    )


def hub_contexts(row: Row) -> Any:
    """The parts of the abstract in a row of the hub."""
    context = row.fields["context"]
    if not isinstance(context, dict) or "contexts" not in context:
        raise DataError(f"the field 'context' must hold 'contexts', but {row.place} has {context!r}; take the row out")
    return context["contexts"]


def harness_question(item: Item) -> str:
    """The question in the words of the harness's task pubmedqa."""
    context = item.context.replace("\n\n", "\n")
    return f"Abstract: {context}\nQuestion: {item.question}\nAnswer:"


HARNESS = Words(harness_question)
