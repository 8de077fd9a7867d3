"""The bundled held-out cases: which they are, and how an option is chosen."""

from collections import Counter
from dataclasses import replace
from string import ascii_lowercase

import pytest
import torch
from omegaconf import OmegaConf

from medbot_exp.config import Precision, PromptConfig, conf_directory
from medbot_exp.data.example import Example
from medbot_exp.errors import ConfigError
from medbot_exp.evaluation.benchmarks.cases import Prediction, accuracy, load, predict, read

OPTIONS = ("β-Blocker", "µ", "Observe, and repeat the blood count in a week", "Aspirin")
ITEM = Example("case-1", "What {now}?", "Think.", "Aspirin", OPTIONS, 3)
SHOT = Example("case-0", "And before?", "Thought.", "Rest", ("Rest", "Run"), 0)


def prompt_config(option: str) -> PromptConfig:
    """conf/prompt/<option>.yaml."""
    chosen = OmegaConf.load(conf_directory() / "prompt" / f"{option}.yaml")
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(PromptConfig), chosen))
    assert isinstance(config, PromptConfig)
    return config


def log_likelihood(model, tokenizer, context: str, option: str) -> float:
    """ln p(option | context) in nats, from the whole logits of the two together."""
    before, ids = tokenizer(context)["input_ids"], tokenizer(context + option)["input_ids"]
    with torch.no_grad():
        shares = model(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
    return sum(shares[position - 1, ids[position]].item() for position in range(len(before), len(ids)))


class TestLoad:
    def test_there_are_45_cases_three_of_each_of_15_specialties(self, benchmark):
        items = load(benchmark("cases", limit=None))
        assert len({item.id for item in items}) == len(items) == 45
        specialties = Counter(item.id.rpartition("-")[0] for item in items)
        assert len(specialties) == 15
        assert set(specialties.values()) == {3}

    def test_every_case_has_four_different_options_and_its_answer_is_the_labelled_one(self, benchmark):
        for item in load(benchmark("cases", limit=None)):
            assert len(set(item.options)) == 4
            assert item.label in range(4)

    def test_labels_are_spread_so_that_no_letter_wins_by_itself(self, benchmark):
        labels = Counter(item.label for item in load(benchmark("cases", limit=None)))
        assert max(labels.values()) <= 45 / 2

    def test_limit_takes_the_first(self, benchmark):
        assert load(benchmark("cases", limit=4)) == load(benchmark("cases", limit=None))[:4]


class TestRead:
    def test_items_are_those_of_load_in_its_order(self, benchmark):
        items, examples = read(benchmark("cases")), load(benchmark("cases", limit=None))
        assert [item.id for item in items] == [example.id for example in examples]
        for item, example in zip(items, examples, strict=True):
            assert (item.question, tuple(item.options.values())) == (example.question, example.options)
            assert "ABCD".index(item.label) == example.label

    def test_specialty_is_the_group(self, benchmark):
        assert all(item.id == f"{item.group}-{item.id[-2:]}" for item in read(benchmark("cases")))

    def test_training_part_can_be_read_and_no_other(self, benchmark):
        assert len(read(benchmark("cases", split="train"))) == 135
        with pytest.raises(
            ConfigError, match="`benchmark.cases.split` must be one of train, validation, but got .*=test"
        ):
            read(benchmark("cases", split="test"))

    @pytest.mark.parametrize("change", [{"path": "cases.jsonl"}, {"hub": "someone/cases"}])
    def test_another_place_is_refused(self, benchmark, change):
        with pytest.raises(ConfigError, match="the cases are in the package, but got benchmark.cases.path="):
            read(benchmark("cases", **change))


class TestPredict:
    def test_score_is_the_log_likelihood_per_byte_behind_an_empty_block(self, model, tokenizer):
        (prediction,) = predict(model, tokenizer, [ITEM], [], prompt_config("medbot"), Precision.fp32)
        context = (
            "You are a careful physician. Think step by step, then give the final answer.\n\n"
            "### Question\nWhat {now}?\n\n### Response\n<think>\n\n</think>\n\n"
        )
        # β and µ have two bytes each.
        expected = [
            log_likelihood(model, tokenizer, context, option) / size
            for option, size in zip(OPTIONS, (10, 2, 45, 7), strict=True)
        ]
        assert prediction.log_likelihoods == pytest.approx(expected, abs=1e-4)

    def test_direct_prompt_has_no_block(self, model, tokenizer):
        (prediction,) = predict(model, tokenizer, [ITEM], [], prompt_config("direct"), Precision.fp32)
        context = "### Question\nWhat {now}?\n\n### Answer\n"
        expected = log_likelihood(model, tokenizer, context, "Aspirin") / 7
        assert prediction.log_likelihoods[3] == pytest.approx(expected, abs=1e-4)

    def test_shots_stand_in_front(self, model, tokenizer):
        (prediction,) = predict(model, tokenizer, [ITEM], [SHOT], prompt_config("direct"), Precision.fp32)
        context = "### Question\nAnd before?\n\n### Answer\nRest\n\n### Question\nWhat {now}?\n\n### Answer\n"
        expected = log_likelihood(model, tokenizer, context, "Aspirin") / 7
        assert prediction.log_likelihoods[3] == pytest.approx(expected, abs=1e-4)

    def test_choice_is_the_likeliest_option_and_correct_where_it_is_the_label(self, model, tokenizer):
        (first,) = predict(model, tokenizer, [ITEM], [], prompt_config("direct"), Precision.fp32)
        best = first.log_likelihoods.index(max(first.log_likelihoods))
        items = [replace(ITEM, id=f"label-{label}", label=label) for label in range(4)]
        predictions = predict(model, tokenizer, items, [], prompt_config("direct"), Precision.fp32)
        assert [prediction.choice for prediction in predictions] == [best] * 4
        assert [prediction.correct for prediction in predictions] == [label == best for label in range(4)]
        assert [(prediction.id, prediction.label) for prediction in predictions] == [
            (f"label-{label}", label) for label in range(4)
        ]

    def test_long_option_wins_by_its_bytes_though_a_short_one_is_likelier_as_a_whole(self, model, tokenizer):
        def scored(options: tuple[str, ...]) -> Prediction:
            item = replace(ITEM, options=options)
            return predict(model, tokenizer, [item], [], prompt_config("direct"), Precision.fp32)[0]

        # Of all letters, the one that the model expects least, twice; and the one that it expects most, forty times.
        twice, often = (tuple(letter * count for letter in ascii_lowercase) for count in (2, 40))
        worst, best = scored(twice).log_likelihoods, scored(often).log_likelihoods
        prediction = scored((twice[worst.index(min(worst))], often[best.index(max(best))]))
        short, long = prediction.log_likelihoods
        assert 2 * short > 40 * long
        assert prediction.choice == 1


def test_accuracy_is_the_share_answered_right():
    predictions = [
        Prediction(str(n), [0.0, -1.0], 0, 0 if right else 1, right) for n, right in enumerate([1, 0, 0, 1, 1])
    ]
    assert accuracy(predictions) == pytest.approx(0.6)
