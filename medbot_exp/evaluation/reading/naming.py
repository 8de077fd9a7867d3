"""What an option may be called in a reply: its text, the part that is its alone, initials, another name, a number.

Spaces, hyphens, articles, plurals and British spelling do not matter; a name that fits two options fits none.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

from medbot_exp.evaluation.reading.synonyms import SYNONYMS

THE_OPTIONS = r"(?:the above|these|them|the (?:given |listed |other )?(?:options|choices))"
ALL_OF_THEM = re.compile(
    rf"\b(?:all|any) (?:of )?(?:{THE_OPTIONS}|three|four)\b(?: options| choices)?"
    r"|\beach of (?:these|them)\b|\b(?:every|each) (?:one of (?:them|these)|option|choice)\b",
    re.I,
)
NONE_OF_THEM = re.compile(
    rf"\bnone (?:of )?{THE_OPTIONS}\b(?: options| choices)?|\bnone\b(?=[\s.!]*$)",
    re.I | re.M,
)
BOTH_OF_THEM = re.compile(r"\bboth\b(?: of (?:the above|these|them))?(?: [A-J] and [A-J]\b)?", re.I)
NEITHER_OF_THEM = re.compile(r"\bneither\b(?: of (?:the above|these|them|the two))?(?: [A-J] nor [A-J]\b)?", re.I)
# Letters that an option joins: "B and C only".
JOINED = re.compile(r"(?:both |options? )?([A-J](?:\s*(?:,|&|and|,\s*and)\s*[A-J])+)(?: only| are correct)?", re.I)
# What an option begins or ends with and can do without: how to give or do something that no other option is about.
DISPENSABLE_FIRST = (
    r"(?:acute|start|begin|give|administer|administration of|order|perform|obtain|prescribe|initiate|use|add|schedule"
    r"|refer(?:ral)? for|treat(?:ment)? with|therapy with|measure|check|serum|plasma|intravenous(?:ly)?|iv|oral(?:ly)?"
    r"|intramuscular|im|subcutaneous|topical|inhaled|immediate|urgent|emergen(?:cy|t)|empiric(?:al)?|systemic"
    r"|a|an|the)\s+"
)
DISPENSABLE_LAST = r"\s+(?:therapy|alone|orally|intravenously|intramuscularly|subcutaneously|topically)"
# Too little to name an option by.
GENERIC = (
    "therapy treatment patient surgery observation medication drug drugs disease syndrome infection imaging test "
    "fluids antibiotics steroids bleeding pain"
)
# What initials would be read as instead, and what they are in small letters.
OTHER_WORDS = "IV IM OR IT IS NO SO BE IF IN ON AT TO OF BY WE US UP DO GO AN ALL"
WORDS_IN_SMALL = f"{OTHER_WORDS} AS AM PM HE ME MS AID AIDS CAT PAD ARM"
SHORT_FORMS = {"intravenous": "IV", "intramuscular": "IM"}
ROMAN = {"I": "1", "II": "2", "III": "3", "IV": "4", "V": "5"}
COUNTED = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
ORDINALS = {"first": "1st", "second": "2nd", "third": "3rd", "fourth": "4th", "fifth": "5th", "sixth": "6th"}
# A genus and a species: Escherichia coli.
BINOMIAL = re.compile(r"([A-Z])[a-z]+(?:a|us|um|is|as|ces) ([a-z]+(?:us|is|um|ae|i|a|ns|es|x))")
IN_WORDS = {
    Fraction(1, 2): "half|one half|one in two",
    Fraction(1, 3): "one third|one in three",
    Fraction(2, 3): "two thirds|two in three",
    Fraction(1, 4): "one fourth|a quarter|one quarter|one in four",
    Fraction(3, 4): "three fourths|three quarters|three in four",
}
RAISED = ("increased", "elevated", "raised", "high", "↑")
LOWERED = ("decreased", "reduced", "lowered", "low", "↓")


@lru_cache(maxsize=4096)
def patterns_of(option: str, others: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """What the text of `option` can look like, where the question's `others` cannot."""
    whole = option.strip(" .")
    found = [each for each in (ALL_OF_THEM, NONE_OF_THEM, BOTH_OF_THEM, NEITHER_OF_THEM) if each.fullmatch(whole)]
    found += [initials_pattern(initials) for initials in initials_of(whole, others)]
    found += [re.compile(rf"(?<![\w.,/])(?:{number})(?![\w/]|[.,]\d)", re.I) for number in numbers_like(whole)]
    for form in sorted(forms_of(whole, others)):
        tokens = re.findall(r"\w+|[^\w\s]", re.sub(r"['’]s\b", "", form))
        if tokens and not (len(form) == 1 and form.isalpha()):
            found.append(re.compile(spaced(tokens), re.I))
    return tuple(found)


