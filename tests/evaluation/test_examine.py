"""A model is asked what is on the paper, in batches that do not matter, and once."""

import copy
import math
from dataclasses import dataclass, field, replace
from string import ascii_lowercase

import pytest
import torch

from medbot_exp.config import Ask, Method, Precision, TooLong
from medbot_exp.data.example import Example
from medbot_exp.errors import DataError, DivergenceError
from medbot_exp.evaluation import examine as room
from medbot_exp.evaluation.examine import Candidate, examine, questions_of, with_room
from medbot_exp.evaluation.generate import Transformers
from medbot_exp.evaluation.item import Item
from medbot_exp.evaluation.paper import Paper
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
    return Paper("medqa", "medqa", "0" * 64, replace(benchmark, batch_size=2), ITEMS, [])


@pytest.fixture
def candidate(model, tokenizer, compose):
    """The tiny model under the prompt `direct`."""
    prompt = compose("prompt=direct").prompt
    return Candidate(
        Transformers(model, tokenizer, Precision.fp32), tokenizer, prompt, [], {"model": "tiny", "adapter": None}
    )


def writing(paper, **changes):
    settings = {"method": Method.generate, "thinking_tokens": 6, "answer_tokens": 6} | changes
    return replace(paper, benchmark=replace(paper.benchmark, **settings))


def identity(candidate, paper):
    """What the answers of `candidate` to `paper` are kept under."""
    questions = questions_of(paper, candidate.prompt, candidate.shots, candidate.tokenizer)
    return room.identity(candidate, paper, questions)


