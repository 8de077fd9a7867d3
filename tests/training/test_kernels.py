"""Which kernels are chosen, and the reason that is told."""

import importlib.util

import pytest
import torch

from medbot_exp.config import BackendName
from medbot_exp.training.kernels import choose_liger, choose_padding_free


@pytest.mark.parametrize(
    "backend, device, reason",
    [
        (BackendName.unsloth, "cuda", "kernels of its own"),
        (BackendName.peft, "cpu", "the device is cpu"),
        (BackendName.peft, "cuda", "pip install liger-kernel"),
    ],
)
def test_liger_is_not_used_and_the_reason_is_told(backend, device, reason, monkeypatch):
    monkeypatch.setattr("medbot_exp.training.kernels.find_spec", lambda name: None)
    choice = choose_liger(backend, torch.device(device), "llama")
    assert not choice.use and reason in choice.reason


def test_liger_is_used_for_the_models_that_it_knows():
    if importlib.util.find_spec("liger_kernel") is None:
        pytest.skip("liger_kernel is not installed")
    assert choose_liger(BackendName.peft, torch.device("cuda"), "llama").use
    assert "type zebra" in choose_liger(BackendName.peft, torch.device("cuda"), "zebra").reason


@pytest.mark.parametrize(
    "overrides, processes, use, reason",
    [
        (["model.attention=flash_attention_2"], 1, True, "keeps rows apart"),
        (["model.attention=flash_attention_2"], 2, False, "several processes"),
        (["model.attention=sdpa"], 1, False, "need model.attention=flash_attention_2, and it is sdpa"),
        (["backend=unsloth"], 1, False, "Unsloth decides"),
    ],
)
def test_rows_are_laid_end_to_end_where_attention_keeps_them_apart(compose, overrides, processes, use, reason):
    choice = choose_padding_free(compose("model=directory", "model.path=model", *overrides), processes)
    assert choice.use is use and reason in choice.reason
