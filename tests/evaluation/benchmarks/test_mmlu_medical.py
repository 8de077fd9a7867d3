"""MMLU's medical rows: a folder, a file or the hub, and what is refused."""

from pathlib import Path

import pytest

from medbot_exp.errors import ConfigError, DataError
from medbot_exp.evaluation.benchmarks.mmlu_medical import SUBJECTS

LINES = 'Which bone is in the arm?,Femur,Tibia,Ulna,Fibula,C\n"Which, of these, is paired?",Lung,Liver,Spleen,Heart,A\n'
ROWS = [
    {"question": "Which bone is in the arm?", "choices": ["Femur", "Tibia", "Ulna", "Fibula"], "answer": 2},
    {"question": "Which, of these, is paired?", "choices": ["Lung", "Liver", "Spleen", "Heart"], "answer": 0},
]


@pytest.fixture
def folder(write):
    """folder(part): a folder with a file of each subject for that part."""

    def written(part: str) -> str:
        return str({Path(write(f"data/{subject}_{part}.csv", LINES)).parent for subject in SUBJECTS}.pop())

    return written


def test_file_gives_the_items_of_its_subject(published, write):
    one, two = published("mmlu_medical", path=write("anatomy_test.csv", LINES))
    assert (one.id, one.question, one.label) == ("anatomy-1", "Which bone is in the arm?", "C")
    assert one.options == {"A": "Femur", "B": "Tibia", "C": "Ulna", "D": "Fibula"}
    assert (two.id, two.question, two.label) == ("anatomy-2", "Which, of these, is paired?", "A")
    assert one.group == two.group == "anatomy"


def test_folder_gives_all_six_subjects(published, folder):
    items = published("mmlu_medical", path=folder("test"))
    assert [item.id for item in items] == [f"{subject}-{number}" for subject in SUBJECTS for number in (1, 2)]


def test_validation_part_has_the_name_that_its_files_have(published, folder):
    assert len(published("mmlu_medical", path=folder("val"), split="validation")) == 12


def test_hub_and_folder_give_the_same_items(published, folder, hub):
    rows = {subject: {"test": [row | {"subject": subject} for row in ROWS]} for subject in SUBJECTS}
    local = published("mmlu_medical", path=folder("test"))
    assert published("mmlu_medical", hub=hub(rows)) == local


def test_hub_config_chooses_one_subject(published, hub):
    source = hub({"anatomy": {"test": ROWS}})
    items = published("mmlu_medical", hub=source, hub_config="anatomy")
    assert [item.id for item in items] == ["anatomy-1", "anatomy-2"]


def test_other_subjects_are_refused(published, write):
    with pytest.raises(ConfigError, match="hub_config` must be one of anatomy, .*but got .*hub_config=astronomy"):
        published("mmlu_medical", hub_config="astronomy")
    with pytest.raises(
        DataError, match="a file <subject>_<part>.csv of one of anatomy, .*but got .*astronomy_test.csv"
    ):
        published("mmlu_medical", path=write("astronomy_test.csv", LINES))


def test_incomplete_folder_is_refused_with_what_is_missing(published, folder):
    path = folder("test")
    (Path(path) / "anatomy_test.csv").unlink()
    with pytest.raises(DataError, match="of each of the six subjects, but .* has no anatomy_test.csv; add them"):
        published("mmlu_medical", path=path)
    with pytest.raises(
        DataError, match="must hold a <subject>_dev.csv .*has no anatomy_dev.csv, clinical_knowledge_dev"
    ):
        published("mmlu_medical", path=path, split="dev")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Where?,1,2,3,4,E", "one of the options A, B, C, D, but .*line 3 has 'E'"),
        ("Where?,1,2,3,4", "without a header: .*but .*line 3 has 5 columns"),
        ("Where?,1,2,,4,A", "option C must be a text that is not blank, but .*line 3 has ''"),
        (",1,2,3,4,A", "'question' must be a text that is not blank, but .*line 3 has ''"),
        ('"Where"?,1,2,3,4,A', "must be well-formed, but .*line 3: "),
    ],
)
def test_malformed_line_is_refused_with_its_number(published, write, line, message):
    with pytest.raises(DataError, match=message):
        published("mmlu_medical", path=write("anatomy_test.csv", LINES + line + "\n"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 4}, "one of the options 0, 1, 2, 3, but .*line 2 has 4"),
        ({"answer": -1}, "one of the options 0, 1, 2, 3, but .*line 2 has -1"),
        ({"choices": ["Femur", "Tibia"]}, "the four options A, B, C, D, but .*line 2 has 2"),
        ({"choices": "Femur"}, "'choices' must be a list of four, but .*line 2 has 'Femur'"),
    ],
)
def test_malformed_row_of_the_hub_is_refused(published, write, change, message):
    path = write("anatomy_test.jsonl", [ROWS[1], ROWS[0] | change])
    with pytest.raises(DataError, match=message):
        published("mmlu_medical", path=path)


def test_missing_path_names_the_key(published, tmp_path):
    with pytest.raises(DataError, match="`benchmark.mmlu_medical.path` must name a file, but there is nothing at "):
        published("mmlu_medical", path=str(tmp_path / "data"))
