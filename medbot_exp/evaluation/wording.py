"""The words by which a reply gives its answer, draws a conclusion, takes something back or says that it is not so.

Regular expressions, in English and, for the plain ways to give an answer, in the languages that models fall into.
"""

import re

TICK = re.compile(r"[✅✓✔☑←]|\[x\]", re.I)
CROSS = r"[❌✗✘×]"


# Chinese and Japanese have no spaces.
WORD = re.compile(r"[^\W\u3040-\u9fff]+|[\u3040-\u9fff]")


def any_of(*patterns: str) -> re.Pattern[str]:
    """A pattern for each of `patterns`, in any case."""
    return re.compile("|".join(patterns), re.I)


# Behind a letter, more than its end: "answer B came later" names an option, and does not call it the answer.
NAMES_ONLY = r"(?!\s+[A-J]\b(?!\W*$))"
# What calls something the answer.
ANSWER = any_of(
    TICK.pattern,
    r"\b(?:first|top|1st) (?:choice|answer|pick|guess)\b(?=\W)",
    r"(?<!\w)(?:(?:final|correct|right|best|my|expected|appropriate|most (?:appropriate|likely|accurate))\s+)+"
    r"(?:answer|option|choice|response|letter|guess|(?<=correct )diagnosis)(?:e?s)?",
    rf"(?<!\w)(?:answers?(?:_\w+)?|ans|conclusion|final_decision|decision|verdict)\b{NAMES_ONLY}",
    r"(?<!\w)(?:correct|richtig|exception is)\b(?=\s*:(?!\W*(?:true|false|yes|no)\b)|\s*[A-J]\b)"
    r"|\b(?:one )?to (?:pick|choose)\b",
    r"\bI(?:'d| would|'ll| will)?\s+(?:\w+ly\s+)?(?:choose|chose|pick|select|go (?:with|for)|say|prefer|lean(?:ing)? (?:to|towards?)"
    r"|conclude with|am going with|stand by|vote for|opt for|settle on)\b",
    r"\b(?:leaves?|leaving|queda|reste|bleibt|resta) (?:only |nur |la )?(?:us with )?(?=\W*[A-E]\b)",
    r"\b(?:only|remaining|last) (?:\w+ )?(?:choice|option|possibility|candidate)(?: (?:left|remaining|standing))*(?= is\b)",
    r"答案|正确|正確|应选|應選|故选|选择|选(?=[「『\"'“(《]?\s*[A-E])|正解|答え",
    r"정답|उत्तर|الإجابة|الجواب|ответ|верн(?:о|ый|ая)|правильн(?:о|ый|ая)",
    rf"(?:antwort|respuesta|réponse|reponse|resposta|risposta|antwoord|lösung|solución|solução|soluzione|solution|odpowiedź|cevap|đáp án|\bsvar){NAMES_ONLY}",
)
SUMMARY = any_of(
    r"\b(?:therefore|thus|hence|so|in conclusion|in summary|to sum up|conclude|consequently|accordingly|overall)\b",
    r"\bmakes? (?:it|this|that)\b|因此|所以|таким образом|поэтому|итак|\b(?:donc|somit|daher|por lo tanto|portanto)\b",
)
JUDGEMENT = any_of(
    r"\bI(?:'d| would|'ll| will)? (?:start|begin|give|recommend|prescribe|order|perform|treat|do|use|suggest|advise|obtain)\b",
    r"\b(?:first|next|initial) (?:step|test|thing)\b",
    r"\b(?:most (?:likely|appropriate|probable|consistent|suitable)|best|preferable|suitable|probably|likely)\b",
    r"\bis diagnosed\b|\bremains\W*$|\bis left\W*$|\b(?:diagnosis(?! of exclusion)|(?:treatment|drug) of choice|indicated|should|must be|means|guess|confident|convinced)\b",
    r"\b(?:point(?:s|ing)? to|consistent with|due to|caused by|favou?r|tips? the scales|is right|is correct|is the)\b",
)
TAKEN_BACK = any_of(
    r"\b(?:(?<!can )(?<!to )wait|actually|correction|wrong|sorry|instead|hmm|no,|misread|withdraw|revis(?:e|ing)|apologi[sz]e)",
    r"on second thought|mistake|re-?read|reconsider|scratch that|correct myself|let me (?:re|double)|change my",
    r"to be precise|or rather|I meant?\b|edit(?:ed)?\b|switch(?:ed)? to|on reflection|不对|等等|更正|moment|perdón|pardon|Entschuldigung",
)
# An answer that is withdrawn, and what keeps it after all.
RETRACTED = re.compile(
    r"\b(?:(?<!can )(?<!to )wait|scratch that|that (?:can't|cannot) be|that(?:'s| is) (?:wrong|not right)|I take (?:it|that) back)\b"
    r"(?!.*\b(?:yes|confirm\w*|stands|still|indeed|right after all)\b)",
    re.I | re.S,
)
# What stands a few words before an option that it denies.
DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|rather than|instead of|unlike|excludes?|excluding|excluded"
    r"|rul(?:es?|ed|ing) out|against|without|avoid|prefer\w* over|no longer|none of|withdraw|initially"
    r"|was going to (?:answer|say|choose|pick)"
    r"|(?:many|some|most|others|students|people|one|you)\b[^,;.]{0,30}\b(?:would|might|may|could|often|tend to)"
    r" (?:answer|accept|say|argue|choose|pick|prefer|think(?: of)?)|torn between|as opposed to|in contrast (?:to|with)|compared (?:to|with)|descart\w+|écart\w+|no de|pas d'\w+"
    r"|(?:mistake|trap|error|tempting) (?:is|would be)? ?to \w+"
    r"|(?:(?:to|can't|cannot) tell|tell \w+ from|distinguish\w*|differentiate|confuse)"
    r"|(?:first|initially) (?:I )?(?:considered|thought(?: of)?|favou?red|suspected)|favou?red|distractor|eliminat\w+"
    r"|my first (?:thought|guess|answer|instinct) was|nicht|kein\w*|pas|non|niet|não|no es|não é|ni)"
    r"|n't|不是|不选|排除)\b(?:\W+\w+){0,4}\W*$|\bbetween (?:options? )?\W*$|\b[A-J] over \W*$|\b(?:less likely|unlikely|no|a normal) $|^\W*[❌✗✘×]\W*$|[不非]$",
    re.I,
)
# What stands behind it, in the same clause.
DENIED_AFTER = any_of(
    rf"^\W*{CROSS}|^\s*(?:错误|不对|不正确)",
    r"^[^,;:.\n]{0,25}\b(?:isn't|doesn't|don't|aren't|didn't|can't|wasn't|won't|couldn't)",
    r"^[^,;:.(\n—]{0,40}?\b(?:(?<!and )not|never|incorrect|wrong|false|excluded|eliminated|discarded|crossed out|ruled out|unlikely|no more likely|main differential|less (?:likely|common|frequent)|contraindicated"
    r"|inappropriate|possible|tempting|kept in mind|be (?:considered|thought of)|reasonable alternative|(?:can|could|may) mimic"
    r"|(?:is|comes) (?:a )?(?:close|next|second)|distractor|trap|(?:is|are) out\b|can wait|too late"
    r"|unwahrscheinlich|auszuschließen|descartad[ao]|improbable|poco probable"
    r"|错误|scheidet aus|ausgeschlossen|no es (?:correcta?)|falsch|incorrecta?|fausse)\b",
)
DENIES_NEXT = re.compile(r"\b(?:not|não|pas|nicht|non)(?: an?| the| of| option| choice)*\W*$", re.I)
# A reply that finds no option right, or has not come to one yet.
DECLINED = re.compile(
    r"\bnone of (?:the|these|those)\b|\b(?:cannot|can't|unable to) (?:answer|determine|say|choose)\b", re.I
)
NOT_YET = re.compile(
    r"^\W*(?:to (?:answer|determine|solve|decide)|let'?s|let us|we (?:should|must|need to|have to))\b|\bconsider\b",
    re.I,
)
DENIAL = re.compile(r"\b(?:not|no|never|cannot|without|neither|nor)\b|n't\b", re.I)
# What makes the odd one out of an option, and so the answer.
EXCEPTED = re.compile(
    r"(?:\b(?:except|but not|other than|exception of|apart from|außer|sauf|excepto|salvo|exceto|tranne)\b(?: for)?"
    r"|\b(?:all|any|every\w*)\b[^.,;]{0,30}\bbut)\W*(?:option|choice|answer)?\W*$",
    re.I,
)
# "The one that does not fit is", "the drug to avoid in pregnancy is": what such words end in is not denied.
AUXILIARY = r"(?:is|are|was|were|does|do|did|has|have|had|can|could|would|should|may|might|will|must)"
ODD_ONE = re.compile(
    rf"^.*(?:\b(?:that|which|who)\b|\bthe\s+(?:(?!{AUXILIARY}\b)[\w\-]+\s+){{1,3}}?)(?:[^.;:]*?(?<!\w)"
    r"(?:(?:is|does|do|are|must|should|can|would|could|did|has)n't|not|never|cannot|least|false|to avoid"
    r"|contraindicated|incorrect|untrue)\b)(?![^.;:]*\b(?:that|think|believe|mean|say)\b)[^.;:]*?"
    r"(?:\b(?:is|are|was|would be)\b|→)(?:\s*,?\s*(?:thus|therefore|hence|then|in fact)\b,?)?",
    re.I | re.S,
)
ODD_ONE_BEFORE = re.compile(rf"{ODD_ONE.pattern}\W*(?:(?:the|an?|option|choice|answer|letter)\b\W*)*$", re.I | re.S)
ODD_ONE_AFTER = re.compile(
    r"\W*(?:\([^)]*\)\W*)?(?:(?:is|are|was|would be)\s+the\s+(?:\w+\s+){0,3}"
    r"(?:(?:that|which|who|not|to avoid)\b|exception\b|odd one|(?:false|incorrect|untrue|wrong) (?:statement|one)\b)"
    r"|does(?: not|n't) belong)",
    re.I,
)
# What says of one option that it is not like the rest, and of the rest that it is.
UNLIKE = re.compile(
    r"[^,;:.\n]{0,40}?(?:\b(?:is|are) (?:false|incorrect|untrue|wrong)\b|\b(?:is|are|was|does|do|did|can|has|have|would|will|should)(?: not|n't)\b|\bcannot\b"
    r"|\bcontraindicated\b|\bavoided\b)",
    re.I,
)
THE_REST = re.compile(r"\b(?:the|all) (?:other|others|rest|remaining)\b", re.I)
STILL_OPEN = re.compile(r"\b(?:remain(?!ing)|left|possible|possibilit\w+|could|may|might|differential|between)\b", re.I)
# What can follow an option and calls it right, and what can stand between it and "the answer".
CALLED_RIGHT = re.compile(
    r"[\s)\"'.]*(?:\([^)]*\)\W*)?(?:(?:is|ist|est|es|é|è|seems|must be|has to be)\s+)?(?:the )?(?:correct|right|richtig|korrekt"
    r"|zutreffend|correcte|correcta|correta|corretta|exacte?|vraie?|esatt[ao]|giust[ao]|正确|正確|が正解|が正しい)(?!\w)"
    r"(?!\s+(?:if|only|when|away|now|for|in|heart|lung|upper|lower|side|vent|atri))",
    re.I,
)
CALLED_TRUE = re.compile(r"\s*(?:is|are) (?:true|correct|a risk factor)\b", re.I)
SUBJECT_OF_ANSWER = re.compile(
    r"\W*(?:\([^)]*\)\W*)?(?:is|are|was|would be|will be|must be|seems|remains|being|as|ist|est|es|é|è)\b"
    r"(?:\s+(?:the|an?|my|our|thus|therefore|also|clearly|most|single|only|probably|likely))*\W*$",
    re.I,
)
# Words that add nothing to an option that is given as the whole of a sentence.
FILLER = any_of(
    r"\b(?:it|that|this)(?:'s| is| has to be| must be)\b|\bit is\W*$|\b(?:so|hence|thus|therefore|ok(?:ay)?|well|yes|then)\b",
    r"\b(?:i|i'd|i would|let'?s|let us)\b(?: (?:say|go (?:with|for)|think|take|bet))?|\bmy (?:pick|vote|guess|choice) ?(?:is)?\b",
    r"\b(?:definitely|clearly|surely|certainly|obviously|simply|easily|hands down|for sure|all the way|no doubt)\b",
    r"\b(?:without (?:a )?doubt|of course|in this case|here|option|choice|letter)\b|\b(?:c'est|es|est|ist|la|el|die|der)\b",
)
# What a sentence concludes in so many words, before a letter is given.
CONCLUDED = any_of(
    r"\b(?:therefore|thus|hence|so)\b|\bmost likely (?:diagnosis|cause)\b|\bthe diagnosis\b|\b(?:final|correct) answer\b"
)
# "A rather than B", but not "less than 130/80".
COMPARED = re.compile(
    r"(?<!less)(?<!more)(?<!fewer)(?<!greater)(?<!higher)(?<!lower)(?<!longer)(?<!older)(?<!younger)"
    r"\s+than (?:with |to |for |by )?\W*$|\bprefer\w*\b[^.;]*\bto \W*$"
    r"|\b(?:choose|pick|prefer|recommend|favou?r|select|choice)\w*\b[^.;]{0,60}\s+over (?:the |option )?\W*$",
    re.I,
)
HEADED_AS_WRONG = re.compile(
    r"\b(?:incorrect|wrong|false|other|alternative|eliminated|excluded|rejected|discarded|your|secondary|second|third|2nd|3rd|runner-up"
    r"|(?:less |un)likely|considered|differential)s?[\s_]*(?:answers?|options?|choices?|considerations?|diagnos[ei]s)?\W*:[^\w]*"
    r"(?:[A-J]\b\W+)*$",
    re.I,
)
CONDITION = re.compile(r"^\W*if\b|\b(?:but|and) if\b", re.I)
# What makes of an option a mere thought: "could be A", "A would give".
SUPPOSED_BEFORE = re.compile(
    r"^\W*(?:if\b(?!.*\bguess)|(?:although|though|while|whereas|unlike)\b[^,]*$)"
    r"|\b(?:could|might|may|would)\b(?!.*\b(?:but|however)\b).*$|\b(?:possibly|perhaps|unlike)\W*$",
    re.I,
)
SUPPOSED_AFTER = re.compile(
    r"\W*(?:\([^)]*\)\W*)?(?:\w+ )?(?:would|could|might|may)\b(?! also| equally)|\W*\b(?:wäre|käme|würde|serait|sería)\b",
    re.I,
)
# A sentence that points at the option of the one before it.
# What says something of the patient, and not of what an option is like.
OF_THE_CASE = re.compile(
    r"\b(?:this|it|that)(?:'s| is| must be)\b|\b(?:he|she|(?:the|this) (?:patient|child|man|woman|boy|girl|infant))"
    r"(?: \w+)? (?:has|is having|suffers)\b|\b(?:indicates?|suggests?|shows?|makes?|confirms?|describes?) ",
    re.I,
)
THE_LATTER = re.compile(r"\bthe (?:(?P<latter>latter)|former)\b", re.I)
POINTS_BACK = re.compile(
    r"\W*(?:this|that|it)(?:'s| is) (?:therefore |thus )?(?:the )?(?:correct|right|best|most likely)"
    r"(?: (?:answer|option|choice|one|diagnosis))?\W*$",
    re.I,
)
CONCESSION = re.compile(r"\W*(?:although|though|while|whereas|unlike|if)\b", re.I)
HEDGED = re.compile(r"\b(?:could|might|may|would (?:seem|appear))\b", re.I)
# Between options that are named together, and between a letter and its text.
TOGETHER = re.compile(
    r"^(?!\s*:\s*$)[\s,/&+±:{}]*(?:and|or|und|oder|et|ou|y|o|e|和|或|及|、)?[\s,/&+{}]*"
    r"(?:or|and|option|choice|answer|(?<=or )(?:possibly|perhaps|maybe|even))?[\s:{}()]*$",
    re.I,
)
SAME = re.compile(r"^[\s.:,)(\-–—=\"'\]}{]*(?:i\.e\.|which is|namely|the|is)?[\s.:,)(\-–—=\"'{]*$", re.I)
# A sentence that says what else would hold.
OTHERWISE = re.compile(r"\W*(?:\w+:\s*)?if\b(?!.*\b(?:guess|choose|pick|forced|say|answer)\b(?!\s+(?:would|is)))", re.I)
# What stands before an option that a sentence comes to.
LETTER_AT_END = re.compile(r"(?:[:,(\-–—>]|\boption|\bchoice)\s*[A-J]\W*$")
ARROW = re.compile(r"(?:→|->)\s*(?:option )?$", re.I)
ANNOUNCED = re.compile(r"[:=>→]\s*(?:an? |the )?$")
