"""Tokenised rows: what counts for the loss, what truncation may cut, and when the cache answers."""

import json
import re
from dataclasses import replace

import pytest

from medbot_exp.config import LossOn, Truncation
from medbot_exp.data.example import Example
from medbot_exp.data.prepare import cache_key, tokenize
from medbot_exp.errors import DataError
from medbot_exp.prompt import render

SHORT = Example("short", "Q?", "r" * 20, "Answer.")
LONG = Example("long", "Q?", "abcdefghij" * 20, "Answer.")
HUGE = Example("huge", "Q" * 500, "r", "Answer.")
NO_LIMIT = 10_000


@pytest.fixture
def rows_of(compose, tiny_tokenizer, tmp_path):
    """rows_of(examples, prompt="medbot", policy, max_length, shots, loss_on): the tokenised rows."""

    def tokenized(
        examples, prompt="medbot", policy=Truncation.drop, max_length=NO_LIMIT, shots=(), loss_on=LossOn.completion
    ):
        config = compose("data=file", "data.path=rows.csv", f"prompt={prompt}")
        return tokenize(
            "train",
            examples,
            shots,
            replace(config.prompt, loss_on=loss_on),
            replace(config.data, on_too_long=policy),
            max_length,
            tiny_tokenizer,
            tmp_path / "cache",
        )

    return tokenized


@pytest.fixture
def length(compose, tiny_tokenizer):
    """length(example): its tokens by hand, a byte each and one for the end."""

    def counted(example):
        rendered = render(example, [], compose().prompt, tiny_tokenizer)
        return len(rendered.prompt.encode()) + len(rendered.completion.encode()) + 1

    return counted


@pytest.mark.parametrize("prompt", ["medbot", "direct", "chat"])
def test_mask_marks_the_completion_and_the_end_token(rows_of, tiny_tokenizer, compose, prompt):
    (ids,), (mask,) = (rows := rows_of([SHORT], prompt)).input_ids, rows.completion_mask
    rendered = render(SHORT, [], compose(f"prompt={prompt}").prompt, tiny_tokenizer)
    completion = [token for token, counted in zip(ids, mask, strict=True) if counted]
    asked = [token for token, counted in zip(ids, mask, strict=True) if not counted]
    assert tiny_tokenizer.decode(asked) == rendered.prompt
    assert tiny_tokenizer.decode(completion) == rendered.completion + "<|end|>"
    assert mask == sorted(mask)


def test_mask_marks_every_token_where_the_loss_is_on_all(rows_of):
    rows = rows_of([SHORT], loss_on=LossOn.all)
    assert rows.completion_mask == [[1] * len(rows.input_ids[0])]
    assert rows.input_ids == rows_of([SHORT]).input_ids


def test_shots_do_not_count_for_the_loss(rows_of):
    alone, behind = rows_of([SHORT]), rows_of([SHORT], shots=[LONG])
    assert sum(behind.completion_mask[0]) == sum(alone.completion_mask[0])
    assert len(behind.input_ids[0]) > len(alone.input_ids[0])


def test_row_that_just_fits_stays_whole(rows_of, length):
    for policy in Truncation:
        rows = rows_of([LONG], policy=policy, max_length=length(LONG))
        assert (len(rows.input_ids[0]), rows.dropped, rows.shortened) == (length(LONG), 0, 0)


def test_drop_takes_out_long_rows_and_counts_them(rows_of, length):
    rows = rows_of([LONG, SHORT, HUGE], policy=Truncation.drop, max_length=length(LONG) - 1)
    assert rows.input_ids == rows_of([SHORT]).input_ids
    assert (rows.dropped, rows.shortened) == (2, 0)


@pytest.mark.parametrize("excess", [1, 7, 150])
def test_shorten_cuts_the_end_of_the_reasoning_and_nothing_else(rows_of, length, tiny_tokenizer, excess):
    rows = rows_of([SHORT, LONG], policy=Truncation.shorten_reasoning, max_length=length(LONG) - excess)
    assert (len(rows), rows.dropped, rows.shortened) == (2, 0, 1)
    kept = replace(LONG, reasoning=LONG.reasoning[:-excess])
    # A byte is a token, so cutting exactly the excess is possible, and more would be waste.
    assert rows.input_ids == rows_of([SHORT, kept]).input_ids
    assert rows.completion_mask == rows_of([SHORT, kept]).completion_mask


def test_shorten_drops_a_row_whose_question_and_answer_alone_are_too_long(rows_of, length):
    rows = rows_of([HUGE, SHORT], policy=Truncation.shorten_reasoning, max_length=length(SHORT))
    assert (len(rows), rows.dropped, rows.shortened) == (1, 1, 0)


def test_shorten_drops_long_rows_of_a_prompt_without_reasoning(rows_of):
    rows = rows_of([HUGE, SHORT], "direct", Truncation.shorten_reasoning, max_length=200)
    assert (len(rows), rows.dropped, rows.shortened) == (1, 1, 0)


