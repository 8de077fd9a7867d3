"""What a training will take of a GPU's memory, by part, from shapes alone: nothing is loaded.

Per token and layer a Llama keeps for its backward pass what its layers' formulas need: the inputs of both norms, the
queries, keys, values and output of attention, the two halves of the gated feed-forward layer, and each input that a
LoRA matrix multiplies. Compared with measured peaks in tests/training/test_footprint.py.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medbot_exp.config import (
    Attention,
    BackendName,
    LoraConfig,
    OptimizerName,
    Precision,
    Quantization,
    RunConfig,
    TrainerConfig,
    is_targeted,
)
from medbot_exp.evaluation.score import HEAD_EXTRAS, TOKENS_AT_A_TIME
from medbot_exp.lora import linear_layers
from medbot_exp.processes import share_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig

GIB = 2**30
# Bytes per weight of bitsandbytes' nf4: 4 bits, one byte per 64 weights, 4 bytes per 256 of those.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
# What cuBLAS takes on a Hopper GPU: 32 MiB in the thread of the forward pass and in that of the backward pass.
WORKSPACE_BYTES = 64 * 2**20
# Python, torch, transformers and TRL in the process, where the GPU holds none of it.
LIBRARIES_BYTES = int(0.9 * GIB)
TRL_LOSS_CHUNK = 256  # trl.trainer.sft_trainer: positions whose logits are there at a time
# What the C library keeps of a step's freed tensors, where they are a CPU's, by its activations.
CPU_KEPT = 1.0
# trl.kernels.chunked_logprob, without Triton (trl 1.14 takes less): tokens and words whose logits are there at a time.
TRL_TILE = (4096, 32768)
# What its backward pass makes of each logit: seven numbers in float32 and a byte.
TRL_TILE_BYTES = 7 * 4 + 1
# Where a vocabulary has several whole tiles, processes took so many times one: glibc keeps the freed blocks of each,
# and those of the next do not all fit into them.
TILES_KEPT = 1.65
UNSLOTH_LOSS_BYTES = int(0.1 * GIB)  # its fused loss chooses its pieces by what is free; seen at 8B on an H100
# Linear layers of a Llama that are given the same tensor.
SHARED_INPUTS = {"q_proj": "attention", "k_proj": "attention", "v_proj": "attention"} | {
    "gate_proj": "feed-forward",
    "up_proj": "feed-forward",
}


@dataclass(frozen=True)
class Transformer:
    """The shape of a decoder: names and sizes as in its transformers config.

    Attributes:
        parameters: of the whole model, a tied matrix counted once.
        linears: (in, out) of each linear layer by its name, the head among them.
        whole_logits: its held-out loss needs all logits of a batch at once.
    """

    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    parameters: int
    linears: Mapping[str, tuple[int, int]]
    whole_logits: bool

    def quantised(self) -> list[int]:
        """Parameters of each matrix that 4-bit loading quantises: the linear layers but the head."""
        return [rows * columns for name, (columns, rows) in self.linears.items() if not name.endswith("lm_head")]


@dataclass(frozen=True)
class Longest:
    """Of the rows to train on and of those held out what decides the memory.

    Attributes:
        training, held_out: tokens of the longest one.
        training_rows, held_out_rows: how many there are: no batch has more; infinite where nobody knows.
    """

    training: int
    held_out: int
    training_rows: float = math.inf
    held_out_rows: float = math.inf

    def batch(self, trainer: TrainerConfig, processes: int) -> int:
        """Rows that one of `processes` trains on at a time, at most."""
        size = share_of(trainer, processes).batch_size
        return int(min(size, self.training_rows)) if processes == 1 else size  # blank rows fill up those of several

    def held_out_batch(self, trainer: TrainerConfig) -> int:
        """Held-out rows at a time, at most."""
        return int(min(trainer.eval_batch_size, self.held_out_rows))


@dataclass(frozen=True)
class Setting:
    """What a training runs on, and through what.

    Attributes:
        precision: the arithmetic of the step, chosen.
        weight_bytes: of a frozen weight that is not in 4 bits.
        cuda: a GPU.
        liger: Liger's kernels.
        processes: that share a step's rows; what is planned is the memory of one.
    """

    precision: Precision
    weight_bytes: int
    cuda: bool
    liger: bool
    processes: int = 1


@dataclass(frozen=True)
class Widths:
    """Bytes of a number.

    Attributes:
        matrices: what the frozen matrices make: of the weights' type, or autocast's.
        stream: what goes from layer to layer: what is added to it keeps the wider type, that of the weights.
        adapter: what LoRA's matrices, which are float32, take and make.
    """

    matrices: int
    stream: int
    adapter: int

    @property
    def copied(self) -> bool:
        """Whether frozen matrices are copied to be multiplied, as they are of another type."""
        return self.matrices != self.stream


@dataclass(frozen=True)
class Footprint:
    """Bytes by part.

    Attributes:
        resident: there all the time, by name.
        training: on top of that in a training step, by name.
        evaluation: on top of `resident` while the held-out loss is measured.
    """

    resident: Mapping[str, float]
    training: Mapping[str, float]
    evaluation: float

    def total(self) -> float:
        """Bytes at most."""
        return sum(self.resident.values()) + max(sum(self.training.values()), self.evaluation)

    def gib(self) -> float:
        """GiB at most."""
        return self.total() / GIB


def transformer(config: "PretrainedConfig") -> Transformer:
    """The shape of the model that `config` describes; its weights are not made."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    # By one name, whatever the model calls it: "all-linear" leaves it out.
    linears = {
        "lm_head" if model.get_submodule(name) is head else name: size for name, size in linear_layers(model).items()
    }
    text = config.get_text_config()
    return Transformer(
        layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        intermediate_size=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        heads=text.num_attention_heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        vocab_size=text.vocab_size,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linears=linears,
        whole_logits=any(getattr(config, name, None) for name in HEAD_EXTRAS),
    )


