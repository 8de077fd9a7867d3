"""Replies by vLLM, which fills a GPU with as many of them as its memory holds.

Prompts and replies are token ids, so that they are those of transformers, token for token. vLLM's scheduler runs in
our own process: alone there does it go through the same requests in the same order each time.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medbot_exp.config import BenchmarkConfig, Dtype, Engine, Method, Quantization, RunConfig
from medbot_exp.errors import ConfigError, ModelError, first_line
from medbot_exp.evaluation.generate import Decoding, until_end
from medbot_exp.evaluation.paper import Paper
from medbot_exp.lora import adds_to_base
from medbot_exp.model import Located

log = logging.getLogger(__name__)

# The ranks of adapters that vLLM sets memory aside for (vllm/config/lora.py).
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# Read when vLLM is imported. It reports each start to its makers, unless it is told not to.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    # It takes no seeds, so that it would be loaded and not be used.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
}


@dataclass(frozen=True)
class Server:
    """A base model in vLLM, with room for one adapter; it starts when it is first written with.

    Attributes:
        directory: config.json and safetensors.
        dtype: of the weights, by torch's name.
        length: tokens of the longest prompt and reply together.
        rank: of the adapter; None without one.
    """

    directory: Path
    dtype: str
    length: int
    rank: int | None

    @cached_property
    def llm(self) -> Any:
        """The running vllm.LLM.

        Raises:
            ModelError: vLLM cannot serve the model, or there is no memory for it.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        adapters: dict[str, Any] = {}
        if self.rank is not None:
            rank = next(each for each in RANKS if each >= self.rank)
            adapters = {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
        log.info(
            "vLLM %s starts with %s; on a GPU it compiles first, which can take minutes",
            version_of_vllm(),
            self.directory,
        )
        try:
            import vllm

            return vllm.LLM(
                model=str(self.directory),
                dtype=self.dtype,
                max_model_len=self.length,
                skip_tokenizer_init=True,
                generation_config="vllm",  # a checkpoint's own settings do not apply, as with transformers
                use_tqdm_on_load=False,
                **adapters,
            )
        except Exception as error:  # also an ImportError of a build for another torch, and its own assertions
            raise self.refusal(error) from error

    def refusal(self, error: Exception) -> ModelError:
        """The ModelError for an `error` of vLLM's, at its start or in what it computes first with a model."""
        return ModelError(
            f"vLLM must be able to serve {self.directory}, but: {first_line(error)}; "
            "use benchmark.<name>.engine=transformers"
        )


@dataclass(frozen=True)
class Vllm:
    """The model of `server`, with an adapter or without one, as it writes.

    Attributes:
        adapter: a directory in PEFT's format.
        ends: the tokens that end a reply.
    """

    server: Server
    adapter: Path | None
    ends: frozenset[int]

    @property
    def name(self) -> str:
        """What wrote, with its version."""
        return f"vllm {version_of_vllm()}"

    def begin(self) -> None:
        """Have the server started."""
        self.server.llm  # noqa: B018

    def batch_size(self, benchmark: BenchmarkConfig) -> int:
        """How many replies are asked for at once."""
        return benchmark.vllm_batch_size

    def continuations(
        self, prompts: Sequence[Sequence[int]], limit: int, decoding: Decoding
    ) -> list[tuple[list[int], bool]]:
        """As generate.Writer says; each reply is drawn by a seed of its own.

        Raises:
            ModelError: vLLM has no way to compute the model here, which some of its kernels tell as late as this.
        """
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        settings = [
            SamplingParams(
                max_tokens=limit,
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                seed=(decoding.seed + place) % 2**63,
                stop_token_ids=sorted(self.ends),
                detokenize=False,
            )
            for place in range(len(prompts))
        ]
        llm = self.server.llm
        try:
            written = llm.generate(
                [{"prompt_token_ids": list(prompt)} for prompt in prompts],
                settings,
                lora_request=None if self.adapter is None else LoRARequest("adapter", 1, str(self.adapter)),
                use_tqdm=False,
            )
        except (NotImplementedError, RuntimeError, ValueError) as error:
            raise self.server.refusal(error) from error
        return [until_end(list(each.outputs[0].token_ids), self.ends) for each in written]


def version_of_vllm() -> str:
    """The version of the installed package, whichever build of it that is; nothing heavy is imported."""
    return version(packages_distributions()["vllm"][0])


def refuse_without_vllm(benchmarks: Mapping[str, BenchmarkConfig]) -> None:
    """Raise a ConfigError where one of `benchmarks` wants vLLM, which is not installed."""
    wanted = [f"benchmark.{name}.engine=vllm" for name, each in benchmarks.items() if each.engine is Engine.vllm]
    if wanted and find_spec("vllm") is None:
        raise ConfigError(
            f'{" ".join(wanted)} needs the package vllm, which is not installed: pip install "vllm<0.33", '
            "or use engine=transformers"
        )


def answered_by_vllm(
    config: RunConfig, papers: Sequence[Paper], located: Located, on_gpu: bool, tuned: bool
) -> list[Paper]:
    """Those of `papers` whose replies vLLM writes for the model of `config`.

    Args:
        tuned: its adapter is asked as well.

    Raises:
        ConfigError: `engine=vllm` asks for what vLLM cannot do.
    """
    against = obstacle(config, located, on_gpu, tuned)
    installed = find_spec("vllm") is not None
    missing = None if on_gpu else "there is no CUDA GPU"
    missing = missing if installed else 'it is not installed: pip install "vllm<0.33"'
    chosen = []
    for paper in papers:
        engine = paper.benchmark.engine
        if engine is Engine.vllm and against is not None:
            raise ConfigError(
                f"`benchmark.{paper.name}.engine=vllm` needs a model that vLLM can serve, but {against}; "
                f"use benchmark.{paper.name}.engine=transformers"
            )
        if engine is Engine.transformers or paper.benchmark.method is not Method.generate:
            continue
        if engine is Engine.auto and not on_gpu and not installed:
            continue  # nothing speaks for vLLM, so there is nothing to explain
        reason = missing or against if engine is Engine.auto else None
        if reason is None:
            chosen.append(paper)
        else:
            log.info("%s is answered by transformers and not by vLLM: %s", paper.metric, reason)
    return chosen


def obstacle(config: RunConfig, located: Located, on_gpu: bool, tuned: bool) -> str | None:
    """Why vLLM does not give the answers of the model of `config`; None where it does."""
    if located.directory is None:
        return f"model={config.model.name} has no files"
    if config.model.quantization is not Quantization.none:
        return f"model.quantization={config.model.quantization.name} is not what vLLM's own 4-bit weights are"
    if tuned and not adds_to_base(config.lora):
        key = "lora.dora=true" if config.lora.dora else f"lora.init={config.lora.init.name}"
        return f"{key} does more than add to the base weights"
    if tuned and on_gpu and config.model.dtype is Dtype.float32:
        # vllm/lora/ops/triton_ops/lora_expand_op.py; other weights are 16 bits wide on a GPU.
        return "model.dtype=float32 is no type that its kernels for adapters know on a GPU"
    if tuned and config.lora.r > RANKS[-1]:
        return f"lora.r={config.lora.r} is above {RANKS[-1]}"
    return None
