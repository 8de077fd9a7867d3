"""Options that a sentence gives in other words: in another order, in part, or with another ending."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Set

from medbot_exp.evaluation.reading.affirmations import is_denied
from medbot_exp.evaluation.reading.denials import DENIAL, NOT_YET, ODD_ONE
from medbot_exp.evaluation.reading.mentions import SAID_AS, find_mentions
from medbot_exp.evaluation.reading.naming import LOWERED, RAISED, aliases_of
from medbot_exp.evaluation.reading.wording import ANSWER, FILLER, JUDGEMENT, SUMMARY

# Stems that options share with any sentence.
IDLE = "thi that with from giv start follow perform administe obtain the a i an of is it to patient"
ENDING = re.compile(
    r"(?<=...)(?:ations?|ions?|(?<=c)t(?:ions?|ed|ing|s)?|ing|ical(?:ly)?|ally|al|ery|ed|es|s|e|ly|i|us|ance)$"
)
# So many words of an answer are the whole of it.
FEW = 4
# Words that can stand beside a word of an option and leave it what it is.
COMMON = re.compile(
    r"[^\w]|[a-z]{1,3}|[A-Z]?[a-z]*(?:ing|ly|ed|en|ould|ight)|(?i:is|are|this|that|th[eo]se|with|from|into|first|next|most"
    r"|best|must|will|have|been|which|what|when|because|since|here|there|then|than|also|only|more|level|test|scan|therapy"
    r"|patient|disease|syndrome|negative|positive|drip|infusion|dose|give|start|order|check|need|means?|points?)",
)
# What a sentence may deny before it comes to what it says.
TURN = re.compile(r"^.*\bnot\b.*\bbut\b(?! not\b)", re.I | re.S)
# What a sentence comes to in its last words: "no flow: torsion".
LAST_WORDS = re.compile(r"^.*:(?=(?:\W*\w+){1,4}\W*$)", re.S)


def in_other_words(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """The one option whose words a sentence has in another order, or of whose words an answer is a part."""
    if options.keys() <= SAID_AS.keys() or DENIAL.search(last_part(sentence)):
        return
    said = stems(without_filler(last_part(written_out(sentence))))
    told = {key: stems(written_out(option)) for key, option in options.items()}
    denied = denied_in(sentence, options)
    part_of_another = {key for key, words in told.items() if any(words < others for others in told.values())}
    whole = {key for key, words in told.items() if words and words <= said} - part_of_another - denied
    held = {key for key in whole if not any(told[key] < told[other] for other in whole)}
    if not held and said and (ANSWER.search(sentence) or last_part(sentence) != sentence or said.total() <= FEW):
        held = {key for key, words in told.items() if said <= words} - denied
    if len(held) == 1:
        yield frozenset(held)


def by_a_word(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """The one option of which a sentence that gives an answer has a word that no other option has."""
    gives = ANSWER.search(sentence) or JUDGEMENT.search(sentence) or SUMMARY.search(sentence)
    short = stems(without_filler(last_part(sentence))).total() <= FEW
    if (gives or short) and not NOT_YET.search(sentence):
        yield from with_words_of_its_own(sentence, options, least=1)


def by_words(sentence: str, options: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """The one option of which a sentence has two words that no other option has."""
    yield from with_words_of_its_own(sentence, options, least=2)


def with_words_of_its_own(sentence: str, options: Mapping[str, str], least: int) -> Iterator[frozenset[str]]:
    """The one option of which `sentence` has words that no other option has, if at least `least` of them."""
    if options.keys() <= SAID_AS.keys() or DENIAL.search(last_part(sentence)) or denied_in(sentence, options):
        return
    told = {key: stems(option).keys() for key, option in options.items()}
    own = {key: words - set().union(*(told[other] for other in told if other != key)) for key, words in told.items()}
    said = last_part(sentence)
    held = {key: {word for word in words if stands_in(said, word, told[key])} for key, words in own.items()}
    held = {key: words for key, words in held.items() if words}
    if len(held) == 1 and len(next(iter(held.values()))) >= least:
        yield frozenset(held)


def stands_in(said: str, stem: str, option: Set[str]) -> bool:
    """Whether a word of `option` with this `stem` is in `said`, and is no part of another name: aortic stenosis."""
    words = re.findall(r"\w+|[^\w\s]", said)
    stems_said = [stem_of(word) for word in words]
    around = [
        {*words[max(0, at - 1) : at], *words[at + 1 : at + 2]} for at, each in enumerate(stems_said) if each == stem
    ]
    return any(all(stem_of(word) in option or COMMON.fullmatch(word) for word in near) for near in around)


def last_part(sentence: str) -> str:
    """What `sentence` comes to: behind "the one that does not fit is", "not this but", or a colon and few words."""
    turn = ODD_ONE.match(sentence) or TURN.match(sentence) or LAST_WORDS.match(sentence)
    return sentence[turn.end() :] if turn else sentence


def without_filler(text: str) -> str:
    """`text` without the words that call it an answer."""
    return FILLER.sub(" ", ANSWER.sub(" ", text))


def denied_in(sentence: str, options: Mapping[str, str]) -> set[str]:
    """The options that `sentence` names and denies."""
    mentions = find_mentions(sentence, options)
    return {mention.key for mention in mentions if is_denied(sentence, mention.start, mention.end)}


def written_out(text: str) -> str:
    """`text` with each abbreviation as what it stands for."""
    for short in re.findall(r"\b[A-Z][A-Z\d]+\b", text):
        text = text.replace(short, next((alias for alias in aliases_of(short) if " " in alias), short))
    return text


def stems(text: str) -> Counter[str]:
    """How often `text` has each word that says something, without its ending."""
    words = re.findall(r"\d+(?:[.,/]\d+)*%?|\w+|[↑↓]", text)
    telling = (word for word in words if len(word) > 3 or word[0].isdigit() or word.isupper() or word in "↑↓")
    return Counter(stem for stem in map(stem_of, telling) if stem not in IDLE.split())


def stem_of(word: str) -> str:
    """`word` without its ending; one stem for all words of a direction."""
    for direction in (RAISED, LOWERED):
        if word.lower() in direction or word.lower()[:6] in [each[:6] for each in direction if len(each) > 6]:
            return direction[-1]
    return ENDING.sub("", word.lower())[:9]
