"""Planned memory against peaks that were measured, and parameters against those that PEFT makes."""

from dataclasses import replace

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from medbot_exp import lora
from medbot_exp.config import Precision
from medbot_exp.device import step_dtype
from medbot_exp.lora import peft_config
from medbot_exp.training import footprint
from medbot_exp.training.footprint import GIB, Longest, Setting

# H100 80GB, torch 2.11: torch.cuda.max_memory_allocated of plain training loops with LoRA of rank 16 on all linear
# layers, 8-bit AdamW, Liger's kernels or Unsloth, random weights. No held-out rows are among them.
MEASURED = [
    ("8b", "peft", "none", 8, 768, True, 17.862),
    ("8b", "peft", "none", 1, 2048, True, 16.148),
    ("8b", "peft", "none", 4, 2048, True, 18.731),
    ("8b", "peft", "none", 2, 768, False, 21.755),
    ("8b", "peft", "none", 8, 768, False, 41.128),
    ("8b", "peft", "nf4", 8, 512, True, 7.456),
    ("8b", "peft", "nf4", 4, 2048, True, 9.194),
    ("8b", "peft", "nf4", 8, 768, False, 31.591),
    ("135m", "peft", "none", 8, 768, True, 0.676),
    ("135m", "peft", "none", 4, 2048, True, 0.788),
    ("135m", "peft", "none", 2, 768, False, 1.108),
    ("135m", "peft", "none", 8, 768, False, 3.335),
    ("135m", "peft", "nf4", 8, 512, True, 0.420),
    ("135m", "peft", "nf4", 8, 768, False, 3.188),
    ("8b", "unsloth", "none", 2, 768, True, 15.797),
    ("8b", "unsloth", "none", 8, 768, True, 16.955),
    ("8b", "unsloth", "none", 8, 768, False, 38.782),
]
GPU = Setting(Precision.bf16, weight_bytes=2, cuda=True, liger=True)


def planned(config, shape, rows, liger=True):
    return footprint.estimate(config, shape, rows, replace(GPU, liger=liger))


@pytest.mark.parametrize("model, backend, quantization, batch, length, recomputed, gib", MEASURED)
def test_plan_is_within_15_percent_of_the_measured_peak(
    recipe, shapes, model, backend, quantization, batch, length, recomputed, gib
):
    config = recipe(
        f"backend={backend}",
        f"model.quantization={quantization}",
        f"trainer.batch_size={batch}",
        f"trainer.gradient_checkpointing={str(recomputed).lower()}",
    )
    plan = planned(config, shapes[model], Longest(length, 1))
    assert (sum(plan.resident.values()) + sum(plan.training.values())) / GIB == pytest.approx(gib, rel=0.15)


