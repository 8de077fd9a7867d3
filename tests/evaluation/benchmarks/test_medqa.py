"""MedQA's rows: what is read of either copy, and what is refused."""

import json
import re
from pathlib import Path

import pytest

from medbot_exp.errors import ConfigError, DataError

ROW = {
    "question": "A 30-year-old man has a pulse of 30/min. Which drug is given?",
    "answer": "Atropine",
    "options": {"A": "Digoxin", "B": "Atropine", "C": "Heparin", "D": "Insulin"},
    "meta_info": "step1",
    "answer_idx": "B",
}
OTHER = ROW | {"question": "Which hormone lowers the blood sugar?", "answer": "Insulin", "answer_idx": "D"}


def test_row_becomes_an_item_that_stands_alone(published, write):
    (item, _) = published("medqa", path=write("test.jsonl", [ROW, OTHER]))
    assert item.question == ROW["question"]
    assert item.options == ROW["options"]
    assert (item.label, item.context, item.group, item.tags) == ("B", "", None, ())
    assert re.fullmatch("medqa-[0-9a-f]{12}", item.id)


def test_hub_and_file_give_the_same_items(published, write, hub):
    local = published("medqa", path=write("test.jsonl", [ROW, OTHER]))
    assert published("medqa", hub=hub({"default": {"test": [ROW, OTHER]}})) == local


def test_id_follows_from_question_and_options_alone(published, write):
    def ids(*rows):
        return [item.id for item in published("medqa", path=write("test.jsonl", rows))]

    assert ids(ROW, OTHER) == ids(OTHER, ROW)[::-1]
    assert ids(ROW | {"meta_info": "step2"}) == ids(ROW)
    assert ids(ROW | {"options": ROW["options"] | {"D": "Glucagon"}}) != ids(ROW)


def test_rows_of_the_hub_may_be_a_list_or_a_table_on_disk(published, write, tmp_path):
    import pyarrow
    import pyarrow.parquet

    expected = published("medqa", path=write("test.jsonl", [ROW, OTHER]))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW, OTHER]), tmp_path / "test.parquet")
    for path in (write("test.json", json.dumps([ROW, OTHER])), str(tmp_path / "test.parquet")):
        assert published("medqa", path=path) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer_idx": "E"}, "one of the options A, B, C, D, but .*line 2 has 'E'"),
        ({"answer_idx": None}, "one of the options A, B, C, D, but .*line 2 has None"),
        ({"answer": "Heparin"}, "'answer' must be the text of 'answer_idx', but .*line 2 has 'Heparin', and B is 'At"),
        ({"options": ROW["options"] | {"C": "  "}}, "option C must be a text that is not blank, but .*line 2 has '  '"),
        ({"options": ROW["options"] | {"C": None}}, "option C must be a text that is not blank, but .*line 2 has None"),
        (
            {"options": ROW["options"] | {"E": "Rest"}},
            "must map A, B, C, D .*line 2 has A, B, C, D, E; read the edition",
        ),
        ({"options": {"A": "Digoxin", "B": "Atropine"}}, "must map A, B, C, D to texts, but .*line 2 has A, B;"),
        ({"options": ["Digoxin"]}, r"must map A, B, C, D to texts, but .*line 2 has \['Digoxin'\]"),
        ({"question": ""}, "'question' must be a text that is not blank, but .*line 2 has ''"),
    ],
)
def test_malformed_row_is_refused_with_its_line(published, write, change, message):
    with pytest.raises(DataError, match=message):
        published("medqa", path=write("test.jsonl", [OTHER, ROW | change]))


def test_identical_rows_are_refused_with_both_lines(published, write):
    text = "\n".join([json.dumps(ROW), "", json.dumps(OTHER), json.dumps(ROW)])
    with pytest.raises(DataError, match="duplicate ids: 'medqa-.*test.jsonl, line 1 and in .*test.jsonl, line 4"):
        published("medqa", path=write("test.jsonl", text))


def test_malformed_json_is_refused_with_its_line(published, write):
    with pytest.raises(DataError, match="valid JSON, but .*test.jsonl, line 2, column 14: "):
        published("medqa", path=write("test.jsonl", json.dumps(ROW) + '\n{"question": '))


def test_missing_file_names_the_key(published, tmp_path):
    with pytest.raises(
        DataError, match="`benchmark.medqa.path` must name a file, but there is nothing at .*none.jsonl"
    ):
        published("medqa", path=str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="`benchmark.medqa.path` must name a file, but there is a folder at "):
        published("medqa", path=str(tmp_path))


def test_unknown_ending_is_refused(published, write):
    with pytest.raises(DataError, match="must end in .json, .jsonl, .csv, .parquet, but got .*test.txt"):
        published("medqa", path=write("test.txt", "?"))


def test_hub_out_of_reach_says_what_to_do_offline(published):
    """conftest.py forbids the hub's client every connection."""
    with pytest.raises(
        DataError, match="benchmark.medqa.hub=GBaker/MedQA(.|\n)*Offline, .*benchmark.medqa.path=<file>"
    ):
        published("medqa")


@pytest.mark.parametrize("change", [{"hub": None}, {"split": None}])
def test_no_source_is_refused(published, change):
    with pytest.raises(ConfigError, match="must have a source, but got benchmark.medqa.path=null, .*=null"):
        published("medqa", **change)


def test_published_rows_are_read(published, real_rows):
    path = real_rows / "medqa_us_test_300.jsonl"
    written = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    items = published("medqa", path=str(path))
    assert len(items) == len({item.id for item in items}) == 300
    assert [item.label for item in items] == [row["answer_idx"] for row in written]
    assert all(item.options[item.label] == row["answer"].strip() for item, row in zip(items, written, strict=True))
