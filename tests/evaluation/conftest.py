"""A two-layer Llama with random weights, and its tokenizer."""

import pytest
import torch
from omegaconf import OmegaConf

from medbot_exp.config import ModelConfig, conf_directory
from medbot_exp.model import byte_tokenizer, load


@pytest.fixture(scope="session")
def tokenizer():
    """One token per byte."""
    return byte_tokenizer()


@pytest.fixture
def model(tmp_path):
    """The model of model=tiny, its layers louder; fresh, so that a test may change its mode or weights."""
    chosen = OmegaConf.load(conf_directory() / "model" / "tiny.yaml")
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), chosen))
    assert isinstance(config, ModelConfig)
    model = load(config, tmp_path, torch.device("cpu")).model.eval()
    # Fresh weights are so small that the next token hardly depends on any but the last: a wrong mask would not show.
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            if parameter.dim() == 2:
                parameter.mul_(12)
    return model
