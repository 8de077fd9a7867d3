"""The options that a sentence affirms: those it names and does not deny, the ones named together as one.

"Not A but B" affirms B. "The one that does not fit is A" affirms A, as does "all but A": such a sentence answers a
question for the odd one out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medbot_exp.evaluation.reading.denials import (
    CLAUSE,
    COMPARED,
    CONCESSION,
    DENIED_AFTER,
    DENIED_BEFORE,
    DENIES_NEXT,
    EXCEPTED,
    HEADED_AS_WRONG,
    ODD_ONE_AFTER,
    ODD_ONE_BEFORE,
)
from medbot_exp.evaluation.reading.mentions import Mention, find_mentions
from medbot_exp.evaluation.reading.naming import united
from medbot_exp.evaluation.reading.wording import SAME, TOGETHER

GOES_ON = re.compile(r"\s*(?:,|and\b|or\b)")


@dataclass(frozen=True)
class Named:
    """Options that a sentence affirms together, and where they stand in it."""

    keys: frozenset[str]
    start: int
    end: int


def affirmations(sentence: str, options: Mapping[str, str]) -> list[Named]:
    """The options that `sentence` affirms, in their order."""
    groups = groups_of(sentence, options)
    named = []
    nexts = [*(group[0].start for group in groups[1:]), len(sentence)]
    for group, following in zip(groups, nexts, strict=False):
        start, end = group[0].start, group[-1].end
        # In "A and not B" it is B that is denied.
        other = DENIES_NEXT.search(sentence[end:following]) if following < len(sentence) else None
        if not is_denied(sentence[: end + other.start()] if other else sentence, start, end):
            named.append(Named(together(group, options), start, end))
    return named


def groups_of(sentence: str, options: Mapping[str, str]) -> list[list[Mention]]:
    """The mentions in `sentence`, those side by side in one group; a letter beside its text is one option."""
    groups: list[list[Mention]] = []
    for mention in find_mentions(sentence, options):
        between = sentence[groups[-1][-1].end : mention.start] if groups else ""
        # "Although some choose A, B is right" names two, unlike "Although A, B and C are".
        apart = between.strip() == "," and CONCESSION.match(sentence) and not GOES_ON.match(sentence[mention.end :])
        if groups and not apart and belongs(mention, groups[-1], between):
            groups[-1].append(mention)
        else:
            groups.append([mention])
    return groups


def belongs(mention: Mention, group: Sequence[Mention], between: str) -> bool:
    """Whether `mention` is named together with `group`, or is its last one's letter or text."""
    if SAME.match(between) and group[-1].by_letter != mention.by_letter:
        return True
    return bool(TOGETHER.match(between)) and all(mention.key != other.key for other in group)


def together(group: Sequence[Mention], options: Mapping[str, str]) -> frozenset[str]:
    """The keys in `group`, or the one that stands for just these: "A and B" where C is "both A and B"."""
    keys = frozenset(mention.key for mention in group)
    for key, others in united(options).items():
        if keys in (others, others | {key}):
            return frozenset({key})
    return keys


def is_odd_one(sentence: str, start: int, end: int) -> bool:
    """Whether what stands between `start` and `end` is what `sentence` says does not fit."""
    return bool(ODD_ONE_BEFORE.search(sentence[:start]) or ODD_ONE_AFTER.match(sentence[end:]))


def is_denied(sentence: str, start: int, end: int) -> bool:
    """Whether `sentence` says that it is not what stands between `start` and `end`."""
    whole = sentence[:start]
    if EXCEPTED.search(whole) or is_odd_one(sentence, start, end):
        return False
    before = CLAUSE.split(whole)[-1]
    denied = DENIED_BEFORE.search(before) or COMPARED.search(before) or HEADED_AS_WRONG.search(whole)
    return bool(denied or DENIED_AFTER.search(sentence[end:]))
