"""Rows from every kind of file and from the hub: what is read, what is refused, what is held out."""

import csv
import json
from dataclasses import replace

import pyarrow
import pyarrow.parquet
import pytest

from medbot_exp.data import sources
from medbot_exp.data.example import Example, fingerprint, normalised
from medbot_exp.errors import DataError

ROWS = [
    {"question": "Why, exactly?", "reasoning": 'First.\nThen "this".', "answer": "Because ≥ 5 µg"},
    {"question": "{What}?", "reasoning": "r2", "answer": "a2"},
    {"question": "q3", "reasoning": "r3", "answer": "a3"},
    {"question": "q4", "reasoning": "r4", "answer": "a4"},
]


def write_json(path, rows):
    path.write_text(json.dumps(rows), encoding="utf-8")


def write_jsonl(path, rows):
    path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")


def write_csv(path, rows):
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(ROWS[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path, rows):
    schema = pyarrow.schema([(name, pyarrow.string()) for name in ROWS[0]])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path)


WRITERS = {".json": write_json, ".jsonl": write_jsonl, ".csv": write_csv, ".parquet": write_parquet}


@pytest.fixture
def data(compose, tmp_path):
    """data(content, suffix, columns={}, **changes): the config of a file with that content."""

    def configured(content, suffix=".jsonl", columns=None, **changes):
        path = tmp_path / f"rows{suffix}"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            WRITERS[suffix](path, content)
        config = compose("data=file", "data.path=rows.csv").data
        return replace(config, path=str(path), columns=replace(config.columns, **(columns or {})), **changes)

    return configured


def by_id(split):
    return sorted([*split.train, *split.validation], key=lambda example: example.id)


def numbered(count, offset=0):
    return [{"id": f"case-{n}", "question": f"q{n}", "reasoning": "r", "answer": "a"} for n in range(offset, count)]


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_examples(data, suffix):
    assert by_id(sources.load(data(ROWS, suffix))) == [
        Example(f"file-{number:06d}", row["question"], row["reasoning"], row["answer"])
        for number, row in enumerate(ROWS, start=1)
    ]


def test_suffix_in_capitals_and_byte_order_mark_are_read(data):
    config = data(b"\xef\xbb\xbf" + json.dumps(ROWS).encode(), ".JSON")
    assert len(by_id(sources.load(config))) == 4


def test_columns_are_mapped_by_their_names(data):
    rows = [{"Frage": f"q{n}", "Denken": "r", "Antwort": "a", "Nr": n} for n in range(3)]
    columns = {"question": "Frage", "reasoning": "Denken", "answer": "Antwort", "id": "Nr"}
    assert by_id(sources.load(data(rows, ".json", columns))) == [Example(str(n), f"q{n}", "r", "a") for n in range(3)]


def test_column_without_mapping_is_left_out(data):
    assert [example.reasoning for example in by_id(sources.load(data(ROWS, columns={"reasoning": None})))] == [""] * 4


@pytest.mark.parametrize(
    "suffix, content, words",
    [
        (".jsonl", b'{"question": 1}\n\n{"question": \n', ["line 3", "valid JSON"]),
        (".json", b'[\n{"question": "q"},\n{"question" "q"}\n]', ["line 3", "valid JSON"]),
        (".json", b"", ["line 1", "valid JSON"]),
        (".json", b'{"rows": []}', ["a list of objects", "dict"]),
        (".json", b'[{"question": "q"}, 7]', ["element 2", "int"]),
        (".jsonl", b'{"question": "q"}\n["q"]\n', ["line 2", "list"]),
        (".csv", b"question,reasoning,answer\nq,r,a\nq,r\n", ["line 3", "3 columns"]),
        (".csv", b"question,reasoning,answer\nq,r,a,b\n", ["line 2", "quote commas"]),
        pytest.param(
            ".csv",
            b'question,reasoning,answer\nq,r,a\n"q"x,r,a\n',
            ["line 3", "well-formed"],
        ),
        (".parquet", b"PAR1 but no more", ["valid Parquet"]),
        (".jsonl", b'{"question": "\xe9"}\n', ["UTF-8", "convert it"]),
        (".txt", b"question", [".json, .jsonl, .csv, .parquet"]),
    ],
)
def test_malformed_file_is_named_with_the_place(data, suffix, content, words):
    config = data(content, suffix)
    with pytest.raises(DataError) as caught:
        sources.load(config)
    assert [word for word in [config.path, *words] if word not in str(caught.value)] == []


def test_missing_file_is_named(data, tmp_path):
    with pytest.raises(DataError, match=r"`data\.path` must name a file.*absent\.json"):
        sources.load(replace(data(ROWS), path=str(tmp_path / "absent.json")))


def test_missing_column_is_named_with_the_columns_there_are(data):
    columns = {"question": "Frage", "answer": "Antwort"}
    with pytest.raises(DataError) as caught:
        sources.load(data(ROWS, columns=columns))
    assert "no data.columns.question=Frage, data.columns.answer=Antwort" in str(caught.value)
    assert "it has: question, reasoning, answer" in str(caught.value)


