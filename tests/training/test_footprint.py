"""Planned memory against peaks that were measured, and parameters against those that PEFT makes."""

from dataclasses import replace
from itertools import accumulate

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from peft import get_peft_model
from torch.utils.data import BatchSampler
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig
from trl.trainer import utils as trl_utils

from medbot_exp import lora
from medbot_exp.config import Precision
from medbot_exp.device import step_dtype
from medbot_exp.lora import peft_config
from medbot_exp.processes import share_of
from medbot_exp.training import footprint
from medbot_exp.training.footprint import GIB, Longest, Setting
from medbot_exp.training.parallel import EpochOrder, blanks_for

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tile_of_the_logits_is_what_trl_makes_of_it_on_a_cpu(dtype):
    kernels = pytest.importorskip("trl.kernels", reason="trl 1.14 has no tiles")
    tokens, words, hidden = 64, 40000, 8
    states = torch.randn(tokens, hidden, dtype=dtype, requires_grad=True)
    head, targets = torch.randn(words, hidden, dtype=dtype), torch.zeros(tokens, dtype=torch.long)
    loss = kernels.ChunkedLogProbFunction.apply(states, head, None, targets, 1.0, footprint.TRL_TILE[1])[0].sum()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss.backward()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    width = footprint.Widths(dtype.itemsize, dtype.itemsize, 4)
    shape = footprint.transformer(LlamaConfig(**SMALL | {"vocab_size": words}, num_hidden_layers=1))
    assert footprint.tile_bytes(shape, tokens, width) == pytest.approx(max(held), rel=0.03)


def test_tile_is_that_of_the_installed_trl():
    kernels = pytest.importorskip("trl.kernels.chunked_logprob", reason="trl 1.14 has no tiles")
    assert (kernels.TOKEN_CHUNK_SIZE, trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE) == footprint.TRL_TILE


@pytest.mark.parametrize(
    "tokens, words, logits, kept",
    [
        (512, 320, 512 * 320, 1),
        (512, 49152, 512 * 32768, 1),
        (8192, 49152, 4096 * 32768, 1),
        (4096, 65536, 4096 * 32768, footprint.TILES_KEPT),
    ],
)
def test_logits_of_a_cpu_are_a_tile_and_what_is_kept_of_others(recipe, shapes, tokens, words, logits, kept):
    shape = replace(shapes["135m"], vocab_size=words)
    setting = Setting(Precision.fp32, weight_bytes=4, cuda=False, liger=False)
    planned = footprint.estimate(recipe("trainer.batch_size=2"), shape, Longest(tokens // 2, 1), setting)
    assert planned.training["logits"] == pytest.approx(kept * 33 * logits + tokens * 576 * 4)


def test_what_is_freed_is_kept_on_a_cpu_alone(recipe, shapes):
    setting = Setting(Precision.fp32, weight_bytes=4, cuda=False, liger=False)
    here, there = (
        footprint.estimate(recipe(), shapes["135m"], Longest(512, 1), each).training for each in (setting, GPU)
    )
    assert here["freed and kept"] == footprint.CPU_KEPT * here["activations"] and "freed and kept" not in there


def test_shape_is_read_without_making_weights():
    huge = LlamaConfig(hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64)
    assert footprint.transformer(huge).parameters > 60e9


def test_plan_of_several_processes_is_of_one(recipe, shapes):
    config = recipe("trainer.batch_size=4", "trainer.gradient_accumulation_steps=2")
    four, rows = replace(GPU, processes=4), Longest(2048, 512)
    alone = footprint.estimate(recipe("trainer.batch_size=2"), shapes["8b"], rows, GPU)
    shared = footprint.estimate(config, shapes["8b"], rows, four)
    assert shared == alone


@pytest.mark.parametrize(
    "rows, processes, batch", [(135, 1, 135), (135, 2, 2000), (4000, 2, 2000), (float("inf"), 2, 2000)]
)
def test_batch_is_of_the_rows_that_there_are(recipe, rows, processes, batch):
    trainer = recipe("trainer.batch_size=4000", "trainer.eval_batch_size=4000").trainer
    longest = Longest(64, 64, training_rows=rows, held_out_rows=rows)
    assert longest.batch(trainer, processes) == batch
    assert longest.held_out_batch(trainer) == min(4000, rows)


@pytest.mark.parametrize("rows, batch, processes", [(5, 4, 2), (20, 16, 2), (6, 4, 4)])
def test_no_process_trains_on_more_rows_at_a_time_than_planned(recipe, rows, batch, processes):
    trainer = recipe(f"trainer.batch_size={batch}", "trainer.gradient_accumulation_steps=4").trainer
    size = share_of(trainer, processes).batch_size
    blanks = blanks_for(rows, size * processes)
    order = EpochOrder(rows, blanks, 0, lambda: 0)
    batches = BatchSampler(order, size, drop_last=False)
    dealt = [len(each) for rank in range(processes) for each in BatchSamplerShard(batches, processes, rank)]
    assert max(dealt) == Longest(64, 64, rows, rows).batch(trainer, processes)


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
