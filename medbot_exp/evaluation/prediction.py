"""One item, answered and scored: a line of predictions/<benchmark>.jsonl."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from medbot_exp.config import Ask
from medbot_exp.evaluation.ask import Question
from medbot_exp.evaluation.generate import Reply
from medbot_exp.evaluation.reading.answers import Reading, read_answer
from medbot_exp.evaluation.statistics import Answered


class State(Enum):
    """What an answer comes to; all but `correct` count as wrong."""

    correct = "correct"
    wrong = "wrong"
    unparsed = "unparsed"
    truncated = "truncated"
    unclosed_think = "unclosed_think"


@dataclass(frozen=True)
class Prediction:
    """An item and what a model made of it.

    Attributes:
        completion: what the model wrote, thought included; None where options were measured.
        answer: the key of the option that it gives, None where it gives none.
        stop: what ended the completion, `end` or `length`; None where options were measured.
        forced: the thought's budget ran out, and it was closed for the model.
        log_likelihoods: of each option by its key, in nats; None where the model wrote.
        item_hash, prompt_hash, target_hash: sha256 of what is asked and right, of the whole prompt, of the label.
    """

    id: str
    group: str | None
    tags: list[str]
    options: dict[str, str]
    label: str
    state: str
    answer: str | None
    prompt: str
    completion: str | None
    stop: str | None
    forced: bool
    prompt_tokens: int
    completion_tokens: int
    log_likelihoods: dict[str, float] | None
    item_hash: str
    prompt_hash: str
    target_hash: str

    @property
    def correct(self) -> bool:
        """Whether the answer is the right one."""
        return self.state == State.correct.name

    def answered(self) -> Answered:
        """It as what runs are compared by."""
        return Answered(f"{self.id} {self.item_hash}", self.group or self.id, self.correct)

    def row(self) -> dict[str, Any]:
        """It as a JSON object."""
        return asdict(self)


def written(question: Question, reply: Reply) -> Prediction:
    """What `reply` answers to `question`."""
    found = read_answer(reply.text, question.item.options, question.opened, cut=not reply.ended)
    state = State[found.reading.name] if found.reading is not Reading.answered else judged(question, found.key)
    return Prediction(
        **asked(question),
        state=state.name,
        answer=found.key,
        completion=reply.text,
        stop="end" if reply.ended else "length",
        forced=reply.forced,
        completion_tokens=reply.tokens,
        log_likelihoods=None,
    )


def measured(question: Question, log_likelihoods: Mapping[str, float], ask: Ask) -> Prediction:
    """What the likeliest option answers to `question`; of several that are as likely, the first.

    In the run's words the log-likelihood of an option is divided by the UTF-8 bytes of its text, as
    lm-evaluation-harness does for `acc_bytes`: a sum would favour short options, a mean over tokens the tokenizer's
    favourites. In the harness's words it is what its tasks score as `acc`: a sum.
    """
    lengths = [len(text.encode()) if ask is Ask.run else 1 for text in question.answers(ask)]
    scores = {key: value / length for (key, value), length in zip(log_likelihoods.items(), lengths, strict=True)}
    answer = max(scores, key=scores.__getitem__)
    return Prediction(
        **asked(question),
        state=judged(question, answer).name,
        answer=answer,
        completion=None,
        stop=None,
        forced=False,
        completion_tokens=0,
        log_likelihoods=dict(log_likelihoods),
    )


def judged(question: Question, answer: str | None) -> State:
    """Whether `answer` is right."""
    return State.correct if answer == question.item.label else State.wrong


def asked(question: Question) -> dict[str, Any]:
    """The fields that say what was asked."""
    item = question.item
    return {
        "id": item.id,
        "group": item.group,
        "tags": list(item.tags),
        "options": item.options,
        "label": item.label,
        "prompt": question.text,
        "prompt_tokens": len(question.ids),
        "item_hash": item.hash,
        "prompt_hash": hashlib.sha256(question.text.encode()).hexdigest(),
        "target_hash": hashlib.sha256(item.label.encode()).hexdigest(),
    }
