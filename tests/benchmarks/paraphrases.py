"""A clinical question said otherwise: synonyms, abbreviations, units, voice, order of clauses and of sentences.

Used by leaks.py, which measures how many of such rows the gate against leaks finds. What it does is chosen by what
people and language models do to a question when they are asked to reword it lightly, not by what the gate looks at.
"""

import difflib
import random
import re

# Each line holds phrases that may stand for one another. A phrase that stands in two lines has its pick of both.
SYNONYMS = """
comes to the physician because of | presents to the doctor with | sees her doctor for | visits the physician for
comes to the physician | visits a doctor | presents to the clinic | is seen by a physician
comes to the emergency department because of | presents to the ED with | arrives at the emergency room with
comes to the emergency department | presents to the emergency room | arrives at the ED
is brought to the emergency department | is taken to the emergency room | is rushed to the ED | arrives at the ER
is brought to the physician | is taken to the doctor | is brought in to the clinic
presents to the emergency department | comes to the ER | is seen in the emergency room
presents to his primary care physician | sees his family doctor | visits his GP
presents to her primary care physician | sees her family doctor | visits her GP
presents to the clinic | comes to the office | attends the outpatient clinic
presents with | comes in with | is seen for | has
presents for | comes in for | attends for
because of | due to | on account of | for
complains of | reports | says he has | describes
complaining of | reporting | with complaints of
for the past | over the last | for the last | during the past
over the past | during the last | in the last | for the past
in the past | over the previous | previously for
has a history of | is known to have | has had
past medical history is significant for | medical history includes | background is notable for
past medical history is notable for | previous history includes | known conditions include
past medical history | previous medical history | PMH | medical background
family history | FH | history in relatives
medical history | background | history
which of the following is the most likely diagnosis | what is the most likely diagnosis | what is the diagnosis
which of the following is the most likely cause | what is the probable cause | what most likely caused this
which of the following is the most appropriate | what is the best | which would be the most suitable
which of the following is the best | what is the optimal | which is the most suitable
which of the following is | what is | which one is
which of the following | which of these | what
what is the most | which is the most | name the most
most likely | most probable | likeliest
most appropriate | best | most suitable
most common | commonest | most frequent
next step in management | next thing to do | next management step
this patient's symptoms | the symptoms in this patient | his complaints
this patient's condition | the condition of this patient | the illness
this patient | the patient | this individual
all of the following | all of these | each of the following
blood pressure | BP | arterial pressure
heart rate | HR | pulse rate
pulse | heart rate | HR
respirations | respiratory rate | RR | breathing rate
respiratory rate | RR | breaths
temperature | temp | body temperature
oxygen saturation | SpO2 | O2 sat
vital signs are within normal limits | vitals are normal | vital signs are unremarkable
within normal limits | normal | unremarkable | in the normal range
vital signs | vitals | observations
physical examination | physical exam | clinical examination | on exam it
on physical examination | on exam | on examination
examination shows | exam reveals | on examination there is
examination reveals | exam shows | on examination there is
laboratory studies show | labs show | blood tests reveal | laboratory tests show
laboratory studies | labs | laboratory tests | laboratory investigations
laboratory | lab | biochemical
shows no abnormalities | is unremarkable | is normal
shows | reveals | demonstrates
reveals | shows | discloses
demonstrates | shows | reveals
show | reveal | indicate
significant for | notable for | remarkable for
notable for | significant for | remarkable for
unremarkable | normal | without findings
electrocardiogram | ECG | EKG
ecg | EKG | electrocardiogram
chest x-ray | CXR | chest radiograph
x-ray | radiograph | plain film
ct scan | computed tomography | CT
computed tomography | CT | CT scan
mri | magnetic resonance imaging | MR imaging
ultrasound | sonogram | ultrasonography
ultrasonography | ultrasound | sonography
echocardiography | an echocardiogram | cardiac ultrasound
complete blood count | CBC | full blood count
urinalysis | urine testing | UA
white blood cell count | WBC | leukocyte count
leukocyte count | WBC count | white cell count
platelet count | platelets | thrombocyte count
hemoglobin | Hb | haemoglobin
hematocrit | Hct | haematocrit
creatinine | Cr | serum creatinine
urea nitrogen | BUN | blood urea nitrogen
potassium | K+ | serum potassium
sodium | Na+ | serum sodium
glucose | blood sugar | serum glucose
intravenous | IV | parenteral
intramuscular | IM | into the muscle
hypertension | high blood pressure | HTN
type 2 diabetes mellitus | T2DM | type 2 diabetes
type 1 diabetes mellitus | T1DM | type 1 diabetes
diabetes mellitus | diabetes | DM
hyperlipidemia | high cholesterol | dyslipidaemia
myocardial infarction | MI | heart attack
coronary artery disease | CAD | ischemic heart disease
heart failure | HF | cardiac failure
atrial fibrillation | AF | AFib
chronic obstructive pulmonary disease | COPD | chronic obstructive lung disease
urinary tract infection | UTI | infection of the urinary tract
sexually transmitted infection | STI | venereal disease
gastroesophageal reflux disease | GERD | acid reflux
stroke | cerebrovascular accident | CVA
tuberculosis | TB | tubercular infection
pneumonia | lung infection | chest infection
shortness of breath | dyspnea | breathlessness | SOB
difficulty breathing | trouble breathing | breathing difficulty
dyspnea | shortness of breath | breathlessness
chest pain | pain in the chest | thoracic pain
abdominal pain | belly pain | pain in the abdomen | stomach ache
back pain | backache | pain in the back
joint pain | arthralgia | painful joints
headache | head pain | cephalalgia
fever | pyrexia | elevated temperature
fatigue | tiredness | exhaustion
nausea | feeling sick | queasiness
vomiting | emesis | throwing up
diarrhea | loose stools | diarrhoea
weakness | loss of strength | feebleness
swelling | edema | puffiness
edema | swelling | oedema
rash | skin eruption | exanthem
pruritus | itching | itchiness
itching | pruritus | itch
jaundice | icterus | yellowing
weight loss | loss of weight | decrease in weight
loss of appetite | anorexia | poor appetite
cough | coughing | tussis
sore throat | pharyngitis | throat pain
tenderness | pain on palpation | soreness
discomfort | unease | mild pain
pain | ache | soreness
numbness | loss of feeling | hypoesthesia
confusion | disorientation | altered mental status
altered mental status | confusion | changed mentation
seizure | convulsion | fit
bleeding | hemorrhage | haemorrhage
hemorrhage | bleeding | haemorrhage
bruising | ecchymosis | easy bruising
lesion | abnormality | focus
tumor | neoplasm | tumour
cancer | malignancy | carcinoma
mass | lump | growth
enlarged | increased in size | big
erythematous | red | reddened
bilateral | two-sided | on both sides
unilateral | one-sided | on one side
fracture | break | broken bone
surgery | operation | surgical procedure
biopsy | tissue sample | histology
antibiotics | antibacterials | antimicrobial drugs
medications include | drugs include | he takes
current medications | present drugs | medicines at present
medication | drug | medicine
medications | drugs | medicines
takes no medications | is on no drugs | uses no medicines
drug of choice | DOC | first-line drug | preferred agent
drug | agent | medication
treatment | therapy | management
therapy | treatment | therapeutics
treated with | managed with | given
is started on | is commenced on | is given
was started on | was put on | began taking
was diagnosed with | was found to have | received a diagnosis of
underwent | had | went through
undergoing | having | going through
administered | given | provided
administration | giving | delivery
prescribed | ordered | given
daily | every day | per day
twice daily | BID | two times a day
once daily | QD | one time a day
pregnant | gravid | expecting
gestation | of pregnancy | gestational age
delivery | birth | parturition
newborn | neonate | new baby
infant | baby | young child
his mother | his mom | the mother
her mother | her mom | the mother
his father | his dad | the father
parents | mother and father | mom and dad
child | kid | youngster
physician | doctor | clinician
pediatrician | children's doctor | paediatrician
doctor | physician | clinician
patient | subject | individual
previously healthy | formerly well | in good health before
otherwise healthy | well apart from this | without other illness
smoked | been smoking | consumed
cigarettes | smokes | tobacco
drinks alcohol | consumes alcohol | uses alcohol
alcohol | ethanol | drink
denies | has not had | reports no
states that | says | mentions
reports | says he has | mentions
notes | has noticed | observes
appears | looks | seems
is caused by | results from | is due to
caused by | due to | resulting from
associated with | linked with | related to
characterized by | marked by | typified by
responsible for | behind | accountable for
is seen in | occurs in | is found in
is located | lies | is situated
involved in | taking part in | implicated in
increased | elevated | raised
elevated | raised | high
decreased | reduced | lowered
reduced | diminished | decreased
worsening | deteriorating | progressive
progressively | gradually | steadily
severe | intense | marked
mild | slight | minor
acute | sudden | abrupt
chronic | long-standing | persistent
sudden | abrupt | acute
recurrent | repeated | relapsing
intermittent | on-and-off | episodic
occasional | infrequent | sporadic
multiple | several | numerous
several | a number of | some
began | started | set in
started | began | commenced
developed | got | came down with
improved | got better | eased
worse | more severe | aggravated
approximately | about | roughly | around
immediately | at once | right away
recently | lately | not long ago
initially | at first | in the beginning
usually | normally | as a rule
prior to | before | ahead of
after | following | subsequent to
during | in the course of | in
while | when | as
although | even though | though
however | but | yet
also | additionally | as well
additional | further | other
without | with no | lacking
right | right-sided | R
left | left-sided | L
upper extremity | arm | upper limb
lower extremity | leg | lower limb
lower extremities | legs | lower limbs
extremities | limbs | arms and legs
abdomen | belly | abdominal wall
kidney | renal organ | nephric organ
renal | kidney | nephric
hepatic | liver | of the liver
pulmonary | lung | of the lungs
cardiac | heart | of the heart
function | working | activity
disease | illness | disorder
disorder | condition | disease
condition | disorder | state
symptoms | complaints | manifestations
findings | results | observations
best explains | most fully accounts for | best accounts for
"""
OPENINGS = [
    (r"\bA[n]? (\d+)-year-old (man|woman|boy|girl|male|female)\b", [
        r"A \1 year old \2", r"A \1 y/o \2", r"A \2 aged \1 years", r"A \2, \1 years of age,", r"This \1-yr-old \2",
    ]),
    (r"\b(\d+)-(year|month|week|day)-old\b", [r"\1 \2 old", r"\1-\2s-old"]),
    (r"\b(\d+)-(hour|day|week|month|year) history of\b", [r"history of \1 \2s of", r"\1 \2s of", r"\1-\2 course of"]),
    (r"\b(man|boy)\b", ["male"]),
    (r"\b(woman|girl)\b", ["female"]),
]  # fmt: skip
UNITS = [
    (r"(\d)\s*°C \(([\d.]+)\s*°F\)", [r"\1 C (\2 F)", r"\1 degrees Celsius", r"\1 °C"]),
    (r"(\d)/min\b", [r"\1 per minute", r"\1 bpm", r"\1 a minute"]),
    (r"\bmm ?Hg\b", ["mmHg", "mm of mercury"]),
    (r"\bmg/dL\b", ["mg per dL", "mg/100 mL", "mg/dl"]),
    (r"\bg/dL\b", ["g per deciliter", "gm/dl"]),
    (r"/mm\^?3\b", [" per cubic millimeter", "/µL", " cells per mm3"]),
    (r"\bmEq/L\b", ["mmol/L", "meq per liter"]),
    (r"(\d)%", [r"\1 percent", r"\1 %"]),
    (r"\b(\d+) minutes\b", [r"\1 min"]),
    (r"\b(\d+) hours\b", [r"\1 h", r"\1 hrs"]),
]  # fmt: skip
VOICE = [
    (r"\b(?:Physical |Pelvic |Neurologic |Abdominal )?[Ee]xamination (?:shows|reveals) ([^.;]+)\.", [
        r"On examination, \1 is found.", r"\1 is noted on examination.",
    ]),
    (r"\b(?:He|She) was given ([^.;]+)\.", [r"\1 was administered."]),
    (r"\b(He|She) (?:has|reports) (?:a )?([^.;]+) for (?:the past )?(\d+ \w+)\.", [r"For \3, \1 has had \2."]),
    (r"\b(He|She) has smoked ([^.;]+?) for (\d+ years)\.", [r"For \3, \1 has been a smoker of \2."]),
    (r"\bis treated with ([^.;]+)\.", [r"receives \1 as treatment."]),
    (r"\b(?:His|Her) (?:current )?medications (?:are|include) ([^.;]+)\.", [r"\1 are taken regularly."]),
    (r"\b([A-Z][\w ]{3,40}) (?:is|are) normal\.", [r"There is nothing abnormal about \1."]),
    (r"\bThere is ([^.;]+)\.", [r"\1 is present."]),
]  # fmt: skip


