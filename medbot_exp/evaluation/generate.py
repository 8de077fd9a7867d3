"""Replies in writing: batched, greedy or sampled, with a budget for the thought."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from medbot_exp.config import BenchmarkConfig, Precision
from medbot_exp.evaluation.score import inference
from medbot_exp.prompt import END_THINK, THINK, slot_tokens


@dataclass(frozen=True)
class Reply:
    """What a model wrote.

    Attributes:
        text: the whole completion, thought included, without the end token.
        forced: the budget ran out inside the thought, so it was closed for the model.
        ended: the model ended by itself.
        tokens: that the model wrote, the end token included; those that closed the thought for it are not its own.
    """

    text: str
    forced: bool
    ended: bool
    tokens: int


@dataclass(frozen=True)
class Budget:
    """How many tokens a model may write.

    Attributes:
        thinking: before a thought that is open is closed for it; 0 where no thought is expected.
        answer: behind that.
        closing: what an open thought is closed with.
    """

    thinking: int
    answer: int
    closing: str = f"\n{END_THINK}\n\n"


@dataclass(frozen=True)
class Decoding:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the likeliest token.
        top_p: the share of the probability that is drawn from.
        seed: of the draws.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Draw from `seed` in the body, and leave the generators as they were."""
        import torch

        with torch.random.fork_rng(enabled=bool(self.temperature)):
            if self.temperature:
                torch.manual_seed(self.seed)
            yield

    def options(self) -> dict[str, Any]:
        """What transformers' `generate` takes."""
        if not self.temperature:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}


GREEDY = Decoding()


class Writer(Protocol):
    """A model that goes on with texts.

    Attributes:
        name: what computes it, with a version where that is none of our dependencies'.
        ends: the tokens that end a reply.
    """

    @property
    def name(self) -> str: ...

    @property
    def ends(self) -> frozenset[int]: ...

    def begin(self) -> None:
        """Get ready; called once it is known that something is to be written."""

    def batch_size(self, benchmark: BenchmarkConfig) -> int:
        """How many replies to `benchmark` it is given at once."""

    def continuations(
        self, prompts: Sequence[Sequence[int]], limit: int, decoding: Decoding
    ) -> list[tuple[list[int], bool]]:
        """Up to `limit` new token ids behind each of `prompts`, to and with an end token, and whether there is one."""


@dataclass(frozen=True)
class Transformers:
    """A model in memory, as transformers runs it."""

    model: Any
    tokenizer: Any
    precision: Precision

    @property
    def name(self) -> str:
        """What computes."""
        return "transformers"

    @property
    def ends(self) -> frozenset[int]:
        """The tokenizer's end token, and those that the checkpoint names (an end of turn)."""
        return end_tokens(self.model.generation_config, self.tokenizer)

    def begin(self) -> None:
        """The model is there."""

    def batch_size(self, benchmark: BenchmarkConfig) -> int:
        """How many replies are written together."""
        return benchmark.batch_size

    def continuations(
        self, prompts: Sequence[Sequence[int]], limit: int, decoding: Decoding
    ) -> list[tuple[list[int], bool]]:
        """As Writer says, all in one batch."""
        return continuations(self.model, self.tokenizer, prompts, limit, self.precision, decoding)


def write_replies(
    writer: Writer,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    thinks: Sequence[bool],
    budget: Budget,
    decoding: Decoding = GREEDY,
) -> list[Reply]:
    """The completion of each of `prompts` (token ids), written together.

    A thought that is open when `budget.thinking` is spent is closed; in any case at most `budget.answer` tokens follow.

    Args:
        thinks: of each, whether its reply begins in a thought even where the model does not open one.
    """
    if not prompts:
        return []
    with decoding.seeded():
        if not budget.thinking:
            written = writer.continuations(prompts, budget.answer, decoding)
            return [reply_of(tokenizer, ids, [], ended) for ids, ended in written]
        thoughts = writer.continuations(prompts, budget.thinking, decoding)
        closing = slot_tokens(budget.closing, tokenizer)
        begun = [
            closing if not ended and is_open(decode(tokenizer, ids), thinking) else []
            for (ids, ended), thinking in zip(thoughts, thinks, strict=True)
        ]
        unfinished = [index for index, (_, ended) in enumerate(thoughts) if not ended]
        contexts = [[*prompts[index], *thoughts[index][0], *begun[index]] for index in unfinished]
        rest = writer.continuations(contexts, budget.answer, decoding) if contexts else []
    finished = dict(zip(unfinished, rest, strict=True))
    replies = []
    for index, (ids, ended) in enumerate(thoughts):
        more, ended = finished.get(index, ([], ended))
        replies.append(reply_of(tokenizer, ids, begun[index], ended, more))
    return replies


def is_open(text: str, thinking: bool) -> bool:
    """Whether `text` ends inside a thought, which it began in where `thinking`."""
    _, closed, rest = text.rpartition(END_THINK)
    return THINK in rest or (thinking and not closed)


