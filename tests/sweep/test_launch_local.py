"""What a process of a trial is given: its share of the cores, and a GPU of its own."""

import pytest

from medbot_exp.errors import ConfigError
from medbot_exp.sweep.launch_local import THREAD_VARIABLES, cores, slots_for


@pytest.fixture(autouse=True)
def no_thread_variables(monkeypatch):
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_cores_are_shared_out():
    threads = str(max(1, cores() // 2))
    assert slots_for(2, []) == [dict.fromkeys(THREAD_VARIABLES, threads)] * 2


def test_a_number_of_threads_that_the_user_set_is_left_to_all_libraries(monkeypatch):
    """MKL_NUM_THREADS would prevail over the user's OMP_NUM_THREADS."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert slots_for(2, []) == [{}, {}]


def test_each_process_has_a_gpu_of_its_own():
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots_for(2, ["3", "GPU-5", "7"])] == ["3", "GPU-5"]
    with pytest.raises(ConfigError, match="n_jobs=2 and 1 of them; use hydra.sweeper.n_jobs=1"):
        slots_for(2, ["0"])
