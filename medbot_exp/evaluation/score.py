"""Likelihoods under a causal language model: of held-out completions, and of the options of a question."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from medbot_exp.data.prepare import TokenizedRows


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """Evaluation mode without gradients; the model's mode is put back."""
    import torch

    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def held_out_loss(model: Any, rows: TokenizedRows, batch_size: int, pad_token_id: int) -> float:
    """Mean negative log-likelihood per counted token of `rows`, in nats.

    The mean is over tokens, not over batches: it does not depend on `batch_size`. Logits are made from
    the first counted position of a batch on, as the head is the dearest layer of a small model.
    """
    import torch

    order = sorted(range(len(rows)), key=lambda index: len(rows.input_ids[index]))
    total, count = 0.0, 0
    with inference(model):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            ids = pad([rows.input_ids[index] for index in batch], pad_token_id, model.device)
            counted = pad([rows.completion_mask[index] for index in batch], 0, model.device).bool()
            attention = pad([[1] * len(rows.input_ids[index]) for index in batch], 0, model.device)
            counted[:, 0] = False  # nothing comes before the first token, so nothing predicts it
            first = int(counted.any(0).int().argmax()) - 1
            positions = torch.arange(first, ids.shape[1] - 1, device=ids.device)
            logits = model(input_ids=ids, attention_mask=attention, logits_to_keep=positions, use_cache=False).logits
            kept = counted[:, first + 1 :]
            losses = torch.nn.functional.cross_entropy(logits[kept].float(), ids[:, first + 1 :][kept], reduction="sum")
            total += losses.item()
            count += int(kept.sum())
    return total / count


def perplexity(loss: float) -> float:
    """exp of a loss in nats per token; infinite where that leaves the floats."""
    return math.exp(loss) if loss < 700 else math.inf


def choice_log_likelihoods(model: Any, prompt: Sequence[int], options: Sequence[Sequence[int]]) -> list[float]:
    """Log-likelihood in nats of each of `options` as the continuation of `prompt`, all given as token ids.

    The prompt runs through the model once; its keys and values serve every option.
    """
    import torch

    device = model.device
    with inference(model):
        shared = model(input_ids=torch.tensor([prompt], device=device), use_cache=True, logits_to_keep=1)
        first = shared.logits[0, -1].float().log_softmax(-1)
        cache = shared.past_key_values
        cache.batch_repeat_interleave(len(options))
        ids = pad(options, 0, device)
        valid = pad([[1] * len(option) for option in options], 0, device)
        attention = torch.cat([torch.ones(len(options), len(prompt), dtype=valid.dtype, device=device), valid], dim=1)
        logits = model(input_ids=ids, attention_mask=attention, past_key_values=cache, use_cache=True).logits
        following = logits[:, :-1].float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        return (first[ids[:, 0]] + (following * valid[:, 1:]).sum(1)).tolist()


def pad(rows: Sequence[Sequence[int]], value: int, device: Any) -> Any:
    """(len(rows), longest) int64 tensor of `rows`, filled up with `value` on the right."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], device=device)
