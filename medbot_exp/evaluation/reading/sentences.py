"""The sentences of a reply: where each begins, which go through the options one by one, and which speak of another."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from medbot_exp.evaluation.reading.affirmations import groups_of
from medbot_exp.evaluation.reading.denials import OTHERWISE
from medbot_exp.evaluation.reading.mentions import find_mentions
from medbot_exp.evaluation.reading.wording import ANSWER, POINTS_BACK, THE_LATTER, TICK, WORD

SENTENCE_END = re.compile(r"(?<!\bvs)(?<!i\.e)(?<!e\.g)[.!?](?=\s|$)|[。！？；;]|\n+")
# A line of few words, and the empty ones below it.
HEADING = re.compile(r"^[^\n.!?]{1,60}\n+(?=[^\n])", re.M)
# Lines under a heading that says that they are not the answer.
LIST_OF_OTHERS = re.compile(
    r"^[^\n]{0,30}\b(?:differential|alternatives|considered|distractors|incorrect|wrong|excluded|eliminated"
    r"|ruled out)\b[^\n]{0,20}:[ \t]*(?:\n\s*(?:[-*•]|\d\.)\s*[^\n]*)+",
    re.I | re.M,
)
# Another option as the subject of what follows: "B. C would be".
OTHER_LETTER = re.compile(r"\s+(?:Options? |Choices? |In |For |With )?[A-J](?:\s+[a-z]|,\s)")
# The number of a line, and the same up to its stop.
NUMBER = re.compile(r"\s*\(?\d{1,2}[.)]\s*")
NUMBER_OF_LINE = re.compile(r"(?:^|[\n,:])\s*\d{1,2}$")
# How many characters around a stop tell whether it ends a sentence, and how many a sentence may have.
NEAR = 80
LONGEST = 400
PIECE = re.compile(rf".{{1,{LONGEST}}}(?:\s|$)|.{{1,{LONGEST}}}", re.S)
LISTED = re.compile(r"[)\]]|\"\s*:|\w\s*[.:\-–|✗✓✅❌]")

Sentences = Sequence[tuple[int, str]]


def sentences_that_tell(text: str, options: Mapping[str, str]) -> list[tuple[int, str]]:
    """Where each sentence of `text` begins, and the sentence, without those that only go through the options."""
    sentences = list(sentences_of(with_headings(text, options), options))
    listed = enumerated(sentences, options)
    told = [(at, sentence) for at, sentence in sentences if at not in listed or TICK.search(sentence)]
    return list(pointing(sentences, options)) + without_aside(told, options)


def sentences_of(text: str, options: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Where each sentence begins, and the sentence: up to a stop or a line's end.

    The stop of a letter ends a sentence where neither the letter begins a line nor an option's text follows.
    """
    begun = {mention.start for mention in find_mentions(text, options) if not mention.by_letter}
    start = 0
    for stop in SENTENCE_END.finditer(text):
        before = text[max(start, stop.start() - NEAR) : stop.start()]
        if NUMBER_OF_LINE.search(before):
            continue
        if stop[0] == "." and re.search(r"(?:^|[\s({\[])[A-Za-z]$", before):
            behind = re.search(r"\w|$", text[stop.end() : stop.end() + NEAR])
            goes_on = behind is not None and (behind[0].islower() or stop.end() + behind.start() in begun)
            begins = not WORD.search(before[:-1])
            if goes_on or (begins and not OTHER_LETTER.match(text, stop.end())):
                continue
        yield from pieces(start, text[start : stop.end()])
        start = stop.end()
    yield from pieces(start, text[start:])


def pieces(start: int, sentence: str) -> Iterator[tuple[int, str]]:
    """`sentence`, in parts where it is longer than any that tells something: a model may repeat itself without end."""
    if len(sentence) <= LONGEST:
        yield start, sentence
        return
    for piece in PIECE.finditer(sentence):
        yield start + piece.start(), piece[0]


def with_headings(text: str, options: Mapping[str, str]) -> str:
    """`text`, with each line that announces an answer joined to the one that gives it."""

    def joined(found: re.Match[str]) -> str:
        announces = ANSWER.search(found[0]) and not find_mentions(found[0], options)
        return found[0].rstrip(":\n") + ": " if announces else found[0]

    return HEADING.sub(joined, text)


def enumerated(sentences: Sentences, options: Mapping[str, str]) -> set[int]:
    """Where the lines begin that go through the options one by one."""
    lines = [(at, *line) for at, sentence in sentences if (line := line_on_option(sentence, options)) is not None]
    if len({key for _, key, _ in lines}) < 2:
        return set()
    (first, key, rest), (second, next_key, _) = lines[:2]
    # "B. Heparin", and below it what speaks against A, C and D: the first line is the answer.
    apart = key > next_key or any(first < at < second for at, sentence in sentences if WORD.search(sentence))
    answers = apart and not WORD.search(rest) and any(WORD.search(rest) for _, _, rest in lines)
    return {at for at, _, _ in lines[answers:]}


def line_on_option(sentence: str, options: Mapping[str, str]) -> tuple[str, str] | None:
    """The key of the option that `sentence` begins with as a line of a list does, and what it says of it."""
    groups = groups_of(sentence, options)
    if not groups or WORD.search(NUMBER.sub("", sentence[: groups[0][0].start])):
        return None
    if NUMBER.match(sentence) or LISTED.match(sentence[groups[0][0].end - 1 :]):
        return groups[0][0].key, sentence[groups[0][-1].end :]
    return None


def pointing(sentences: Sentences, options: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """The sentences that speak of an option of the one before as "this" or "the latter", with its name instead."""
    for (_, before), (at, sentence) in pairwise(sentences):
        groups = groups_of(before, options)
        latter = THE_LATTER.search(sentence)
        if groups and POINTS_BACK.match(sentence):
            yield at, before[groups[0][0].start : groups[0][-1].end] + " is the correct answer."
        elif latter and not find_mentions(sentence, options):
            pair = find_mentions(before, options)[-2:]
            if len({mention.key for mention in pair}) == 2:
                meant = pair[1] if latter["latter"] else pair[0]
                yield at, THE_LATTER.sub(before[meant.start : meant.end], sentence)


def without_aside(told: Sentences, options: Mapping[str, str]) -> list[tuple[int, str]]:
    """The sentences but for one that says what else would hold, "If he were allergic, D"; two are conditions."""
    asides = [at for at, sentence in told if OTHERWISE.match(sentence) and find_mentions(sentence, options)]
    rest = [(at, sentence) for at, sentence in told if at not in asides]
    return rest if len(asides) == 1 and any(find_mentions(sentence, options) for _, sentence in rest) else list(told)
