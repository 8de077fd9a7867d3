"""The answer that a written reply gives, as a careful reader of the whole of it would take it.

One option must be given as the answer: by its letter, by its text, or by yes, no or maybe. Sentences that call
something the answer count first, then those that draw a conclusion, then whatever the reply affirms. A reply that
contradicts itself without taking anything back, that names two options or that declines has no answer.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from medbot_exp.evaluation.mentions import SAID_AS, Mention, find_mentions
from medbot_exp.evaluation.reply import behind_thought, plain
from medbot_exp.evaluation.wording import (
    ANSWER,
    COMPARED,
    CONDITION,
    DENIAL,
    DENIED_AFTER,
    DENIED_BEFORE,
    EXCEPTED,
    HEADED_AS_WRONG,
    HEDGED,
    JUDGEMENT,
    SAME,
    SUMMARY,
    TAKEN_BACK,
    TICK,
    TOGETHER,
)

SENTENCE_END = re.compile(r"(?<!\bvs)(?<!i\.e)(?<!e\.g)[.!?](?=\s|$)|[。！？；;]|\n+")
# A line of few words, and the empty ones below it.
HEADING = re.compile(r"^[^\n.!?]{1,60}\n+(?=[^\n])", re.M)
# Chinese and Japanese have no spaces.
WORD = re.compile(r"[^\W\u3040-\u9fff]+|[\u3040-\u9fff]")
LISTED = re.compile(r"[)\]]|\w\s*[.:\-–|✗✓✅❌]")
LETTER_AT_END = re.compile(r"(?:[:,(\-–—>]|\boption|\bchoice)\s*[A-J]\W*$")


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
    sentences = list(sentences_of(with_headings(text, options), options))
    listed = enumerated(sentences, options)
    told = [(at, sentence) for at, sentence in sentences if at not in listed or TICK.search(sentence)]
    for kind in (called_answers, summaries, judgements, affirmed, in_other_words):
        claims = claimed(kind, told, options)
        # Of a reply that was cut, a mention may be where its answer would have begun.
        if not claims or (cut and (kind is in_other_words or (kind is affirmed and len(claims) < 2))):
            continue
        later = claims[-1].at + 1
        if kind is called_answers and (len(claims[-1].keys) > 1 or TAKEN_BACK.search(text[later:])):
            # What is said behind "wait", or of the two that were named, need not speak of the answer again.
            behind = [(at, sentence) for at, sentence in told if at >= later]
            claims += claimed(summaries, behind, options) or claimed(judgements, behind, options)
        return settled(claims, text, options)
    return None


def claimed(kind: Kind, sentences: Sentences, options: Mapping[str, str]) -> list[Claim]:
    """The claims of one kind in `sentences`."""
    return [Claim(keys, at) for at, sentence in sentences for keys in kind(sentence, options)]


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


def sentences_of(text: str, options: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Where each sentence begins, and the sentence: up to a stop or a line's end.

    The stop of a letter ends a sentence where neither the letter begins a line nor an option's text follows.
    """
    begun = [mention.start for mention in find_mentions(text, options) if not mention.by_letter]
    start = 0
    for stop in SENTENCE_END.finditer(text):
        if stop[0] == "." and re.search(r"(?:^|[\s(])[A-Za-z]$", text[start : stop.start()]):
            behind = re.search(r"\w|$", text[stop.end() :])
            goes_on = behind is not None and (behind[0].islower() or stop.end() + behind.start() in begun)
            if goes_on or not re.search(r"\w", text[start : stop.start() - 1]):
                continue
        yield start, text[start : stop.end()]
        start = stop.end()
    yield start, text[start:]