@pytest.mark.parametrize("maximum", range(150, 170))
def test_answer_and_end_are_never_cut(rows_of, tiny_tokenizer, maximum):
    words = replace(LONG, reasoning="Dose ≥ 5 µg, not 3 µg. " * 10, answer="Nächste Gabe: 5 µg")
    rows = rows_of([words], policy=Truncation.shorten_reasoning, max_length=maximum)
    text = tiny_tokenizer.decode(rows.input_ids[0])
    assert len(rows.input_ids[0]) <= maximum
    assert text.endswith("\n</think>\n\nNächste Gabe: 5 µg<|end|>")
    assert words.reasoning.startswith(text.partition("<think>\n")[2].partition("\n</think>")[0])


def test_shortened_reasoning_ends_in_a_whole_character(rows_of, length, tiny_tokenizer):
    emoji = replace(LONG, reasoning="\N{SYRINGE}" * 50)
    rows = rows_of([emoji], policy=Truncation.shorten_reasoning, max_length=length(emoji) - 1)
    assert "\ufffd" not in tiny_tokenizer.decode(rows.input_ids[0])


def test_error_names_the_row_and_both_lengths(rows_of, length):
    with pytest.raises(DataError) as caught:
        rows_of([SHORT, LONG], policy=Truncation.error, max_length=length(LONG) - 1)
    for words in ("'long'", f"{length(LONG)} tokens", f"model.max_length={length(LONG) - 1}", "shorten_reasoning"):
        assert words in str(caught.value)


@pytest.mark.parametrize("policy", [Truncation.drop, Truncation.shorten_reasoning], ids=lambda policy: policy.name)
def test_rows_that_are_all_too_long_end_the_run(rows_of, policy):
    for _ in range(2):  # from the cache too
        with pytest.raises(DataError, match="model.max_length=100 tokens left none of 2") as caught:
            rows_of([HUGE, HUGE], policy=policy, max_length=100)
        shortest = int(re.search(r"The shortest has (\d+): raise model.max_length", str(caught.value))[1])
        assert len(rows_of([HUGE], policy=policy, max_length=shortest)) == 1
        with pytest.raises(DataError, match=f"The shortest has {shortest}:"):
            rows_of([HUGE], policy=policy, max_length=shortest - 1)
        assert ("or use data.on_too_long=" in str(caught.value)) is (policy is Truncation.drop)


def test_second_time_comes_from_the_cache(rows_of, tmp_path):
    first = rows_of([SHORT, LONG, HUGE], policy=Truncation.shorten_reasoning, max_length=300)
    (kept,) = (tmp_path / "cache").rglob("*.json")
    second = rows_of([SHORT, LONG, HUGE], policy=Truncation.shorten_reasoning, max_length=300)
    assert (first.from_cache, second.from_cache) == (False, True)
    assert second == replace(first, from_cache=True)
    # Rows that no tokenizer gives: were they tokenised again, they would not come back.
    content = json.loads(kept.read_text())
    content["input_ids"] = [[1, 2, 3]]
    kept.write_text(json.dumps(content))
    assert rows_of([SHORT, LONG, HUGE], policy=Truncation.shorten_reasoning, max_length=300).input_ids == [[1, 2, 3]]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_torn_cache_file_is_replaced(rows_of, tmp_path, share):
    first = rows_of([SHORT])
    (kept,) = (tmp_path / "cache").rglob("*.json")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: int(share * len(whole))])
    assert rows_of([SHORT]) == first
    assert kept.read_bytes() == whole


def test_cache_key_follows_everything_that_the_rows_depend_on(compose, tiny_tokenizer):
    from medbot_exp.model import byte_tokenizer

    prompt = compose().prompt
    padded, templated = byte_tokenizer(), byte_tokenizer()
    padded.pad_token = "<|user|>"
    templated.chat_template = "{{ messages }}"
    base = {
        "examples": [SHORT, LONG],
        "shots": [],
        "prompt": prompt,
        "on_too_long": Truncation.drop,
        "max_length": 300,
        "tokenizer": tiny_tokenizer,
    }
    variants = [
        {},
        {"examples": [LONG, SHORT]},
        {"examples": [SHORT]},
        {"examples": [SHORT, replace(LONG, reasoning="z")]},
        {"shots": [HUGE]},
        {"prompt": replace(prompt, template="{question}\n")},
        {"prompt": replace(prompt, reasoning=False)},
        {"prompt": replace(prompt, chat=True)},
        {"prompt": replace(prompt, loss_on=LossOn.all)},
        {"on_too_long": Truncation.shorten_reasoning},
        {"max_length": 301},
        {"tokenizer": padded},
        {"tokenizer": templated},
    ]
    keys = [cache_key(**(base | variant)) for variant in variants]
    assert len(set(keys)) == len(keys)
    assert cache_key(**(base | {"tokenizer": byte_tokenizer(), "prompt": replace(prompt)})) == keys[0]
