"""One function for the text that is trained on and the text that is asked with."""

from dataclasses import replace

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from medbot_exp.data.example import Example
from medbot_exp.data.prepare import token_parts
from medbot_exp.errors import ConfigError
from medbot_exp.prompt import answer_tokens, completion_tokens, prompt_tokens, render, slot_tokens

EXAMPLE = Example("1", "What is {x}, in {question} or ≥ 5 {}?", "Think {y}.\nThen decide.", "It is {z}.")
SHOTS = [Example("2", "First?", "Because.", "One."), Example("3", "Second?", "So.", "Two.")]

# As DeepSeek-R1's template does, this one opens the reasoning block in the model's turn.
OPENS_THINK = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)


@pytest.fixture
def prompt(compose):
    """prompt(name, *overrides): the config of that prompt."""
    return lambda name, *overrides: compose(f"prompt={name}", *overrides).prompt


def test_medbot_is_instruction_question_reasoning_and_answer(prompt, tiny_tokenizer):
    rendered = render(EXAMPLE, [], prompt("medbot"), tiny_tokenizer)
    assert rendered.prompt == (
        "You are a careful physician. Think step by step, then give the final answer.\n\n"
        "### Question\nWhat is {x}, in {question} or ≥ 5 {}?\n\n### Response\n"
    )
    assert rendered.completion == "<think>\nThink {y}.\nThen decide.\n</think>\n\nIt is {z}."


def test_direct_has_no_reasoning(prompt, tiny_tokenizer):
    rendered = render(EXAMPLE, [], prompt("direct"), tiny_tokenizer)
    assert rendered.prompt == "### Question\nWhat is {x}, in {question} or ≥ 5 {}?\n\n### Answer\n"
    assert (rendered.answer_slot, rendered.completion) == ("", "It is {z}.")


def test_chat_is_the_tokenizers_own_template(prompt, tiny_tokenizer):
    rendered = render(EXAMPLE, [], prompt("chat"), tiny_tokenizer)
    assert rendered.prompt == "<|user|>What is {x}, in {question} or ≥ 5 {}?<|end|><|assistant|>"
    assert rendered.completion == "<think>\nThink {y}.\nThen decide.\n</think>\n\nIt is {z}."


def test_template_may_hold_braces_of_its_own(prompt, tiny_tokenizer):
    config = replace(prompt("direct"), template='{"ask": "{question}", "n": {}}')
    assert render(EXAMPLE, [], config, tiny_tokenizer).prompt == '{"ask": "' + EXAMPLE.question + '", "n": {}}'


@pytest.mark.parametrize("name", ["medbot", "direct", "chat"])
def test_shots_come_whole_and_in_order_in_front_of_the_question(prompt, tiny_tokenizer, name):
    config = prompt(name)
    alone = render(EXAMPLE, [], config, tiny_tokenizer)
    behind = render(EXAMPLE, SHOTS, config, tiny_tokenizer)
    gap = "<|end|>" if name == "chat" else "\n\n"
    worked = ""
    for shot in SHOTS:
        single = render(shot, [], config, tiny_tokenizer)
        worked += single.prompt + single.completion + gap
    assert behind.prompt == worked + alone.prompt
    assert (behind.answer_slot, behind.completion) == (alone.answer_slot, alone.completion)


@pytest.mark.parametrize("shots", [[], SHOTS], ids=["no shots", "two shots"])
@pytest.mark.parametrize("name", ["medbot", "direct", "chat"])
def test_asking_text_is_a_prefix_of_the_training_text(prompt, tiny_tokenizer, name, shots):
    """As text and as tokens; the place of the answer too, as what a row without reasoning is trained on."""
    config = prompt(name)
    silent = Example(EXAMPLE.id, EXAMPLE.question, "", EXAMPLE.answer)
    for example, asked_with_slot in ((EXAMPLE, False), (silent, True)):
        head, tail = token_parts(example, shots, config, tiny_tokenizer)
        rendered = render(example, shots, config, tiny_tokenizer)
        asked = rendered.prompt + (rendered.answer_slot if asked_with_slot else "")
        trained = tiny_tokenizer.decode(head + tail)
        assert trained.startswith(asked)
        assert (
            prompt_tokens(asked, config, tiny_tokenizer)
            == (head + tail)[: len(prompt_tokens(asked, config, tiny_tokenizer))]
        )
        if asked_with_slot:
            assert trained == asked + example.answer + "<|end|>"


