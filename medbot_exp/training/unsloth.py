"""Unsloth (https://github.com/unslothai/unsloth): fused kernels for the training step of Llama-like models on a GPU.

Its import changes transformers, peft and trl for the whole process, so `begin` comes before all of them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbot_exp import lora, model
from medbot_exp.config import ModelConfig, Quantization, RunConfig
from medbot_exp.errors import ConfigError, MedbotError, ModelError, first_line, resource_error

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def begin(cache_dir: Path) -> None:
    """Import Unsloth; what it compiles goes below `cache_dir`, not into the working directory.

    Raises:
        ConfigError: it does not load here.
    """
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(cache_dir / "unsloth"))
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")  # it asks the hub for a file, to be counted
    remedy = 'install the versions of pip install ".[unsloth]", or use backend=peft'
    with wrapped(ConfigError, "backend=unsloth must load", remedy):
        import unsloth  # noqa: F401


@contextmanager
def wrapped(kind: type[MedbotError], rule: str, remedy: str) -> Iterator[None]:
    """Where Unsloth fails in the body, raise a `kind` of `rule` and `remedy`; want of memory or space passes."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MedbotError) or resource_error(error) is not None:
            raise
        raise kind(f"{rule}, but: {type(error).__name__}: {first_line(error)}; {remedy}") from error


def reader(config: RunConfig) -> model.Reader:
    """Reads weights by Unsloth's FastLanguageModel, in the arithmetic of its kernels."""

    def read(wanted: ModelConfig, directory: Path, dtype: "torch.dtype", device: "torch.device") -> "PreTrainedModel":
        from unsloth import FastLanguageModel

        with wrapped(
            ModelError,
            f"{directory} must hold a causal language model that Unsloth knows",
            "backend=peft takes any that transformers knows",
        ):
            loaded, _ = FastLanguageModel.from_pretrained(
                model_name=str(directory),
                max_seq_length=wanted.max_length,
                dtype=dtype,
                load_in_4bit=wanted.quantization is Quantization.nf4,
                device_map={"": device},
                fix_tokenizer=False,
                use_exact_model_name=True,
                use_gradient_checkpointing=checkpointing(config),
                random_state=config.seed,
            )
        return loaded

    return read


def attach(base: "PreTrainedModel", config: RunConfig) -> Any:
    """`base` with the adapter of `config.lora`, its layers run by Unsloth's kernels where they can be.

    Raises:
        ConfigError: a target module that the model does not have.
        ModelError: Unsloth fails at it.
    """
    from unsloth import FastLanguageModel

    lora.check_targets(base, config.lora)
    options = lora.peft_config(config.lora)
    rule = "Unsloth must take the model with the adapter of `lora`"
    with wrapped(ModelError, rule, "use lora=all_linear, or backend=peft"):
        return FastLanguageModel.get_peft_model(
            base,
            r=options.r,
            lora_alpha=options.lora_alpha,
            lora_dropout=options.lora_dropout,
            target_modules=config.lora.target_modules,
            use_rslora=options.use_rslora,
            init_lora_weights=options.init_lora_weights,
            use_gradient_checkpointing=checkpointing(config),
            random_state=config.seed,
        )


def checkpointing(config: RunConfig) -> str | bool:
    """What Unsloth calls our choice: its own kind keeps the activations in the host's memory."""
    return "unsloth" if config.trainer.gradient_checkpointing else False
