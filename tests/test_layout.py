"""What is known of a model's weights before it is read is what transformers makes of its config."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from medbot_exp.layout import LLAMAS, linears

SHAPE = {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3, "vocab_size": 50}
HEADS = {"num_attention_heads": 6, "num_key_value_heads": 2}


def made_by_transformers(config):
    """(out, in) of each linear layer by its name."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


@pytest.mark.parametrize("kind", LLAMAS)
@pytest.mark.parametrize("head_dim", [16, 32])
def test_linear_layers_are_those_that_transformers_makes(kind, head_dim):
    config = AutoConfig.for_model(kind, **SHAPE, **HEADS, head_dim=head_dim)
    assert linears(config.to_dict()) == made_by_transformers(config)


@pytest.mark.parametrize("kind", LLAMAS)
@pytest.mark.parametrize("left_out", ["num_key_value_heads", "head_dim"])
@pytest.mark.parametrize("heads", [4, 16])
def test_what_a_config_leaves_out_is_as_transformers_takes_it_or_not_known(kind, left_out, heads):
    written = SHAPE | {"hidden_size": 128, "num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": 8}
    del written[left_out]
    found = linears(written | {"model_type": kind})
    known = kind == "llama" or (kind != "qwen3" if left_out == "head_dim" else False)
    assert found == (made_by_transformers(AutoConfig.for_model(kind, **written)) if known else None)


@pytest.mark.parametrize("config", [{"model_type": "gpt2"}, {"model_type": "llama", "hidden_size": 64}, {}])
def test_models_that_are_not_known_are_left_to_transformers(config):
    assert linears(config) is None
