"""The answer that a written reply gives, as a careful reader of the whole of it would take it.

One option must be given as the answer: by its letter, by its text, or by yes, no or maybe. Sentences that call
something the answer count first, then those that draw a conclusion, then whatever the reply affirms. A reply that
contradicts itself without taking anything back, that names two options or that declines has no answer.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from medbot_exp.evaluation.affirmations import Named, affirmations, groups_of, is_denied, is_odd_one, together
from medbot_exp.evaluation.mentions import find_mentions
from medbot_exp.evaluation.naming import NONE_OF_THEM, united
from medbot_exp.evaluation.paraphrases import by_a_word, by_words, in_other_words
from medbot_exp.evaluation.reply import behind_thought, plain
from medbot_exp.evaluation.verdicts import judged_right, ticks_several
from medbot_exp.evaluation.wording import (
    ANSWER,
    CALLED_RIGHT,
    CALLED_TRUE,
    CONCLUDED,
    CONDITION,
    DECLINED,
    FILLER,
    HEDGED,
    JUDGEMENT,
    ODD_ONE,
    POINTS_BACK,
    OF_THE_CASE,
    STILL_OPEN,
    THE_LATTER,
    RETRACTED,
    SUBJECT_OF_ANSWER,
    SUMMARY,
    SUPPOSED_AFTER,
    SUPPOSED_BEFORE,
    TAKEN_BACK,
    THE_REST,
    TICK,
    UNLIKE,
)

SENTENCE_END = re.compile(r"(?<!\bvs)(?<!i\.e)(?<!e\.g)[.!?](?=\s|$)|[。！？；;]|\n+")
# A line of few words, and the empty ones below it.
HEADING = re.compile(r"^[^\n.!?]{1,60}\n+(?=[^\n])", re.M)
# Chinese and Japanese have no spaces.
WORD = re.compile(r"[^\W\u3040-\u9fff]+|[\u3040-\u9fff]")
# How a reply to a question of yes or no begins that answers it at once.
OPENING = re.compile(r"(?:yes|no|maybe)\b\s*[,.;:—–-]", re.I)
OTHERWISE = re.compile(r"\W*(?:\w+:\s*)?if\b(?!.*\b(?:guess|choose|pick|forced|say|answer)\b(?!\s+(?:would|is)))", re.I)
STRUCTURED = re.compile(r"(?:json\s*)?(?:\{|\[(?!.?\]))")
# Lines under a heading that says that they are not the answer.
LIST_OF_OTHERS = re.compile(
    r"^[^\n]{0,30}\b(?:differential|alternatives|considered|distractors|incorrect|wrong|excluded|eliminated|ruled out)\b"
    r"[^\n]{0,20}:[ \t]*(?:\n\s*(?:[-*•]|\d\.)\s*[^\n]*)+",
    re.I | re.M,
)
# Another option as the subject of what follows: "B. C would be".
OTHER_LETTER = re.compile(r"\s+(?:Options? |Choices? |In |For |With )?[A-J](?:\s+[a-z]|,\s)")
NUMBER = re.compile(r"\s*\(?\d{1,2}[.)]\s*")
NUMBER_OF_LINE = re.compile(r"(?:^|[\n,:])\s*\d{1,2}$")
LISTED = re.compile(r"[)\]]|\"\s*:|\w\s*[.:\-–|✗✓✅❌]")
LETTER_AT_END = re.compile(r"(?:[:,(\-–—>]|\boption|\bchoice)\s*[A-J]\W*$")

ARROW = re.compile(r"(?:→|->)\s*(?:option )?$", re.I)
ANNOUNCED = re.compile(r"[:=>→]\s*(?:an? |the )?$")


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
    text = LIST_OF_OTHERS.sub("\n", text)
    judged = judged_right(text, options)
    if ticks_several(text, options):
        text = TICK.sub(" ", text)
    if judged is not None and STRUCTURED.match(text):
        return judged
    sentences = list(sentences_of(with_headings(text, options), options))
    listed = enumerated(sentences, options)
    told = [(at, sentence) for at, sentence in sentences if at not in listed or TICK.search(sentence)]
    told = list(pointing(sentences, options)) + without_aside(told, options)
    claims = given(told, text, options)
    if claims:
        return called(claims, told, text, options)
    judged = judged or left_out(told, options)
    if judged is not None:
        return judged
    for kind in (conclusions, endings, judgements, of_the_case, affirmed, supposed):
        claims = claimed(kind, told, options)
        # Of a reply that was cut, a mention may be where its answer would have begun.
        certain = kind in (conclusions, endings, judgements) or len(claims) > 1 or OPENING.match(text)
        if claims and (certain or not cut):
            return settled(claims, text, options)
    return None if cut or DECLINED.search(text) else paraphrased(told, text, options)


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
    given = next(sentence for begun, sentence in told if begun == at)
    before = [sentence for begun, sentence in told if begun < at and re.search(r"\w", sentence)]
    if (
        not before
        or not CONCLUDED.search(before[-1])
        or any(not each.by_letter for each in find_mentions(given, options))
    ):
        return False
    by_text = {mention.key for sentence in before for mention in find_mentions(sentence, options)}
    concluded = affirmations(before[-1], options)
    return key not in by_text and len(concluded) == 1 and len(concluded[0].keys) == 1


def left_out(told: Sentences, options: Mapping[str, str]) -> str | None:
    """The option of which alone something is denied that is said of all the others: B, C and D are; A is not."""
    denied, others, single, rest = set(), set(), set(), False
    none = next((key for key, option in options.items() if NONE_OF_THEM.fullmatch(option.strip(" ."))), None)
    for _, sentence in told:
        if STILL_OPEN.search(sentence):
            return None
        for group in groups_of(sentence, options):
            keys = together(group, options)
            if none and is_denied(sentence, group[0].start, group[-1].end) or UNLIKE.match(sentence[group[-1].end :]):
                denied |= keys
            elif len(keys) > 1 or CALLED_TRUE.match(sentence[group[-1].end :]):
                others |= keys
            else:
                single |= keys
        rest = rest or bool(THE_REST.search(sentence))
    if none and denied == options.keys() - united(options).keys() - {none}:
        return none
    if not denied and len(single) == 1 and others == options.keys() - single:
        return single.pop()
    if len(denied) == 1 and (others == options.keys() - denied or (rest and not others)):
        return denied.pop()
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
        if NUMBER_OF_LINE.search(text[start : stop.start()]):
            continue
        if stop[0] == "." and re.search(r"(?:^|[\s({\[])[A-Za-z]$", text[start : stop.start()]):
            behind = re.search(r"\w|$", text[stop.end() :])
            goes_on = behind is not None and (behind[0].islower() or stop.end() + behind.start() in begun)
            begins = not re.search(r"\w", text[start : stop.start() - 1])
            if goes_on or (begins and not OTHER_LETTER.match(text[stop.end() :])):
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


def pointing(sentences: Sentences, options: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """The sentences that speak of an option of the one before, as "this" or as "the latter", with that option's name."""
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
    """The sentences but for one that says what else would hold: "If he were allergic, D." Two of them are conditions."""
    asides = [at for at, sentence in told if OTHERWISE.match(sentence) and find_mentions(sentence, options)]
    rest = [(at, sentence) for at, sentence in told if at not in asides]
    return rest if len(asides) == 1 and any(find_mentions(sentence, options) for _, sentence in rest) else list(told)


