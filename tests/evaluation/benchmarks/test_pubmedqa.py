"""PubMedQA's rows: both copies, the official test among them, and what is refused."""

import json
import logging

import pytest

from medbot_exp.errors import ConfigError, DataError
from medbot_exp.evaluation.benchmarks.pubmedqa import official_ids

OFFICIAL = sorted(official_ids())[:2]
ROW = {
    "QUESTION": "Does rest help?",
    "CONTEXTS": ["We asked forty patients.", "Most were better."],
    "LABELS": ["METHODS", "RESULTS"],
    "MESHES": ["Rest"],
    "final_decision": "yes",
    "LONG_ANSWER": "Rest helps.",
}
ROWS = {
    OFFICIAL[0]: ROW,
    "7": ROW | {"QUESTION": "Does work help?", "final_decision": "no"},
    OFFICIAL[1]: ROW | {"QUESTION": "Does sleep help?", "final_decision": "maybe"},
}


def on_hub(pubid: str, row: dict) -> dict:
    """`row` in the hub's form."""
    context = {"contexts": row["CONTEXTS"], "labels": row["LABELS"], "meshes": row["MESHES"]}
    shared = {"pubid": int(pubid), "question": row["QUESTION"], "context": context}
    return shared | {"long_answer": row["LONG_ANSWER"], "final_decision": row["final_decision"]}


def test_row_becomes_an_item_behind_its_abstract(published, write):
    item, _, _ = published("pubmedqa", path=write("ori_pqal.json", ROWS), split="labeled")
    assert (item.id, item.question, item.label) == (OFFICIAL[0], "Does rest help?", "yes")
    assert item.context == "We asked forty patients.\n\nMost were better."
    assert item.options == {"yes": "yes", "no": "no", "maybe": "maybe"}
    assert list(item.options) == ["yes", "no", "maybe"]
    assert item.group is None


@pytest.mark.parametrize("split", ["test", "train", "labeled"])
def test_hub_and_file_give_the_same_items(published, write, hub, split):
    source = hub({"pqa_labeled": {"train": [on_hub(pubid, row) for pubid, row in ROWS.items()]}})
    local = published("pubmedqa", path=write("ori_pqal.json", ROWS), split=split)
    assert published("pubmedqa", hub=source, split=split) == local


@pytest.mark.parametrize(("split", "ids"), [("test", OFFICIAL), ("train", ["7"]), ("labeled", list(ROWS))])
def test_part_has_the_ids_that_the_publishers_gave_it(published, write, split, ids):
    items = published("pubmedqa", path=write("ori_pqal.json", ROWS), split=split)
    assert [item.id for item in items] == ids


def test_incomplete_test_is_logged(published, write, caplog):
    with caplog.at_level(logging.WARNING):
        published("pubmedqa", path=write("ori_pqal.json", ROWS))
    assert "the source has 2 of the 500 questions of the official test" in caplog.text


def test_complete_test_is_not_remarked_on(published, write, caplog):
    rows = {pubid: ROW for pubid in [*official_ids(), "7"]}
    with caplog.at_level(logging.WARNING):
        assert len(published("pubmedqa", path=write("ori_pqal.json", rows))) == 500
    assert not caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"final_decision": "perhaps"}, "one of the options yes, no, maybe, but .*'7' has 'perhaps'"),
        ({"QUESTION": " "}, "the question must be a text that is not blank, but .*'7' has ' '"),
        ({"CONTEXTS": []}, r"contexts must be a list of texts, but .*'7' has \[\]"),
        ({"CONTEXTS": "We asked."}, "contexts must be a list of texts, but .*'7' has 'We asked.'"),
        ({"CONTEXTS": ["We asked.", ""]}, "each of the contexts must be a text that is not blank, but .*'7' has ''"),
    ],
)
def test_malformed_row_is_refused_with_its_id(published, write, change, message):
    path = write("ori_pqal.json", ROWS | {"7": ROW | change})
    with pytest.raises(DataError, match=message):
        published("pubmedqa", path=path, split="labeled")


def test_context_without_its_parts_is_refused(published, write):
    path = write("hub.jsonl", [on_hub("7", ROW) | {"context": "We asked."}])
    with pytest.raises(DataError, match="'context' must hold 'contexts', but .*line 1 has 'We asked.'"):
        published("pubmedqa", path=path, split="labeled")


def test_two_rows_of_one_id_are_refused(published, write):
    path = write("hub.jsonl", [on_hub("7", ROW), on_hub("7", ROW)])
    with pytest.raises(DataError, match="duplicate ids: '7' stands in .*line 1 and in .*line 2"):
        published("pubmedqa", path=path, split="labeled")


def test_mapping_with_one_id_twice_is_refused(published, write):
    text = f'{{"7": {json.dumps(ROW)}, "8": {json.dumps(ROW)}, "7": {json.dumps(ROW)}}}'
    with pytest.raises(DataError, match="ids must be unique, but .*ori_pqal.json has duplicate ids: '7'; take one"):
        published("pubmedqa", path=write("ori_pqal.json", text), split="labeled")


@pytest.mark.parametrize("split", ["test", "labeled"])
def test_rows_without_their_ids_are_refused(published, write, split):
    path = write("pubmedqa.jsonl", [ROW])
    message = "`benchmark.pubmedqa.path` must hold rows with .* but .*line 1 has none; give a mapping by PubMed id"
    with pytest.raises(DataError, match=message):
        published("pubmedqa", path=path, split=split)


@pytest.mark.parametrize("split", ["validation", None])
def test_unknown_part_is_refused(published, split):
    with pytest.raises(ConfigError, match="`benchmark.pubmedqa.split` must be one of test, train, labeled, but got"):
        published("pubmedqa", split=split)


def test_malformed_json_is_refused_with_its_line(published, write):
    with pytest.raises(DataError, match="must be valid JSON, but .*ori_pqal.json, line 3, column 3: "):
        published("pubmedqa", path=write("ori_pqal.json", '{\n "7": {\n  QUESTION\n'))


def test_file_of_the_labels_is_told_from_that_of_the_questions(published, write):
    path = write("test_ground_truth.json", dict.fromkeys(sorted(official_ids()), "maybe"))
    with pytest.raises(DataError, match="has: ") as caught:
        published("pubmedqa", path=path)
    told = str(caught.value)
    assert f"{', '.join(sorted(official_ids())[:8])}, … (500 in all)\n" in told and len(told) < 700
    assert "labels without the questions" in told and "name ori_pqal.json" in told


def test_official_ids_are_the_publishers(real_rows):
    truth = json.loads((real_rows / "pubmedqa_test_ground_truth.json").read_text(encoding="utf-8"))
    assert official_ids() == truth.keys()


def test_published_rows_are_read(published, real_rows):
    path = real_rows / "pubmedqa_pqal_200.json"
    truth = json.loads((real_rows / "pubmedqa_test_ground_truth.json").read_text(encoding="utf-8"))
    every, test = (published("pubmedqa", path=str(path), split=split) for split in ("labeled", "test"))
    assert (len(every), len(test)) == (200, 107)
    assert {item.id: item.label for item in test} == {item.id: truth[item.id] for item in every if item.id in truth}
