"""What of an item depends on the order of its options, and putting them in another."""

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import replace

from medbot_exp.config import OptionOrder
from medbot_exp.evaluation.item import TURN, Item

AUXILIARY = (
    r"(?:is|are|is/are|was|were|be|does|do|did|has|have|had|can|could|will|would|shall|should|may|might|must|need)"
)
DENIAL = rf"(?:\b{AUXILIARY}\s+(?:not|never|unlikely)\b|\bcan ?not\b|\b\w+n['’]t\b)"
# Behind these words a denial is the story's: "in a patient who does not smoke", "explains why she is not better".
STORY = (
    r"\b(?:who|whom|whose|if|when|while|because|why|how|although|unless|despite|since|explains?|describes?|accounts?"
    r"|this|his|her|he|she|patients?|man|woman|child|infant|newborn|boy|girl)\b"
)
# Sentences that ask for the exception, or for what is false. Capitals count in the first alone.
EXCEPTION = (
    re.compile(r"\b(?:EXCEPT|NOT)\b"),
    *(
        re.compile(pattern, re.IGNORECASE)
        for pattern in (
            # At the end, or behind "all": "a normal examination except for a murmur" is the story's.
            r"\b(?:except(?:ing|ion)?|excluding|other than)(?:\s+(?:for|of|that|one))?\W*$",
            r"\b(?:all|each|every)\b.*\bexcept\b",
            r"\bleast\s+(?:likely|probable|expected|appropriate|consistent|characteristic|helpful)\b",
            r"\bnot\W+(?:true|correct)\b|\b(?:untrue|incorrect)\b",
            r"\bwrong\s+(?:statement|option|match|pair|about|regarding)\b|\b(?:is|are)\s+wrong\W*$",
            # Neither a false positive, nor the false vocal cords.
            r"\b(?:is|are|is/are)\s+false\b(?!\W+(?:positive|negative))|^false\W*$",
            r"\bfalse\s+(?:is|are|statements?|about|regarding)\b",
            # "Which of these is not": between the two stands no other auxiliary, as in "is the reason that it is not".
            rf"\b(?:which|what|these|following)\b(?:(?!\b{AUXILIARY}\b|{STORY})[^,;])*{DENIAL}",
            # Stems that are no question: "The ulna does not touch the:", "In scurvy not seen is:".
            rf"^(?:(?!{STORY}|\b(?:that|which|what)\b)[^,;?])*{DENIAL}(?:(?!{STORY})[^,;?])*\W*$",
            rf"\bthat\s+{DENIAL}[^,;]*\b(?:is|are|includes?)(?:\s+the)?\W*$",
            rf"^not\b|^(?:(?!{STORY})[^,;?])*\bnot\s+(?:\w+\s+){{1,4}}(?:is|are)\W*$",
        )
    ),
)
# A stop ends a sentence where a capital or a digit follows: stems have stray ones within.
SENTENCE_END = re.compile(r"(?<=[.?!])[\"'”’)]*\s+(?=[\"'“‘(]*[A-Z0-9])|\n+")
CLAUSE_END = re.compile(r"[:;](?=\s*\w)")

ABOVE = r"(?: of)?(?: the)?(?: (?:above|these|those|them|others?|options?|choices?|following|mentioned))*"
VERDICT = r"(?: (?:(?:is|are) )?(?:true|correct|right|false|possible|seen|present))?"
# "All of the above", "none": right at the end, whatever the order before it.
ALL_ABOVE = re.compile(rf"(?:all|none|any|more than one){ABOVE}{VERDICT}")
# "Both", "either of the above": of two options that are not named, but stand where they stand.
BOTH = re.compile(rf"(?:both|either|neither|two){ABOVE}{VERDICT}")
LETTER = r"\(?[a-e]\)?"
SEVERAL = rf"{LETTER}(?: ?(?:,|&|\+|/|\band\b|\bor\b|\bnor\b)+ ?(?:and |or |& )?{LETTER})+"
WHICH = r"(?:both|either|neither|all|none|only|options?)(?: of| except| options?)?"
# "A and C", "both AB", "only B", "(a), (b) and (c) are true".
LETTERS_NAMED = re.compile(
    rf"(?:{SEVERAL}|{WHICH} (?:{SEVERAL}|{LETTER}|[a-e]{{2,3}})|{LETTER}(?: only| alone))(?: only| both)?{VERDICT}"
)
# Each a marker in a picture, or a blood group: it says nothing of other options, but reads ill under another letter.
LONE_LETTER = re.compile(LETTER)


