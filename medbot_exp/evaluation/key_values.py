"""Keys and values of the tokens so far, kept with room for the next ones. Loads transformers."""

from inspect import signature
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

# Tokens that there is room for behind those that are held, when more is made: a 128th of the copying is left.
ROOM = 128


class RoomyLayer(DynamicLayer):
    """One layer's, in buffers of which `keys` and `values` are the front part.

    transformers' own copies all that it holds for every new token: on a processor that takes as long as the rest of
    the model from about 16 rows on. What attention is given is the same, number by number.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.buffers: dict[str, torch.Tensor] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values, (B, heads, T, width) both, with the new ones behind those that were there."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        self.keys = self.appended("keys", self.keys, length, key_states)
        self.values = self.appended("values", self.values, length, value_states)
        return self.keys, self.values

    def appended(self, name: str, held: torch.Tensor, length: int, more: torch.Tensor) -> torch.Tensor:
        """The `length` tokens of `held`, and `more` behind them."""
        total = length + more.shape[-2]
        buffer = self.buffers.get(name)
        # Where rows were taken out or put in another order, `held` is a tensor of its own.
        if buffer is None or held.data_ptr() != buffer.data_ptr() or total > buffer.shape[-2]:
            buffer = more.new_empty((*more.shape[:2], total + ROOM, more.shape[-1]))
            if length:
                buffer[:, :, :length] = held
            self.buffers[name] = buffer
        buffer[:, :, length:total] = more
        return buffer[:, :, :total]


def roomy_cache(model: Any) -> DynamicCache | None:
    """A cache as `model` makes for itself, with room; None where its own is of another kind (windows, states)."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    takes_one = "past_key_values" in signature(causal.forward).parameters
    if not takes_one or causal.generation_config.cache_implementation is not None:
        return None
    cache = DynamicCache(config=causal.config)
    if not all(type(layer) is DynamicLayer for layer in cache.layers):
        return None
    cache.layers = [RoomyLayer() for _ in cache.layers]
    return cache
