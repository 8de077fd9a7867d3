"""Files that are whole or not there, and rows that come back as they were."""

import json
import resource

import pytest

from medbot_exp.errors import RunDirectoryError
from medbot_exp.whole_files import read_json, read_jsonl, write_jsonl, write_text


def test_write_text_replaces_the_whole_file(tmp_path):
    path = tmp_path / "deep" / "result.json"
    write_text(path, "a long first text\n")
    write_text(path, "zweiter: ü\n")
    assert path.read_bytes() == "zweiter: ü\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_old_file_stays_when_writing_fails_midway(tmp_path):
    """The kernel cuts the write short at 64 KiB, as a full disk would."""
    path = tmp_path / "result.json"
    write_text(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_text(path, "x" * 2**17)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [{"step": 0, "text": 'a\nb\t"c" ≥ 5 µg'}, {}, {"step": 2, "deep": {"list": [1, None, 2.5]}}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows
    assert read_jsonl(tmp_path / "absent.jsonl") == []


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\u2029"], ids=["U+2028", "U+0085", "U+2029"])
def test_rows_with_unicode_line_separators_come_back(tmp_path, separator):
    rows = [{"text": f"dose{separator}10 mg"}, {"text": "next"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows


def test_torn_last_line_does_not_count(tmp_path):
    """Cut at every byte of the last line, as a killed writer leaves it."""
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "train/loss": 1.5} for step in (1, 2, 3)]
    whole = "".join(json.dumps(row) + "\n" for row in rows)
    last = json.dumps(rows[-1]) + "\n"
    for missing in range(1, len(last) + 1):
        path.write_text(whole[:-missing])
        # Where nothing but the line's end is missing, the row itself is whole.
        assert read_jsonl(path) == (rows if missing == 1 else rows[:2])


@pytest.mark.parametrize(("content", "told"), [("{", "Expecting"), ("", "Expecting"), ("[]", "it is a list")])
def test_record_that_is_no_whole_object_is_refused(tmp_path, content, told):
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(RunDirectoryError, match=f"one whole JSON object, but .*result.json is not: {told}.*; restore"):
        read_json(path)
    with pytest.raises(RunDirectoryError, match="No such file"):
        read_json(tmp_path / "none.json")