def saved_bytes(config, layers, dtype, precision):
    """Bytes that the decoder of a small Llama keeps for its backward pass of 2 x 64 tokens, its parameters left out."""
    shape = LlamaConfig(**SMALL, num_hidden_layers=layers)
    model = lora.attach(AutoModelForCausalLM.from_config(shape).to(dtype), config.lora).train()
    if config.trainer.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}  # each tensor, so that its place is not given to another

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    autocast = torch.autocast("cpu", step_dtype(precision), enabled=precision is not Precision.fp32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        model.base_model.model.model(input_ids=torch.arange(128).view(2, 64), use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


SMALL = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
}


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("precision", [Precision.bf16, Precision.fp32])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_another_layer_keeps_what_torch_says_in_each_type(recipe, dtype, precision, recomputed):
    config = recipe("lora.r=4", "trainer.batch_size=2", f"trainer.gradient_checkpointing={str(recomputed).lower()}")
    setting = Setting(precision, weight_bytes=dtype.itemsize, cuda=False, liger=False)
    planned = [
        footprint.estimate(
            config, footprint.transformer(LlamaConfig(**SMALL, num_hidden_layers=layers)), Longest(64, 1), setting
        ).training["activations"]
        for layers in (2, 3)
    ]
    measured = [saved_bytes(config, layers, dtype, precision) for layers in (2, 3)]
    assert planned[1] - planned[0] == pytest.approx(measured[1] - measured[0], rel=0.03)


LLAMA = LlamaConfig(**SMALL, num_hidden_layers=2, tie_word_embeddings=True)
GPT2 = GPT2Config(n_embd=128, n_layer=2, n_head=4, vocab_size=1000)  # its layers keep (in, out) weights


@pytest.mark.parametrize(
    "shape, overrides",
    [
        (LLAMA, ["lora=all_linear"]),
        (LLAMA, ["lora=attention", "lora.r=4"]),
        (LLAMA, ["lora=mlp", "lora.dora=true"]),
        (LLAMA, ["lora.target_modules='model.layers.1.*(q|down)_proj'"]),
        (LLAMA, ["lora.target_modules=[self_attn.v_proj]"]),
        (GPT2, ["lora=all_linear"]),
        (GPT2, ["lora.target_modules=[c_attn,c_fc]", "lora.dora=true"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value.model_type,
)
def test_parameters_are_those_that_peft_makes(compose, shape, overrides):
    lora = compose(*overrides).lora
    model = AutoModelForCausalLM.from_config(shape)
    whole = sum(parameter.numel() for parameter in model.parameters())
    adapted = get_peft_model(model, peft_config(lora))
    outlined = footprint.transformer(shape)
    assert outlined.parameters == whole
    assert footprint.trainable_parameters(outlined, lora) == sum(
        parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad
    )


def test_logits_of_a_cpu_are_all_there_at_a_time(recipe, shapes):
    config = recipe("trainer.batch_size=4")
    cpu = Setting(Precision.fp32, weight_bytes=4, cuda=False, liger=False)
    few, many = (footprint.estimate(config, shapes["8b"], Longest(length, 1), cpu) for length in (512, 1024))
    tokens = 4 * 512
    of_logits = footprint.CPU_LOGIT_BYTES * tokens * shapes["8b"].vocab_size
    assert many.training["logits"] - few.training["logits"] == of_logits + 4 * tokens * shapes["8b"].hidden_size
    assert few.training["freed and kept"] == footprint.CPU_KEPT * few.training["activations"]
    assert "freed and kept" not in footprint.estimate(config, shapes["8b"], Longest(512, 1), GPU).training


def test_shape_is_read_without_making_weights():
    huge = LlamaConfig(hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64)
    assert footprint.transformer(huge).parameters > 60e9


def test_plan_of_several_processes_is_of_one(recipe, shapes):
    config = recipe("trainer.batch_size=4", "trainer.gradient_accumulation_steps=2")
    four, rows = replace(GPU, processes=4), Longest(2048, 512)
    alone = footprint.estimate(recipe("trainer.batch_size=2"), shapes["8b"], rows, GPU)
    shared = footprint.estimate(config, shapes["8b"], rows, four)
    assert shared == alone


def test_weights_are_of_their_own_type(recipe, shapes):
    wide = footprint.estimate(recipe(), shapes["8b"], Longest(64, 1), replace(GPU, weight_bytes=4))
    assert wide.resident["weights"] == 4 * shapes["8b"].parameters
    # Under autocast each layer keeps its weights as they were multiplied: of the layers, all but the embeddings.
    narrow = planned(recipe(), shapes["8b"], Longest(64, 1))
    kept = wide.training["activations"] - narrow.training["activations"]
    assert kept == pytest.approx(2 * sum(shapes["8b"].quantised()), rel=0.05)


def test_head_that_does_more_than_multiply_makes_all_held_out_logits(recipe, shapes):
    config, rows = recipe("trainer.eval_batch_size=4"), Longest(64, 2048)
    capped = replace(shapes["8b"], whole_logits=True)
    more = planned(config, capped, rows).evaluation - planned(config, shapes["8b"], rows).evaluation
    assert more == 2 * 4 * 2048 * 128256 * 2  # before and behind the cap
