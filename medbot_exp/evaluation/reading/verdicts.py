"""Replies that judge the options one by one: a table, a JSON object or a list with one that is right.

{"A": false, "B": true, "C": false}        A: 10%  B: 70%  C: 20%        A ✗  B ✓  C ✗
"""

import re
from collections.abc import Iterator, Mapping

from medbot_exp.evaluation.reading.affirmations import groups_of, is_denied, together
from medbot_exp.evaluation.reading.denials import STILL_OPEN, THE_REST, UNLIKE
from medbot_exp.evaluation.reading.mentions import SAID_AS, find_mentions
from medbot_exp.evaluation.reading.naming import NONE_OF_THEM, united
from medbot_exp.evaluation.reading.sentences import Sentences
from medbot_exp.evaluation.reading.wording import CALLED_TRUE, TICK

RIGHT = (
    r"true|correct|right|yes|best|most likely|fits|richtig|korrekt|wahr|vraie?|correcte|correct[ao]|verdader[ao]"
    r"|verdadeir[ao]|giusto|vero|верно|正确|正確|对|正しい|맞음|[✅✓✔☑]|\[x\]"
)
WRONG = (
    r"false|incorrect|wrong|no|not \w+|unlikely|less likely|possible|falsch|fauss?e?|incorrecte|incorrect[ao]|fals[ao]"
    r"|errad[ao]|sbagliat[ao]|неверно|错误|不正确|錯誤|错|誤り|틀림|[❌✗✘×]|\[ \]"
)
# What can stand between an option and its verdict: the name of a field in JSON or in a table, or a verb.
FIELD = r"correct|verdict|status|judge?ment|assessment|result|value|answer|likelihood|probability|score|label"
VERDICT = re.compile(
    rf"[^\S\n]*(?:[\"'()}}\]|:=\-–—.][^\S\n]*)*"
    rf"(?:(?:,\s*\")?(?:is_?|is )?(?:{FIELD})\??\"?\s*[:=]\s*\"?|\b(?:is|ist|est|es|é|è)\s+)?"
    rf"(?:(?P<right>{RIGHT})|(?P<wrong>{WRONG})|(?P<share>1\.0+|0?\.\d+|\d+(?:\.\d+)?(?=\s*%)))(?!\w)",
    re.I,
)
# At the end of the line: "B: first MTP - no".
VERDICT_AT_END = re.compile(
    r"[^\n]*[-–—:,;]\s*(?:(?P<right>yes|true|correct|right)|(?P<wrong>no|false|incorrect|wrong))"
    r"\W*(?:\n|\Z)",
    re.I,
)
# In front of options instead.
MARK = re.compile(r"(?P<right>[✅✓✔☑]|\[x\])|(?P<wrong>[❌✗✘×]|\[ \])", re.I)


def judged_right(text: str, options: Mapping[str, str]) -> str | None:
    """The one option that `text` calls right where it judges them one by one, or gives more than half of all shares.

    Where it calls all but one right, the question was for that one.
    """
    if options.keys() <= SAID_AS.keys():
        return None
    verdicts = list(verdicts_in(text, options))
    right = {key for key, kind, _ in verdicts if kind == "right"}
    wrong = {key for key, kind, _ in verdicts if kind == "wrong"}
    shares = {key: float(said) for key, kind, said in verdicts if kind == "share"}
    if right & wrong:
        return None
    singled_out = not wrong and any(said.lower() in ("best", "most likely", "correct") for _, _, said in verdicts)
    if len(right) == 1 and (len(wrong) > 1 or singled_out):
        return right.pop()
    if len(wrong) == 1 and len(right) > 1 and right | wrong == options.keys():
        return wrong.pop()
    if len(shares) > max(1, len(options) - 2) and not right | wrong:
        return next((key for key, share in shares.items() if 2 * share > sum(shares.values())), None)
    return None


def verdicts_in(text: str, options: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """The key of each option that `text` judges, whether it is called right or wrong or given a share, and how."""
    mentions = find_mentions(text, options)
    in_front = MARK.match(text)
    ends = [0, *(mention.end for mention in mentions)]
    starts = [*(mention.start for mention in mentions), len(text)]
    for mention, end_before, start_behind in zip(mentions, ends, starts[1:], strict=False):
        behind = text[mention.end : start_behind]
        found = VERDICT.match(behind) or VERDICT_AT_END.match(behind)
        if in_front:
            found = MARK.search(text[end_before : mention.start])
        if found and found.lastgroup:
            yield mention.key, found.lastgroup, found[found.lastgroup]


def ticks_several(text: str, options: Mapping[str, str]) -> bool:
    """Whether `text` ticks more than one option, so that a tick is no answer."""
    lines = [line for line in text.splitlines() if TICK.search(line)]
    if len(lines) == 1:  # A ✔ B ✔ C ✔
        lines = re.split(r"(?<=[✅✓✔☑❌✗✘×])\s", lines[0])
    ticked = [{mention.key for mention in find_mentions(line, options)} for line in lines if TICK.search(line)]
    return len(set().union(*ticked)) > 1


def left_out(told: Sentences, options: Mapping[str, str]) -> str | None:
    """The option of which alone something is denied that is said of all the others: B, C and D are; A is not.

    Where all are denied, it is "none of the above".
    """
    none = {key for key, option in options.items() if NONE_OF_THEM.fullmatch(option.strip(" ."))}
    denied: set[str] = set()
    unlike: set[str] = set()
    alike: set[str] = set()
    single: set[str] = set()
    for _, sentence in told:
        if STILL_OPEN.search(sentence):
            return None
        for group in groups_of(sentence, options):
            keys, behind = together(group, options), sentence[group[-1].end :]
            if is_denied(sentence, group[0].start, group[-1].end):
                denied |= keys
            if UNLIKE.match(behind):
                unlike |= keys
            elif len(keys) > 1 or CALLED_TRUE.match(behind):
                alike |= keys
            else:
                single |= keys
    if none and denied == options.keys() - united(options).keys() - none:
        return none.pop()
    odd = unlike or single
    rest_is_alike = any(THE_REST.search(sentence) for _, sentence in told) and not alike and unlike
    return next(iter(odd)) if len(odd) == 1 and (alike == options.keys() - odd or rest_is_alike) else None
