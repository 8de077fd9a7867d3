"""Likelihoods equal those calculated by hand from the whole logits of one row at a time."""

import math
import random

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from medbot_exp.config import LoraConfig, LoraInit, Precision
from medbot_exp.data.prepare import TokenizedRows
from medbot_exp.evaluation.score import choice_log_likelihoods, held_out_loss
from medbot_exp.lora import attach

FP32 = Precision.fp32


def tokenized(input_ids: list[list[int]], completion_mask: list[list[int]]) -> TokenizedRows:
    """Rows as data.prepare makes them."""
    return TokenizedRows(input_ids, completion_mask, 0, 0, from_cache=False)


@pytest.fixture
def rows() -> TokenizedRows:
    """Seven rows of 5 to 41 tokens, the completion between a seventh and all but one token of a row."""
    generator = random.Random(0)
    lengths = (23, 5, 41, 8, 30, 5, 17)
    prompts = (11, 1, 35, 7, 3, 4, 1)
    ids = [[generator.randrange(4, 260) for _ in range(length)] for length in lengths]
    masks = [[0] * head + [1] * (length - head) for length, head in zip(lengths, prompts, strict=True)]
    return tokenized(ids, masks)


def log_probabilities(model, ids: list[int]) -> list[float]:
    """ln p of every token of `ids` but the first, given those before it."""
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].double()
    shares = torch.exp(logits) / torch.exp(logits).sum(-1, keepdim=True)
    return [math.log(shares[position, token]) for position, token in enumerate(ids[1:])]


def loss_by_hand(model, rows: TokenizedRows) -> float:
    """-ln p, averaged over every counted token of every row."""
    counted = [
        -value
        for ids, mask in zip(rows.input_ids, rows.completion_mask, strict=True)
        for value, counts in zip(log_probabilities(model, ids), mask[1:], strict=True)
        if counts
    ]
    return sum(counted) / len(counted)


class TestHeldOutLoss:
    @pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
    def test_equals_the_cross_entropy_by_hand_whatever_the_batch_size(self, model, rows, batch_size):
        assert held_out_loss(model, rows, batch_size, pad_token_id=0, precision=FP32) == pytest.approx(
            loss_by_hand(model, rows), abs=1e-5
        )

    def test_order_of_the_rows_does_not_matter(self, model, rows):
        turned = tokenized(rows.input_ids[::-1], rows.completion_mask[::-1])
        expected = held_out_loss(model, rows, 3, pad_token_id=0, precision=FP32)
        assert held_out_loss(model, turned, 3, pad_token_id=0, precision=FP32) == pytest.approx(expected, abs=1e-6)

    def test_what_fills_the_rows_up_does_not_matter(self, model, rows):
        expected = held_out_loss(model, rows, 7, pad_token_id=0, precision=FP32)
        assert held_out_loss(model, rows, 7, pad_token_id=200, precision=FP32) == pytest.approx(expected, abs=1e-6)

    def test_mask_of_ones_counts_all_but_the_first_token(self, model, rows):
        whole = tokenized(rows.input_ids, [[1] * len(ids) for ids in rows.input_ids])
        values = [value for ids in rows.input_ids for value in log_probabilities(model, ids)]
        assert len(values) == sum(map(len, rows.input_ids)) - len(rows)
        assert held_out_loss(model, whole, 3, pad_token_id=0, precision=FP32) == pytest.approx(
            -sum(values) / len(values), abs=1e-5
        )

    def test_mask_decides_token_by_token(self, model):
        ids = [10, 20, 30, 40, 50, 60]
        values = log_probabilities(model, ids)
        picked = tokenized([ids], [[0, 0, 1, 0, 0, 1]])
        expected = -(values[1] + values[4]) / 2  # values[n] belongs to token n + 1
        assert held_out_loss(model, picked, 1, pad_token_id=0, precision=FP32) == pytest.approx(expected, abs=1e-5)

    def test_equals_what_transformers_calls_the_loss(self, model, rows):
        ids, mask = rows.input_ids[2], rows.completion_mask[2]
        labels = [token if counts else -100 for token, counts in zip(ids, mask, strict=True)]
        with torch.no_grad():
            expected = model(torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()
        assert held_out_loss(model, tokenized([ids], [mask]), 1, pad_token_id=0, precision=FP32) == pytest.approx(
            expected, abs=1e-5
        )

    def test_head_is_given_counted_tokens_alone_and_in_parts(self, model, rows, monkeypatch):
        monkeypatch.setattr("medbot_exp.evaluation.score.TOKENS_AT_A_TIME", 10)
        sizes = []
        model.lm_head.register_forward_hook(lambda module, inputs, output: sizes.append(output[..., 0].numel()))
        held_out_loss(model, rows, 7, pad_token_id=0, precision=FP32)
        assert sum(sizes) == sum(map(sum, rows.completion_mask)) + len(rows)  # and one a row, of the model's own pass
        assert max(sizes) == 10

    def test_holds_for_a_head_that_does_more_than_multiply(self, rows):
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8, "vocab_size": 260}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
        capped = Gemma2ForCausalLM(Gemma2Config(**shape, **heads, final_logit_softcapping=0.5)).eval()
        with torch.no_grad():
            capped.lm_head.weight.mul_(40)  # so that the cap matters
        loss = held_out_loss(capped, rows, 3, pad_token_id=0, precision=FP32)
        assert loss == pytest.approx(loss_by_hand(capped, rows), abs=1e-5)
        capped.config.final_logit_softcapping = None
        assert held_out_loss(capped, rows, 3, pad_token_id=0, precision=FP32) > loss + 0.1