def forms_of(whole: str, others: Sequence[str]) -> set[str]:
    """The texts that name the option: the whole, without or within its brackets, without what it can do without."""
    forms = {whole}
    bracket = re.fullmatch(r"(.*\S)\s*\(([^()]+)\)\s*(.*)", whole)
    if bracket:
        forms |= only_here((f"{bracket[1]} {bracket[3]}".strip(), bracket[2]), others)
    forms |= set(by_direction(whole))
    forms |= only_here([core for form in forms for core in cores_of(form)], others)
    for _ in range(2):  # both of "cardiac output and systemic vascular resistance"
        forms |= only_here([alias for form in forms for alias in aliases_of(form)], others)
    forms |= only_here(list(counted_otherwise(whole)), others)
    return forms | binomials(whole, others)


def only_here(names: Sequence[str], others: Sequence[str]) -> set[str]:
    """Those of `names` that are part of none of `others`, nor of another name of theirs."""
    told = [name.lower() for other in others for name in (other, *aliases_of(other))]
    return {name for name in names if not any(re.search(rf"(?<!\w){re.escape(name.lower())}", other) for other in told)}


def binomials(whole: str, others: Sequence[str]) -> set[str]:
    """How the name of a germ is shortened: E. coli, E coli, and the genus where no other option has it."""
    found = BINOMIAL.fullmatch(whole)
    if not found:
        return set()
    genus, species = whole.split()
    return {f"{genus[0]}. {species}", f"{genus[0]} {species}"} | only_here((genus, species), others)


def counted_otherwise(whole: str) -> Iterator[str]:
    """`whole` with its Roman numeral as a figure, or its leading figure as a word: stage 3, six months."""
    numeral = re.search(r"\b(?:I{1,3}|IV|V)$", whole)
    if numeral and numeral.start():
        yield whole[: numeral.start()] + ROMAN[numeral[0]]
    first, _, rest = whole.partition(" ")
    if rest and first.lower() in ORDINALS:
        yield f"{ORDINALS[first.lower()]} {rest}"
    figure = re.match(r"(\d+) [a-z]", whole)
    if figure and 0 < int(figure[1]) <= len(COUNTED):
        yield COUNTED[int(figure[1]) - 1] + whole[figure.end(1) :]


def cores_of(form: str) -> Iterator[str]:
    """`form` without the words that say how something is given or done."""
    core = re.sub(rf"^(?:{DISPENSABLE_FIRST})+", "", form, flags=re.I)
    for each in (core, re.sub(rf"(?:{DISPENSABLE_LAST})+$", "", core, flags=re.I)):
        if each != form and each.lower() not in GENERIC.split() and (len(each) > 4 or each.isupper()):
            yield each


@lru_cache(maxsize=4096)
def aliases_of(form: str) -> tuple[str, ...]:
    """`form` with a part of it under another name."""
    places = [(name.search(form), others) for name, others in SYNONYMS]
    found = [
        form[: place.start()] + other + form[place.end() :] for place, others in places if place for other in others
    ]
    short = [short + form[len(word) :] for word, short in SHORT_FORMS.items() if re.match(rf"{word}\s", form, re.I)]
    return (*found, *short)


def initials_of(whole: str, others: Sequence[str]) -> set[str]:
    """The initials that stand for `whole`, or for its first two words: PCA, LV aneurysm."""
    taken = {initials for other in others for initials in all_initials(other)}
    told = {word for other in others for word in re.findall(r"\w+", other)}
    return all_initials(whole) - taken - told - set(OTHER_WORDS.split())


def all_initials(whole: str) -> set[str]:
    """The initials of all words, of all but the smallest, and of the first two with the rest written out."""
    names = re.findall(r"[A-Za-z]+", re.sub(r"'s\b|\([^)]*\)", "", whole))
    telling = [name for name in names if name.lower() not in ("of", "the", "and", "with", "to", "in", "a", "an")]
    found = {"".join(name[0] for name in each) for each in (names, telling) if 1 < len(each) < 7}
    particles = {each[0] + each[1:].upper() for each in found if each[0].islower() and each[1].isupper()}  # vWD
    found = {each.upper() for each in found} | particles
    if len(names) > 2:
        found.add(" ".join([f"{names[0][0]}{names[1][0]}".upper(), *names[2:]]))
    return found


