"""The answer that a written reply gives, as a careful reader of the whole of it would take it.

One option must be given as the answer: by its letter, by its text, or by yes, no or maybe. Sentences that call
something the answer count first, then those that draw a conclusion, then whatever the reply affirms. A reply that
contradicts itself without taking anything back, that names two options or that declines has no answer.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from medbot_exp.evaluation.mentions import Mention, find_mentions
from medbot_exp.evaluation.reply import behind_thought, plain
from medbot_exp.evaluation.wording import (
    ANSWER,
    CONCLUSION,
    CONDITION,
    DENIED_AFTER,
    DENIED_BEFORE,
    EXCEPTED,
    SAME,
    TAKEN_BACK,
    TICK,
    TOGETHER,
)

# Not the stop of a letter ("B. Lead"), of an initial, or of an abbreviation.
SENTENCE_END = re.compile(
    r"(?<![\s(][A-Za-z])(?<!^[A-Za-z])(?<!\bvs)(?<!i\.e)(?<!e\.g)[.!?](?=\s|$)|[。！？；;]|\n+"  # noqa: RUF001
)
# A line of few words, and the empty ones below it.
HEADING = re.compile(r"^[^\n.!?]{1,60}\n+(?=[^\n])", re.M)
# Chinese and Japanese have no spaces.
WORD = re.compile(r"[^\W\u3040-\u9fff]+|[\u3040-\u9fff]")
LISTED = re.compile(r"[)\]]|\w\s*[.:\-–|✗✓✅❌]")
LETTER_AT_END = re.compile(r"(?:[:(\-–—>]|\boption|\bchoice)\s*[A-J]\W*$")


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


@dataclass(frozen=True)
class Named:
    """Options that a sentence affirms together, and where they stand in it."""

    keys: frozenset[str]
    start: int
    end: int


Sentences = Sequence[tuple[int, str]]
Kind = Callable[[str, Mapping[str, str]], Iterator[frozenset[str]]]


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
    sentences = list(sentences_of(with_headings(text, options)))
    listed = enumerated(sentences, options)
    told = [(at, sentence) for at, sentence in sentences if at not in listed or TICK.search(sentence)]
    for kind in (called_answers, conclusions, affirmed, in_other_words):
        claims = claimed(kind, told, options)
        # Of a reply that was cut, a single mention may be where its answer would have begun.
        if not claims or (cut and kind is affirmed and len(claims) < 2):
            continue
        later = claims[-1].at + 1
        if kind is called_answers and TAKEN_BACK.search(text[later:]):
            # What is said behind "wait" need not speak of the answer again.
            claims += claimed(conclusions, [(at, sentence) for at, sentence in told if at >= later], options)
        return settled(claims, text, options)
    return None


def claimed(kind: Kind, sentences: Sentences, options: Mapping[str, str]) -> list[Claim]:
    """The claims of one kind in `sentences`."""
    return [Claim(keys, at) for at, sentence in sentences for keys in kind(sentence, options)]


def settled(claims: Sequence[Claim], text: str, options: Mapping[str, str]) -> str | None:
    """The option that `claims` agree on, or that the last gives once the others were taken back."""
    last = claims[-1]
    others = [claim for claim in claims if claim.keys != last.keys]
    if len(last.keys) > 1 or (others and not TAKEN_BACK.search(text[others[-1].at :])):
        return None
    return next(iter(last.keys & options.keys()), None)


def sentences_of(text: str) -> Iterator[tuple[int, str]]:
    """Where each sentence begins, and the sentence: up to a stop or a line's end."""
    start = 0
    for stop in SENTENCE_END.finditer(text):
        yield start, text[start : stop.start()]
        start = stop.end()
    yield start, text[start:]


def with_headings(text: str, options: Mapping[str, str]) -> str:
    """`text`, with each line that announces an answer joined to the one that gives it."""

    def joined(found: re.Match[str]) -> str:
        announces = ANSWER.search(found[0]) and not find_mentions(found[0], options)
        return found[0].replace("\n", " ") if announces else found[0]

    return HEADING.sub(joined, text)


