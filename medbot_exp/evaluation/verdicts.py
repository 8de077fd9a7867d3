"""Replies that judge the options one by one: a table, a JSON object or a list with one that is right.

{"A": false, "B": true, "C": false}        A: 10%  B: 70%  C: 20%        A ✗  B ✓  C ✗
"""

import re
from collections.abc import Mapping

from medbot_exp.evaluation.affirmations import groups_of, is_denied, together
from medbot_exp.evaluation.denials import STILL_OPEN, THE_REST, UNLIKE
from medbot_exp.evaluation.mentions import SAID_AS, find_mentions
from medbot_exp.evaluation.naming import NONE_OF_THEM, united
from medbot_exp.evaluation.sentences import Sentences
from medbot_exp.evaluation.wording import CALLED_TRUE, TICK

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
    r"[^\n]*[-–—:,;]\s*(?:(?P<right>yes|true|correct|right)|(?P<wrong>no|false|incorrect|wrong)(?P<share>(?!))?)"
    r"\W*(?:\n|\Z)",
    re.I,
)
# In front of options instead.
MARK = re.compile(r"(?P<right>[✅✓✔☑]|\[x\])|(?P<wrong>[❌✗✘×]|\[ \])(?P<share>(?!))?", re.I)


def judged_right(text: str, options: Mapping[str, str]) -> str | None:
    """The one option that `text` calls right where it judges them one by one, or gives more than half of all shares."""
    if options.keys() <= SAID_AS.keys():
        return None
    right, wrong, shares, superlative = set(), set(), {}, False
    mentions = find_mentions(text, options)
    in_front = MARK.match(text) is not None
    ends = [0, *(mention.end for mention in mentions)]
    starts = [*(mention.start for mention in mentions), len(text)]
    for mention, before, behind in zip(mentions, ends, starts[1:], strict=False):
        if in_front:
            verdict = MARK.search(text[before : mention.start])
        else:
            verdict = VERDICT.match(text[mention.end : behind]) or VERDICT_AT_END.match(text[mention.end : behind])
        if verdict is None:
            continue
        if verdict["share"]:
            shares[mention.key] = float(verdict["share"])
        else:
            superlative = superlative or verdict[0].lower().endswith(("best", "likely", "correct"))
            (right if verdict["right"] else wrong).add(mention.key)
    if right & wrong:
        return None
    if len(right) == 1 and (len(wrong) > 1 or (superlative and not wrong)):
        return right.pop()
    if len(wrong) == 1 and right == options.keys() - wrong and len(right) > 1:
        return wrong.pop()
    if len(shares) > max(1, len(options) - 2) and not right | wrong:
        return next((key for key, share in shares.items() if 2 * share > sum(shares.values())), None)
    return None


def ticks_several(text: str, options: Mapping[str, str]) -> bool:
    """Whether `text` ticks more than one option, so that a tick is no answer."""
    lines = [line for line in text.splitlines() if TICK.search(line)]
    if len(lines) == 1:  # A ✔ B ✔ C ✔
        lines = re.split(r"(?<=[✅✓✔☑❌✗✘×])\s", lines[0])
    ticked = [{mention.key for mention in find_mentions(line, options)} for line in lines if TICK.search(line)]
    return len(set().union(*ticked)) > 1


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