def log_likelihood(candidate, context, option):
    """ln p(option | context) in nats, from the whole logits of the two together."""
    before, ids = candidate.tokenizer(context)["input_ids"], candidate.tokenizer(context + option)["input_ids"]
    with torch.inference_mode():
        shares = candidate.writer.model(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
    return sum(shares[place - 1, ids[place]].item() for place in range(len(before), len(ids)))


OPTIONS = {"A": "β-Blocker", "B": "µ", "C": "Observe, and repeat the blood count in a week", "D": "Aspirin"}


@pytest.mark.parametrize(
    "prompt, context",
    [
        (
            "medbot",
            "You are a careful physician. Think step by step, then give the final answer.\n\n"
            "### Question\nWhat {now}?\n\n### Response\n<think>\n\n</think>\n\n",
        ),
        ("direct", "### Question\nWhat {now}?\n\n### Answer\n"),
    ],
)
def test_option_is_measured_per_byte_where_the_prompt_has_its_answers(
    candidate, paper, tmp_path, compose, prompt, context
):
    asked = replace(paper, items=[Item("1", "What {now}?", OPTIONS, "D")])
    (prediction,), _ = examine(replace(candidate, prompt=compose(f"prompt={prompt}").prompt), asked, tmp_path, ALONE)
    # β and µ have two bytes each.
    expected = {key: log_likelihood(candidate, context, OPTIONS[key]) for key in "ABCD"}
    per_byte = {key: expected[key] / size for key, size in zip("ABCD", (10, 2, 45, 7), strict=True)}
    assert prediction.log_likelihoods == pytest.approx(expected, abs=1e-3)
    assert prediction.answer == max(per_byte, key=per_byte.get)


def test_rows_that_the_prompt_shows_stand_in_front(candidate, paper, tmp_path):
    asked = replace(paper, items=[Item("1", "What now?", OPTIONS, "D")])
    shown = replace(candidate, shots=[Example("0", "And before?", "Thought.", "Rest")])
    (prediction,), _ = examine(shown, asked, tmp_path, ALONE)
    context = "### Question\nAnd before?\n\n### Answer\nRest\n\n### Question\nWhat now?\n\n### Answer\n"
    assert prediction.prompt == context
    assert prediction.log_likelihoods["D"] == pytest.approx(log_likelihood(candidate, context, "Aspirin"), abs=1e-3)


def test_long_option_wins_by_its_bytes_though_a_short_one_is_likelier_as_a_whole(candidate, paper, tmp_path):
    def scored(options):
        item = Item("1", "What now?", {str(place): option for place, option in enumerate(options)}, "0")
        (prediction,), _ = examine(candidate, replace(paper, items=[item]), tmp_path, ALONE)
        return prediction.answer, {int(key): value for key, value in prediction.log_likelihoods.items()}

    # Of all letters, the one that the model expects least, twice; and the one that it expects most, forty times.
    twice, often = ([letter * count for letter in ascii_lowercase] for count in (2, 40))
    worst, best = scored(twice)[1], scored(often)[1]
    answer, sums = scored([twice[min(worst, key=worst.get)], often[max(best, key=best.get)]])
    assert sums[0] > sums[1]
    assert answer == "1"


def test_harness_words_for_answers_of_several_letters_are_chosen_by_their_sums(candidate, paper, tmp_path):
    item = Item("1", "Is it so?", {"yes": "yes", "no": "no", "maybe": "maybe"}, "yes", context="An abstract.")
    asked = replace(paper, name="pubmedqa", benchmark=replace(paper.benchmark, ask=Ask.harness), items=[item])
    (prediction,), _ = examine(candidate, asked, tmp_path, ALONE)
    context = "Abstract: An abstract.\nQuestion: Is it so?\nAnswer:"
    expected = {key: log_likelihood(candidate, context, f" {key}") for key in item.options}
    assert prediction.log_likelihoods == pytest.approx(expected, abs=1e-3)
    assert prediction.answer == max(expected, key=expected.get)


def test_likelihood_that_is_no_number_ends_the_evaluation_and_is_not_kept(candidate, paper, tmp_path):
    with torch.no_grad():
        candidate.writer.model.model.norm.weight.fill_(math.nan)
    with pytest.raises(DivergenceError, match="item item-. has one that is none; restore .* a smaller optimizer.lr$"):
        examine(candidate, paper, tmp_path, ALONE)
    narrow = replace(candidate, writer=replace(candidate.writer, precision=Precision.bf16))
    with pytest.raises(DivergenceError, match="optimizer.lr, or with model.dtype=float32 trainer.precision=fp32, as"):
        examine(narrow, paper, tmp_path, ALONE)
    assert [file.read_text() for file in tmp_path.rglob("predictions.jsonl")] in ([], [""])


@pytest.mark.parametrize("method, needed", [(Method.loglikelihood, 8), (Method.generate, 6)])
def test_item_that_the_model_has_no_room_for_is_left_out_or_refused(candidate, paper, method, needed):
    asked = writing(paper, method=method)
    questions = questions_of(asked, candidate.prompt, [], candidate.tokenizer)
    # The prompt has no thought, so 6 tokens of an answer are all that may be written; "Warfarin" are 8.
    lengths = sorted(len(question.ids) for question in questions)
    longest = max(questions, key=lambda question: len(question.ids)).item
    room_for = lengths[-1] - 1 + needed
    fitted = with_room(asked, candidate.prompt, [], candidate.tokenizer, room_for)
    assert fitted.too_long == (longest.id,) and len(fitted.items) == len(ITEMS) - 1
    assert longest.id not in [item.id for item in fitted.items]
    strict = replace(asked, benchmark=replace(asked.benchmark, on_too_long=TooLong.error))
    told = f"model's {room_for} tokens.*, but 1 of 5 items of medqa do not .{longest.id}.*medqa.on_too_long=drop"
    with pytest.raises(DataError, match=told):
        with_room(strict, candidate.prompt, [], candidate.tokenizer, room_for)
    with pytest.raises(
        DataError, match="but 5 of 5 items of medqa do not .*, …: up to .* take a model with more room$"
    ):
        with_room(asked, candidate.prompt, [], candidate.tokenizer, 10)


def test_likeliest_option_is_the_answer(candidate, paper, tmp_path):
    predictions, seconds = examine(candidate, paper, tmp_path, ALONE)
    assert [each.id for each in predictions] == [item.id for item in ITEMS] and seconds > 0
    for each in predictions:
        per_byte = {key: value / len(each.options[key].encode()) for key, value in each.log_likelihoods.items()}
        assert each.answer == max(per_byte, key=per_byte.get)
        assert each.state == ("correct" if each.answer == "B" else "wrong")


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


def test_nothing_is_asked_twice(candidate, paper, tmp_path):
    first, _ = examine(candidate, paper, tmp_path, ALONE)
    candidate.writer.model.register_forward_pre_hook(lambda *arguments: pytest.fail("asked again"))
    assert examine(candidate, paper, tmp_path, ALONE)[0] == first


@dataclass(frozen=True)
class Stopped(Transformers):
    """A writer that the user stops when it is asked for the second time."""

    asked: list[int] = field(default_factory=list)

    def continuations(self, prompts, limit, decoding):
        self.asked.append(len(prompts))
        if len(self.asked) == 2:
            raise KeyboardInterrupt
        return super().continuations(prompts, limit, decoding)


def test_stopped_evaluation_goes_on_where_it_was(candidate, paper, tmp_path):
    expected, _ = examine(candidate, writing(paper), tmp_path / "whole", ALONE)
    (whole,) = (tmp_path / "whole").rglob("predictions.jsonl")
    stopped = Stopped(candidate.writer.model, candidate.tokenizer, Precision.fp32)
    with pytest.raises(KeyboardInterrupt):
        examine(replace(candidate, writer=stopped), writing(paper), tmp_path / "stopped", ALONE)
    found, _ = examine(replace(candidate, writer=stopped), writing(paper), tmp_path / "stopped", ALONE)
    (file,) = (tmp_path / "stopped").rglob("predictions.jsonl")
    assert found == expected and file.read_bytes() == whole.read_bytes()
    assert sum(stopped.asked) == len(ITEMS) + 2  # the batch that was stopped


class Other(Transformers):
    """Another engine."""

    name = "other 1.0"


class Longer(Transformers):
    """Nothing ends its replies."""

    ends = frozenset()


CHANGES = {
    "weights": lambda c, p: (replace(c, identity={**c.identity, "model": "other"}), p),
    "adapter": lambda c, p: (replace(c, identity={**c.identity, "adapter": "x"}), p),
    "writer": lambda c, p: (replace(c, writer=Other(c.writer.model, c.tokenizer, Precision.fp32)), p),
    "end tokens": lambda c, p: (replace(c, writer=Longer(c.writer.model, c.tokenizer, Precision.fp32)), p),
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


def chatting(candidate, template):
    """`candidate` under prompt=chat, with `template` as its tokenizer's."""
    tokenizer = copy.deepcopy(candidate.tokenizer)
    tokenizer.chat_template = template
    return replace(candidate, tokenizer=tokenizer, prompt=replace(candidate.prompt, chat=True))


def test_chat_template_makes_another_evaluation(candidate, paper):
    templates = ["{{ messages[0].content }}", "{{ messages[0].content }}!"]
    assert identity(chatting(candidate, templates[0]), paper) != identity(chatting(candidate, templates[1]), paper)


def test_where_a_file_lies_makes_no_other_evaluation(candidate, paper):
    moved = replace(paper, benchmark=replace(paper.benchmark, path="/elsewhere/medqa.jsonl", limit=300))
    assert identity(candidate, moved) == identity(candidate, paper)


def test_packages_are_part_of_it(candidate, paper, monkeypatch):
    before = identity(candidate, paper)
    monkeypatch.setattr(room, "version", lambda name: "0")
    assert identity(candidate, paper) != before