@pytest.mark.parametrize("suffix", WRITERS)
def test_file_without_rows_is_refused(data, suffix):
    with pytest.raises(DataError, match="at least one row"):
        sources.load(data([], suffix))


@pytest.mark.parametrize("key", ["question", "reasoning", "answer"])
@pytest.mark.parametrize("value", ["", "  \n", None], ids=["empty", "blank", "null"])
def test_row_without_a_needed_text_is_named(data, key, value):
    rows = [*ROWS[:2], ROWS[2] | {key: value}]
    with pytest.raises(DataError, match=f"must have its {key}.*row 3 has an empty '{key}'"):
        sources.load(data(rows))


def test_row_that_lacks_the_column_of_the_answer_is_named(data):
    with pytest.raises(DataError, match="row 2, has no data.columns.answer=answer"):
        sources.load(data([ROWS[0], {"question": "q", "reasoning": "r"}]))


def test_duplicated_id_is_named_with_both_rows(data):
    rows = numbered(3)
    with pytest.raises(DataError, match=r"must be unique.*'case-1' in rows 2 and 4(.|\n)*data\.columns\.id=null"):
        sources.load(data([*rows, rows[1]], columns={"id": "id"}))


def test_limit_is_the_first_rows_of_the_file(data):
    assert [example.question for example in by_id(sources.load(data(ROWS, limit=2)))] == ["Why, exactly?", "{What}?"]


def test_one_row_cannot_be_split(data):
    with pytest.raises(DataError, match="gave 0 to train on and 1 held out"):
        sources.load(data(ROWS, limit=1))


CHOICES = {"options": "options", "label": "label"}


@pytest.mark.parametrize("options", [{"B": "two", "A": "one", "C": "three"}, '{"B": "two", "A": "one", "C": "three"}'])
def test_options_are_in_the_order_of_their_letters(data, options):
    rows = [row | {"options": options, "label": "B"} for row in ROWS]
    examples = by_id(sources.load(data(rows, columns=CHOICES)))
    assert {(example.options, example.label) for example in examples} == {(("one", "two", "three"), 1)}


@pytest.mark.parametrize(
    "options, label, message",
    [
        ({"A": "one"}, "A", "two letters or more"),
        (["one", "two"], "A", "map two letters or more"),
        ("one or two", "A", "mapping of letter to text"),
        ({"A": "one", "B": "two"}, "C", "one of the options A, B.*'C'"),
        ({"A": "one", "B": "two"}, 1, "one of the options A, B"),
        ({"A": "one", "B": "two"}, None, "one of the options A, B"),
    ],
)
def test_options_that_cannot_be_chosen_from_are_refused_with_their_row(data, options, label, message):
    good = {"options": {"A": "one", "B": "two"}, "label": "A"}
    rows = [ROWS[0] | good, ROWS[1] | {"options": options, "label": label}]
    with pytest.raises(DataError, match=message) as caught:
        sources.load(data(rows, columns=CHOICES))
    assert "row 2" in str(caught.value)


@pytest.mark.parametrize("column", ["options", "label", "split"])
def test_later_row_that_lacks_a_mapped_column_is_refused(data, column):
    whole = {"options": {"A": "one", "B": "two"}, "label": "A", "split": "train"}
    rows = [row | whole for row in ROWS]
    del rows[2][column]
    with pytest.raises(DataError, match="row 3"):
        sources.load(data(rows, columns=CHOICES | {"split": "split"}))


@pytest.mark.parametrize("text", [None, " "], ids=["null", "blank"])
def test_option_without_text_is_refused(data, text):
    rows = [row | {"options": {"A": "one", "B": "two", "C": text}, "label": "A"} for row in ROWS]
    with pytest.raises(DataError, match="row 1"):
        sources.load(data(rows, columns=CHOICES))


def test_rows_marked_validation_are_held_out_and_no_others(data):
    rows = [row | {"split": part} for row, part in zip(ROWS, ["train", "validation", "train", "test"], strict=True)]
    split = sources.load(data(rows, columns={"split": "split"}, validation=None))
    assert [example.question for example in split.validation] == ["{What}?"]
    # Rows marked test belong to neither part: nothing here may learn from them.
    assert [example.question for example in split.train] == ["Why, exactly?", "q3"]


def test_number_to_hold_out_that_a_column_overrules_is_told(data, caplog):
    rows = [row | {"split": part} for row, part in zip(ROWS, ["train", "validation", "train", "test"], strict=True)]
    with caplog.at_level("INFO"):
        split = sources.load(data(rows, columns={"split": "split"}, validation=2))
    assert len(split.validation) == 1
    assert "column 'split' says which rows are held out: data.validation=2 does not apply" in caplog.text


