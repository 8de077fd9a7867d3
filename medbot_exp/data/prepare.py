"""Examples become tokenised rows, once: the same rows for every engine, cached by what they depend on."""

import hashlib
import json
import logging
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from medbot_exp.config import DataConfig, LossOn, PromptConfig, Truncation
from medbot_exp.data.example import Example, fingerprint
from medbot_exp.errors import DataError
from medbot_exp.prompt import completion_tokens, prompt_tokens, render
from medbot_exp.whole_files import write_text

log = logging.getLogger(__name__)

# Part of every cache key: raise it when the same inputs give other rows.
FORMAT = 1


@dataclass(frozen=True)
class TokenizedRows:
    """Rows ready for training.

    Attributes:
        input_ids: per row, the tokens of prompt and completion; the last one is the end token.
        completion_mask: per row, 1 where a token counts for the loss.
        fingerprint: sha256 of the rows themselves, as 64 hex digits.
        dropped, shortened: rows that truncation took out or whose reasoning it cut.
        from_cache: whether they were tokenised by an earlier run.
    """

    input_ids: list[list[int]]
    completion_mask: list[list[int]]
    dropped: int
    shortened: int
    from_cache: bool

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for ids, mask in zip(self.input_ids, self.completion_mask, strict=True):
            digest.update(array("q", [len(ids), *ids, *mask]).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.input_ids)


def tokenize(
    part: str,
    examples: Sequence[Example],
    shots: Sequence[Example],
    prompt: PromptConfig,
    data: DataConfig,
    max_length: int,
    tokenizer: Any,
    cache_dir: Path,
) -> TokenizedRows:
    """The rows of `examples`, from the cache where an earlier run left them.

    Args:
        part: what to call the rows in messages.
        max_length: tokens of prompt, completion and end token together.

    Raises:
        DataError: truncation leaves no row, or `data.on_too_long=error` meets a long one.
    """
    key = cache_key(examples, shots, prompt, data.on_too_long, max_length, tokenizer)
    path = cache_dir / "tokenized" / f"{key}.json"
    rows = read_cache(path)
    if rows is None:
        rows = tokenize_now(examples, shots, prompt, data.on_too_long, max_length, tokenizer)
        write_cache(path, rows)
    if not len(rows):
        policy = data.on_too_long
        shortest = min(least_tokens(example, shots, prompt, policy, tokenizer) for example in examples)
        shortens = prompt.reasoning and policy is not Truncation.shorten_reasoning
        raise DataError(
            f"at least one {part} row must fit, but model.max_length={max_length} tokens left none of "
            f"{len(examples)}\nThe shortest has {shortest}: raise model.max_length"
            + (", or use data.on_too_long=shorten_reasoning" if shortens else "")
        )
    log.info(
        "%s: %d %s, %d tokens%s%s%s",
        part,
        len(rows),
        "row" if len(rows) == 1 else "rows",
        sum(map(len, rows.input_ids)),
        f", {rows.dropped} dropped as longer than model.max_length={max_length}" if rows.dropped else "",
        f", {rows.shortened} with shortened reasoning" if rows.shortened else "",
        " (tokenised before)" if rows.from_cache else "",
    )
    return rows


def tokenize_now(
    examples: Sequence[Example],
    shots: Sequence[Example],
    prompt: PromptConfig,
    on_too_long: Truncation,
    max_length: int,
    tokenizer: Any,
) -> TokenizedRows:
    """Tokenise every example; the end token and the answer always stay whole."""
    input_ids, completion_mask, dropped, shortened = [], [], 0, 0
    for example in examples:
        head, tail = token_parts(example, shots, prompt, tokenizer)
        excess = len(head) + len(tail) - max_length
        if excess > 0 and on_too_long is Truncation.error:
            raise DataError(
                f"every row must fit, but {example.id!r} has {max_length + excess} tokens and "
                f"model.max_length={max_length}\nRaise it, or use data.on_too_long=shorten_reasoning"
            )
        if excess > 0 and on_too_long is Truncation.shorten_reasoning and prompt.reasoning:
            tail = shorten(example, excess, shots, prompt, tokenizer)
            shortened += bool(tail)
        elif excess > 0:
            tail = []
        if not tail:
            dropped += 1
            continue
        input_ids.append(head + tail)
        counted = 1 if prompt.loss_on is LossOn.all else 0
        completion_mask.append([counted] * len(head) + [1] * len(tail))
    return TokenizedRows(input_ids, completion_mask, dropped, shortened, from_cache=False)


def token_parts(
    example: Example, shots: Sequence[Example], prompt: PromptConfig, tokenizer: Any
) -> tuple[list[int], list[int]]:
    """Tokens of the prompt, and of the completion with its end token."""
    rendered = render(example, shots, prompt, tokenizer)
    head = prompt_tokens(rendered.prompt, prompt, tokenizer)
    return head, [*completion_tokens(rendered.completion, tokenizer), tokenizer.eos_token_id]


def shorten(example: Example, excess: int, shots: Sequence[Example], prompt: PromptConfig, tokenizer: Any) -> list[int]:
    """The completion with `excess` tokens less of reasoning, or more, cut at its end; empty where it has too few."""
    reasoning = completion_tokens(example.reasoning, tokenizer)
    wanted = len(token_parts(example, shots, prompt, tokenizer)[1]) - excess
    # Cut text may tokenise to a token more at the seam, so cut until the whole fits.
    for keep in range(len(reasoning) - excess, 0, -1):
        text = tokenizer.decode(reasoning[:keep], skip_special_tokens=True)
        cut = replace(example, reasoning=text.rstrip("\ufffd").strip())  # a character may be cut in its middle
        tail = token_parts(cut, shots, prompt, tokenizer)[1]
        if len(tail) <= wanted:
            return tail
    return []


def least_tokens(
    example: Example, shots: Sequence[Example], prompt: PromptConfig, on_too_long: Truncation, tokenizer: Any
) -> int:
    """The shortest that `example` can get: whole, or with a token of its reasoning left."""
    whole = sum(map(len, token_parts(example, shots, prompt, tokenizer)))
    if on_too_long is not Truncation.shorten_reasoning or not prompt.reasoning:
        return whole
    return whole - max(len(completion_tokens(example.reasoning, tokenizer)) - 1, 0)


def cache_key(
    examples: Sequence[Example],
    shots: Sequence[Example],
    prompt: PromptConfig,
    on_too_long: Truncation,
    max_length: int,
    tokenizer: Any,
) -> str:
    """sha256 of everything that the rows depend on."""
    parts = {
        "format": FORMAT,
        "examples": fingerprint(examples),
        "shots": fingerprint(shots),
        "prompt": {**asdict(prompt), "name": None, "loss_on": prompt.loss_on.name},
        "on_too_long": on_too_long.name,
        "max_length": max_length,
        "tokenizer": tokenizer_fingerprint(tokenizer),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """sha256 of vocabulary, merges, special tokens and chat template."""
    parts = [
        tokenizer.backend_tokenizer.to_str(),
        str(tokenizer.chat_template),
        json.dumps(tokenizer.special_tokens_map),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_cache(path: Path) -> TokenizedRows | None:
    """The rows at `path`; None where there are none, or not whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return TokenizedRows(**content, from_cache=True)


def write_cache(path: Path, rows: TokenizedRows) -> None:
    """Keep `rows` for the next run, whole or not at all."""
    content = {name: getattr(rows, name) for name in ("input_ids", "completion_mask", "dropped", "shortened")}
    write_text(path, json.dumps(content, separators=(",", ":")))
