"""Each key of conf/lora reaches PEFT, and the adapter computes what the papers say."""

import math
from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, GPT2Config

from medbot_exp.config import LoraConfig, LoraInit, ModelConfig, conf_directory
from medbot_exp.errors import ConfigError
from medbot_exp.lora import attach
from medbot_exp.model import load

ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj"}
IDS = torch.arange(4, 36).reshape(2, 16)


def composed(schema: type, group: str, option: str):
    """conf/<group>/<option>.yaml as a `schema`."""
    chosen = OmegaConf.load(conf_directory() / group / f"{option}.yaml")
    inherited = [OmegaConf.load(conf_directory() / group / f"{name}.yaml") for name in chosen.pop("defaults", [])]
    chosen = OmegaConf.merge(*inherited, chosen)
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), chosen))


def lora_config(option: str = "all_linear", **changes) -> LoraConfig:
    """conf/lora/<option>.yaml with `changes`."""
    return replace(composed(LoraConfig, "lora", option), **changes)


@pytest.fixture
def model(tmp_path):
    """A two-layer Llama with random weights."""
    return load(composed(ModelConfig, "model", "tiny"), tmp_path, torch.device("cpu")).model.eval()


def adapted(model) -> dict[str, torch.nn.Module]:
    """The adapted layers of a PeftModel, by their names in the base model."""
    prefix = "base_model.model."
    return {name.removeprefix(prefix): module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def query(model) -> torch.nn.Module:
    """The first layer's adapted q_proj."""
    return adapted(model)["model.layers.0.self_attn.q_proj"]


def logits_of(model) -> torch.Tensor:
    """Logits of `model` in evaluation mode."""
    with torch.inference_mode():
        return model.eval()(IDS).logits


@pytest.mark.parametrize(("option", "names"), [("all_linear", ATTENTION | MLP), ("attention", ATTENTION), ("mlp", MLP)])
def test_option_adapts_its_layers_in_both_blocks_and_no_other(model, option, names):
    found = adapted(attach(model, lora_config(option)))
    assert {name.rpartition(".")[2] for name in found} == names
    assert len(found) == 2 * len(names)


def test_regular_expression_chooses_by_the_whole_name(model):
    attached = attach(model, lora_config(target_modules=r".*layers\.1\..*\.(q|v)_proj"))
    assert set(adapted(attached)) == {"model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"}


def test_list_chooses_by_the_end_of_the_name(model):
    attached = attach(model, lora_config(target_modules=["k_proj", "layers.0.mlp.up_proj"]))
    assert set(adapted(attached)) == {
        "model.layers.0.self_attn.k_proj",
        "model.layers.1.self_attn.k_proj",
        "model.layers.0.mlp.up_proj",
    }


@pytest.mark.parametrize("target", ["nonesuch", ["nonesuch"], ["q_proj", "nonesuch"]])
def test_target_that_names_nothing_is_refused_with_the_names_there_are(model, target):
    with pytest.raises(ConfigError) as caught:
        attach(model, lora_config(target_modules=target))
    assert "has no nonesuch; it has: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in str(caught.value)


def test_layer_that_is_not_linear_is_refused(model):
    with pytest.raises(ConfigError, match="has no embed_tokens"):
        attach(model, lora_config(target_modules=["q_proj", "embed_tokens"]))


SHAPE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_layers_of_gpt2_are_adapted_but_by_olora():
    model = AutoModelForCausalLM.from_config(GPT2Config(**SHAPE))
    with pytest.raises(ConfigError, match=r"lora\.init=olora, which PEFT has not for Conv1D \(transformer\.h\.0\.attn"):
        attach(model, lora_config(init=LoraInit.olora))
    with pytest.raises(ConfigError, match="lora.init=olora"):
        attach(model, lora_config(init=LoraInit.olora, target_modules=["c_fc"]))
    exact = logits_of(model)
    tuned = attach(model, lora_config(init=LoraInit.pissa, r=4))
    assert {name.rpartition(".")[2] for name in adapted(tuned)} == {"c_attn", "c_proj", "c_fc"}
    assert torch.allclose(logits_of(tuned), exact, atol=1e-5)


def test_broken_regular_expression_is_refused(model):
    with pytest.raises(ConfigError, match=r"must be a regular expression, but got '\(q_proj'"):
        attach(model, lora_config(target_modules="(q_proj"))


def test_refused_target_leaves_the_model_as_it_was(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError):
        attach(model, lora_config(target_modules=["q_proj", "nonesuch"], init=LoraInit.pissa))
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_only_the_adapter_is_trained_and_its_size_follows_from_r(model):
    attached = attach(model, lora_config("attention", r=3))
    trained = {name: parameter.numel() for name, parameter in attached.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in trained)
    # A is (r, in) and B is (out, r): q and o are 64x64, k and v 32x64, in two layers.
    assert sum(trained.values()) == 2 * 3 * (2 * (64 + 64) + 2 * (64 + 32))


@pytest.mark.parametrize("rslora", [False, True])
def test_update_is_scaled_by_alpha_over_r_or_its_root(model, rslora):
    frozen = model.model.layers[0].self_attn.q_proj.weight.clone()
    layer = query(attach(model, lora_config(r=4, alpha=6.0, rslora=rslora)))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(b)
    x = torch.randn(5, 64)
    scale = 6.0 / math.sqrt(4) if rslora else 6.0 / 4
    torch.testing.assert_close(layer(x), x @ frozen.T + scale * (x @ a.T @ b.T), atol=1e-5, rtol=1e-5)


def test_fractional_alpha_is_not_rounded(model):
    assert query(attach(model, lora_config(r=4, alpha=0.5))).scaling == {"default": 0.125}


def test_dora_rescales_each_row_to_its_trained_magnitude(model):
    frozen = model.model.layers[0].self_attn.q_proj.weight.clone()
    layer = query(attach(model, lora_config(r=4, alpha=8.0, dora=True)))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(b)
    x = torch.randn(5, 64)
    # arXiv 2402.09353, eq. 5: W' = m (W + s BA) / ||W + s BA||, m = ||W|| at the start, norms per output row.
    moved = frozen + 2.0 * b @ a
    expected = frozen.norm(dim=1, keepdim=True) * moved / moved.norm(dim=1, keepdim=True)
    torch.testing.assert_close(layer(x), x @ expected.T, atol=1e-5, rtol=1e-5)


def test_dropout_thins_the_update_in_training_alone(model):
    attached = attach(model, lora_config(dropout=0.25))
    layer = query(attached)
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    assert {module.lora_dropout["default"].p for module in adapted(attached).values()} == {0.25}
    x = torch.randn(1, 64)
    attached.train()
    assert not torch.equal(layer(x), layer(x))
    attached.eval()
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("init", list(LoraInit))
def test_fresh_adapter_leaves_the_output_unchanged(model, init):
    before = logits_of(model)
    attached = attach(model, lora_config(r=8, init=init))
    torch.testing.assert_close(logits_of(attached), before, atol=1e-5, rtol=0)


def test_fresh_dora_leaves_the_output_unchanged(model):
    before = logits_of(model)
    torch.testing.assert_close(logits_of(attach(model, lora_config(dora=True))), before, atol=1e-5, rtol=0)


def initial(layer: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Base weight (out, in), A (r, in) and B (out, r) of a fresh adapter."""
    return layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight


@pytest.mark.parametrize("init", [LoraInit.default, LoraInit.gaussian])
def test_default_and_gaussian_start_b_at_zero(model, init):
    _, a, b = initial(query(attach(model, lora_config(init=init))))
    assert a.abs().min() > 0
    assert torch.count_nonzero(b) == 0


def test_default_a_is_uniform_and_gaussian_a_is_normal(model):
    torch.manual_seed(0)
    _, uniform, _ = initial(query(attach(model, lora_config(r=64))))
    bound = 1 / math.sqrt(64)  # kaiming_uniform_(a=sqrt(5)) over 64 inputs
    assert 0.99 * bound < uniform.abs().max() <= bound


def test_gaussian_a_has_the_standard_deviation_of_one_over_r(model):
    torch.manual_seed(0)
    _, normal, _ = initial(query(attach(model, lora_config(r=64, init=LoraInit.gaussian))))
    assert normal.std().item() == pytest.approx(1 / 64, rel=0.05)
    assert normal.abs().max() > 3 / 64


def test_orthogonal_starts_with_factors_that_cancel(model):
    _, a, b = initial(query(attach(model, lora_config(r=8, init=LoraInit.orthogonal))))
    assert a.abs().max() > 0
    assert b.abs().max() > 0
    torch.testing.assert_close(b @ a, torch.zeros(64, 64), atol=1e-6, rtol=0)


def test_pissa_trains_the_principal_part_of_the_weight(model):
    whole = model.model.layers[0].self_attn.q_proj.weight.clone()
    base, a, b = initial(query(attach(model, lora_config(r=8, alpha=8.0, init=LoraInit.pissa))))
    u, s, vh = torch.linalg.svd(whole)
    principal = u[:, :8] @ torch.diag(s[:8]) @ vh[:8]  # arXiv 2404.02948
    torch.testing.assert_close(b @ a, principal, atol=1e-5, rtol=0)
    torch.testing.assert_close(base, whole - principal, atol=1e-5, rtol=0)


def test_olora_starts_with_orthonormal_columns(model):
    whole = model.model.layers[0].self_attn.q_proj.weight.clone()
    base, a, b = initial(query(attach(model, lora_config(r=8, alpha=8.0, init=LoraInit.olora))))
    torch.testing.assert_close(b.T @ b, torch.eye(8), atol=1e-5, rtol=0)  # arXiv 2406.01775
    torch.testing.assert_close(base + b @ a, whole, atol=1e-5, rtol=0)
