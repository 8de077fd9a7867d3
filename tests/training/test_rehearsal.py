"""A rehearsal times the run's own training step, on few layers."""

import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from filelock import FileLock

from medbot_exp.data.prepare import TokenizedRows
from medbot_exp.model import outline
from medbot_exp.training import rehearsal

CPU = torch.device("cpu")


@pytest.mark.parametrize("layers, seconds", [(2, 1.0), (6, 3.0), (10, 5.0), (30, 15.0)])
def test_each_layer_adds_the_same(layers, seconds):
    assert rehearsal.extrapolated([1.0, 3.0], layers) == pytest.approx(seconds)


def test_more_layers_are_never_quicker():
    assert rehearsal.extrapolated([1.0, 0.9], 30) == 1.0


def test_rows_are_as_different_as_all_and_taken_again_where_there_are_few():
    lengths = [3, 50, 7, 9, 40]
    rows = TokenizedRows([[4] * n for n in lengths], [[1] * n for n in lengths], 0, 0, from_cache=False)
    assert [len(ids) for ids in rehearsal.typical(rows, 3).input_ids] == [3, 9, 50]
    assert sorted(len(ids) for ids in rehearsal.typical(rows, 7).input_ids) == [3, 7, 7, 9, 40, 40, 50]


def test_more_layers_and_more_rows_take_longer_and_nothing_is_left(compose, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "LAYERS", (1, 8))
    config = compose("model=tiny", "trainer.batch_size=2", "tracking=none", f"cache_dir={tmp_path}")
    outlined = outline(config.model, tmp_path)
    rows = TokenizedRows([[5] * 300] * 16, [[0] * 10 + [1] * 290] * 16, 0, 0, from_cache=False)
    few, more = (rehearsal.pace_of(config, outlined, layers, rows, rows, CPU) for layers in (1, 8))
    assert 0 < few.step < more.step and 0 < few.held_out < more.held_out
    wide = replace(config, trainer=replace(config.trainer, batch_size=8))
    assert rehearsal.pace_of(wide, outlined, 8, rows, rows, CPU).step > 1.5 * more.step
    assert list(tmp_path.glob("rehearsal-*")) == []


def test_stop_ends_it_and_nothing_is_left(compose, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal.Stopwatch, "begin", lambda watch, step, steps: signal.raise_signal(signal.SIGINT))
    config = compose("model=tiny", "tracking=none", f"cache_dir={tmp_path}")
    rows = TokenizedRows([[5] * 30] * 4, [[0] * 10 + [1] * 20] * 4, 0, 0, from_cache=False)
    with pytest.raises(KeyboardInterrupt):
        rehearsal.rehearse(config, outline(config.model, tmp_path), rows, rows, CPU)
    assert list(tmp_path.glob("rehearsal-*")) == []


def test_scratch_of_killed_processes_goes_and_that_of_others_stays(tmp_path):
    for name in ("rehearsal-killed", "rehearsal-alive"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".lock").touch()  # as the folder of either has it: a killed process lets go
    with FileLock(tmp_path / "rehearsal-alive" / ".lock"), rehearsal.scratch_below(tmp_path) as folder:
        assert folder.is_dir()
        assert sorted(path.name for path in tmp_path.glob("rehearsal-*")) == sorted(["rehearsal-alive", folder.name])
    assert not folder.exists() and (tmp_path / "rehearsal-alive").is_dir()


def test_scratch_of_many_at_a_time_is_each_ones_own(tmp_path):
    def rehearse_often(number):
        for _ in range(10):
            with rehearsal.scratch_below(tmp_path) as folder:
                for part in range(200):  # takes a while to remove
                    (folder / f"{part}").write_text(f"{number}")
                assert {(folder / f"{part}").read_text() for part in range(200)} == {f"{number}"}

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(rehearse_often, range(4)))
    assert list(tmp_path.glob("rehearsal-*")) == []
