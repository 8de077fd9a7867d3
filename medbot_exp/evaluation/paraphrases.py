"""Options that a sentence gives in other words: in another order, in part, or with another ending."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from medbot_exp.evaluation.affirmations import is_denied
from medbot_exp.evaluation.mentions import SAID_AS, find_mentions
from medbot_exp.evaluation.naming import LOWERED, RAISED, aliases_of
from medbot_exp.evaluation.wording import ANSWER, DENIAL, FILLER, JUDGEMENT, ODD_ONE, SUMMARY

# Stems that options share with any sentence.
IDLE = frozenset("thi that with from giv start perform administe obtain the a i an of is it to patient".split())
ENDING = re.compile(r"(?<=...)(?:ations?|ions?|ing|ical(?:ly)?|ally|al|ery|ed|es|s|e|ly|i|us|ance)$")
# What a sentence may deny before it comes to what it says.
TURN = re.compile(r"^.*\bnot\b.*\bbut\b(?! not\b)", re.I | re.S)

# What a sentence comes to in its last words: "no flow: torsion".
LAST_WORDS = re.compile(r"^.*:(?=(?:\W*\w+){1,4}\W*$)", re.S)


def in_other_words(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """The one option whose words a sentence has in another order, or of whose words an answer is a part."""
    odd = ODD_ONE.match(sentence)
    turn = odd or TURN.match(sentence) or LAST_WORDS.match(sentence)
    told_here = sentence[turn.end() :] if turn else sentence
    if DENIAL.search(told_here) or options.keys() <= SAID_AS.keys():
        return
    said = stems(FILLER.sub(" ", ANSWER.sub(" ", told_here)))
    told = {key: stems(option) for key, option in options.items()}
    denied = {
        mention.key for mention in find_mentions(sentence, options) if is_denied(sentence, mention.start, mention.end)
    }
    vague = {key for key, words in told.items() if any(words < others for others in told.values())}
    held = {key for key, words in told.items() if words and words <= said} - denied - vague
    partial = turn or ANSWER.search(sentence) or len(said) <= 4
    if said and partial:
        held |= {key for key, words in told.items() if said <= words} - denied
    longest = {key for key in held if not any(told[key] < told[other] for other in held)}
    if not held and not denied:
        judged = partial or JUDGEMENT.search(sentence) or SUMMARY.search(sentence)
        alone = {
            key: words.keys() - set().union(*(told[other] for other in told if other != key))
            for key, words in told.items()
        }
        longest = {key for key, words in alone.items() if len(words & said.keys()) >= (1 if judged else 2)} - denied
        if any(alone[key] & said.keys() for key in alone.keys() - longest):
            return
    if len(longest) == 1:
        yield frozenset(longest)


def stems(text: str) -> Counter[str]:
    """How often `text` has each word that says something, without its ending."""
    for short in re.findall(r"\b[A-Z][A-Z\d]+\b", text):
        full = next((alias for alias in aliases_of(short) if " " in alias), short)
        text = text.replace(short, full)
    words = re.findall(r"\d+(?:[.,/]\d+)*%?|\w+|[↑↓]", text)
    telling = (word for word in words if len(word) > 3 or word[0].isdigit() or word.isupper() or word in "↑↓")
    return Counter(stem for stem in map(stem_of, telling) if stem not in IDLE)


def stem_of(word: str) -> str:
    """`word` without its ending; one stem for all words of a direction."""
    for direction in (RAISED, LOWERED):
        if word.lower() in direction or word.lower()[:6] in [each[:6] for each in direction if len(each) > 6]:
            return direction[-1]
    return ENDING.sub("", word.lower())[:9]
