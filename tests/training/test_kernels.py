"""Which kernels are chosen, and the reason that is told."""

import importlib.util

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from medbot_exp.config import BackendName
from medbot_exp.training.kernels import ROWS_APART, choose_liger, choose_padding_free


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
    "overrides, model_type, processes, use, reason",
    [
        ([], "llama", 1, True, "keeps rows apart"),
        ([], "llama", 2, False, "several processes"),
        (["trainer.batch_size=1"], "llama", 1, False, "nothing to pad"),
        ([], "jamba", 1, False, "type jamba is not known"),
        (["model.attention=sdpa"], "llama", 1, False, "need model.attention=flash_attention_2, and it is sdpa"),
    ],
)
def test_rows_are_laid_end_to_end_where_attention_keeps_them_apart(
    compose, overrides, model_type, processes, use, reason
):
    asked = ["model=directory", "model.path=model", "model.attention=flash_attention_2", "trainer.batch_size=2"]
    choice = choose_padding_free(compose(*asked, *overrides), model_type, processes)
    assert choice is not None and choice.use is use and reason in choice.reason


def test_layout_of_batches_is_left_to_unsloth(compose):
    config = compose("backend=unsloth", "model=directory", "model.path=model")
    assert choose_padding_free(config, "llama", 1) is None


@pytest.mark.parametrize("model_type", ROWS_APART)
def test_models_that_may_have_joined_rows_compute_them_as_rows_by_themselves(model_type):
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 100, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    config = CONFIG_MAPPING[model_type](**shape, **heads)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    rows = [torch.randint(1, 100, (length,)) for length in (7, 3, 12)]
    places = torch.cat([torch.arange(len(row)) for row in rows])[None]
    with torch.no_grad():
        joined = model(torch.cat(rows)[None], position_ids=places, use_cache=False).logits[0]
        alone = torch.cat([model(row[None], use_cache=False).logits[0] for row in rows])
    torch.testing.assert_close(joined, alone, atol=1e-5, rtol=1e-4)