def initials_pattern(initials: str) -> re.Pattern[str]:
    """Where `initials` stand, in singular or plural."""
    return re.compile(rf"(?<![\w\-]){re.escape(initials)}s?(?![\w\-])")


def numbers_like(whole: str) -> Iterator[str]:
    """Other ways to write the percentage or fraction that `whole` is."""
    percent, decimal = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", whole), re.fullmatch(r"0?(\.\d+)", whole)
    ratio = re.fullmatch(r"(\d+)\s*(?:/|in|out of)\s*([1-9]\d*)", whole)
    if percent:
        share = Fraction(percent[1]) / 100
    elif decimal:
        share = Fraction(decimal[1])
    elif ratio:
        share = Fraction(int(ratio[1]), int(ratio[2]))
    else:
        return
    yield rf"{float(share):g}0*".replace(".", r"\.")
    yield rf"{float(share * 100):g}\s*(?:%|percent|per cent)".replace(".", r"\.")
    yield rf"{share.numerator}\s*(?:/|in|out of)\s*{share.denominator}"
    if share in IN_WORDS:
        yield IN_WORDS[share].replace(" ", r"[\s\-]")


def by_direction(whole: str) -> Iterator[str]:
    """`whole` with each direction behind what it belongs to: TSH increased, T4 decreased."""
    pieces = [piece.strip() for piece in re.split(r",|\band\b", whole)]
    directed = [re.fullmatch(rf"({'|'.join((*RAISED, *LOWERED))})\s*(.+)", piece, re.I) for piece in pieces]
    if all(directed):
        yield ", ".join(f"{each[2]} {each[1]}" for each in directed if each)


def spaced(tokens: Sequence[str]) -> str:
    """A pattern for `tokens` with any spaces, hyphens and small words between them, the last in singular or plural."""
    parts = [spelled(token) for token in tokens if token not in "-,'’()"] or [re.escape(token) for token in tokens]
    first, last = tokens[0], tokens[-1]
    if last.isalpha() and last.isascii() and len(last) > 3 and last.lower() not in (*RAISED, *LOWERED):
        stem = last[:-1] if last.endswith("s") and not last.endswith("ss") else last
        parts[-1] = f"{spelled(stem)}(?:s|es)?"
    before = behind = ""
    if first[0].isdigit():
        before = r"(?<![\w.])"  # no end of a longer number
    elif first.isascii() and first.isalnum():
        before = r"(?<!\w)"
    if last.isascii() and last.isalnum():
        behind = r"(?!\w|[.,]\d)"
    joined = "and|with|" if "," in tokens else ""
    return before + rf"(?:['’]s\b)?[\s\-,'’()]*(?:(?:{joined}a|an|the|is|are|free)\s+)?".join(parts) + behind


def spelled(token: str) -> str:
    """A pattern for `token` in American and British spelling; a direction may have any word for it."""
    for direction in (RAISED, LOWERED):
        if token.lower() in direction:
            return f"(?:{'|'.join(direction)})"
    if token in WORDS_IN_SMALL.split():
        return f"(?-i:{token})"
    if re.match(r"non[a-z]{4}", token, re.I):
        return rf"non[\s\-]?{spelled(token[3:])}"
    if len(token) < 5:
        return re.escape(token)
    return re.sub(r"(?<=\w)or(?=s?$)", "ou?r", re.sub(r"[ao]?e(?=.)", "[ao]?e", re.escape(token), flags=re.I))


def united(options: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """The options that stand for several others, by key: "all of the above", "both A and B", "B and C only"."""
    found = {}
    for key, option in options.items():
        whole = option.strip(" .")
        letters = JOINED.fullmatch(whole)
        if letters:
            found[key] = frozenset(re.findall(r"\b[A-J]\b", letters[1].upper())) & options.keys()
        elif ALL_OF_THEM.fullmatch(whole):
            found[key] = frozenset(options) - {key}
        elif BOTH_OF_THEM.fullmatch(whole):
            found[key] = frozenset([other for other in options if other < key][:2])
    none = {key for key, option in options.items() if NONE_OF_THEM.fullmatch(option.strip(" ."))}
    plain = options.keys() - found.keys() - none
    return {key: keys & plain for key, keys in found.items() if len(keys & plain) > 1}
