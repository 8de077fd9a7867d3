"""The ways in which a sentence gives an option as the answer, from the plainest to a mere mention.

Each takes a sentence and yields the options that it gives so; several that are named together count as one claim.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from medbot_exp.evaluation.reading.affirmations import Named, affirmations, is_odd_one
from medbot_exp.evaluation.reading.denials import CONDITION, HEDGED, ODD_ONE, SUPPOSED_AFTER, SUPPOSED_BEFORE
from medbot_exp.evaluation.reading.paraphrases import in_other_words
from medbot_exp.evaluation.reading.wording import (
    ANNOUNCED,
    ANSWER,
    ARROW,
    CALLED_RIGHT,
    FILLER,
    JUDGEMENT,
    LETTER_AT_END,
    OF_THE_CASE,
    SUBJECT_OF_ANSWER,
    SUMMARY,
    WORD,
)

Kind = Callable[[str, Mapping[str, str]], Iterator[frozenset[str]]]


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


def alone(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """The option that a sentence is, with at most one word before it or words that add nothing."""
    named = affirmations(sentence, options)
    if len(named) != 1 or sentence.rstrip().endswith("?"):
        return
    before, behind = sentence[: named[0].start], sentence[named[0].end :]
    bare = not WORD.search(behind) and len(WORD.findall(before)) <= ("→" not in before)
    plain = not WORD.search(FILLER.sub("", before) + FILLER.sub("", behind))
    # "A, B and D are": of several, not even a verb.
    if (bare or plain) and (len(named[0].keys) == 1 or not WORD.search(before + behind)):
        yield named[0].keys


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
        behind = [each for each in named if each.end > said.start()]
        if behind and not SUPPOSED_BEFORE.search(sentence[: behind[0].start]):
            yield behind[0].keys


def affirmed(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """Whatever a sentence affirms, and not as a mere thought."""
    for each in affirmations(sentence, options):
        before, behind = sentence[: each.start], sentence[each.end :]
        if not (SUPPOSED_BEFORE.search(before) or SUPPOSED_AFTER.match(behind)):
            yield each.keys


def supposed(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """Whatever a sentence affirms, be it as a mere thought."""
    for each in affirmations(sentence, options):
        yield each.keys
