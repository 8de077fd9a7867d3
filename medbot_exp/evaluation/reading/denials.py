"""The words by which a reply says that an option is not the answer, that it might be, or that it takes it back.

Regular expressions for what stands before an option or behind it in its sentence; the plainest in other languages too.
"""

import re

from medbot_exp.evaluation.reading.wording import any_of

CROSS = r"[❌✗✘×]"
# A person who is not the writer, and what such a one would answer.
OTHERS_SAY = (
    r"(?:many|some|most|others|students|people|one|you)\b[^,;.]{0,30}\b(?:would|might|may|could|often|tend to)"
    r" (?:answer|accept|say|argue|choose|pick|prefer|think(?: of)?)"
)
# What stands a few words before an option that it denies.
DENYING = (
    r"not|never|neither|nor|cannot|without|against|avoid|rather than|instead of|as opposed to|in contrast (?:to|with)"
    r"|compared (?:to|with)|unlike|no longer|none of|prefer\w* over|excludes?|excluding|excluded|rul(?:es?|ed|ing) out"
    r"|eliminat\w+|withdraw|distractor|(?:torn|decide|choose|distinguish) between|initially|favou?red"
    r"|was going to (?:answer|say|choose|pick)"
    r"|(?:first|initially) (?:I )?(?:considered|thought(?: of)?|favou?red|suspected)"
    r"|my first (?:thought|guess|answer|instinct) was|(?:mistake|trap|error|tempting) (?:is|would be)? ?to \w+"
    r"|(?:to|can't|cannot) tell|tell \w+ from|distinguish\w*|differentiate|confuse"
    r"|nicht|kein\w*|pas|pas d'\w+|écart\w+|non|niet|não|não é|no es|no de|ni|descart\w+"
)
DENIED_BEFORE = any_of(
    rf"(?:\b(?:{DENYING}|{OTHERS_SAY})|n't|不是|不选|排除)\b(?:\W+\w+){{0,4}}\W*$",
    rf"\b(?:less likely|unlikely|no|a normal) $|\bbetween (?:options? )?\W*$|^\W*{CROSS}\W*$|[不非]$",
)
# What stands behind it, in the same clause.
DENIED_AFTER = any_of(
    rf"^\W*{CROSS}|^\s*(?:错误|不对|不正确)",
    r"^[^,;:.\n]{0,25}\b(?:isn't|doesn't|don't|aren't|didn't|can't|wasn't|won't|couldn't)",
    r"^[^,;:.(\n—]{0,40}?\b(?:(?<!and )not|never|incorrect|wrong|false|excluded|eliminated|discarded|crossed out"
    r"|ruled out|unlikely|no more likely|less (?:likely|common|frequent)|contraindicated|inappropriate|too late"
    r"|possible|tempting|kept in mind|be (?:considered|thought of)|reasonable alternative|main differential"
    r"|(?:can|could|may) mimic|(?:is|comes) (?:a )?(?:close|next|second)|distractor|trap|(?:is|are) out|can wait"
    r"|unwahrscheinlich|auszuschließen|scheidet aus|ausgeschlossen|falsch|descartad[ao]|improbable|poco probable"
    r"|no es (?:correcta?)|incorrecta?|fausse|错误)\b",
)
# "A rather than B", but not "less than 130/80".
COMPARED = re.compile(
    r"(?<!less)(?<!more)(?<!fewer)(?<!greater)(?<!higher)(?<!lower)(?<!longer)(?<!older)(?<!younger)"
    r"\s+than (?:with |to |for |by )?\W*$|\bprefer\w*\b[^.;]*\bto \W*$|\b[A-J] over \W*$"
    r"|\b(?:choose|pick|prefer|recommend|favou?r|select|choice)\w*\b[^.;]{0,60}\s+over (?:the |option )?\W*$",
    re.I,
)
# A heading of options that are not the answer, and the letters behind it.
HEADED_AS_WRONG = re.compile(
    r"\b(?:incorrect|wrong|false|other|alternative|eliminated|excluded|rejected|discarded|your|secondary|second|third"
    r"|2nd|3rd|runner-up|less likely|unlikely|considered|differential)s?\s*"
    r"(?:answers?|options?|choices?|considerations?|diagnos[ei]s)?\W*:[^\w]*(?:[A-J]\b\W+)*$",
    re.I,
)
# Where a new clause begins, which the denial of the one before does not reach.
CLAUSE = re.compile(
    r"[,;:，；：]|\bbut\b(?! not\b)|\bhowever\b|\band for\b|\bin favou?r of\b|\bsondern\b|\bsino\b", re.I
)
# Denies the option that follows, not the one before.
DENIES_NEXT = re.compile(r"\b(?:not|não|pas|nicht|non)(?: an?| the| of| option| choice)*\W*$", re.I)
DENIAL = re.compile(r"\b(?:not|no|never|cannot|without|neither|nor)\b|n't\b", re.I)

