"""The words by which a reply gives its answer, draws a conclusion, takes something back or says that it is not so.

Regular expressions, in English and, for the plain ways to give an answer, in the languages that models fall into.
"""

import re

TICK = re.compile(r"[✅✓✔☑]|\[x\]", re.I)
CROSS = r"[❌✗✘×]"


def any_of(*patterns: str) -> re.Pattern[str]:
    """A pattern for each of `patterns`, in any case."""
    return re.compile("|".join(patterns), re.I)


# Behind a letter, more than its end: "answer B came later" names an option, and does not call it the answer.
NAMES_ONLY = r"(?!\s+[A-J]\b(?!\W*$))"
# What calls something the answer.
ANSWER = any_of(
    TICK.pattern,
    r"(?<!\w)(?:(?:final|correct|right|best|my|expected|appropriate|most (?:appropriate|likely|accurate))\s+)+"
    r"(?:answer|option|choice|response|letter|guess)(?:e?s)?",
    rf"(?<!\w)(?:answers?(?:_\w+)?|ans|conclusion|final_decision|decision|verdict)\b{NAMES_ONLY}",
    r"(?<!\w)(?:correct|richtig|exception is)\b(?=\s*:|\s*[A-J]\b)|\b(?:one )?to (?:pick|choose)\b",
    r"\bI(?:'d| would|'ll| will)?\s+(?:\w+ly\s+)?(?:choose|chose|pick|select|go with|say|lean(?:ing)? (?:to|towards?)"
    r"|conclude with|am going with|stand by|vote for|opt for|settle on)\b",
    r"\b(?:leaves?|leaving) (?:only )?(?:us with )?(?=\W*[A-E]\b)",
    r"答案|正确|正確|应选|應選|故选|选择|选(?=[「『\"'“(《]?\s*[A-E])|正解|答え",
    r"정답|उत्तर|الإجابة|الجواب|ответ",
    rf"(?:antwort|respuesta|réponse|reponse|resposta|risposta|antwoord|odpowiedź|cevap|đáp án|\bsvar){NAMES_ONLY}",
)
SUMMARY = any_of(
    r"\b(?:therefore|thus|hence|so|in conclusion|in summary|to sum up|conclude|consequently|accordingly|overall)\b",
    r"->|→|因此|所以|\b(?:donc|somit|daher|por lo tanto|portanto)\b",
)
JUDGEMENT = any_of(
    r"\b(?:most (?:likely|appropriate|probable|consistent|suitable)|best|preferable|suitable|probably|likely)\b",
    r"\b(?:diagnosis|(?:treatment|drug) of choice|indicated|should|must be|means|guess|confident|convinced)\b",
    r"\b(?:points? to|consistent with|due to|caused by|favou?r|tips? the scales|is right|is correct|is the)\b",
)
TAKEN_BACK = any_of(
    r"\b(?:wait|actually|correction|wrong|sorry|instead|hmm|no,|misread|withdraw|revis(?:e|ing)|apologi[sz]e)",
    r"on second thought|mistake|re-?read|reconsider|scratch that|correct myself|let me (?:re|double)|change my",
    r"to be precise|I meant|on reflection|不对|等等|更正|moment|perdón|pardon|Entschuldigung",
)
# What stands a few words before an option that it denies.
DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|rather than|instead of|unlike|excludes?|excluding|excluded"
    r"|rul(?:es?|ed|ing) out|against|without|avoid|prefer\w* over|no longer|none of|withdraw|initially"
    r"|was going to (?:answer|say|choose|pick)"
    r"|(?:many|some|most|others)\b[^,;.]{0,30}\b(?:would|might|may) (?:answer|accept|say|argue|choose|pick|prefer)"
    r"|first (?:considered|thought of|favou?red)|favou?red|distractor|nicht|kein\w*|pas|non|niet)"
    r"|n't|不是|不选|排除)\b(?:\W+\w+){0,4}\W*$|[不非]$",
    re.I,
)
# What stands behind it, in the same clause.
DENIED_AFTER = any_of(
    rf"^\W*{CROSS}|^\s*(?:错误|不对|不正确)",
    r"^[^,;:.\n]{0,25}\b(?:isn't|doesn't|can't|wasn't|won't|couldn't)",
    r"^[^,;:.(\n]{0,40}?\b(?:not|never|incorrect|wrong|false|excluded|ruled out|unlikely|less likely|contraindicated"
    r"|inappropriate|possible|kept in mind|be considered|reasonable alternative"
    r"|错误|scheidet aus|ausgeschlossen|no es (?:correcta?)|falsch|incorrecta?|fausse)\b",
)
DENIAL = re.compile(r"\b(?:not|no|never|cannot|without|neither|nor)\b|n't\b", re.I)
# What makes the odd one out of an option, and so the answer.
EXCEPTED = re.compile(r"\b(?:except|but not|other than|exception of)\b(?: for)?\s*$", re.I)
# "A rather than B", but not "less than 130/80".
COMPARED = re.compile(
    r"(?<!less)(?<!more)(?<!fewer)(?<!greater)(?<!higher)(?<!lower)(?<!longer)(?<!older)(?<!younger)"
    r"\s+than (?:with |to |for |by )?\W*$",
    re.I,
)
HEADED_AS_WRONG = re.compile(r"\b(?:incorrect|wrong|false)\s*(?:answers?|options?|choices?)?\s*:\W*$", re.I)
CONDITION = re.compile(r"^\W*if\b|\b(?:but|and) if\b", re.I)
HEDGED = re.compile(r"\b(?:could|might|may)\b", re.I)
# Between options that are named together, and between a letter and its text.
TOGETHER = re.compile(
    r"^[\s,/&+:{}]*(?:and|or|und|oder|et|ou|y|o|e|和|或|及|、)?[\s,/&+{}]*(?:or|and|option|choice|answer)?[\s:{}()]*$",
    re.I,
)
SAME = re.compile(r"^[\s.:,)(\-–—=\"'\]}{]*(?:i\.e\.|which is|namely|the|is)?[\s.:,)(\-–—=\"'{]*$", re.I)
