"""How a question is put and how an answer is written: one function for training and for asking.

`render` gives the text that the model is shown and the text that it is to continue with. Training joins
the two, asking uses the first alone, so the model is never asked in a form that it was not trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medbot_exp.config import PromptConfig
from medbot_exp.data.example import Example
from medbot_exp.errors import ConfigError

THINK, END_THINK = "<think>", "</think>"


@dataclass(frozen=True)
class Rendered:
    """One example in the words of one template.

    Attributes:
        prompt: what the model is shown.
        answer_slot: what follows the prompt where an answer is wanted without reasoning.
        completion: what it is trained to continue with; the end token is added with the tokens.
    """

    prompt: str
    answer_slot: str
    completion: str


def render(example: Example, shots: Sequence[Example], prompt: PromptConfig, tokenizer: Any) -> Rendered:
    """`example` behind `shots` in the template of `prompt`.

    Args:
        tokenizer: a transformers tokenizer; only its chat template is used, and only by `prompt.chat`.

    Raises:
        ConfigError: `prompt.chat` with a tokenizer that has no chat template.
    """
    if prompt.chat:
        text = chat_text(example, shots, prompt, tokenizer)
    else:
        worked = "".join(f"{ask(shot, prompt)}{reply(shot, prompt)}\n\n" for shot in shots)
        text = worked + ask(example, prompt)
    # Some chat templates (DeepSeek-R1's) open the reasoning block themselves.
    opened = text.rstrip().endswith(THINK)
    opener = "" if opened else f"{THINK}\n"
    answer_slot = f"{opener}\n{END_THINK}\n\n" if prompt.reasoning or opened else ""
    if not prompt.reasoning:
        completion = answer_slot + example.answer
    else:
        completion = reply(example, prompt).removeprefix(f"{THINK}\n" if opened else "")
    return Rendered(text, answer_slot, completion)


def ask(example: Example, prompt: PromptConfig) -> str:
    """The question in its template. Not str.format: a question may hold braces of its own."""
    return prompt.template.replace("{question}", example.question)


def reply(example: Example, prompt: PromptConfig) -> str:
    """What the model is to say: reasoning in its tags, where the prompt wants it, and the answer."""
    if not prompt.reasoning:
        return example.answer
    return f"{THINK}\n{example.reasoning}\n{END_THINK}\n\n{example.answer}"


def chat_text(example: Example, shots: Sequence[Example], prompt: PromptConfig, tokenizer: Any) -> str:
    """The conversation up to the model's turn, in the tokenizer's own template."""
    if not tokenizer.chat_template:
        raise ConfigError(
            "prompt=chat needs a tokenizer with a chat template, and this model's has none; use prompt=medbot"
        )
    messages = []
    for shot in shots:
        messages.append({"role": "user", "content": ask(shot, prompt)})
        messages.append({"role": "assistant", "content": reply(shot, prompt)})
    messages.append({"role": "user", "content": ask(example, prompt)})
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def prompt_tokens(text: str, prompt: PromptConfig, tokenizer: Any) -> list[int]:
    """Token ids of a rendered prompt. A chat template writes its own special tokens, so none are added twice."""
    return tokenizer(text, add_special_tokens=not prompt.chat)["input_ids"]


def completion_tokens(text: str, tokenizer: Any) -> list[int]:
    """Token ids of a continuation; tokenised apart, so that the prompt's tokens are those it is asked with."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def answer_tokens(slot: str, answer: str, tokenizer: Any) -> tuple[list[int], int]:
    """Token ids of `answer` behind `slot`, both as one continuation, and how many of them lie before the answer.

    A slot tokenised alone may end in other tokens than the same text before an answer: line breaks at an end
    are one token, before a word they are two. The model is asked in the tokens that it was trained on.
    """
    encoded = tokenizer(slot + answer, add_special_tokens=False, return_offsets_mapping=True)
    before = sum(end <= len(slot) for _, end in encoded["offset_mapping"])
    return encoded["input_ids"], before


def slot_tokens(slot: str, tokenizer: Any) -> list[int]:
    """Token ids of `slot` as they stand before an answer."""
    ids, before = answer_tokens(slot, "The", tokenizer)
    return ids[:before]
