"""A saved adapter is taken where it is that of its run and its model, and refused otherwise."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, BioGptConfig, GPT2Config, LlamaConfig, MixtralConfig

from medbot_exp.config import LoraInit
from medbot_exp.errors import ModelError
from medbot_exp.lora import attach
from medbot_exp.model import random_llama
from medbot_exp.saved_adapter import check_finite, check_fits, check_saved, restore

TARGETS = "lora.target_modules=all-linear"


@pytest.fixture
def lora_config(compose):
    """lora_config(**changes): that of the default config."""

    def changed(**changes):
        return replace(compose().lora, **changes)

    return changed


@pytest.fixture
def model(compose, tiny_tokenizer):
    """A two-layer Llama with random weights."""
    return random_llama(compose("model=tiny").model.architecture, tiny_tokenizer, "sdpa")


@pytest.mark.parametrize(
    "changes",
    [
        *({"init": init, "r": 4} for init in LoraInit),
        {"rslora": True, "dora": True, "alpha": 6.5, "dropout": 0.1},
        {"target_modules": ["q_proj", "layers.1.mlp.up_proj"]},
        {"target_modules": r".*layers\.1\..*\.(q|v)_proj"},
    ],
)
def test_adapter_is_the_one_of_its_lora_values_as_peft_saves_it(lora_config, model, tmp_path, changes):
    lora = lora_config(**changes)
    attach(model, lora).save_pretrained(tmp_path)
    check_saved(tmp_path, lora)
    check_fits(tmp_path, lora, model.config)


@pytest.mark.parametrize(
    "changes, found, given, mended",
    [
        ({"r": 8}, "r=8", "lora.r=16", '"r": 16'),
        ({"lora_alpha": 2400}, "lora_alpha=2400", "lora.alpha=16.0", '"lora_alpha": 16.0'),
        ({"lora_dropout": 0.5}, "lora_dropout=0.5", "lora.dropout=0.0", '"lora_dropout": 0.0'),
        ({"use_rslora": True}, "use_rslora=true", "lora.rslora=false", '"use_rslora": false'),
        ({"use_rslora": "false"}, 'use_rslora="false"', "lora.rslora=false", '"use_rslora": false'),
        ({"use_dora": True}, "use_dora=true", "lora.dora=false", '"use_dora": false'),
        ({"init_lora_weights": "pissa"}, 'init_lora_weights="pissa"', "lora.init=default", '"init_lora_weights": true'),
        ({"bias": "all"}, 'bias="all"', "bias=none", '"bias": "none"'),
        ({"peft_type": "IA3"}, 'peft_type="IA3"', "peft_type=LORA", '"peft_type": "LORA"'),
        ({"alpha_pattern": {"q_proj": 1}}, 'alpha_pattern={"q_proj": 1}', "no alpha_pattern", '"alpha_pattern": {}'),
        ({"rank_pattern": {"q_proj": 1}}, 'rank_pattern={"q_proj": 1}', "no rank_pattern", '"rank_pattern": {}'),
        (
            {"modules_to_save": ["lm_head"]},
            'modules_to_save=["lm_head"]',
            "no modules_to_save",
            '"modules_to_save": null',
        ),
        ({"layers_to_transform": 0}, "layers_to_transform=0", "no layers_to_transform", '"layers_to_transform": null'),
        ({"target_modules": ["q_proj"]}, 'target_modules=["q_proj"]', TARGETS, "all-linear"),
        ({"target_modules": "(q"}, 'target_modules="(q"', TARGETS, "all-linear"),
        ({"target_modules": ["nonesuch", "q_proj"]}, 'target_modules=["nonesuch", "q_proj"]', TARGETS, "all-linear"),
        ({"target_modules": ".*"}, 'target_modules=".*"', TARGETS, "all-linear"),  # the head too
        ({"target_modules": 3}, "target_modules=3", TARGETS, "all-linear"),
    ],
)
def test_adapter_config_with_other_values_is_refused(lora_config, model, tmp_path, changes, found, given, mended):
    lora = lora_config()
    attach(model, lora).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    own = json.loads(path.read_text())

    def check():
        check_saved(tmp_path, lora)
        check_fits(tmp_path, lora, model.config)

    path.write_text(json.dumps(own | changes))
    with pytest.raises(ModelError) as caught:
        check()
    assert f"adapter_config.json has {found} and the run {given}; restore the run's own file, or w" in str(caught.value)
    remedy = str(caught.value).partition("or write ")[2].removesuffix(" there")
    assert mended in remedy
    path.write_text(json.dumps(own | changes | json.loads(f"{{{remedy}}}")))
    check()


def test_adapter_config_without_a_value_is_refused(lora_config, model, tmp_path):
    lora = lora_config(rslora=True)
    attach(model, lora).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    own = json.loads(path.read_text())
    del own["use_rslora"]
    path.write_text(json.dumps(own))
    with pytest.raises(ModelError, match=r"use_rslora=\(missing\) and the run lora.rslora=true; "):
        check_saved(tmp_path, lora)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_adapter_config_that_is_no_whole_object_is_refused(lora_config, model, tmp_path, content):
    attach(model, lora_config()).save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_bytes(content)
    with pytest.raises(ModelError, match="adapter_config.json must be a whole JSON object, but .* is not: .+; restore"):
        check_saved(tmp_path, lora_config())


def test_adapter_of_other_layers_than_the_runs_is_refused(lora_config, model, tmp_path):
    attach(model, lora_config()).save_pretrained(tmp_path)
    with pytest.raises(
        ModelError, match=r'weights of model\..*_proj, which the run\'s lora.target_modules=\["q_proj"\] do'
    ):
        check_saved(tmp_path, lora_config(target_modules=["q_proj"]))


SHAPE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("shape", "targets"),
    [
        (BioGptConfig(intermediate_size=64, **SHAPE), "all-linear"),  # its head is called output_projection
        (MixtralConfig(intermediate_size=64, num_local_experts=2, num_key_value_heads=2, **SHAPE), "all-linear"),
        (LlamaConfig(intermediate_size=64, num_key_value_heads=2, **SHAPE), ["q_proj", "down_proj"]),
        (GPT2Config(**SHAPE), ["c_attn", "c_fc"]),  # its layers keep (in, out) weights
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_adapter_of_any_model_that_peft_knows_is_taken(lora_config, tmp_path, shape, targets):
    lora = lora_config(target_modules=targets, r=4)
    tuned = attach(AutoModelForCausalLM.from_config(shape), lora)
    tuned.save_pretrained(tmp_path, save_embedding_layers=False)
    check_saved(tmp_path, lora)
    check_fits(tmp_path, lora, shape)
    check_finite(tmp_path)
    fresh = attach(AutoModelForCausalLM.from_config(shape), lora)
    restore(fresh, tmp_path)
    told = [each.state_dict() for each in (tuned, fresh)]
    assert all(torch.equal(told[0][name], told[1][name]) for name in told[0] if "lora_" in name)


def test_model_that_cannot_be_built_without_its_weights_is_left_to_its_loading(lora_config, model, tmp_path, caplog):
    attach(model, lora_config()).save_pretrained(tmp_path)
    odd = LlamaConfig(intermediate_size=64, **SHAPE)
    odd.hidden_act = "nonesuch"
    with caplog.at_level("INFO"):
        check_fits(tmp_path, lora_config(), odd)
    assert "the adapter is held against the model once that is loaded" in caplog.text


def test_weights_of_layers_that_the_model_lacks_are_no_proof_of_another_base(lora_config, tmp_path):
    shape = LlamaConfig(intermediate_size=64, num_key_value_heads=2, **SHAPE)
    attach(AutoModelForCausalLM.from_config(shape), lora_config()).save_pretrained(tmp_path)
    shape.num_hidden_layers = 1
    with pytest.raises(ModelError, match="for layers that the model does not have") as caught:
        check_fits(tmp_path, lora_config(), shape)
    assert "another base" not in str(caught.value)