def variants() -> dict[str, list[str]]:
    """What may stand for each phrase, the longest phrases first."""
    found: dict[str, list[str]] = {}
    for line in SYNONYMS.strip().splitlines():
        first, *others = line.split(" | ")
        found.setdefault(first.casefold(), []).extend(others)
    return dict(sorted(found.items(), key=lambda entry: -len(entry[0])))


VARIANTS = variants()
PHRASE = re.compile(r"\b(?:" + "|".join(map(re.escape, VARIANTS)) + r")\b", re.IGNORECASE)


def reworded(text: str, rng: random.Random, probability: float) -> str:
    """`text` with each phrase of the table replaced with that probability."""

    def replaced(match: re.Match[str]) -> str:
        if rng.random() >= probability:
            return match[0]
        other = rng.choice(VARIANTS[match[0].casefold()])
        return other[0].upper() + other[1:] if match[0][0].isupper() else other

    return PHRASE.sub(replaced, text)


def rewritten(text: str, rules: list[tuple[str, list[str]]], rng: random.Random, probability: float) -> str:
    """`text` with each place that a rule fits rewritten with that probability."""
    for pattern, others in rules:
        text = re.sub(
            pattern,
            lambda match, others=others: match.expand(rng.choice(others)) if rng.random() < probability else match[0],
            text,
        )
    return text


