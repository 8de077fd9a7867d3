"""Replies: what ends them, what is forced, and that neighbours in a batch do not matter."""

import functools

import pytest
import torch
from transformers import DynamicCache, GenerationConfig, LlamaConfig, LlamaForCausalLM

from medbot_exp.config import Precision
from medbot_exp.evaluation.generate import Budget, Decoding, Reply, Transformers, write_replies
from medbot_exp.evaluation.key_values import ROOM, roomy_cache
from medbot_exp.lora import attach

END = ""
# Which character follows which. From "q" on the model thinks for ever, from "a" it stops, from "!" it closes
# the block by itself; behind a line break it answers "Y", or for ever "z" behind a tab.
FOLLOWING = {
    "q": "q",
    **{"a": "b", "b": END},
    **{"!": "<", **dict(zip("</think", "/think>", strict=True)), ">": "\n"},
    **{"\n": "Y", "Y": END},
    **{"\t": "z", "z": "z"},
}


def write(model, tokenizer, prompts, thinks, budget, *decoding):
    """The replies of `model`, which is in memory."""
    return write_replies(Transformers(model, tokenizer, Precision.fp32), tokenizer, prompts, thinks, budget, *decoding)


@pytest.fixture(scope="module")
def scripted(tokenizer):
    """A Llama whose next character depends on the last one alone, as FOLLOWING says.

    All its matrices but two are zero, so the last token's one-hot embedding reaches the head, which holds the table.
    """
    size = len(tokenizer)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=size,
            intermediate_size=4,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        for last, following in FOLLOWING.items():
            row = tokenizer.eos_token_id if following == END else tokenizer(following)["input_ids"][0]
            model.lm_head.weight[row, tokenizer(last)["input_ids"][0]] = 1.0
    return model


@pytest.fixture
def ask(scripted, tokenizer):
    """Replies of the scripted model to texts: (text, forced, ended)."""

    def asked(*texts: str, thinks: bool = True, thinking_tokens: int = 20, answer_tokens: int = 6) -> list[tuple]:
        prompts, budget = [tokenizer(text)["input_ids"] for text in texts], Budget(thinking_tokens, answer_tokens)
        replies = write(scripted, tokenizer, prompts, [thinks] * len(texts), budget)
        return [(reply.text, reply.forced, reply.ended) for reply in replies]

    return asked


class TestReasoning:
    @pytest.mark.parametrize("budget", [1, 5, 12])
    def test_spent_budget_forces_the_end_of_the_block_and_an_answer(self, ask, budget):
        assert ask("q", thinking_tokens=budget) == [("q" * budget + "\n</think>\n\nY", True, True)]

    def test_model_that_closes_the_block_itself_is_not_forced(self, ask):
        # </think> takes 8 tokens; the budget ends right behind it, and the answer goes on from there.
        assert ask("!", thinking_tokens=9) == [("</think>\nY", False, True)]

    def test_model_that_ends_inside_the_block_is_left_alone(self, ask):
        assert ask("a") == [("b", False, True)]

    def test_answer_has_its_own_budget(self, ask):
        (answer,) = ask("!", thinking_tokens=9, answer_tokens=2)
        assert answer == ("</think>\nY", False, True)
        (cut,) = ask("!", thinking_tokens=8, answer_tokens=1)  # the line break is all that fits
        assert cut == ("</think>", False, False)

    def test_rows_of_one_batch_go_their_own_ways(self, ask):
        texts = ("a much longer question q", "a", "two words !")
        together = ask(*texts, thinking_tokens=9)
        assert together == [ask(text, thinking_tokens=9)[0] for text in texts]
        assert [forced for _, forced, _ in together] == [True, False, False]


class TestWithoutReasoning:
    def test_budget_of_the_answer_is_all_there_is(self, ask):
        assert ask("\t", thinking_tokens=0, answer_tokens=4) == [("zzzz", False, False)]

    def test_ended_row_stops_while_its_neighbour_goes_on(self, ask):
        answers = ask("a", "long \t", thinking_tokens=0, answer_tokens=5)
        assert answers == [("b", False, True), ("zzzzz", False, False)]

    def test_end_token_is_no_part_of_the_text(self, ask):
        assert ask("b", thinking_tokens=0) == [("", False, True)]


def test_ended_rows_are_no_longer_computed(scripted, tokenizer, monkeypatch):
    widths = []
    forward = scripted.forward

    @functools.wraps(forward)
    def counting(*arguments, **named):
        widths.append(tuple(named["input_ids"].shape))
        return forward(*arguments, **named)

    monkeypatch.setattr(scripted, "forward", counting)
    prompts = [tokenizer(text)["input_ids"] for text in ("a", "long a", "a b", "\t")]
    replies = write(scripted, tokenizer, prompts, [False] * 4, Budget(0, 40))
    assert [(reply.text, reply.ended) for reply in replies] == [("b", True), ("b", True), ("", True), ("z" * 40, False)]
    # The three end with the second token; what the fourth wrote until then is not computed again.
    assert widths == [(4, 6), (4, 1), *[(1, 1)] * 38]


