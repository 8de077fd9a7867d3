"""MedMCQA's rows: which option is meant in either copy, and what is refused."""

import json
from collections import Counter

import pytest

from medbot_exp.errors import DataError


def row(number: int, cop: int, **changes):
    """A row in the publishers' format."""
    options = dict(zip(("opa", "opb", "opc", "opd"), ("Muscarinic", "Nicotinic", "Beta", "Alpha"), strict=True))
    shared = {"id": f"0a1b-{number}", "question": f"Drug {number} blocks receptors:", "exp": None, "cop": cop}
    kind = {"subject_name": "Pharmacology", "topic_name": None, "choice_type": "single"}
    return shared | options | kind | changes


def test_answers_are_counted_from_1_where_there_is_a_4(published, write):
    path = write("dev.json", [row(1, 1), row(2, 4, choice_type="multi")])  # lines, as the publishers have them
    one, two = published("medmcqa", path=path)
    assert (one.id, one.question, one.label) == ("0a1b-1", "Drug 1 blocks receptors:", "A")
    assert one.options == {"A": "Muscarinic", "B": "Nicotinic", "C": "Beta", "D": "Alpha"}
    assert (two.label, two.options[two.label]) == ("D", "Alpha")
    assert (one.group, one.tags, two.tags) == ("Pharmacology", (), ("multi",))


def test_answers_are_counted_from_0_where_there_is_a_0(published, hub):
    source = hub({"default": {"validation": [row(1, 0), row(2, 3), row(3, 2)]}})
    assert [item.label for item in published("medmcqa", hub=source)] == ["A", "D", "C"]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([0, 4], "must count from 0 or from 1 throughout, but .*line 1 has 0 and .*line 2 has 4; do not mix"),
        ([1, 2, 3], "a 0 or a 4 must show .*but the 3 rows from .*line 1 on have neither; give the whole file"),
        ([1, -1], "must have its answer, but .*line 2 has cop=-1.*benchmark.medmcqa.split=validation"),
        ([1, None], "must have its answer, but .*line 2 has cop=None"),
        ([1, 5], "from 1 to 4, or on the hub from 0 to 3, but .*line 2 has cop=5"),
        ([1, "a"], "from 1 to 4, or on the hub from 0 to 3, but .*line 2 has cop='a'"),
    ],
)
def test_answers_that_do_not_tell_what_they_count_from_are_refused(published, write, answers, message):
    rows = [row(number, cop) for number, cop in enumerate(answers)]
    with pytest.raises(DataError, match=message):
        published("medmcqa", path=write("dev.jsonl", rows))


def test_unlabelled_part_has_no_answers_at_all(published, write):
    rows = [{key: value for key, value in row(1, 1).items() if key != "cop"}]
    with pytest.raises(DataError, match="must have its answer, but .*test.json has cop=None, as MedMCQA's test part"):
        published("medmcqa", path=write("test.json", rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"opb": ""}, "option B must be a text that is not blank, but .*line 2 has ''"),
        ({"id": "0a1b-1"}, "duplicate ids: '0a1b-1' stands in .*line 1 and in .*line 2; take one"),
        ({"id": "0a1b~3"}, "ids must be without '~', which .* turns of an item .*, but .*line 2 has '0a1b~3'; rename"),
        ({"subject_name": None}, "'subject_name' must be a text that is not blank, but .*line 2 has None"),
    ],
)
def test_malformed_row_is_refused_with_its_line(published, write, change, message):
    with pytest.raises(DataError, match=message):
        published("medmcqa", path=write("dev.json", [row(1, 1), row(2, 4, **change)]))


def test_malformed_line_of_a_json_file_is_refused_with_its_number(published, write):
    text = json.dumps(row(1, 1)) + "\n" + json.dumps(row(2, 4)) + "\n{'id': 3}\n"
    with pytest.raises(DataError, match="valid JSON, but .*dev.json, line 3, column 2: "):
        published("medmcqa", path=write("dev.json", text))


def test_published_rows_are_read(published, real_rows):
    path = real_rows / "medmcqa_dev_300.jsonl"
    written = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    items = published("medmcqa", path=str(path))
    assert [item.id for item in items] == [each["id"] for each in written]
    # A row whose explanation names the option by its letter shows that `cop` counts from 1 there.
    named = [(each["exp"] or "").lower().startswith("ans-a") for each in written]
    assert {item.label for item, is_a in zip(items, named, strict=True) if is_a} == {"A"}
    assert Counter(item.label for item in items) == {"A": 94, "B": 76, "C": 69, "D": 61}
    assert Counter("multi" in item.tags for item in items) == {False: 200, True: 100}
