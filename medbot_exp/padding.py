"""The token that rows are filled up with: another one than the end token.

Were they the same, tools that mask padding by its id would mask the end token as well, and the model would never
learn to stop.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbot_exp.config import ModelConfig
from medbot_exp.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

# How a tokenizer's files name the tokens that have a part of their own.
END, PAD, START, UNKNOWN = "eos_token", "pad_token", "bos_token", "unk_token"


@dataclass(frozen=True)
class Tokens:
    """Of a tokenizer, what decides the token that it can pad with.

    Attributes:
        parts: the tokens that have a part, by END and so on; None where nothing has it.
        special: those that stand for no text.
        vocabulary: every token's id.
    """

    parts: Mapping[str, str | None]
    special: Sequence[str]
    vocabulary: Mapping[str, int]


def set_pad_token(tokenizer: "PreTrainedTokenizerBase", config: ModelConfig) -> None:
    """Give `tokenizer` a pad token that differs from its end token, of those that it has; errors of `choose`."""
    special = [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
    parts = {part: getattr(tokenizer, part) for part in (END, PAD, START, UNKNOWN)}
    chosen = choose(Tokens(parts, special, tokenizer.get_vocab()), config)
    if chosen == tokenizer.pad_token:
        return
    if config.pad_token is None:
        why = "has none of its own" if parts[PAD] is None else "would pad with its end token"
        log.info("rows are padded with %r, as the tokenizer %s", chosen, why)
    tokenizer.pad_token = chosen


def choose(tokens: Tokens, config: ModelConfig) -> str:
    """The token to pad with: the configured one, else the tokenizer's own, else a special one, by its name the best.

    Raises:
        ModelError: no end token, or no token to pad with.
    """
    end, own = tokens.parts[END], tokens.parts[PAD]
    if end is None:
        raise ModelError(
            f"the tokenizer of model={config.name} must have an end token, but has none; "
            "set eos_token in its tokenizer_config.json"
        )
    taken = {end, tokens.parts[START]}
    if config.pad_token is not None:
        if config.pad_token not in tokens.vocabulary or config.pad_token == end:
            raise ModelError(
                f"`model.pad_token` must be a token of the tokenizer and differ from its end token {end!r}, but got "
                f"model.pad_token={config.pad_token!r}; leave it out, or use {candidate(tokens.vocabulary, taken)}"
            )
        return config.pad_token
    if own is not None and own != end:
        return own
    named = [token for token in tokens.special if "pad" in token.lower()]
    reserved = [token for token in tokens.special if "reserved" in token.lower()]
    unknown = [tokens.parts[UNKNOWN]] if tokens.parts[UNKNOWN] else []
    free = [token for token in (*named, *unknown, *reserved, *tokens.special) if token and token not in taken]
    if free:
        return free[0]
    remedy = f"name one that hardly any text has: {candidate(tokens.vocabulary, taken)}"
    if own is None:
        raise ModelError(
            f"the tokenizer of model={config.name} must have a token to pad with, but has neither a pad token nor a "
            f"special one that is free; {remedy}"
        )
    raise ModelError(
        f"the tokenizer of model={config.name} must pad with another token than its end token, which would be masked "
        f"with the padding, so that the model never learns to stop, but pads with {own!r} and has no other special "
        f"token; {remedy}"
    )


def candidate(vocabulary: Mapping[str, int], taken: set[str | None]) -> str:
    """The override that pads with the rarest plain word of `vocabulary`: ids grow as tokens get rarer."""
    words = [token for token in vocabulary if token.isascii() and token.isalpha() and token not in taken]
    return f"model.pad_token={max(words, key=lambda token: vocabulary[token], default='<token>')}"


def check_padding(directory: Path, tokenizer: "Tokenizer", config: ModelConfig) -> None:
    """Raise a ModelError where the tokenizer whose files are in `directory` has nothing to pad with.

    What its class adds without a word in these files is left to `set_pad_token`, which sees all.

    Args:
        tokenizer: that of tokenizer.json there.
    """
    told = json_object(directory / "special_tokens_map.json") | json_object(directory / "tokenizer_config.json")
    parts = {part: content_of(told.get(part)) for part in (END, PAD, START, UNKNOWN)}
    if parts[END] is None:
        return
    special = [token.content for _, token in sorted(tokenizer.get_added_tokens_decoder().items()) if token.special]
    vocabulary = tokenizer.get_vocab()
    for number, content, stands_for_none in told_tokens(told):
        vocabulary.setdefault(content, number)
        if stands_for_none and content not in special:
            special.append(content)
    choose(Tokens(parts, special, vocabulary), config)


def told_tokens(told: Mapping[str, Any]) -> Iterator[tuple[int, str, bool]]:
    """Tokens that tokenizer_config.json adds, or calls special: id (0 where it is not told), text, whether special."""
    decoder = told.get("added_tokens_decoder")
    for number, token in decoder.items() if isinstance(decoder, dict) else ():
        if (content := content_of(token)) is not None and number.isdigit():
            yield int(number), content, bool(token.get("special"))
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = told.get(key) or []
        for token in more.values() if isinstance(more, dict) else more:
            if (content := content_of(token)) is not None:
                yield 0, content, True


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file at `path`; empty where it is not there or is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # what is wrong with the file is told by `model.read_tokenizer`
        return {}
    return content if isinstance(content, dict) else {}


def content_of(token: Any) -> str | None:
    """The text of a token as the files have it: as such, or among its properties."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None