def trainable_parameters(model: Transformer, lora: LoraConfig) -> int:
    """Numbers in the adapter: A (r, in) and B (out, r) of each target, and with DoRA a magnitude per output."""
    return sum(
        lora.r * (columns + rows) + (rows if lora.dora else 0) for _, (columns, rows) in targets(model, lora).items()
    )


def targets(model: Transformer, lora: LoraConfig) -> dict[str, tuple[int, int]]:
    """(in, out) of the linear layers that get an adapter, by name."""
    return {name: size for name, size in model.linears.items() if is_targeted(name, lora.target_modules)}


def estimate(config: RunConfig, model: Transformer, rows: Longest, setting: Setting) -> Footprint:
    """The memory of a training of `config` under `setting`, of each process where there are several."""
    width = widths(setting)
    quantised = config.model.quantization is Quantization.nf4
    trained = trainable_parameters(model, config.lora)
    weights = float(model.parameters * setting.weight_bytes)
    if quantised:
        packed = sum(model.quantised())
        weights = (model.parameters - packed) * setting.weight_bytes + packed * NF4_BYTES
    resident = {
        "weights": weights,
        "adapter": 4.0 * trained,  # in float32, whatever the weights are in
        "workspace" if setting.cuda else "libraries": WORKSPACE_BYTES if setting.cuda else LIBRARIES_BYTES,
    }
    # LoRA's fused layers compute in the weights' own type.
    fused = setting.cuda and not config.lora.dora and setting.weight_bytes == width.adapter
    tokens = rows.batch(config.trainer, setting.processes) * rows.training
    layer = tokens * layer_bytes(config, model, rows.training, width, setting.liger, fused)
    passing = tokens * passing_bytes(config, model, width.matrices)
    if config.trainer.gradient_checkpointing:
        # Unsloth keeps the layers' inputs in the host's memory.
        kept = (
            0
            if config.backend.name is BackendName.unsloth
            else model.layers * tokens * model.hidden_size * width.stream
        )
        activations = kept + layer + passing
    else:
        activations = model.layers * layer + passing
    if width.copied and not quantised:  # each layer keeps the copy of its weights that it multiplied
        kept_layers = 1 if config.trainer.gradient_checkpointing else model.layers
        activations += width.matrices * sum(model.quantised()) / model.layers * kept_layers
    # One at a time is made of its 4-bit numbers.
    unpacked = width.stream * max(model.quantised()) if quantised else 0
    head = width.matrices * model.vocab_size * model.hidden_size if width.copied else 0  # a copy, as of other weights
    training = {
        "gradients": 4.0 * trained,
        "optimizer": optimizer_bytes(config.optimizer.name) * trained,
        "activations": activations + unpacked,
        "logits": head + loss_bytes(config, model, tokens, width, setting),
    }
    if not setting.cuda:
        training["freed and kept"] = CPU_KEPT * activations
    asked = rows.held_out_batch(config.trainer) * rows.held_out
    states = asked * (2 * model.hidden_size * width.stream + 3 * model.intermediate_size * width.matrices)
    copied = width.matrices * max(model.quantised()) if width.copied and not quantised else unpacked
    logits = TOKENS_AT_A_TIME * model.vocab_size * (width.matrices + 8)
    if model.whole_logits:
        logits += 2 * asked * model.vocab_size * width.matrices  # what the head gave, and what was made of it
    evaluation = training["optimizer"] + states + max(copied, head + logits)
    return Footprint(resident, training, evaluation)