@pytest.mark.parametrize("steps", [1, 40, ROOM + 40])
def test_cache_with_room_holds_what_transformers_own_does(model, steps):
    """Also once rows were taken out, and where there is no more room."""
    own, ours = DynamicCache(config=model.config), roomy_cache(model)
    ids = torch.randint(4, 260, (3, 17), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for step in range(steps):
            one, other = (model(ids, past_key_values=cache, logits_to_keep=1).logits for cache in (own, ours))
            assert torch.equal(one, other)
            ids = one[:, -1].argmax(-1, keepdim=True)
            if step == 20:
                kept = torch.tensor([0, 2])
                ids = ids[kept]
                own.batch_select_indices(kept)
                ours.batch_select_indices(kept)
    assert own.get_seq_length() == ours.get_seq_length() == 16 + steps


def test_cache_is_used_whatever_the_checkpoint_says(model, tokenizer, monkeypatch):
    prompts = [tokenizer("Why?")["input_ids"], tokenizer("What now?")["input_ids"]]
    plain = write(model, tokenizer, prompts, [False] * 2, Budget(0, 8))
    monkeypatch.setattr(model.generation_config, "use_cache", False)
    monkeypatch.setattr(model.config, "use_cache", False)
    assert write(model, tokenizer, prompts, [False] * 2, Budget(0, 8)) == plain


def test_cache_of_another_kind_is_left_to_transformers(model, tokenizer, monkeypatch):
    prompts = [tokenizer(text)["input_ids"] for text in ("Why?", "What now?")]
    plain = write(model, tokenizer, prompts, [False] * 2, Budget(0, 3))
    monkeypatch.setattr(model.generation_config, "cache_implementation", "static")
    assert roomy_cache(model) is None
    assert write(model, tokenizer, prompts, [False] * 2, Budget(0, 3)) == plain
    monkeypatch.setattr(model.generation_config, "cache_implementation", None)
    monkeypatch.setattr(model.config, "sliding_window", 8, raising=False)
    assert roomy_cache(model) is None


@pytest.mark.parametrize("thinking", [12, 0])
def test_batched_equals_one_at_a_time(model, tokenizer, thinking):
    """With attention at work, unlike in the scripted model: padding on the left must be invisible."""
    texts = ("Fever?", "A 54-year-old man has crushing chest pain. What now?", "Häm?", "Why does the patient cough?")
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    budget = Budget(thinking, 8)
    together = write(model, tokenizer, prompts, [True] * len(prompts), budget)
    alone = [write(model, tokenizer, [prompt], [True], budget)[0] for prompt in prompts]
    assert together == alone
    # All prompts end alike: answers that differ show that what stands further back was seen.
    assert len({answer.text for answer in together}) == len(texts)


def test_greedy_answer_is_the_likeliest_token_each_time(model, tokenizer):
    prompt = tokenizer("Why?")["input_ids"]
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(6):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    (answer,) = write(model, tokenizer, [prompt], [False], Budget(0, 6))
    assert answer.text == tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip()


def test_settings_that_a_checkpoint_comes_with_do_not_apply(model, tokenizer, compose):
    prompts = [tokenizer("Why?")["input_ids"]]
    drawn = Decoding(1.0, 0.9, 7)
    before = [write(model, tokenizer, prompts, [False], Budget(0, 12), *each) for each in ((), (drawn,))]
    own = GenerationConfig(
        **{"do_sample": True, "temperature": 100.0, "top_p": 0.9, "top_k": 3, "min_p": 0.5, "num_beams": 2},
        **{"repetition_penalty": 1.8, "no_repeat_ngram_size": 1, "min_new_tokens": 11},
        eos_token_id=model.generation_config.eos_token_id,
    )
    model.generation_config = own
    assert [write(model, tokenizer, prompts, [False], Budget(0, 12), *each) for each in ((), (drawn,))] == before
    assert model.generation_config is own
    adapted = attach(model, compose("lora.r=4").lora)
    assert write(adapted, tokenizer, prompts, [False], Budget(0, 12)) == before[0]
    assert adapted.get_base_model().generation_config is own


def test_no_prompts_give_no_answers(model, tokenizer):
    assert write(model, tokenizer, [], [], Budget(4, 4)) == []


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_put_back(model, tokenizer, training):
    model.train(training)
    write(
        model,
        tokenizer,
        [tokenizer("Why?")["input_ids"]],
        [True],
        Budget(2, 2),
    )
    assert model.training is training


class TestThought:
    def test_reply_that_never_opens_one_goes_on(self, ask):
        assert ask("q", thinks=False, thinking_tokens=5, answer_tokens=3) == [("q" * 8, False, False)]

    def test_its_closing_can_ask_for_the_answer(self, scripted, tokenizer):
        prompt, budget = tokenizer("q")["input_ids"], Budget(2, 4, closing="\n</think>\n\na")
        (reply,) = write(scripted, tokenizer, [prompt], [True], budget)
        assert (reply.text, reply.forced, reply.ended) == ("qq\n</think>\n\nab", True, True)
        assert reply.tokens == 4  # q, q, b and the end


def test_every_end_token_of_the_checkpoint_ends_a_reply(scripted, tokenizer):
    prompt = tokenizer("q")["input_ids"]
    scripted.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer("q")["input_ids"][0]]
    (reply,) = write(scripted, tokenizer, [prompt], [False], Budget(0, 5))
    scripted.generation_config.eos_token_id = tokenizer.eos_token_id
    assert reply == Reply("q", forced=False, ended=True, tokens=1)


def test_sampled_replies_follow_from_the_seed(model, tokenizer):
    prompts = [tokenizer("Why?")["input_ids"]]
    before = torch.get_rng_state()

    def sampled(seed):
        decoding = Decoding(temperature=1.0, top_p=0.9, seed=seed)
        return write(model, tokenizer, prompts, [False], Budget(0, 20), decoding)

    assert sampled(1) == sampled(1) != sampled(2)
    assert torch.equal(torch.get_rng_state(), before)
