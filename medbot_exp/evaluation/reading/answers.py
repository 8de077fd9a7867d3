"""The answer that a written reply gives, as a careful reader of the whole of it would take it.

One option must be given as the answer: by its letter, by its text or another name of it, or by yes, no or maybe.
Sentences that call something the answer count first, then a verdict on each option, then those that draw a conclusion
or speak of the patient, then whatever the reply affirms, and last what it gives in other words. A reply that
contradicts itself without taking anything back, that names two options or that declines has no answer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from medbot_exp.evaluation.reading.affirmations import affirmations
from medbot_exp.evaluation.reading.claims import (
    Kind,
    affirmed,
    alone,
    called_answers,
    conclusions,
    endings,
    judgements,
    of_the_case,
    supposed,
)
from medbot_exp.evaluation.reading.denials import DECLINED, RETRACTED, TAKEN_BACK
from medbot_exp.evaluation.reading.mentions import find_mentions
from medbot_exp.evaluation.reading.paraphrases import by_a_word, by_words, in_other_words
from medbot_exp.evaluation.reading.reply import behind_thought, plain
from medbot_exp.evaluation.reading.sentences import LIST_OF_OTHERS, Sentences, sentences_that_tell
from medbot_exp.evaluation.reading.verdicts import judged_right, left_out, ticks_several
from medbot_exp.evaluation.reading.wording import CONCLUDED, TICK, WORD

# How a reply to a question of yes or no begins that answers it at once.
OPENING = re.compile(r"(?:yes|no|maybe)\b\s*[,.;:—–-]", re.I)
# JSON, but not a box to tick.
STRUCTURED = re.compile(r"(?:json\s*)?(?:\{|\[(?!.?\]))")


class Reading(Enum):
    """What a completion comes to, before it is known whether its answer is right."""

    answered = "answered"
    unparsed = "unparsed"
    truncated = "truncated"
    unclosed_think = "unclosed_think"


@dataclass(frozen=True)
class Answer:
    """The answer of a completion.

    Attributes:
        key: of the option that it gives; None unless `reading` is `answered`.
    """

    reading: Reading
    key: str | None = None


@dataclass(frozen=True)
class Claim:
    """What a sentence gives as the answer.

    Attributes:
        keys: of the options that it names together; of several, none is the answer.
        at: where the sentence begins in the reply.
    """

    keys: frozenset[str]
    at: int


def read_answer(completion: str, options: Mapping[str, str], opened: bool, cut: bool) -> Answer:
    """The answer that `completion` gives to a question with `options`.

    Args:
        options: text by key: by letter, or yes, no and maybe by themselves.
        opened: the prompt ended inside a thought, so that the completion begins in one.
        cut: the token limit ended it.
    """
    reply = behind_thought(completion, opened)
    if reply is None:
        return Answer(Reading.unclosed_think)
    key = answer_of(plain(reply), options, cut)
    if key is not None:
        return Answer(Reading.answered, key)
    return Answer(Reading.truncated if cut else Reading.unparsed)


def answer_of(text: str, options: Mapping[str, str], cut: bool) -> str | None:
    """The one option that plain `text` gives as its answer."""
    text = LIST_OF_OTHERS.sub("\n", text)
    judged = judged_right(text, options)
    if judged is not None and STRUCTURED.match(text):
        return judged
    if ticks_several(text, options):
        text = TICK.sub(" ", text)
    told = sentences_that_tell(text, options)
    claims = given(told, text, options)
    if claims:
        return called(claims, told, text, options)
    judged = judged or left_out(told, options)
    if judged is not None:
        return judged
    declined = DECLINED.search(text)
    for kind in (conclusions, endings, judgements, of_the_case, affirmed, supposed):
        claims = claimed(kind, told, options)
        # Of a reply that was cut, a mention may be where its answer would have begun.
        certain = kind in (conclusions, endings, judgements) or OPENING.match(text)
        if kind is supposed and declined:
            break
        if claims and (certain or not cut or (len(claims) > 1 and kind is not supposed)):
            return settled(claims, text, options)
    return None if cut or declined else paraphrased(told, text, options)


def paraphrased(told: Sentences, text: str, options: Mapping[str, str]) -> str | None:
    """The option that a reply that names none gives in other words."""
    spoken = [(at, sentence) for at, sentence in told if WORD.search(sentence)]
    for kind in (in_other_words, by_a_word, by_words):
        claims = claimed(kind, spoken, options) if kind is not by_words or len(spoken) == 1 else []
        if claims:
            return settled(claims, text, options)
    return None


def given(told: Sentences, text: str, options: Mapping[str, str]) -> list[Claim]:
    """What sentences call the answer, and what stands by itself unless several options do."""
    claims, by_itself = claimed(called_answers, told, options), claimed(alone, told, options)
    if len({claim.keys for claim in by_itself}) > 1 and not TAKEN_BACK.search(text):
        by_itself = []
    return sorted(claims + [each for each in by_itself if each not in claims], key=lambda claim: claim.at)


def called(claims: list[Claim], told: Sentences, text: str, options: Mapping[str, str]) -> str | None:
    """The option that sentences call the answer, unless the rest of the reply takes it back or concludes another."""
    later = claims[-1].at + 1
    behind = [(at, sentence) for at, sentence in told if at >= later]
    if len(claims[-1].keys) > 1 or TAKEN_BACK.search(text[later:]):
        # What is said behind "wait", or of the two that were named, need not speak of the answer again.
        more = next(filter(None, (claimed(kind, behind, options) for kind in (conclusions, endings, judgements))), [])
        if not more and RETRACTED.search("".join(sentence for _, sentence in behind)):
            return None
        claims = claims + more
    key = settled(claims, text, options)
    return None if key is None or contradicted(key, claims[0].at, told, options) else key


def contradicted(key: str, at: int, told: Sentences, options: Mapping[str, str]) -> bool:
    """Whether the letter that a sentence at `at` gives stands right behind the conclusion that it is another option."""
    giving = next(sentence for begun, sentence in told if begun == at)
    before = [sentence for begun, sentence in told if begun < at and WORD.search(sentence)]
    by_letter_only = all(mention.by_letter for mention in find_mentions(giving, options))
    if not before or not CONCLUDED.search(before[-1]) or not by_letter_only:
        return False
    by_text = {mention.key for sentence in before for mention in find_mentions(sentence, options)}
    concluded = affirmations(before[-1], options)
    return key not in by_text and len(concluded) == 1 and len(concluded[0].keys) == 1


def claimed(kind: Kind, sentences: Sentences, options: Mapping[str, str]) -> list[Claim]:
    """The claims of one kind in `sentences`."""
    # A model that repeats itself says the same sentence many times.
    said = {sentence: list(kind(sentence, options)) for sentence in {sentence for _, sentence in sentences}}
    return [Claim(keys, at) for at, sentence in sentences for keys in said[sentence]]


def settled(claims: Sequence[Claim], text: str, options: Mapping[str, str]) -> str | None:
    """The option that `claims` agree on, or that the last gives once the others were taken back."""
    last = claims[-1]
    if len(last.keys) > 1:
        return None
    others = [claim for claim in claims if claim.keys != last.keys and not narrows(last.keys, claim.keys, options)]
    if others and not TAKEN_BACK.search(text[others[-1].at :]):
        return None
    return next(iter(last.keys & options.keys()), None)


def narrows(keys: frozenset[str], wider: frozenset[str], options: Mapping[str, str]) -> bool:
    """Whether `keys` is one of several that were named, or says more than what was named: bacterial pneumonia."""
    if len(wider) > 1:
        return keys < wider
    (more,), (less,) = ([options.get(key, key).lower() for key in each] for each in (keys, wider))
    return less in more
