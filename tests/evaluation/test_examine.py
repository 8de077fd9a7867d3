"""A model is asked what is on the paper, in batches that do not matter, and once."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from medbot_exp.config import Ask, Method, Precision
from medbot_exp.data.example import Example
from medbot_exp.evaluation import examine as room
from medbot_exp.evaluation.examine import Candidate, Paper, examine, identity
from medbot_exp.evaluation.item import Item
from medbot_exp.processes import ALONE

ITEMS = [
    Item(f"item-{number}", f"Which drug helps against {disease}?", dict(zip("ABCD", drugs, strict=True)), "B")
    for number, (disease, drugs) in enumerate(
        [
            ("fever", ["Warfarin", "Paracetamol", "Insulin", "Heparin"]),
            ("a deep vein thrombosis in the ninth week of pregnancy", ["Warfarin", "Heparin", "Aspirin", "Apixaban"]),
            ("scurvy", ["Vitamin A", "Vitamin C", "Vitamin D", "Iron"]),
            ("type 1 diabetes", ["Metformin", "Insulin", "Glipizide", "Diet"]),
            ("asthma", ["Propranolol", "Salbutamol", "Aspirin", "Morphine"]),
        ]
    )
]


@pytest.fixture
def paper(compose):
    """The items, to be answered by likelihood."""
    benchmark = compose("benchmark=[cases]").benchmark["cases"]
    return Paper("medqa", replace(benchmark, batch_size=2), ITEMS, [])


@pytest.fixture
def candidate(model, tokenizer, compose):
    """The tiny model under the prompt `direct`."""
    prompt = compose("prompt=direct").prompt
    return Candidate(model, tokenizer, prompt, [], Precision.fp32, {"model": "tiny", "adapter": None})


def writing(paper, **changes):
    settings = {"method": Method.generate, "thinking_tokens": 6, "answer_tokens": 6} | changes
    return replace(paper, benchmark=replace(paper.benchmark, **settings))


def test_likeliest_option_is_the_answer(candidate, paper, tmp_path, tokenizer):
    predictions, seconds = examine(candidate, paper, tmp_path, ALONE)
    assert [each.id for each in predictions] == [item.id for item in ITEMS] and seconds > 0
    first = predictions[0]
    # By hand: the log-likelihood of each option's bytes behind the prompt.
    for key, option in ITEMS[0].options.items():
        ids = tokenizer(first.prompt + option)["input_ids"]
        with torch.inference_mode():
            logits = candidate.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        start = len(ids) - len(option)
        total = sum(float(logits[place - 1, ids[place]]) for place in range(start, len(ids)))
        assert first.log_likelihoods[key] == pytest.approx(total / len(option), abs=1e-4)
    assert first.answer == max(first.log_likelihoods, key=first.log_likelihoods.get)
    assert first.state == ("correct" if first.answer == "B" else "wrong")


def test_harness_measures_letters_in_its_own_words(candidate, paper, tmp_path):
    asked = replace(paper, benchmark=replace(paper.benchmark, ask=Ask.harness), worked=ITEMS[-1:])
    predictions, _ = examine(candidate, replace(asked, items=ITEMS[:1]), tmp_path, ALONE)
    assert predictions[0].prompt == (
        "Question: Which drug helps against asthma?\nA. Propranolol\nB. Salbutamol\nC. Aspirin\nD. Morphine\nAnswer: B"
        "\n\nQuestion: Which drug helps against fever?\nA. Warfarin\nB. Paracetamol\nC. Insulin\nD. Heparin\nAnswer:"
    )


@pytest.mark.parametrize("size", [1, 2, 5])
def test_batches_do_not_matter(candidate, paper, tmp_path, size):
    alone, _ = examine(candidate, writing(paper, batch_size=1), tmp_path, ALONE)
    together, _ = examine(candidate, writing(paper, batch_size=size), tmp_path, ALONE)
    assert together == alone
    assert all(each.completion_tokens > 0 and each.stop in ("end", "length") for each in together)


def test_nothing_is_asked_twice(candidate, paper, tmp_path, monkeypatch):
    first, _ = examine(candidate, paper, tmp_path, ALONE)
    monkeypatch.setattr(room, "predict", lambda *arguments: pytest.fail("asked again"))
    assert examine(candidate, paper, tmp_path, ALONE)[0] == first


def test_stopped_evaluation_goes_on_where_it_was(candidate, paper, tmp_path, monkeypatch):
    expected, _ = examine(candidate, writing(paper), tmp_path / "whole", ALONE)
    (whole,) = (tmp_path / "whole").rglob("predictions.jsonl")
    answered, predict = [], room.predict

    def stopping(*arguments):
        answered.append(arguments[-1])
        if len(answered) == 2:
            raise KeyboardInterrupt
        return predict(*arguments)

    monkeypatch.setattr(room, "predict", stopping)
    with pytest.raises(KeyboardInterrupt):
        examine(candidate, writing(paper), tmp_path / "stopped", ALONE)
    found, _ = examine(candidate, writing(paper), tmp_path / "stopped", ALONE)
    (file,) = (tmp_path / "stopped").rglob("predictions.jsonl")
    assert found == expected and file.read_bytes() == whole.read_bytes()
    assert sum(map(len, answered)) == len(ITEMS) + 2  # the batch that was stopped


def test_base_model_is_asked_without_the_adapter(candidate, paper, tmp_path):
    inside = []

    @contextmanager
    def without():
        inside.append(True)
        yield
        inside.append(False)

    examine(replace(candidate, without_adapter=without), paper, tmp_path, ALONE)
    assert inside == [True, False]


CHANGES = {
    "weights": lambda c, p: (replace(c, identity={**c.identity, "model": "other"}), p),
    "adapter": lambda c, p: (replace(c, identity={**c.identity, "adapter": "x"}), p),
    "precision": lambda c, p: (replace(c, precision=Precision.bf16), p),
    "template": lambda c, p: (replace(c, prompt=replace(c.prompt, template="{question}")), p),
    "reasoning": lambda c, p: (replace(c, prompt=replace(c.prompt, reasoning=True)), p),
    "shots of the prompt": lambda c, p: (replace(c, shots=[Example("1", "q", "", "a")]), p),
    "worked items": lambda c, p: (c, replace(p, worked=ITEMS[:1])),
    "items": lambda c, p: (c, replace(p, items=ITEMS[:4])),
    "order of options": lambda c, p: (
        c,
        replace(p, items=[replace(ITEMS[0], options=dict(reversed(ITEMS[0].options.items()))), *ITEMS[1:]]),
    ),
    "name": lambda c, p: (c, replace(p, name="medmcqa")),
    **{
        name: lambda c, p, name=name, value=value: (c, replace(p, benchmark=replace(p.benchmark, **{name: value})))
        for name, value in {
            "method": Method.generate,
            "ask": Ask.harness,
            "seed": 1,
            "shots": 2,
            "batch_size": 3,
            "thinking_tokens": 7,
            "answer_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.5,
            "split": "other",
        }.items()
    },
}


@pytest.mark.parametrize("part", CHANGES)
def test_whatever_an_answer_depends_on_makes_another_evaluation(candidate, paper, part):
    assert identity(*CHANGES[part](candidate, paper)) != identity(candidate, paper)


def test_where_a_file_lies_makes_no_other_evaluation(candidate, paper):
    moved = replace(paper, benchmark=replace(paper.benchmark, path="/elsewhere/medqa.jsonl", limit=300))
    assert identity(candidate, moved) == identity(candidate, paper)


def test_packages_are_part_of_it(candidate, paper, monkeypatch):
    before = identity(candidate, paper)
    monkeypatch.setattr(room, "version", lambda name: "0")
    assert identity(candidate, paper) != before
