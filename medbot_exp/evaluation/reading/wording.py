"""The words by which a reply gives its answer, draws a conclusion or speaks of an option that it named before.

Regular expressions, in English and, for the plain ways to give an answer, in the languages that models fall into.
What denies, supposes or takes back is in denials.py.
"""

import re


def any_of(*patterns: str) -> re.Pattern[str]:
    """A pattern for each of `patterns`, in any case."""
    return re.compile("|".join(patterns), re.I)


# Chinese and Japanese have no spaces.
WORD = re.compile(r"[^\W\u3040-\u9fff]+|[\u3040-\u9fff]")
TICK = re.compile(r"[✅✓✔☑←]|\[x\]", re.I)

# Behind a letter, more than its end: "answer B came later" names an option, and does not call it the answer.
NAMES_ONLY = r"(?!\s+[A-J]\b(?!\W*$))"
# What calls something the answer.
ANSWER = any_of(
    TICK.pattern,
    r"\b(?:first|top|1st) (?:choice|answer|pick|guess)\b(?=\W)",
    r"(?<!\w)(?:(?:final|correct|right|best|my|expected|appropriate|most (?:appropriate|likely|accurate))\s+)+"
    r"(?:answer|option|choice|response|letter|guess|(?<=correct )diagnosis)(?:e?s)?",
    rf"(?<!\w)(?:answers?|ans|conclusion|decision|verdict)\b{NAMES_ONLY}",
    r"(?<!\w)(?:correct|richtig|exception is)\b(?=\s*:(?!\W*(?:true|false|yes|no)\b)|\s*[A-J]\b)",
    r"\b(?:one )?to (?:pick|choose)\b",
    r"\bI(?:'d| would|'ll| will)?\s+(?:\w+ly\s+)?(?:choose|chose|pick|select|go (?:with|for)|say|prefer|conclude with"
    r"|lean(?:ing)? (?:to|towards?)|am going with|stand by|vote for|opt for|settle on)\b",
    r"\b(?:leaves?|leaving|queda|reste|bleibt|resta) (?:only |nur |la )?(?:us with )?(?=\W*[A-E]\b)",
    r"\b(?:only|remaining|last) (?:\w+ )?(?:choice|option|possibility|candidate)(?: left| standing)*(?= is\b)",
    r"答案|正确|正確|应选|應選|故选|选择|选(?=[「『\"'“(《]?\s*[A-E])|正解|答え",
    r"정답|उत्तर|الإجابة|الجواب|ответ|верн(?:о|ый|ая)|правильн(?:о|ый|ая)",
    rf"(?:antwort|lösung|respuesta|solución|réponse|reponse|solution|resposta|solução){NAMES_ONLY}",
    rf"(?:risposta|soluzione|antwoord|odpowiedź|cevap|đáp án|\bsvar){NAMES_ONLY}",
)
SUMMARY = any_of(
    r"\b(?:therefore|thus|hence|so|in conclusion|in summary|to sum up|conclude|consequently|accordingly|overall)\b",
    r"\bmakes? (?:it|this|that)\b|\b(?:donc|somit|daher|por lo tanto|portanto)\b",
    r"因此|所以|таким образом|поэтому|итак",
)
# What calls something likely or best.
JUDGEMENT = any_of(
    r"\bI(?:'d| would|'ll| will)? (?:start|begin|give|recommend|prescribe|order|perform|obtain|treat|do|use|suggest"
    r"|advise)\b",
    r"\b(?:first|next|initial) (?:step|test)\b|\b(?:treatment|drug) of choice\b|\bdiagnosis\b(?! of exclusion)",
    r"\b(?:most (?:likely|appropriate|probable|consistent|suitable)|best|preferable|suitable|probably|likely)\b",
    r"\b(?:indicated|should|must be|means|guess|confident|convinced|is diagnosed)\b|\b(?:remains|is left)\W*$",
    r"\b(?:point(?:s|ing)? to|consistent with|due to|caused by|favou?r|tips? the scales|is right|is correct|is the)\b",
)
# What says something of the patient, and not of what an option is like.
OF_THE_CASE = any_of(
    r"\b(?:this|it|that)(?:'s| is| must be)\b|\b(?:indicates?|suggests?|shows?|makes?|confirms?|describes?) ",
    r"\b(?:he|she|(?:the|this) (?:patient|child|man|woman|boy|girl|infant))(?: \w+)? (?:has|is having|suffers)\b",
)
# What a sentence concludes in so many words, before a letter is given.
CONCLUDED = any_of(
    r"\b(?:therefore|thus|hence|so)\b|\bmost likely (?:diagnosis|cause)\b|\bthe diagnosis\b",
    r"\b(?:final|correct) answer\b",
)