# What makes the odd one out of an option, and so the answer.
EXCEPTED = any_of(
    r"\b(?:except|but not|other than|exception of|apart from|außer|sauf|excepto|salvo|exceto|tranne)\b(?: for)?"
    r"\W*(?:option|choice|answer)?\W*$",
    r"\b(?:all|any|every\w*)\b[^.,;]{0,30}\bbut\W*(?:option|choice|answer)?\W*$",
)
# "The one that does not fit is", "the drug to avoid in pregnancy is": what such words end in is not denied.
AUXILIARY = r"(?:is|are|was|were|does|do|did|has|have|had|can|could|would|should|may|might|will|must)"
ODD_ONE = re.compile(
    rf"^.*(?:\b(?:that|which|who)\b|\bthe\s+(?:(?!{AUXILIARY}\b)[\w\-]+\s+){{1,3}}?)[^.;:]*?(?<!\w)"
    rf"(?:{AUXILIARY}n't|not|never|cannot|least|false|to avoid|contraindicated|incorrect|untrue)\b"
    r"(?![^.;:]*\b(?:that|think|believe|mean|say)\b)[^.;:]*?(?:\b(?:is|are|was|would be)\b|→)"
    r"(?:\s*,?\s*(?:thus|therefore|hence|then|in fact)\b,?)?",
    re.I | re.S,
)
ODD_ONE_BEFORE = re.compile(rf"{ODD_ONE.pattern}\W*(?:(?:the|an?|option|choice|answer|letter)\b\W*)*$", re.I | re.S)
ODD_ONE_AFTER = re.compile(
    r"\W*(?:\([^)]*\)\W*)?(?:(?:is|are|was|would be)\s+the\s+(?:\w+\s+){0,3}"
    r"(?:(?:that|which|who|not|to avoid)\b|exception\b|odd one|(?:false|incorrect|untrue|wrong) (?:statement|one)\b)"
    r"|does(?: not|n't) belong)",
    re.I,
)
# What says of one option that it is not like the rest, and of the rest that it is; and what leaves several open.
UNLIKE = re.compile(
    rf"[^,;:.\n]{{0,40}}?(?:\b(?:is|are) (?:false|incorrect|untrue|wrong)\b|\b{AUXILIARY}(?: not|n't)\b|\bcannot\b"
    r"|\bcontraindicated\b|\bavoided\b)",
    re.I,
)
THE_REST = re.compile(r"\b(?:the|all) (?:other|others|rest|remaining)\b", re.I)
STILL_OPEN = re.compile(r"\b(?:remain(?!ing)|left|possible|possibilit\w+|could|may|might|differential|between)\b", re.I)

# What makes of an option a mere thought: "could be A", "A would give", "although A".
SUPPOSED_BEFORE = any_of(
    r"^\W*(?:if\b(?!.*\bguess)|(?:although|though|while|whereas|unlike)\b[^,]*$)",
    r"\b(?:could|might|may|would)\b(?!.*\b(?:but|however)\b).*$|\b(?:possibly|perhaps|unlike)\W*$",
)
SUPPOSED_AFTER = any_of(
    r"\W*(?:\([^)]*\)\W*)?(?:\w+ )?(?:would|could|might|may)\b(?! also| equally)",
    r"\W*\b(?:wäre|käme|würde|serait|sería)\b",
)
CONCESSION = re.compile(r"\W*(?:although|though|while|whereas|unlike|if)\b", re.I)
HEDGED = re.compile(r"\b(?:could|might|may|would (?:seem|appear))\b", re.I)
CONDITION = re.compile(r"^\W*if\b|\b(?:but|and) if\b", re.I)
# A sentence that says what else would hold, unless it is how a guess begins.
OTHERWISE = re.compile(r"\W*(?:\w+:\s*)?if\b(?!.*\b(?:guess|choose|pick|forced|say|answer)\b(?!\s+(?:would|is)))", re.I)

# What takes an answer back, and what withdraws it and gives no other.
TAKEN_BACK = any_of(
    r"\b(?:(?<!can )(?<!to )wait|actually|correction|wrong|sorry|instead|hmm|no,|misread|withdraw|revis(?:e|ing))",
    r"\bapologi[sz]e|on second thought|on reflection|mistake|re-?read|reconsider|scratch that|correct myself",
    r"let me (?:re|double)|change my|to be precise|or rather|I meant?\b|edit(?:ed)?\b|switch(?:ed)? to",
    r"不对|等等|更正|moment|perdón|pardon|Entschuldigung",
)
RETRACTED = re.compile(
    r"\b(?:(?<!can )(?<!to )wait|scratch that|I take (?:it|that) back|that(?:'s| is) (?:wrong|not right)"
    r"|that (?:can't|cannot) be)\b(?!.{0,400}\b(?:yes|confirm\w*|stands|still|indeed|right after all)\b)",
    re.I | re.S,
)
# A reply that finds no option right, and a sentence that has not come to one yet.
DECLINED = any_of(
    r"\bnone of (?:the|these|those)\b",
    r"\b(?:cannot|can't|unable to) (?:answer|determine|say|choose)\b",
    r"\bI (?:do not|don't|cannot|can't) (?:diagnose|give|provide)\b",
)
NOT_YET = any_of(
    r"^\W*(?:to (?:answer|determine|solve|decide)|let'?s|let us|we (?:should|must|need to|have to))\b|\bconsider\b"
)
