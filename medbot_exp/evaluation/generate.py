"""Answers in writing: greedy, batched, with a budget for the reasoning."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medbot_exp.config import Precision
from medbot_exp.evaluation.score import inference
from medbot_exp.prompt import END_THINK, slot_tokens


@dataclass(frozen=True)
class Answer:
    """What a model wrote.

    Attributes:
        text: the whole completion, reasoning included, without the end token.
        forced: the budget ran out inside the reasoning, so `</think>` was put there for the model.
        ended: the model ended by itself.
    """

    text: str
    forced: bool
    ended: bool


def write_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    reasoning: bool,
    thinking_tokens: int,
    answer_tokens: int,
    precision: Precision,
) -> list[Answer]:
    """The greedy completion of each of `prompts` (token ids).

    With `reasoning`, at most `thinking_tokens` pass before `</think>` is forced; then at most
    `answer_tokens` follow. Without, at most `answer_tokens` in all.
    """
    if not prompts:
        return []
    if not reasoning:
        written = continue_greedily(model, tokenizer, prompts, answer_tokens, precision)
        return [Answer(decode(tokenizer, ids), False, tokenizer.eos_token_id in ids) for ids in written]
    thoughts = continue_greedily(model, tokenizer, prompts, thinking_tokens, precision)
    closing = slot_tokens(f"\n{END_THINK}\n\n", tokenizer)
    ended = [tokenizer.eos_token_id in ids for ids in thoughts]
    forced = [not stop and END_THINK not in decode(tokenizer, ids) for ids, stop in zip(thoughts, ended, strict=True)]
    begun = [[*ids, *closing] if force else list(ids) for ids, force in zip(thoughts, forced, strict=True)]
    unfinished = [index for index, stop in enumerate(ended) if not stop]
    if unfinished:
        contexts = [[*prompts[index], *begun[index]] for index in unfinished]
        rest = continue_greedily(model, tokenizer, contexts, answer_tokens, precision)
        for index, ids in zip(unfinished, rest, strict=True):
            begun[index] += ids
            ended[index] = tokenizer.eos_token_id in ids
    return [Answer(decode(tokenizer, ids), force, stop) for ids, force, stop in zip(begun, forced, ended, strict=True)]


def continue_greedily(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], limit: int, precision: Precision
) -> list[list[int]]:
    """Up to `limit` new token ids behind each prompt, up to and with the end token; padded on the left."""
    import torch

    width = max(map(len, prompts))
    ids = torch.tensor([[*[tokenizer.pad_token_id] * (width - len(row)), *row] for row in prompts], device=model.device)
    attention = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=model.device)
    with inference(model, precision):
        output = model.generate(
            input_ids=ids,
            attention_mask=attention,
            max_new_tokens=limit,
            do_sample=False,
            # The checkpoint's sampling defaults do not apply to greedy decoding; left in, they warn.
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    return [until_end(row, tokenizer.eos_token_id) for row in output[:, width:].tolist()]


def until_end(ids: list[int], end: int) -> list[int]:
    """`ids` up to and with the first `end`."""
    return ids[: ids.index(end) + 1] if end in ids else ids


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of `ids` without special tokens."""
    return tokenizer.decode(ids, skip_special_tokens=True).strip()