def tagged(item: Item) -> Item:
    """`item` with the tags that its words call for: negated, all_of_the_above, same_options.

    negated: the stem asks for the exception, or for what is false. all_of_the_above: an option speaks of others.
    same_options: two have the same text.
    """
    texts = list(item.options.values())
    found = {
        "negated": negated(item.question),
        "all_of_the_above": any(above(text) or names_others(text) for text in texts),
        "same_options": len(set(texts)) < len(texts),
    }
    return replace(item, tags=item.tags + tuple(tag for tag, holds in found.items() if holds))


def negated(stem: str) -> bool:
    """Whether the sentence of `stem` that asks, the last, asks for the exception: it, or a clause up to a colon."""
    sentence = SENTENCE_END.split(stem.strip())[-1].strip()
    clauses = {sentence, sentence.rpartition(":")[0].strip(), CLAUSE_END.split(sentence)[-1].strip()}
    return any(pattern.search(clause) for clause in clauses for pattern in EXCEPTION)


def plain(text: str) -> str:
    """`text` in lower case with single spaces, without the full stop and the quotes around it."""
    return " ".join(text.lower().split()).strip(" .\"'")


def above(text: str) -> bool:
    """Whether the option `text` speaks of all others before it."""
    return bool(ALL_ABOVE.fullmatch(plain(text)))


def names_others(text: str) -> bool:
    """Whether the option `text` speaks of some others, by their letters or as both of two."""
    return bool(BOTH.fullmatch(plain(text)) or LETTERS_NAMED.fullmatch(plain(text)))


def movable(item: Item) -> list[str]:
    """The keys of the options of `item` that can change places; none where the published order alone makes sense.

    "All of the above" stays at the end. Where an option names or is a letter, or another stands behind one that
    speaks of all above it, or the keys are words, none can.
    """
    keys = [key for key, text in item.options.items() if not above(text)]
    lettered = all(len(key) == 1 and key.isupper() for key in item.options)
    bound = any(names_others(text) or LONE_LETTER.fullmatch(plain(text)) for text in item.options.values())
    if not lettered or bound or keys != list(item.options)[: len(keys)]:
        return []
    return keys


def ordered(items: Sequence[Item], order: OptionOrder, seed: int) -> list[Item]:
    """`items` with their options in `order`; a label goes with its text.

    shuffled: an item's order follows from its id and `seed`, from nothing else.
    cyclic: as many items as options can move, each with these one place further: ids `<id>~0`, `<id>~1`, …, one
    group where the item has none. The first is as published.
    """
    if order is OptionOrder.published:
        return list(items)
    if order is OptionOrder.shuffled:
        return [shuffled(item, seed) for item in items]
    return [turn for item in items for turn in turns(item)]


def published_id(asked: str) -> str:
    """The id that an item was published under, of one that is asked in several orders; it has no TURN in it."""
    published, turn, _ = asked.rpartition(TURN)
    return published if turn else asked


def shuffled(item: Item, seed: int) -> Item:
    """`item` with the texts that can move under other letters."""
    keys = movable(item)
    drawn = hashlib.sha256(f"{seed} {item.id}".encode()).digest()
    return rearranged(item, keys, random.Random(int.from_bytes(drawn, "big")).sample(keys, len(keys)))


def turns(item: Item) -> list[Item]:
    """`item` in all rotations of the texts that can move; once where none can."""
    keys = movable(item)
    group = item.id if item.group is None else item.group
    return [
        replace(rearranged(item, keys, keys[turn:] + keys[:turn]), id=f"{item.id}{TURN}{turn}", group=group)
        for turn in range(max(1, len(keys)))
    ]


def rearranged(item: Item, keys: Sequence[str], sources: Sequence[str]) -> Item:
    """`item` with the text of each of `sources` under the key of `keys` at its place."""
    moves = dict(zip(keys, sources, strict=True))
    texts = {key: item.options[moves.get(key, key)] for key in item.options}
    label = next(key for key in item.options if moves.get(key, key) == item.label)
    return replace(item, options=texts, label=label)