# What can follow an option and calls it right or true.
CALLED_RIGHT = re.compile(
    r"[\s)\"'.]*(?:\([^)]*\)\W*)?(?:(?:is|ist|est|es|é|è|seems|must be|has to be)\s+)?(?:the )?(?:correct|right|richtig"
    r"|korrekt|zutreffend|correcte|correcta|correta|corretta|exacte?|vraie?|esatt[ao]|giust[ao]|正确|正確|が正解|が正しい)"
    r"(?!\w)(?!\s+(?:if|only|when|away|now|for|in|heart|lung|upper|lower|side|vent|atri))",
    re.I,
)
CALLED_TRUE = re.compile(r"\s*(?:is|are) (?:true|correct|a risk factor)\b", re.I)
# What stands between an option and "the answer" where the one is called the other.
SUBJECT_OF_ANSWER = re.compile(
    r"\W*(?:\([^)]*\)\W*)?(?:is|are|was|would be|will be|must be|seems|remains|being|as|ist|est|es|é|è)\b"
    r"(?:\s+(?:the|an?|my|our|thus|therefore|also|clearly|most|single|only|probably|likely))*\W*$",
    re.I,
)
# Words that add nothing to an option that is given as the whole of a sentence.
FILLER = any_of(
    r"\b(?:it|that|this)(?:'s| is| has to be| must be)\b|\bit is\W*$|\b(?:c'est|es|est|ist|la|el|die|der)\b",
    r"\b(?:i|i'd|i would|let'?s|let us)\b(?: (?:say|go (?:with|for)|think|take|bet))?",
    r"\bmy (?:pick|vote|guess|choice) ?(?:is)?\b|\b(?:so|hence|thus|therefore|ok(?:ay)?|well|yes|then|here)\b",
    r"\b(?:definitely|clearly|surely|certainly|obviously|simply|easily|hands down|for sure|all the way|no doubt)\b",
    r"\b(?:without (?:a )?doubt|of course|in this case|option|choice|letter)\b",
)

# Between options that are named together, and between a letter and its text.
TOGETHER = re.compile(
    r"^(?!\s*:\s*$)[\s,/&+±:{}]*(?:and|or|und|oder|et|ou|y|o|e|和|或|及|、)?[\s,/&+{}]*"
    r"(?:or|and|option|choice|answer|(?<=or )(?:possibly|perhaps|maybe|even))?[\s:{}()]*$",
    re.I,
)
SAME = re.compile(r"^[\s.:,)(\-–—=\"'\]}{]*(?:i\.e\.|which is|namely|the|is)?[\s.:,)(\-–—=\"'{]*$", re.I)
# A sentence that points at an option of the one before it.
POINTS_BACK = re.compile(
    r"\W*(?:this|that|it)(?:'s| is) (?:therefore |thus )?(?:the )?(?:correct|right|best|most likely)"
    r"(?: (?:answer|option|choice|one|diagnosis))?\W*$",
    re.I,
)
THE_LATTER = re.compile(r"\bthe (?:(?P<latter>latter)|former)\b", re.I)
# What stands before an option that a sentence comes to, and before a letter that it ends in.
ARROW = re.compile(r"(?:→|->)\s*(?:option )?$", re.I)
ANNOUNCED = re.compile(r"[:=>→]\s*(?:an? |the )?$")
LETTER_AT_END = re.compile(r"(?:[:,(\-–—>]|\boption|\bchoice)\s*[A-J]\W*$")
