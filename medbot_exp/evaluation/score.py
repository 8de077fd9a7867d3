"""Likelihoods under a causal language model: of held-out completions, and of the options of a question."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from medbot_exp.config import Precision
from medbot_exp.data.prepare import TokenizedRows
from medbot_exp.device import step_dtype
from medbot_exp.processes import ALONE, Processes

# Likelihoods are summed in float32: with 128,000 words, a third of a gigabyte for as many tokens.
TOKENS_AT_A_TIME = 256
# Keys of a model's config by which its logits are more than its head's product: softcapped, or scaled.
HEAD_EXTRAS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


@contextmanager
def inference(model: Any, precision: Precision) -> Iterator[None]:
    """Evaluation mode without gradients, in the arithmetic of the training step; the model's mode is put back.

    Trainers wrap a model's forward in their own autocast once training begins: without one here, the same
    weights would measure differently before and after.
    """
    import torch

    training = model.training
    # Divided weights are put together in tensors that the next training step uses again: no inference tensors.
    divided = hasattr(model, "unshard")
    without_gradients = torch.no_grad if divided else torch.inference_mode
    model.eval()
    try:
        with (
            without_gradients(),
            torch.autocast(model.device.type, step_dtype(precision), enabled=precision is not Precision.fp32),
        ):
            yield
        if divided:
            # Its root was left whole for a backward pass, and saving would take it apart in the first process alone.
            model.reshard()
    finally:
        model.train(training)


def in_float32(model: Any, precision: Precision) -> bool:
    """Whether `model`, but for weights in 4 bits, and its arithmetic are float32: there is no wider type to try."""
    import torch

    return precision is Precision.fp32 and model.dtype == torch.float32


def held_out_loss(
    model: Any,
    rows: TokenizedRows,
    batch_size: int,
    pad_token_id: int,
    precision: Precision,
    processes: Processes = ALONE,
) -> float:
    """Mean negative log-likelihood per counted token of `rows`, in nats; several processes share the batches.

    The mean is over tokens, not over batches: it does not depend on `batch_size`. Logits are made for counted
    tokens alone, and never for all of a batch at once.
    """
    import torch

    order = sorted(range(len(rows)), key=lambda index: len(rows.input_ids[index]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    total, count = 0.0, 0
    with inference(model, precision):
        for turn in range(0, len(batches), processes.count):
            place = turn + processes.rank
            # Divided weights need a pass in every process: one without a batch repeats the last, uncounted.
            mine, batch = place < len(batches), batches[min(place, len(batches) - 1)]
            ids = pad([rows.input_ids[index] for index in batch], pad_token_id, model.device)
            counted = pad([rows.completion_mask[index] for index in batch], 0, model.device)[:, 1:].bool()
            attention = pad([[1] * len(rows.input_ids[index]) for index in batch], 0, model.device)
            targets = ids[:, 1:][counted]  # nothing comes before the first token, so nothing predicts it
            parts = logits_in_parts(model, ids, attention, counted)
            for logits, wanted in zip(parts, targets.split(TOKENS_AT_A_TIME), strict=True):
                total += mine * torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="sum").item()
            count += mine * len(targets)
    everything, tokens = processes.sums(total, count)
    return everything / tokens


def logits_in_parts(model: Any, ids: Any, attention: Any, counted: Any) -> Iterator[Any]:
    """The logits (TOKENS_AT_A_TIME, V) that predict the `counted` tokens, row by row.

    The head is the dearest layer of a small model, and for a large one the logits of a batch are gigabytes: the model
    makes those of the last position, and what it gave its head is given to it in parts.

    Args:
        ids: (B, T) int64.
        attention: (B, T), 0 where `ids` is padding.
        counted: (B, T - 1) bool, of the tokens from the second on.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    if any(getattr(causal.config, name, None) for name in HEAD_EXTRAS):
        first = int(counted.any(0).nonzero()[0])
        asked = ids.shape[1] - first
        logits = model(input_ids=ids, attention_mask=attention, logits_to_keep=asked, use_cache=False).logits
        yield from logits[:, :-1][counted[:, first:]].split(TOKENS_AT_A_TIME)
        return
    states = []
    hook = causal.get_decoder().register_forward_hook(lambda module, inputs, output: states.append(output[0]))
    try:
        # A number, not positions: Unsloth's forward makes all logits for those.
        model(input_ids=ids, attention_mask=attention, logits_to_keep=1, use_cache=False)
    finally:
        hook.remove()
    head = causal.get_output_embeddings()
    for part in states[0][:, :-1][counted].split(TOKENS_AT_A_TIME):
        yield head(part)


def perplexity(loss: float) -> float:
    """exp of a loss in nats per token; infinite where that leaves the floats."""
    return math.exp(loss) if loss < 700 else math.inf


def held_out_metrics(loss: float) -> dict[str, float]:
    """What a held-out `loss` in nats per token is recorded as: the metrics of medbot_exp.objectives.REPORTED."""
    return {"validation/loss": loss, "validation/perplexity": perplexity(loss)}


def choice_log_likelihoods(
    model: Any, prompt: Sequence[int], options: Sequence[Sequence[int]], starts: Sequence[int], precision: Precision
) -> list[float]:
    """Log-likelihood in nats of each of `options` as the continuation of `prompt`, all given as token ids.

    The prompt runs through the model once; its keys and values serve every option. The last token of an option predicts
    nothing that is asked: where all are single tokens, as letters are, there is no second pass.

    Args:
        starts: per option, the index of its first token that counts; those before it are given.
    """
    import torch

    device = model.device
    ids = pad(options, 0, device)
    valid = pad([[1] * len(option) for option in options], 0, device)
    several = ids.shape[1] > 1
    with inference(model, precision):
        shared = model(input_ids=torch.tensor([prompt], device=device), use_cache=several, logits_to_keep=1)
        # Token i is predicted at position i - 1, the first one at the prompt's end.
        predictions = shared.logits[:, -1:].float().log_softmax(-1).expand(len(options), -1, -1)
        if several:
            cache = repeated(shared.past_key_values, len(options))
            given = torch.ones(len(options), len(prompt), dtype=valid.dtype, device=device)
            attention = torch.cat([given, valid[:, :-1]], dim=1)
            logits = model(
                input_ids=ids[:, :-1], attention_mask=attention, past_key_values=cache, use_cache=True
            ).logits
            predictions = torch.cat([predictions, logits.float().log_softmax(-1)], dim=1)
        scores = predictions.gather(2, ids[..., None])[..., 0]
        counted = valid * (torch.arange(ids.shape[1], device=device) >= torch.tensor(starts, device=device)[:, None])
        return (scores * counted).sum(1).tolist()


def repeated(cache: Any, times: int) -> Any:
    """The keys and values of one row for `times` rows; Unsloth keeps a tuple of tensors per layer."""
    if isinstance(cache, tuple):
        return tuple(tuple(part.repeat_interleave(times, 0) for part in layer) for layer in cache)
    cache.batch_repeat_interleave(times)
    return cache


def pad(rows: Sequence[Sequence[int]], value: int, device: Any) -> Any:
    """(len(rows), longest) int64 tensor of `rows`, filled up with `value` on the right."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], device=device)