def test_template_that_opens_the_reasoning_itself_gets_no_second_opening(prompt, tiny_tokenizer):
    tiny_tokenizer.chat_template = OPENS_THINK
    rendered = render(EXAMPLE, [], prompt("chat"), tiny_tokenizer)
    assert rendered.prompt.endswith("<|assistant|><think>\n")
    assert rendered.completion == "Think {y}.\nThen decide.\n</think>\n\nIt is {z}."
    assert (rendered.prompt + rendered.answer_slot).endswith("<|assistant|><think>\n\n</think>\n\n")


def test_answer_without_reasoning_is_trained_where_it_is_asked_for(prompt, tiny_tokenizer):
    tiny_tokenizer.chat_template = OPENS_THINK
    rendered = render(EXAMPLE, [], prompt("chat", "prompt.reasoning=false"), tiny_tokenizer)
    assert rendered.prompt + rendered.completion == rendered.prompt + rendered.answer_slot + EXAMPLE.answer


def test_chat_without_a_template_is_refused_with_a_prompt_that_works(prompt, tiny_tokenizer):
    tiny_tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="prompt=chat needs a tokenizer with a chat template.*prompt=medbot"):
        render(EXAMPLE, [], prompt("chat"), tiny_tokenizer)
    assert render(EXAMPLE, [], prompt("medbot"), tiny_tokenizer).prompt


@pytest.mark.parametrize("name", ["medbot", "chat"])
def test_beginning_of_text_is_there_once(prompt, tiny_tokenizer, name):
    """A Llama tokenizer puts it in front by itself, and its chat template writes it as well."""
    from tokenizers.processors import TemplateProcessing

    begin = tiny_tokenizer.convert_tokens_to_ids("<|pad|>")
    tiny_tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|pad|> $A", special_tokens=[("<|pad|>", begin)]
    )
    tiny_tokenizer.chat_template = "<|pad|>" + tiny_tokenizer.chat_template
    config = prompt(name)
    rendered = render(EXAMPLE, [], config, tiny_tokenizer)
    tokens = prompt_tokens(rendered.prompt, config, tiny_tokenizer)
    assert (tokens[0], tokens.count(begin)) == (begin, 1)
    assert begin not in completion_tokens(rendered.completion, tiny_tokenizer)


@pytest.fixture(scope="module")
def merging_tokenizer():
    """Byte-level BPE as real models have it: two line breaks at an end are one token, before a word they are two."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(["<think>\n\n</think>\n\n", "The answer is no.\n\n"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_slot_tokenised_alone_would_end_in_other_tokens(merging_tokenizer):
    slot = "<think>\n\n</think>\n\n"
    assert completion_tokens(slot, merging_tokenizer) != slot_tokens(slot, merging_tokenizer)
    assert merging_tokenizer.decode(slot_tokens(slot, merging_tokenizer)) == slot


@pytest.mark.parametrize("answer", ["It is {z}.", "no", "  spaced", "Ärzte", "<b>"])
def test_model_is_asked_in_the_tokens_that_it_is_trained_on(prompt, merging_tokenizer, answer):
    example = replace(EXAMPLE, reasoning="", answer=answer)
    rendered = render(example, SHOTS, prompt("medbot"), merging_tokenizer)
    ids, before = answer_tokens(rendered.answer_slot, answer, merging_tokenizer)
    assert ids == completion_tokens(rendered.completion, merging_tokenizer)
    assert merging_tokenizer.decode(ids[before:]) == answer
    reasoned = completion_tokens(render(EXAMPLE, [], prompt("medbot"), merging_tokenizer).completion, merging_tokenizer)
    closing = slot_tokens("\n</think>\n\n", merging_tokenizer)
    assert any(reasoned[start : start + len(closing)] == closing for start in range(len(reasoned)))