def enumeration_turned(text: str, rng: random.Random) -> str:
    """`text` with the members of a list (`a, b, and c`) in another order."""

    def turned(match: re.Match[str]) -> str:
        members = [match[1], match[2], match[3]]
        rng.shuffle(members)
        return f"{members[0]}, {members[1]}, and {members[2]}"

    return re.sub(r"([\w-]+(?: [\w-]+)?), ([\w-]+(?: [\w-]+)?), and ([\w-]+(?: [\w-]+)?)(?=[.,;])", turned, text)


def clause_moved(sentence: str) -> str:
    """`Ten days ago, she was hiking.` as `She was hiking ten days ago.`, where the sentence opens so."""
    match = re.fullmatch(
        r"((?:During|After|At|On|In|For|Before|\w+ (?:days|weeks|months|hours|years)) [^,]{4,60}), (.+)\.", sentence
    )
    if match is None:
        return sentence
    opening, rest = match[1], match[2]
    return f"{rest[0].upper()}{rest[1:]} {opening[0].lower()}{opening[1:]}."


def sentences(text: str) -> list[str]:
    """`text` cut behind full stops and question marks."""
    return re.split(r"(?<=[.?!])\s+(?=[A-Z])", text)


def reordered(text: str, rng: random.Random) -> str:
    """`text` with opening clauses moved back and one sentence, neither first nor last, exchanged with the next."""
    parts = [clause_moved(part) if rng.random() < 0.7 else part for part in sentences(text)]
    if len(parts) >= 4:
        first = rng.randrange(1, len(parts) - 2)
        parts[first], parts[first + 1] = parts[first + 1], parts[first]
    return " ".join(parts)


