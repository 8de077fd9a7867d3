"""Where a text names an option of a question: by its letter, or by its words.

The article "A", the letters of "vitamin A" and "hepatitis B", and the "no" of "no difference" name none.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from medbot_exp.evaluation.reading.denials import EXCEPTED
from medbot_exp.evaluation.reading.naming import patterns_of

# Words in front of a letter that is part of their name.
NAMED_BY_LETTER = (
    "vitamins? hepatitis types? subtype serotype groups? class category stage grade phase zone schedule factor lesion "
    "hemophilia haemophilia influenza child-pugh protein immunoglobulin ige hemoglobin haemoglobin coenzyme complement "
    "amphotericin cyclosporin polymyxin penicillin mitomycin meningococcal streptococcus toxin botulinum troponin "
    "apolipoprotein cystatin interferon chromosome nerve fib(?:er|re)s? cells? cannon bundle wave bowel ward cluster "
    "part panel figure table appendix plan patient lines? points?"
)
# Words behind it.
NAMED_AFTER = (
    "waves? cells? lymphocytes? virus antigens? streptococc\\w* strep vitamins? lines? scan peptide fib(?:er|re)s? "
    "section symptoms? toxin deficiency blood positive negative disease personality hepatitis"
)
# What can follow "A" where it is an option; behind an article there is a thing.
FOLLOWS_A_CHOICE = (
    "is was are and or but because would could may might can cannot does has seems appears remains fits explains "
    "describes refers it\\s+is then if since as for given due rather than over followed with in by only alone too also "
    "not hat ist est es è oder und et y ou o"
)
# What calls a letter an option, in the languages that models answer in.
CALLED_OPTION = (
    "opt options? choices? answers? letters? alternatives? ans antwort(?:möglichkeit)? réponse reponse respuesta "
    "opción opcion opção opcao alternativa resposta risposta opzione antwoord optie вариант ответ 选项 选 答案 選択肢 "
    "보기 정답 विकल्प उत्तर الخيار الإجابة svar odpowiedź cevap"
)
# How many characters around a letter or a word tell whether it names an option.
NEAR = 80
BY_PLACE = re.compile(
    r"\b(?P<place>first|second|third|fourth|fifth|last)\s+(?:option|choice|answer|alternative)\b"
    r"(?!\s*[:=]|\s+is\s+[A-J]\b)"
    r"|(?<=\bis the )(?P<one>first|second|third|fourth|fifth|last) one\b"
    r"|\b(?:option|choice)\s*(?:number|no\.|#)?\s*(?P<number>[1-9])(?![\w.%/])",
    re.I,
)
PLACES = ("first", "second", "third", "fourth", "fifth")
# Neither a part of a word or a unit, nor of a name with a hyphen; "A/B" has two.
LETTER = re.compile(
    r"(?<![A-Za-z0-9À-ÿ\-–+.])(?<![^A-J]/)(?<![A-Za-z]['’])([A-Za-z])(?![A-Za-z0-9À-ÿ\-–+]|['’](?!d[iıuü]r)[a-z])"
)
SAID_AS = {
    "yes": r"yes|是的|是|oui|ja|sí|sim|はい|네|예|да|हाँ|हां|نعم",
    "no": r"no|否|不是|non|nein|não|いいえ|아니(?:요|오)|нет|नहीं|لا|(?:definitely|certainly|absolutely) not",
    "maybe": r"maybe(?! not)|perhaps|possibly|可能|也许|peut-être|vielleicht|quizás|talvez|たぶん|아마도?|возможно",
}
# What yes, no and maybe stand between where they answer: a sentence's ends, and words that give or join answers.
BEFORE_AN_ANSWER = re.compile(
    r"(?:^|[\n.:;,!?(\[{\"'“。，：/是为→✅✔✓>=]|\b(?:between|probably|likely|definitely|clear(?:ly)?|on|with|is|be|say|says"
    r"|means|suggests?|answer|decision|option|and|or|not|but|whether|would|lean(?:ing|s)? (?:to|towards?)|yes"
    r"|an? (?:\w+ )?|therefore|thus|so|hence))\W*$",
    re.I,
)
BEHIND_AN_ANSWER = re.compile(
    r"\s*(?:$|[.,;:!?()\]}\"'”/|\n—–。，→✅]|-\s|(?:or|and|but|because|since|as|given|to|from)\b)", re.I
)


def words(listed: str) -> str:
    """A pattern for one of the words in `listed`."""
    return f"(?:{'|'.join(listed.split())})"


PART_OF_A_NAME = re.compile(rf"(?:^|[^\w]){words(NAMED_BY_LETTER)}\s$", re.I)
NAME_GOES_ON = re.compile(rf"\s{words(NAMED_AFTER)}\b", re.I)
CHOICE_GOES_ON = re.compile(rf"\s{words(FOLLOWS_A_CHOICE)}\b")
CALLED = re.compile(rf"(?:^|[^\w]){words(CALLED_OPTION)}\s*(?:is|es|est|ist|é|è|是|为|は|은|는)?\W{{0,3}}$", re.I)
OPENED, CLOSED = re.compile(r"[(\[{<「『《【«\"'“‘]\s*$"), re.compile(r"\s*[)\]}>」』》】»\"'”’]")


@dataclass(frozen=True)
class Mention:
    """A place in a text that names an option.

    Attributes:
        start, end: of the place, with the brackets around a letter.
        key: of the option; a letter that is called an option and is none stands for itself.
        by_letter: by its letter, else by its text.
    """

    start: int
    end: int
    key: str
    by_letter: bool


def find_mentions(text: str, options: Mapping[str, str]) -> list[Mention]:
    """The places in `text` that name one of `options`, in their order; no two overlap."""
    if set(options) <= SAID_AS.keys():
        return find_words(text, options)
    by_text = find_texts(text, options)
    by_letter = [
        mention
        for mention in (*find_letters(text, options), *find_places(text, options))
        if not any(other.start <= mention.start and mention.end <= other.end for other in by_text)
    ]
    return sorted(by_text + by_letter, key=lambda mention: mention.start)


def find_letters(text: str, options: Mapping[str, str]) -> Iterator[Mention]:
    """The letters in `text` that stand for an option."""
    whole = text.strip(" .\n")
    for found in LETTER.finditer(text):
        letter = found[1]
        before, behind = text[max(0, found.start() - NEAR) : found.start()], text[found.end() : found.end() + NEAR]
        opened = OPENED.search(before)
        closed = CLOSED.match(behind) if opened else re.match(r"\)", behind)
        called = CALLED.search(before)
        if letter.islower():
            ends = re.match(r"\s*(?:$|[^\w\s])", behind)
            goes_on = CHOICE_GOES_ON.match(behind) and letter != "i"
            is_option = closed or (called and (ends or goes_on)) or whole == letter
        else:
            is_option = closed or called or stands_alone(letter, before, behind)
        key = letter.upper()
        if is_option and (key in options or (key <= "J" and (closed or called))):
            start = found.start() - (len(before) - opened.start() if opened and closed else 0)
            yield Mention(start, found.end() + (closed.end() if closed else 0), key, by_letter=True)


def find_places(text: str, options: Mapping[str, str]) -> Iterator[Mention]:
    """The options that `text` counts: the second option, the last one, option 2."""
    for found in BY_PLACE.finditer(text):
        if found["number"]:
            place = int(found["number"]) - 1
        else:
            word = (found["place"] or found["one"]).lower()
            place = len(options) - 1 if word == "last" else PLACES.index(word)
        if place < len(options):
            yield Mention(found.start(), found.end(), list(options)[place], by_letter=True)


def stands_alone(letter: str, before: str, behind: str) -> bool:
    """Whether an upper-case `letter` between two texts is neither part of a name nor an article."""
    if PART_OF_A_NAME.search(before) or NAME_GOES_ON.match(behind) or letter == "I":
        return False
    if letter == "A" and re.match(r"\s[A-Za-zÀ-ÿ0-9]", behind):
        return bool(CHOICE_GOES_ON.match(behind) or EXCEPTED.search(before))
    return not re.match(r"\.\s?[a-zà-ÿ]{3,}", behind)  # E. coli


def find_texts(text: str, options: Mapping[str, str]) -> list[Mention]:
    """The places of the options' own words in `text`; of overlapping ones the longest."""
    found = [
        Mention(place.start(), place.end(), key, by_letter=False)
        for key, option in options.items()
        for pattern in patterns_of(option, tuple(other for name, other in options.items() if name != key))
        for place in pattern.finditer(text)
    ]
    taken: list[Mention] = []
    for mention in sorted(found, key=lambda mention: (mention.start - mention.end, mention.start)):
        if all(mention.end <= other.start or other.end <= mention.start for other in taken):
            taken.append(mention)
    return taken


def find_words(text: str, options: Mapping[str, str]) -> list[Mention]:
    """yes, no and maybe in `text` where they answer, and are not part of a sentence."""
    found = [
        Mention(place.start(), place.end(), key, by_letter=False)
        for key in options
        for place in re.finditer(rf"(?<![\w\-])(?:{SAID_AS[key]})(?![\w\-])", text, re.I)
        if BEHIND_AN_ANSWER.match(text, place.end())
        and BEFORE_AN_ANSWER.search(text[max(0, place.start() - NEAR) : place.start()])
    ]
    return sorted(found, key=lambda mention: mention.start)