def enumerated(sentences: Sentences, options: Mapping[str, str]) -> set[int]:
    """Where the lines begin that go through the options one by one."""
    begun = {}
    for at, sentence in sentences:
        first = next(iter(find_mentions(sentence, options)), None)
        begins = first is not None and not re.search(r"\w", sentence[: first.start])
        if first is not None and begins and LISTED.match(sentence[first.end - 1 :]):
            begun[at] = first.key
    return set(begun) if len(set(begun.values())) > 1 else set()


def called_answers(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """What a sentence gives that speaks of the answer, or that is an option and nothing else."""
    named = affirmations(sentence, options)
    if not named:
        return
    calls = [call.start() for call in ANSWER.finditer(sentence)]
    if calls:
        # A stop behind a letter ends no sentence, so that there may be several.
        ends = [*calls[1:], len(sentence)]
        given = [
            next((each.keys for each in named if call < each.end and each.start < end), None)
            for call, end in zip(calls, ends, strict=True)
        ]
        yield from [keys for keys in given if keys is not None] or [named[-1].keys]
    elif len(named) == 1 and len(WORD.findall(sentence[: named[0].start] + sentence[named[0].end :])) <= 1:
        yield named[0].keys


def conclusions(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """What a sentence gives that draws a conclusion, or that ends in a letter."""
    named = affirmations(sentence, options)
    if not named:
        return
    if CONDITION.search(sentence):
        yield frozenset().union(*(each.keys for each in named))
    elif CONCLUSION.search(sentence) or (
        LETTER_AT_END.search(sentence) and not re.search(r"\w", sentence[named[-1].end :])
    ):
        yield named[-1].keys


def affirmed(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """Whatever a sentence affirms."""
    for each in affirmations(sentence, options):
        yield each.keys


def in_other_words(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """The one option whose words a sentence has in another order, or of whose words an answer is a part."""
    said = stems(ANSWER.sub(" ", sentence))
    told = {key: stems(option) for key, option in options.items()}
    denied = {mention.key for mention in find_mentions(sentence, options) if is_denied(sentence, mention)}
    held = {key for key, words in told.items() if words and words <= said} - denied
    if said and ANSWER.search(sentence):
        held |= {key for key, words in told.items() if said <= words}
    longest = {key for key in held if not any(told[key] < told[other] for other in held)}
    if len(longest) == 1:
        yield frozenset(longest)


def affirmations(sentence: str, options: Mapping[str, str]) -> list[Named]:
    """The options that `sentence` affirms, those named together as one; a letter beside another's text is both."""
    groups: list[list[Mention]] = []
    for mention in find_mentions(sentence, options):
        if is_denied(sentence, mention):
            continue
        if groups and belongs(mention, groups[-1], sentence[groups[-1][-1].end : mention.start]):
            groups[-1].append(mention)
        else:
            groups.append([mention])
    return [Named(frozenset(each.key for each in group), group[0].start, group[-1].end) for group in groups]


def belongs(mention: Mention, group: Sequence[Mention], between: str) -> bool:
    """Whether `mention` is named together with `group`, or is its last one's letter or text."""
    if SAME.match(between) and group[-1].by_letter != mention.by_letter:
        return True
    return bool(TOGETHER.match(between)) and all(mention.key != other.key for other in group)


def is_denied(sentence: str, mention: Mention) -> bool:
    """Whether `sentence` says that it is not the option of `mention`."""
    before = re.split(r"[,;:]|\bbut\b|\bhowever\b", sentence[: mention.start])[-1]
    if EXCEPTED.search(before):
        return False
    return bool(DENIED_BEFORE.search(before) or DENIED_AFTER.search(sentence[mention.end :]))


# Stems that options share with any sentence.
IDLE = frozenset({"thi", "that", "with", "from", "giv", "start", "perform", "administe", "obtain", "the", "a", "i"})


def stems(text: str) -> frozenset[str]:
    """The words of `text` that say something, without their endings."""
    words = re.findall(r"\d+(?:[.,/]\d+)*%?|\w+", text)
    telling = (word for word in words if len(word) > 3 or word[0].isdigit() or word.isupper())
    return frozenset(re.sub(r"(?:ing|ed|es|s|e|ly|i|us)$", "", word.lower())[:9] for word in telling) - IDLE