def paraphrase(text: str, rng: random.Random) -> str:
    """`text` said otherwise, with several edits: what is asked stays the same."""
    text = rewritten(text, OPENINGS, rng, 0.7)
    text = rewritten(text, VOICE, rng, 0.5)
    text = reordered(text, rng)
    text = enumeration_turned(text, rng)
    text = rewritten(text, UNITS, rng, 0.5)
    return reworded(text, rng, 0.5)


def other_numbers(text: str, rng: random.Random) -> str:
    """`text` with each number (age, dose, laboratory value) changed by up to a third, and never the same."""

    def other(match: re.Match[str]) -> str:
        value = float(match[0])
        decimals = len(match[0].partition(".")[2])
        for _ in range(20):
            changed = f"{value * rng.uniform(0.67, 1.33) + rng.choice([-1, 1]) * 10**-decimals:.{decimals}f}"
            if changed != match[0] and float(changed) >= 0:
                return changed
        return f"{value + 1:.{decimals}f}"

    return re.sub(r"(?<![\w.])\d+(?:\.\d+)?(?!\w)", other, text)


def spelt_otherwise(text: str, rng: random.Random) -> str:
    """`text` in other case, punctuation, spacing and Unicode characters, the same words in the same order."""
    marks = {
        "-": "\N{NON-BREAKING HYPHEN}",
        "'": "\N{RIGHT SINGLE QUOTATION MARK}",
        " ": "\N{NO-BREAK SPACE}",
        ",": " ,",
    }
    changed = "".join(marks[mark] if mark in marks and rng.random() < 0.5 else mark for mark in text)
    cased = rng.choice([str.upper, str.lower, str.title])(changed)
    return "\n".join(part.rstrip(".?:") for part in sentences(cased)) + rng.choice(["", " ?", "…", " :-"])


def changed_words(text: str, other: str) -> float:
    """The share of words, 0 to 1, that is not the same in order in both."""
    matcher = difflib.SequenceMatcher(None, text.casefold().split(), other.casefold().split(), autojunk=False)
    return 1 - matcher.ratio()