PROMPT = list(b"Which organ makes insulin? ")
OPTIONS = [list(text.encode()) for text in ("The pancreas", "k", "The liver, mostly", "Sp")]
WHOLE = [0] * len(OPTIONS)


class TestChoiceLogLikelihoods:
    def by_hand(self, model, options=OPTIONS) -> list[float]:
        """Prompt and option run together, without a cache; the option's tokens summed."""
        return [sum(log_probabilities(model, [*PROMPT, *option])[-len(option) :]) for option in options]

    def test_equal_scoring_each_option_behind_the_whole_prompt(self, model):
        assert choice_log_likelihoods(model, PROMPT, OPTIONS, WHOLE, FP32) == pytest.approx(
            self.by_hand(model), abs=1e-4
        )

    def test_leave_out_the_tokens_before_each_start(self, model):
        starts = [4, 0, 4, 1]
        expected = [
            sum(log_probabilities(model, [*PROMPT, *option])[len(PROMPT) - 1 + start :])
            for option, start in zip(OPTIONS, starts, strict=True)
        ]
        assert choice_log_likelihoods(model, PROMPT, OPTIONS, starts, FP32) == pytest.approx(expected, abs=1e-4)

    def test_hold_for_options_of_one_token(self, model):
        options = [[65], [66]]
        assert choice_log_likelihoods(model, PROMPT, options, [0] * len(options), FP32) == pytest.approx(
            self.by_hand(model, options), abs=1e-4
        )

    @pytest.mark.parametrize(("options", "lengths"), [(OPTIONS, [27, 4 * 16]), ([[65], [66]], [27])])
    def test_model_is_given_no_more_than_predicts(self, model, options, lengths):
        seen = []
        model.model.register_forward_pre_hook(
            lambda module, args, inputs: seen.append(inputs["input_ids"].numel()), with_kwargs=True
        )
        choice_log_likelihoods(model, PROMPT, options, [0] * len(options), FP32)
        assert seen == lengths  # the prompt, and each option without its last token, filled up to the longest

    def test_options_do_not_see_each_other(self, model):
        together = choice_log_likelihoods(model, PROMPT, OPTIONS, WHOLE, FP32)
        alone = [choice_log_likelihoods(model, PROMPT, [option], [0], FP32)[0] for option in OPTIONS]
        assert together == pytest.approx(alone, abs=1e-4)

    def test_hold_for_an_adapted_model(self, model):
        before = self.by_hand(model)
        adapted = attach(model, LoraConfig(4, 4.0, 0.5, "all-linear", False, False, LoraInit.default)).train()
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        scores = choice_log_likelihoods(
            adapted, PROMPT, OPTIONS, WHOLE, FP32
        )  # dropout of 0.5 must be off while scoring
        assert scores == pytest.approx(self.by_hand(adapted.eval()), abs=1e-4)
        assert scores != pytest.approx(before, abs=1e-2)


class TestMode:
    @pytest.mark.parametrize("training", [True, False])
    def test_is_put_back(self, model, rows, training):
        model.train(training)
        held_out_loss(model, rows, 4, pad_token_id=0, precision=FP32)
        assert model.training is training
        choice_log_likelihoods(model, PROMPT, OPTIONS, WHOLE, FP32)
        assert model.training is training

    def test_is_put_back_after_an_error(self, model):
        model.train()
        with pytest.raises(IndexError):
            held_out_loss(model, tokenized([[4, 5, 100_000]], [[0, 1, 1]]), 1, pad_token_id=0, precision=FP32)
        assert model.training is True

    def test_gradients_are_off_while_scoring_and_on_again_behind_it(self, model, rows):
        held_out_loss(model, rows, 4, pad_token_id=0, precision=FP32)
        assert torch.is_grad_enabled()
        assert all(parameter.grad is None for parameter in model.parameters())
