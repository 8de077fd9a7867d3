"""The words by which a reply gives its answer, draws a conclusion, takes something back or says that it is not so.

Regular expressions, in English and, for the plain ways to give an answer, in the languages that models fall into.
"""

import re

TICK = re.compile(r"[✅✓✔☑]|\[x\]", re.I)
CROSS = r"[❌✗✘×]"


def any_of(*patterns: str) -> re.Pattern[str]:
    """A pattern for each of `patterns`, in any case."""
    return re.compile("|".join(patterns), re.I)


# What calls something the answer.
ANSWER = any_of(
    TICK.pattern,
    r"(?<!\w)(?:(?:final|correct|right|best|my|expected|appropriate|most (?:appropriate|likely|accurate))\s+)+"
    r"(?:answer|option|choice|response|letter)s?",
    r"(?<!\w)(?:answers?(?:_\w+)?|ans|conclusion|final_decision|decision|verdict)\b",
    r"\bI(?:'d| would|'ll| will)?\s+(?:\w+ly\s+)?(?:choose|chose|pick|select|go with|say|lean(?:ing)? (?:to|towards?)"
    r"|conclude with|stand by|vote for|opt for|settle on)\b",
    r"\bgo(?:ing)? with\b",
    r"\b(?:leaves?|leaving) (?:only )?(?:us with )?(?=\W*[A-E]\b)",
    r"答案|正确|正確|应选|應選|故选|选择|选(?=[「『\"'“(《]?\s*[A-E])|正解|答え",
    r"정답|उत्तर|الإجابة|الجواب|ответ",
    r"antwort|respuesta|réponse|reponse|resposta|risposta|antwoord|odpowiedź|cevap|đáp án|\bsvar",
)
CONCLUSION = any_of(
    r"\b(?:therefore|thus|hence|so|in conclusion|in summary|conclude|consequently|accordingly|overall)\b",
    r"\b(?:most (?:likely|appropriate|probable|consistent|suitable)|best|preferable|suitable|probably|likely)\b",
    r"\b(?:diagnosis|(?:treatment|drug) of choice|indicated|should|must be|means|guess|confident|convinced)\b",
    r"\b(?:points? to|consistent with|due to|caused by|favou?r|tips? the scales|is right|is correct|is the)\b",
    r"->|→|因此|所以|\b(?:donc|also|somit|daher|por lo tanto|portanto)\b",
)
TAKEN_BACK = any_of(
    r"\b(?:wait|actually|correction|wrong|sorry|instead|hmm|no,|misread|withdraw|revis(?:e|ing)|apologi[sz]e)",
    r"on second thought|mistake|re-?read|reconsider|scratch that|correct myself|let me (?:re|double)|change my",
    r"to be precise|I meant|on reflection|不对|等等|更正|moment|perdón|pardon|Entschuldigung",
)
# What stands a few words before an option that it denies.
DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|rather than|instead of|unlike|excludes?|excluding|excluded"
    r"|rul(?:es?|ed|ing) out|against|(?:better|more|more \w+|likelier) than|without|avoid|over|no longer|none of|withdraw|initially"
    r"|was going to (?:answer|say|choose|pick)|(?:many|some|most|others)\W+\w+\W+would answer"
    r"|first (?:considered|thought of|favou?red)|favou?red|distractor|nicht|kein\w*|pas|non|niet)"
    r"|n't|不是|不选|排除)\b(?:\W+\w+){0,4}\W*$|[不非]$",
    re.I,
)
# What stands behind it, in the same clause.
DENIED_AFTER = any_of(
    rf"^\W*{CROSS}|^\s*(?:错误|不对|不正确)",
    r"^[^,;:.\n]{0,25}\b(?:isn't|doesn't|can't|wasn't|won't|couldn't)",
    r"^[^,;:.\n]{0,40}?\b(?:not|never|incorrect|wrong|false|excluded|ruled out|unlikely|less likely|contraindicated"
    r"|inappropriate|possible|kept in mind|be considered|reasonable alternative"
    r"|错误|scheidet aus|ausgeschlossen|no es (?:correcta?)|falsch|incorrecta?|fausse)\b",
)
# What makes the odd one out of an option, and so the answer.
EXCEPTED = re.compile(r"\b(?:except|but not|other than|exception of)\b(?: for)?\s*$", re.I)
CONDITION = re.compile(r"\bbut if\b", re.I)
# Between options that are named together, and between a letter and its text.
TOGETHER = re.compile(
    r"^[\s,/&+:{}]*(?:and|or|und|oder|et|ou|y|o|e|和|或|及|、)?[\s,/&+{}]*(?:or|and|option|choice|answer)?[\s:{}()]*$",
    re.I,
)
SAME = re.compile(r"^[\s.:,)(\-–—=\"'\]}{]*(?:i\.e\.|which is|namely|the|is)?[\s.:,)(\-–—=\"'{]*$", re.I)