def enumerated(sentences: Sentences, options: Mapping[str, str]) -> set[int]:
    """Where the lines begin that go through the options one by one."""
    begun, rests = {}, []
    for at, sentence in sentences:
        first = next(iter(find_mentions(sentence, options)), None)
        if first is None or WORD.search(NUMBER.sub("", sentence[: first.start])):
            continue
        if NUMBER.match(sentence) or LISTED.match(sentence[first.end - 1 :]):
            begun[at] = first.key
            group = groups_of(sentence, options)[0]
            rests.append(sentence[group[-1].end :])
    if len(set(begun.values())) < 2:
        return set()
    first, *later = begun.items()
    # "B. Heparin", and below it what speaks against A, C and D: the first line is the answer.
    apart = first[1] > later[0][1] or any(
        first[0] < at < later[0][0] for at, sentence in sentences if WORD.search(sentence)
    )
    answers = apart and not WORD.search(rests[0]) and any(map(WORD.search, rests))
    return {at for at, _ in (later if answers else begun.items())}


def called_answers(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """What a sentence gives that speaks of the answer, that calls it right, or that says which one does not fit."""
    named = affirmations(sentence, options)
    calls = list(ANSWER.finditer(sentence))
    right = [each for each in named if CALLED_RIGHT.match(sentence[each.end :])]
    odd = [each for each in named if is_odd_one(sentence, each.start, each.end)]
    if len(named) > 1 and len(re.findall(r"\bif\b", sentence)) > 1:
        yield frozenset().union(*(each.keys for each in named))
    elif calls and named:
        yield from answers_behind(calls, named, sentence)
    elif right:
        yield right[-1].keys
    elif odd:
        yield odd[-1].keys
    elif not named and ODD_ONE.match(sentence):
        yield from in_other_words(sentence, options)


def alone(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """The option that a sentence is, and nothing else but words that add nothing."""
    named = affirmations(sentence, options)
    if len(named) == 1 and not sentence.rstrip().endswith("?"):
        before, behind = sentence[: named[0].start], sentence[named[0].end :]
        if (len(WORD.findall(before)) <= 1 and not WORD.search(behind)) or not WORD.search(FILLER.sub("", before) + FILLER.sub("", behind)):
            # "A, B and D are": of several, not even a verb.
            if len(named[0].keys) == 1 or not WORD.search(before + behind):
                yield named[0].keys


def answers_behind(calls: Sequence[re.Match[str]], named: Sequence[Named], sentence: str) -> Iterator[frozenset[str]]:
    """What each of the `calls` of an answer gives: the option that it is said of, else the first one behind it."""
    # A stop behind a letter ends no sentence, so that there may be several.
    ends = [*(call.start() for call in calls[1:]), len(sentence)]
    found = False
    for call, end in zip(calls, ends, strict=True):
        before = [each for each in named if SUBJECT_OF_ANSWER.fullmatch(sentence[each.end : call.start()])]
        behind = [each for each in named if call.start() < each.end and each.start < end]
        given = before[-1] if before else next(iter(behind), None)
        if given is not None:
            found = True
            if not HEDGED.search(sentence[call.start() : given.start]):
                yield given.keys
    announced = re.search(r"\W*(?:is\b|:)\W*$", sentence[calls[-1].start() :])
    if not found and not announced:
        yield named[-1].keys


def conclusions(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """What a sentence gives behind "so" or "therefore", or of what it says "is therefore"."""
    named = affirmations(sentence, options)
    drawn = list(SUMMARY.finditer(sentence))
    if named and CONDITION.search(sentence):
        yield frozenset().union(*(each.keys for each in named))
    elif named and drawn:
        behind = [each for each in named if each.end > drawn[-1].start()]
        subject = [each for each in named if SUBJECT_OF_ANSWER.fullmatch(sentence[each.end : drawn[-1].start()])]
        if behind or subject:
            yield (behind or subject)[-1].keys


def endings(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """The option that a sentence ends in, behind an arrow or the like."""
    named = affirmations(sentence, options)
    if named and len(named[-1].keys) == 1:
        before = sentence[: named[-1].start]
        ends = not WORD.search(sentence[named[-1].end :])
        announced = ends and (LETTER_AT_END.search(sentence) or ANNOUNCED.search(before))
        if (announced or ARROW.search(before)) and not SUPPOSED_BEFORE.search(before):
            yield named[-1].keys


def judgements(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """What a sentence gives that calls something likely or best."""
    named = affirmations(sentence, options)
    judged = list(JUDGEMENT.finditer(sentence)) or list(ANSWER.finditer(sentence))
    if named and judged:
        subject = [each for each in named if SUBJECT_OF_ANSWER.fullmatch(sentence[each.end : judged[-1].start()])]
        behind = [each for each in named if each.end > judged[-1].start()]
        yield (subject[-1] if subject else behind[0] if behind else named[-1]).keys


def of_the_case(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """What a sentence says that the patient has, or that this is."""
    named = affirmations(sentence, options)
    said = OF_THE_CASE.search(sentence)
    if said and named:
        behind = [each for each in named if each.end > said.start() and not SUPPOSED_BEFORE.search(sentence[: each.start])]
        yield from [each.keys for each in behind[:1]]


def affirmed(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """Whatever a sentence affirms, and not as a mere thought."""
    for each in affirmations(sentence, options):
        before, behind = sentence[: each.start], sentence[each.end :]
        if not (SUPPOSED_BEFORE.search(before) or SUPPOSED_AFTER.match(behind)):
            yield each.keys


def supposed(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """Whatever a sentence affirms."""
    for each in affirmations(sentence, options):
        yield each.keys
