"""The models whose memory was measured, and a run on one of them."""

from collections.abc import Callable

import pytest
from gpu import SHAPES
from transformers import LlamaConfig

from medbot_exp.config import RunConfig
from medbot_exp.training import footprint

MODULES = "lora.target_modules=[q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj]"


@pytest.fixture(scope="session")
def shapes() -> dict[str, footprint.Transformer]:
    """Two Llamas by what they are called, of true shapes."""
    return {name: footprint.transformer(LlamaConfig(**shape)) for name, shape in SHAPES.items()}


@pytest.fixture
def recipe(compose: Callable[..., RunConfig]) -> Callable[..., RunConfig]:
    """recipe(*overrides): LoRA of rank 16 with 8-bit AdamW on a model of one's own."""

    def composed(*overrides: str) -> RunConfig:
        return compose("model=directory", "model.path=model", "optimizer=adamw_8bit", "lora.r=16", MODULES, *overrides)

    return composed