def widths(setting: Setting) -> Widths:
    """Bytes of the numbers of a training; without autocast a layer computes in the type of its weights."""
    autocast = setting.precision is not Precision.fp32
    matrices, adapter = (2, 2) if autocast else (setting.weight_bytes, 4)
    return Widths(matrices, setting.weight_bytes, adapter)


def layer_bytes(config: RunConfig, model: Transformer, length: int, width: Widths, liger: bool, fused: bool) -> float:
    """Bytes per token that one layer keeps for its backward pass.

    Args:
        length: tokens of a row.
        fused: its LoRA layers keep one copy of an input that several of them have.
    """
    unsloth = config.backend.name is BackendName.unsloth
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    numbers = 2.0 * queries + 2 * keys  # queries, keys, values, output
    numbers += 2 * model.intermediate_size  # gate and up
    adapter = config.lora.r * len(targets(model, config.lora)) / model.layers
    # Without fused kernels a norm keeps its input in float32, and the feed-forward layer its activation as well.
    norms = 2 * model.hidden_size * (width.stream if liger or unsloth else 4)
    if not (liger or unsloth):
        numbers += model.intermediate_size
    if unsloth:
        numbers += queries + 2 * keys  # before their rotation
    shared = fused or unsloth or width.matrices == 4  # else each layer makes a copy of another type
    adapter += adapter_inputs(config, model, width.adapter, shared, recomputed=unsloth)
    scores = 4.0 * model.heads
    if config.model.attention is Attention.eager:
        scores += 2 * model.heads * length * width.matrices
    return numbers * width.matrices + adapter * width.adapter + norms + scores


def adapter_inputs(config: RunConfig, model: Transformer, size: int, shared: bool, recomputed: bool) -> float:
    """Numbers per token that the LoRA matrices of one layer keep of their inputs, after dropout where there is one.

    Args:
        size: bytes of one.
        shared: layers with the same input keep it once.
        recomputed: the feed-forward layer's inner activation is made again in the backward pass.
    """
    inputs: dict[str, float] = {}
    for name, (columns, _) in targets(model, config.lora).items():
        last = name.rpartition(".")[2]
        key = (
            name if not shared or config.lora.dropout else f"{name.rpartition('.')[0]}/{SHARED_INPUTS.get(last, last)}"
        )
        if last == "o_proj" and shared and not config.lora.dropout:
            continue  # attention keeps it anyway
        if last == "down_proj" and recomputed:
            continue
        inputs[key] = columns * (1 + 1 / size if config.lora.dropout else 1)  # and dropout's mask, a byte each
    return sum(inputs.values()) / model.layers


def passing_bytes(config: RunConfig, model: Transformer, size: int) -> float:
    """Bytes per token of what the backward pass of a layer makes and drops again."""
    if config.backend.name is BackendName.unsloth:
        return size * (3 * model.intermediate_size + 2 * model.hidden_size)
    return size * 2 * model.intermediate_size


def loss_bytes(config: RunConfig, model: Transformer, tokens: int, width: Widths, setting: Setting) -> float:
    """Bytes of the logits that are there at a time, and of what the loss keeps of the last layer."""
    last = tokens * model.hidden_size * width.stream
    if not setting.cuda:
        several = model.vocab_size >= 2 * TRL_TILE[1]
        return last + (TILES_KEPT if several else 1) * tile_bytes(model, tokens, width)
    if config.backend.name is BackendName.unsloth:
        return last + UNSLOTH_LOSS_BYTES
    chunk = TRL_LOSS_CHUNK
    if setting.liger:
        # ops/fused_linear_cross_entropy.py: as many rows as make the logits as large as the hidden states
        chunk = 2 ** math.ceil(math.log2(math.ceil(tokens / math.ceil(model.vocab_size / model.hidden_size))))
    return last + min(chunk, tokens) * model.vocab_size * (width.matrices + 4)


def tile_bytes(model: Transformer, tokens: int, width: Widths) -> float:
    """Bytes of one tile of the logits on a CPU, and of all that its backward pass makes of it."""
    most, words = TRL_TILE
    return min(tokens, most) * min(model.vocab_size, words) * (width.matrices + TRL_TILE_BYTES)


def optimizer_bytes(name: OptimizerName) -> float:
    """Bytes that the optimizer keeps per trained parameter: its moments, in one byte each where it is of 8 bits."""
    kind = name.name
    if kind == "sgd" or kind == "adafactor":
        return 0.0
    moments = 3 if "ademamix" in kind else 1 if re.search("lion|adagrad|rmsprop", kind) else 2
    return moments * (1.0 if "8bit" in kind else 4.0)