def with_headings(text: str, options: Mapping[str, str]) -> str:
    """`text`, with each line that announces an answer joined to the one that gives it."""

    def joined(found: re.Match[str]) -> str:
        announces = ANSWER.search(found[0]) and not find_mentions(found[0], options)
        return found[0].rstrip(":\n") + ": " if announces else found[0]

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
            next((each for each in named if call < each.end and each.start < end), None)
            for call, end in zip(calls, ends, strict=True)
        ]
        found = [(call, each) for call, each in zip(calls, given, strict=True) if each is not None]
        yield from [each.keys for call, each in found if not HEDGED.search(sentence[call : each.start])]
        announced = re.search(r"\W*(?:is\b|:)\W*$", sentence[calls[-1] :])
        if not found and not announced:
            yield named[-1].keys
    elif (
        len(named) == 1
        and not sentence.rstrip().endswith("?")
        and len(WORD.findall(sentence[: named[0].start] + sentence[named[0].end :])) <= 1
    ):
        yield named[0].keys


def summaries(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """What a sentence gives that sums up, or that ends in a letter."""
    named = affirmations(sentence, options)
    ends = bool(named) and LETTER_AT_END.search(sentence) and not re.search(r"\w", sentence[named[-1].end :])
    if named and CONDITION.search(sentence):
        yield frozenset().union(*(each.keys for each in named))
    elif named and (ends or SUMMARY.search(sentence)):
        yield named[-1].keys


def judgements(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """What a sentence gives that calls something likely or best."""
    named = affirmations(sentence, options)
    judged = list(JUDGEMENT.finditer(sentence)) or list(ANSWER.finditer(sentence))
    if named and judged:
        behind = [each for each in named if each.end > judged[-1].start()]
        yield (behind[0] if behind else named[-1]).keys


def affirmed(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """Whatever a sentence affirms."""
    for each in affirmations(sentence, options):
        yield each.keys


def in_other_words(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """The one option whose words a sentence has in another order, or of whose words an answer is a part."""
    if DENIAL.search(sentence) or options.keys() <= SAID_AS.keys():
        return
    said = stems(ANSWER.sub(" ", sentence))
    told = {key: stems(option) for key, option in options.items()}
    mentions = find_mentions(sentence, options)
    denied = {mention.key for mention in mentions if is_denied(sentence, mention.start, mention.end)}
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
        if groups and belongs(mention, groups[-1], sentence[groups[-1][-1].end : mention.start]):
            groups[-1].append(mention)
        else:
            groups.append([mention])
    return [
        Named(frozenset(each.key for each in group), group[0].start, group[-1].end)
        for group in groups
        if not is_denied(sentence, group[0].start, group[-1].end)
    ]


def belongs(mention: Mention, group: Sequence[Mention], between: str) -> bool:
    """Whether `mention` is named together with `group`, or is its last one's letter or text."""
    if SAME.match(between) and group[-1].by_letter != mention.by_letter:
        return True
    return bool(TOGETHER.match(between)) and all(mention.key != other.key for other in group)


def is_denied(sentence: str, start: int, end: int) -> bool:
    """Whether `sentence` says that it is not what stands between `start` and `end`."""
    before = re.split(r"[,;:]|\bbut\b|\bhowever\b", sentence[:start])[-1]
    if EXCEPTED.search(before):
        return False
    denied = DENIED_BEFORE.search(before) or COMPARED.search(before) or HEADED_AS_WRONG.search(sentence[:start])
    return bool(denied or DENIED_AFTER.search(sentence[end:]))


# Stems that options share with any sentence.
IDLE = frozenset({"thi", "that", "with", "from", "giv", "start", "perform", "administe", "obtain", "the", "a", "i"})


def stems(text: str) -> frozenset[str]:
    """The words of `text` that say something, without their endings."""
    words = re.findall(r"\d+(?:[.,/]\d+)*%?|\w+", text)
    telling = (word for word in words if len(word) > 3 or word[0].isdigit() or word.isupper())
    return frozenset(re.sub(r"(?<=...)(?:ing|ed|es|s|e|ly|i|us)$", "", word.lower())[:9] for word in telling) - IDLE
