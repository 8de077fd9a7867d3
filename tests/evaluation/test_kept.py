"""What was computed is not computed again, and what comes out is what an unbroken computation gives."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from medbot_exp.evaluation.kept import Kept, computed

BATCHES = [list(range(start, min(start + 7, 200))) for start in range(0, 200, 7)]


def answer(batch):
    return [{"id": number, "text": f"answer {number} äöü\u2028 <think>"} for number in batch]


@pytest.fixture
def whole(tmp_path):
    """The bytes of an unbroken computation."""
    kept = Kept.below(tmp_path / "whole", {"of": "numbers"})
    with kept.held():
        computed(kept, BATCHES, answer)
    return kept.rows_file.read_bytes()


def test_file_is_the_same_whatever_byte_it_was_cut_at(tmp_path, whole):
    kept = Kept.below(tmp_path, {"of": "numbers"})
    ends = [0, *(place + 1 for place, byte in enumerate(whole) if byte == ord("\n"))]
    for cut in sorted({*ends[::12], *(end - 1 for end in ends[1::12]), *range(0, len(whole), 797)}):
        with kept.held():
            kept.begin([len(batch) for batch in BATCHES])
            kept.rows_file.write_bytes(whole[:cut])
            again = []
            computed(kept, BATCHES, lambda batch, again=again: again.append(batch) or answer(batch))
        assert kept.rows_file.read_bytes() == whole
        rows = whole[:cut].count(b"\n")
        # Of what was there, no more than the batch at work is computed again.
        assert sum(map(len, again)) <= 200 - rows + 6


@pytest.mark.slow
def test_file_is_the_same_after_kills(tmp_path, whole):
    program = (
        "import sys, time; from pathlib import Path; from medbot_exp.evaluation.kept import Kept, computed\n"
        "batches = [list(range(s, min(s + 7, 200))) for s in range(0, 200, 7)]\n"
        "def answer(batch):\n"
        "    time.sleep(0.03)\n"
        "    return [{'id': n, 'text': f'answer {n} äöü\\u2028 <think>'} for n in batch]\n"
        "kept = Kept.below(Path(sys.argv[1]), {'of': 'numbers'})\n"
        "with kept.held(): computed(kept, batches, answer)\n"
    )
    kept = Kept.below(tmp_path, {"of": "numbers"})
    killed = 0
    for turn in range(40):
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
        try:
            assert process.wait(0.15 + 0.01 * turn) == 0
            break
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
    else:
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert killed > 3 and kept.rows_file.read_bytes() == whole


def test_what_is_there_is_not_computed_again(tmp_path, whole):
    kept = Kept.below(tmp_path / "whole", {"of": "numbers"})
    with kept.held():
        computed(kept, BATCHES, lambda batch: pytest.fail("computed again"))
    assert [row["id"] for row in kept.rows()] == list(range(200))


def test_another_identity_is_another_folder(tmp_path):
    first, second = (Kept.below(tmp_path, {"of": name}) for name in ("numbers", "words"))
    assert first.directory != second.directory


def test_folder_of_another_identity_is_not_believed(tmp_path, whole):
    kept = Kept.below(tmp_path / "whole", {"of": "numbers"})
    (kept.directory / "identity.json").write_text(json.dumps({"of": "words"}))
    with kept.held():
        assert kept.begin([7]) == 0
    assert kept.rows() == []


def test_seconds_are_those_of_all_processes(tmp_path):
    kept = Kept.below(tmp_path, {"of": "sleep"})

    def slow(batch):
        time.sleep(0.02)
        return answer(batch)

    with kept.held():
        computed(kept, BATCHES[:2], slow)
        computed(kept, BATCHES[:4], slow)
    assert 0.08 <= kept.seconds() < 2
