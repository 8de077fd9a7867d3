"""Names and shapes of a Llama's weights from its config.json alone, and of those in safetensors from their headers.

Neither torch nor transformers is loaded, so that a run knows before it begins what would only be missed once its model
is read. Models of another build are left to transformers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medbot_exp.errors import ModelError

Shape = tuple[int, ...]
# By config.json's model_type: those whose layers transformers builds and names as Llama's.
LLAMAS = ("llama", "mistral", "qwen2", "qwen3")
HEADER_SIZE_BYTES = 8  # of a safetensors file: the length of the JSON that follows, little-endian


def linears(config: Mapping[str, Any]) -> dict[str, Shape] | None:
    """(out, in) of each linear layer by its name, the head among them; None for a model of another build."""
    kind = config.get("model_type")
    if kind not in LLAMAS:
        return None
    # transformers has a default of its own for these: 8 or 32 heads of keys, 128 in a head.
    if kind != "llama" and "num_key_value_heads" not in config or kind == "qwen3" and "head_dim" not in config:
        return None
    try:
        hidden, inner, heads = (config[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads"))
        size = config.get("head_dim") or hidden // heads
        keys = (config.get("num_key_value_heads") or heads) * size
        shapes = {
            "self_attn.q_proj": (heads * size, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, heads * size),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        layers = range(config["num_hidden_layers"])
        found: dict[str, Shape] = {
            f"model.layers.{layer}.{name}": shape for layer in layers for name, shape in shapes.items()
        }
        return found | {"lm_head": (config["vocab_size"], hidden)}
    except (KeyError, TypeError, ZeroDivisionError):  # a value that transformers has a default for, or will refuse
        return None


def stored_shapes(path: Path) -> dict[str, Shape]:
    """The shape of each tensor in a safetensors file by its name.

    Raises:
        ModelError: it cannot be read, or is torn: its header is none, or the file is not as long as that says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(HEADER_SIZE_BYTES), "little")
            if length > size - HEADER_SIZE_BYTES:
                raise torn(path, f"its {size} bytes are no header of safetensors")
            header = file.read(length)
    except OSError as error:
        raise torn(path, f"it cannot be read ({error.strerror})") from error
    try:
        tensors = {name: told for name, told in json.loads(header).items() if name != "__metadata__"}
        shapes = {name: tuple(told["shape"]) for name, told in tensors.items()}
        end = max((told["data_offsets"][1] for told in tensors.values()), default=0)
    except (ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
        raise torn(path, "its header is none of safetensors") from error
    whole = HEADER_SIZE_BYTES + length + end
    if size != whole:
        raise torn(path, f"it has {size} bytes, and {whole} by its header")
    return shapes


def torn(path: Path, reason: str) -> ModelError:
    """The error for a safetensors file that is not whole."""
    return ModelError(f"weights must be whole safetensors, but {path} is not: {reason}; copy that file again")


def misfit(config: Mapping[str, Any], stored: Mapping[str, Shape]) -> str | None:
    """What the `stored` shapes lack of those that `config` asks for; None where nothing is known to be wrong."""
    expected = linears(config)
    if expected is None or "quantization_config" in config:  # stored in another form
        return None
    expected |= {"model.embed_tokens": (config["vocab_size"], config["hidden_size"])}
    accepted = {name: keys_of(name) for name in expected}
    if config.get("tie_word_embeddings") is not False:
        # One matrix, under either name: safetensors' save_model keeps the one that is first in the alphabet.
        del expected["lm_head"]
        accepted["model.embed_tokens"] += ("lm_head.weight",)
    names = {name: next((key for key in accepted[name] if key in stored), None) for name in expected}
    absent = [keys_of(name)[0] for name, key in names.items() if key is None]
    if absent:
        return f"has none for {', '.join(absent[:3])} ({len(absent)} of {len(expected)} are missing)"
    for name, key in names.items():
        if key is not None and stored[key] != expected[name]:
            return f"has {key} of {stored[key]}, and config.json wants {expected[name]}"
    return None


def keys_of(name: str) -> tuple[str, ...]:
    """What the weight of the module `name` may be called in a file; what AutoModel saved, no head, has no prefix."""
    return f"{name}.weight", f"{name.removeprefix('model.')}.weight"