def test_part_that_a_limit_left_empty_is_told_with_the_limit(data):
    rows = [row | {"split": part} for row, part in zip(ROWS, ["train", "train", "train", "validation"], strict=True)]
    with pytest.raises(DataError, match="3 to train on and 0 held out; change data.limit, or the values of column 'sp"):
        sources.load(data(rows, columns={"split": "split"}, validation=None, limit=3))


def test_split_of_another_name_is_refused(data):
    rows = [row | {"split": part} for row, part in zip(ROWS, ["train", "validation", "train", "dev"], strict=True)]
    with pytest.raises(DataError, match="train, validation, test, but row 4 has 'dev'"):
        sources.load(data(rows, columns={"split": "split"}, validation=None))


def test_split_that_is_no_text_is_refused(data):
    rows = [row | {"split": [part]} for row, part in zip(ROWS, ["train", "validation", "train", "test"], strict=True)]
    with pytest.raises(DataError, match=r"row 1 has \['train'\]"):
        sources.load(data(rows, ".json", columns={"split": "split"}, validation=None))


@pytest.mark.parametrize(
    "validation, least, most",
    # A share is met within three standard deviations of a fair draw, a number exactly; one row is the least.
    [(0.1, 1, 19), (0.25, 12, 38), (0.5, 35, 65), (7.0, 7, 7), (0.0001, 1, 1)],
)
def test_validation_is_a_share_or_a_number_of_rows(data, validation, least, most):
    split = sources.load(data(numbered(100), columns={"id": "id"}, validation=validation))
    assert least <= len(split.validation) <= most
    assert len(split.train) + len(split.validation) == 100
    assert not {example.id for example in split.train} & {example.id for example in split.validation}


def test_order_of_the_rows_moves_no_row_across_the_split(data):
    there = sources.load(data(numbered(100), columns={"id": "id"}))
    back = sources.load(data(numbered(100)[::-1], columns={"id": "id"}))
    assert {example.id for example in there.validation} == {example.id for example in back.validation}


def test_rows_that_are_added_move_no_row_across_the_split(data):
    before = sources.load(data(numbered(200), columns={"id": "id"}))
    after = sources.load(data(numbered(320), columns={"id": "id"}))
    assert {example.id for example in before.validation} <= {example.id for example in after.validation}
    assert {example.id for example in before.train} <= {example.id for example in after.train}


def test_fingerprint_follows_every_field_and_the_order():
    example = Example("i", "q", "r", "a", ("x", "y"), 0)
    other = Example("j", "q", "r", "a")
    changes = [
        {"id": "z"},
        {"question": "z"},
        {"reasoning": "z"},
        {"answer": "z"},
        {"options": ("x", "z")},
        {"label": 1},
    ]
    variants = [[example, other], [other, example], [example], []]
    variants += [[replace(example, **change), other] for change in changes]
    assert len({fingerprint(rows) for rows in variants}) == len(variants)
    assert fingerprint([example]) == fingerprint([replace(example)])


def test_hub_out_of_reach_says_what_to_do_offline(compose):
    """conftest.py forbids the hub's client every connection."""
    with pytest.raises(DataError) as caught:
        sources.load(compose("data=medical_o1").data)
    for words in ("data.hub=FreedomIntelligence/medical-o1-reasoning-SFT", "Offline", "data.path=<file>"):
        assert words in str(caught.value)


def test_published_reasoning_rows_load_from_a_file(compose, real_rows):
    path = real_rows / "medical_o1_150.json"
    split = sources.load(compose("data=medical_o1", f"data.path={path}").data)
    assert len(split.train) + len(split.validation) == 150
    assert 5 <= len(split.validation) <= 26
    written = json.loads(path.read_text(encoding="utf-8"))
    assert [(e.question, e.reasoning, e.answer) for e in by_id(split)] == [
        (row["Question"].strip(), row["Complex_CoT"].strip(), row["Response"].strip()) for row in written
    ]


def test_published_multiple_choice_rows_load_from_a_file(compose, real_rows):
    path = real_rows / "medqa_us_test_300.jsonl"
    columns = "data.columns={id:null,reasoning:null,answer:answer,options:options,label:answer_idx}"
    split = sources.load(compose("data=file", f"data.path={path}", columns, "prompt=direct").data)
    examples = by_id(split)
    assert len(examples) == 300
    assert all(example.options[example.label] == example.answer for example in examples)


@pytest.mark.parametrize("validation", [0.1, 7.0])
@pytest.mark.parametrize("columns", [{}, {"id": "id"}])
def test_question_that_stands_twice_is_in_one_part(data, validation, columns):
    rows = [row | {"id": f"{row['id']}-{copy}"} for row in numbered(40) for copy in range(2)]
    for row in rows[::2]:
        row["question"] = f"  {row['question'].upper()} "
    split = sources.load(data(rows, columns=columns, validation=validation))
    asked = [{normalised(example.question) for example in part} for part in (split.train, split.validation)]
    assert asked[1] and not asked[0] & asked[1]