def reply_of(tokenizer: Any, ids: list[int], closing: list[int], ended: bool, more: Sequence[int] = ()) -> Reply:
    """The reply of `ids`, a thought closed for the model with `closing`, and what it wrote behind that."""
    return Reply(decode(tokenizer, [*ids, *closing, *more]), bool(closing), ended, len(ids) + len(more))


def continuations(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    limit: int,
    precision: Precision,
    decoding: Decoding,
) -> list[tuple[list[int], bool]]:
    """Up to `limit` new token ids behind each prompt, to and with an end token, and whether there is one.

    Prompts are padded on the left.
    """
    import torch

    width = max(map(len, prompts))
    ids = torch.tensor([[*[tokenizer.pad_token_id] * (width - len(row)), *row] for row in prompts], device=model.device)
    attention = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=model.device)
    ends = end_tokens(model.generation_config, tokenizer)
    cache = None
    if model.device.type == "cpu" and not decoding.temperature:
        from medbot_exp.evaluation.key_values import roomy_cache

        cache = roomy_cache(model)
    options = {"eos_token_id": sorted(ends), "pad_token_id": tokenizer.pad_token_id, **decoding.options()}
    with inference(model, precision), settings(model, options):
        if cache is not None:
            rows = written_in_halves(model, ids, attention, cache, limit, ends)
        else:
            output = model.generate(input_ids=ids, attention_mask=attention, max_new_tokens=limit)
            rows = output[:, width:].tolist()
    return [until_end(row, ends) for row in rows]


@contextmanager
def settings(model: Any, options: dict[str, Any]) -> Iterator[None]:
    """Have `options` alone apply to `generate` in the body: no penalties or beams that a checkpoint comes with."""
    from transformers import GenerationConfig

    # PEFT hands its own down to the model that it wraps.
    holders = [model, model.get_base_model()] if hasattr(model, "get_base_model") else [model]
    before = [holder.generation_config for holder in holders]
    for holder in holders:
        holder.generation_config = GenerationConfig(**options)
    try:
        yield
    finally:
        for holder, own in zip(holders, before, strict=True):
            holder.generation_config = own


def written_in_halves(
    model: Any, ids: Any, attention: Any, cache: Any, limit: int, ends: frozenset[int]
) -> list[list[int]]:
    """Up to `limit` new token ids behind each row; whenever half of the rows have ended, the others go on alone.

    A processor's time grows with the rows, ended ones among them, while a GPU's hardly does. A draw would be another
    one without the rows that ended, so this is for greedy replies.

    Args:
        ids: (B, T) int64, padded on the left.
        attention: (B, T), 0 where `ids` is padding.
        cache: an empty one of transformers.
    """
    import torch

    written: list[list[int]] = [[] for _ in ids]
    places = torch.arange(len(ids))  # of the rows that go on, among all
    while len(places) and limit:
        half = HalfEnded(ends, len(ids))
        width = ids.shape[1]
        ids = model.generate(
            input_ids=ids,
            attention_mask=attention,
            past_key_values=cache,
            use_cache=True,  # whatever a checkpoint says: each call goes on from it
            max_new_tokens=limit,
            stopping_criteria=[half],
        )
        new = ids[:, width:]
        for place, row in zip(places.tolist(), new.tolist(), strict=True):
            written[place] += row
        limit -= new.shape[1]
        left = (~half.ended).nonzero()[:, 0]
        places, ids = places[left], ids[left]
        attention = torch.cat([attention, attention.new_ones(new.shape)], dim=1)[left]
        cache.batch_select_indices(left)
    return written


class HalfEnded:
    """Stops transformers' `generate` once half of its rows have ended.

    Args:
        ends: the tokens that end a row.
        count: of the rows.

    Attributes:
        ended: (count,) bool.
    """

    def __init__(self, ends: frozenset[int], count: int) -> None:
        import torch

        self.ends = torch.tensor(sorted(ends))
        self.ended = torch.zeros(count, dtype=torch.bool)

    def __call__(self, ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Whether each row is to stop: all or none."""
        self.ended |= (ids[:, -1:] == self.ends).any(1)
        return (2 * self.ended.sum() >= len(self.ended)).expand(len(self.ended))


def end_tokens(generation: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a reply: the tokenizer's, and those that transformers' `generation` config names."""
    named = getattr(generation, "eos_token_id", None)
    others = named if isinstance(named, list) else [] if named is None else [named]
    return frozenset([tokenizer.eos_token_id, *others])


def until_end(ids: list[int], ends: frozenset[int]) -> tuple[list[int], bool]:
    """`ids` up to and with the first of `ends`, and whether there is one."""
    for place, token in enumerate(ids):
        if token in ends:
            return ids[: place + 1], True
    return ids, False


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of `ids` without special tokens."""
    return tokenizer.decode(ids, skip_special_tokens=True).strip()
