"""Leaks of test items: what must be found however it is said, and what must not be taken for one."""

import json

import pytest

from medbot_exp.data.example import Example
from medbot_exp.data.leaks import RUN, Asked, Audit, Kind, Leak, audit, find_leaks, singular, words
from medbot_exp.data.sources import BUNDLED, read_file

VIGNETTE = (
    "A 45-year-old man presents with three weeks of hoarseness and a lump below the left ear that has grown since the "
    "spring. He repairs looms in a cotton mill and keeps racing pigeons. His temperature is 37.0 °C (98.6 °F), pulse "
    "is 80/min, and blood pressure is 120/80 mm Hg. Laryngoscopy shows a paralysed vocal cord. Serum calcium is "
    "2.3 mmol/L. Which of the following is the most likely diagnosis?"
)
OPTIONS = ("Pleomorphic adenoma", "Adenoid cystic carcinoma", "Warthin tumour", "Reactive lymph node")
SHORT = "Drug of choice for absence seizures is:"
DRUGS = ("Ethosuximide", "Phenytoin", "Carbamazepine", "Gabapentin")
LONG_ITEM = Asked("medqa", "hoarse", VIGNETTE, OPTIONS)
SHORT_ITEM = Asked("medmcqa", "absence", SHORT, DRUGS)
FILLER = "The ward round began late, since two nurses were ill. All charts were read aloud. "
COMPLAINTS = [
    "a burning tongue after meals", "a swollen thumb since a fall from a ladder", "ringing in one ear at night",
    "a yellow toenail that crumbles", "double vision when reading music", "a dry mouth since taking new tablets",
    "cold fingers that turn white in winter", "a bitten lip that does not heal", "leg cramps after long flights",
    "a hoarse voice after singing lessons", "itching scalp with silver scales", "a stiff neck on waking",
]  # fmt: skip
# Different questions that say the same things around what they ask about.
BOILERPLATE = [
    f"A {30 + n}-year-old woman comes to the physician because of {complaint}. She has no history of serious illness "
    f"and takes no medications. Her vital signs are temperature 37.0 °C (98.6 °F), pulse {70 + n}/min, and blood "
    "pressure 120/80 mm Hg. Physical examination shows no other abnormalities. Which of the following is the most "
    "likely diagnosis?"
    for n, complaint in enumerate(COMPLAINTS * 3)
]


def row(question, reasoning="", answer="", options=()):
    return Example("row", question, reasoning, answer, tuple(options))


def kinds(example, *items):
    """The kind by item of what `example` gives away."""
    return {leak.item: leak.kind.value for leak in find_leaks([example], items or [LONG_ITEM, SHORT_ITEM])}


def listed(stem, options):
    return "\n".join([stem, *(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=False))])


@pytest.mark.parametrize("item", [LONG_ITEM, SHORT_ITEM], ids=["long", "short"])
@pytest.mark.parametrize(
    "example",
    [
        lambda item: row(item.stem),
        lambda item: row(item.stem, options=item.options),
        lambda item: row(item.stem, options=item.options[::-1]),
        lambda item: row(listed(item.stem, item.options)),
        lambda item: row(listed(item.stem, item.options[::-1])),
        lambda item: row(item.stem.upper()),
        lambda item: row(item.stem.replace(" ", "\N{NO-BREAK SPACE}").replace("-", "\N{NON-BREAKING HYPHEN}")),
        lambda item: row("  " + item.stem.replace(" ", "\n").replace(",", " ;").rstrip(":?") + "…"),
        lambda item: row(f"{FILLER}{item.stem} {FILLER}"),
    ],
    ids=["stem", "options", "reordered", "listed", "listed reordered", "case", "unicode", "spacing", "embedded"],
)
def test_item_is_found_as_it_stands_whatever_its_options_and_spelling(item, example):
    (leak,) = find_leaks([example(item)], [LONG_ITEM, SHORT_ITEM])
    assert leak == Leak("row", item.benchmark, item.id, Kind.overlap, 1.0)


@pytest.mark.parametrize("part", ["question", "reasoning", "answer"])
def test_long_stem_is_found_in_every_text_of_a_row(part):
    texts = {"question": FILLER, "reasoning": FILLER, "answer": FILLER} | {part: f"{FILLER}{VIGNETTE} {FILLER}"}
    assert kinds(row(**texts)) == {"hoarse": "overlap"}


def test_texts_of_a_row_are_kept_apart():
    """A run that only joining question and reasoning makes is none."""
    first, second = VIGNETTE[: len(VIGNETTE) // 3], VIGNETTE[len(VIGNETTE) // 3 :]
    (whole,) = find_leaks([row(VIGNETTE)], [LONG_ITEM])
    (parted,) = find_leaks([row(first, second)], [LONG_ITEM])
    assert parted.share < whole.share


def test_changed_numbers_do_not_hide_a_vignette():
    for old, new in [("45", "52"), ("37.0", "38.4"), ("98.6", "101.1"), ("80/min", "104/min"), ("2.3", "1,002")]:
        assert old in VIGNETTE
        assert kinds(row(VIGNETTE.replace(old, new))) == {"hoarse": "overlap"}


@pytest.mark.parametrize(
    "form", ["{letter}. {drug}", "({letter}) {drug}", "{number}) {drug}", "{drug} 250 mg", "Oral {drug}"]
)
def test_short_stem_is_found_however_its_options_are_written(form):
    options = [
        form.format(letter=letter, number=number, drug=drug)
        for number, (letter, drug) in enumerate(zip("ABCD", DRUGS, strict=True), start=1)
    ]
    assert kinds(row(SHORT, options=options)) == {"absence": "overlap"}
    # Other words with other options ask something else.
    assert kinds(row("Which drug is the choice for absence seizures?", options=["Valproate", "Lidocaine"])) == {}


PARAPHRASE = (
    "A 45 year old male comes in with hoarseness for three weeks and, since the spring, a growing lump below his left "
    "ear. He keeps racing pigeons and repairs looms in a cotton factory. BP is 120/80, HR 80, temp 37 C. A vocal cord "
    "is found paralysed on laryngoscopy. Calcium in serum is 2.3 mmol/L. What is the likeliest diagnosis?"
)


def test_light_paraphrase_of_a_vignette_is_found_among_many_items():
    items = [LONG_ITEM, *(Asked("medqa", str(n), text) for n, text in enumerate(BOILERPLATE))]
    assert kinds(row(PARAPHRASE), *items) == {"hoarse": "fuzzy"}


@pytest.mark.parametrize(
    "question",
    [
        "Drug of choice for an absence seizure?",
        "What is the drug of choice for absence seizures?",
        listed("Which drug is best for absence seizures?", DRUGS[::-1]),
    ],
)
def test_light_paraphrase_of_a_short_stem_is_found(question):
    assert set(kinds(row(question))) == {"absence"}


@pytest.mark.parametrize(
    "question, options",
    [
        ("Drug of choice for focal seizures is:", ("Lamotrigine", "Valproate", "Lidocaine", "Ketamine")),
        ("Drug of choice for status epilepticus is:", ()),
        ("Drug contraindicated in absence seizures, myoclonic jerks and atonic spells of childhood is:", ()),
        ("Absence seizures: their EEG shows", DRUGS[:2]),
    ],
)
def test_short_question_about_something_close_is_no_leak(question, options):
    others = ["Drug of choice for gout is:", "Drug of choice for scabies is:", "Treatment of tonic seizures is:"]
    items = [SHORT_ITEM, *(Asked("medmcqa", str(n), stem) for n, stem in enumerate(others * 10))]
    assert "absence" not in kinds(row(question, options=options), *items)


def test_short_stem_that_is_reasoned_about_is_no_leak():
    assert kinds(row("Why do children stare?", f"{SHORT} ethosuximide, I think.", "Absence seizures.")) == {}


def test_boilerplate_stem_is_a_leak_as_the_whole_question_or_with_its_options_only():
    asks = "Which of the following is true?"
    items = [Asked("medmcqa", str(n), asks, (f"alpha {n}", f"beta {n}", f"gamma {n}")) for n in range(40)]
    assert len(kinds(row(asks), *items)) == 40
    assert set(kinds(row(asks, options=items[7].options[::-1]), *items)) == {"7"}
    assert set(kinds(row(listed(asks, items[7].options[::-1])), *items)) == {"7"}
    assert kinds(row(asks, options=("delta", "epsilon")), *items) == {}
    assert kinds(row(f"{FILLER}{asks} {FILLER}"), *items) == {}


def test_options_that_are_measures_are_not_taken_for_numbered_ones():
    asks, sizes = "Which is true?", ("1 cm", "2 cm", "3 cm", "4 cm")
    item = Asked("medmcqa", "width", asks, (sizes[2], sizes[0], sizes[3], sizes[1]))
    assert kinds(row(asks, options=sizes), item) == {"width": "overlap"}


def test_options_of_many_items_tell_none_of_them():
    stems = ["Does aspirin prevent colds?", "Is sleep a cure for gout?", "Do statins harm tendons?"]
    items = [Asked("pubmedqa", str(n), f"{stem} {n}", ("yes", "no", "maybe")) for n, stem in enumerate(stems * 4)]
    assert kinds(row("Does zinc prevent warts?", options=("yes", "no", "maybe")), *items) == {}


def test_negation_makes_another_question():
    item = Asked("medmcqa", "beta", "Which of these is an indication for a beta blocker in stable chronic angina?")
    asked = "Which of these is not an indication for a beta blocker in stable chronic angina?"
    assert kinds(row(asked.replace("not ", "")), item) == {"beta": "overlap"}
    assert kinds(row(asked), item) == {}


def test_number_tells_terse_questions_apart():
    item = Asked("medmcqa", "nerve", "Nerve of pharyngeal arch 2 is:", ("Facial", "Vagus", "Trigeminal"))
    assert kinds(row("Nerve of pharyngeal arch 3 is:"), item) == {}
    assert kinds(row("Nerve of pharyngeal arch 2 is?"), item) == {"nerve": "overlap"}


def test_questions_that_share_nothing_but_boilerplate_are_no_leaks():
    rows = [Example(f"row-{n}", text, "", "") for n, text in enumerate(BOILERPLATE[: len(COMPLAINTS)])]
    items = [Asked("medqa", f"item-{n}", text) for n, text in enumerate(BOILERPLATE)]
    found = {(leak.row, leak.item) for leak in find_leaks(rows, items)}
    # Each complaint stands in three items, which are the same question.
    assert found == {(f"row-{n}", f"item-{n + 12 * copy}") for n in range(12) for copy in range(3)}


def test_stem_of_boilerplate_alone_is_found_as_it_stands():
    items = [Asked("medqa", str(n), VIGNETTE) for n in range(30)]
    assert len(kinds(row(VIGNETTE), *items)) == 30


def test_same_disease_told_of_another_patient_is_no_leak():
    other = (
        "A 61-year-old singer has lost her voice over a month. A firm mass lies under the left ear, and laryngoscopy "
        "shows a paralysed vocal cord. Which of the following is the most likely diagnosis?"
    )
    assert kinds(row(other, options=OPTIONS)) == {}


def test_overlap_is_a_run_of_64_characters():
    """Half of the words, each run too short: the same n-grams, another kind."""
    text = VIGNETTE.replace(",", "").split()
    broken = " ".join(" ".join([*text[start : start + 7], "zzz"]) for start in range(0, len(text), 7))
    assert max(len(part.strip()) for part in broken.split("zzz")) < RUN
    assert kinds(row(broken)) == {"hoarse": "ngrams"}


def test_pair_is_told_once_by_its_strongest_kind():
    leaks = find_leaks([row(listed(VIGNETTE, OPTIONS), f"{VIGNETTE} {PARAPHRASE}", VIGNETTE)], [LONG_ITEM])
    assert [leak.kind for leak in leaks] == [Kind.overlap]


def test_row_that_gives_away_two_items_is_told_twice():
    assert kinds(row(f"{SHORT} {VIGNETTE}")) == {"hoarse": "overlap", "absence": "overlap"}


def test_leaks_are_in_the_order_of_the_rows():
    rows = [Example(str(n), SHORT if n % 2 else VIGNETTE, "", "") for n in range(6)]
    assert [leak.row for leak in find_leaks(rows, [SHORT_ITEM, LONG_ITEM])] == list("012345")


@pytest.mark.parametrize("rows, items", [([], [LONG_ITEM]), ([row(VIGNETTE)], []), ([row("?")], [LONG_ITEM])])
def test_nothing_to_find_is_found_in_nothing(rows, items):
    assert find_leaks(rows, items) == []


def test_audit_counts_by_benchmark_and_kind_and_shows_the_plainest():
    rows = [Example("a", SHORT, "", ""), Example("b", "What is the drug of choice for absence seizures?", "", "")]
    rows += [Example("c", FILLER, "", ""), Example("d", "Drug of choice for an absence seizure", "", "")]
    found = audit(rows, [LONG_ITEM, SHORT_ITEM])
    assert (found.rows, found.items) == (4, {"medqa": 1, "medmcqa": 1})
    assert sum(found.counts()["medmcqa"].values()) == 3
    assert found.counts()["medqa"] == {"overlap": 0, "ngrams": 0, "fuzzy": 0}
    assert found.leaked_items() == {"medqa": 0, "medmcqa": 1}
    assert [leak.kind for leak in found.examples(9)] == sorted([leak.kind for leak in found.leaks], reverse=True)
    assert found.examples(1)[0].row == "a"


def test_examples_are_the_strongest_kind_and_share_first():
    leaks = [
        Leak(str(n), "b", "i", kind, n / 10) for n, kind in enumerate([Kind.fuzzy, Kind.ngrams, *[Kind.overlap] * 2])
    ]
    assert [leak.row for leak in Audit(4, {"b": 1}, leaks).examples(3)] == ["3", "2", "1"]


def test_words_are_without_case_accents_punctuation_and_plural():
    text = "Ménière's Diseases: 16,400/mm³ (mm^3), 38.6\N{DEGREE CELSIUS}; T4, diagnosis"
    assert words(text) == ["meniere", "s", "disease", "16,400", "mm3", "mm3", "38.6", "c", "t4", "diagnosis"]
    assert [singular(word) for word in ["seizures", "virus", "abscess", "gas", "s"]] == [
        "seizure", "virus", "abscess", "gas", "s",
    ]  # fmt: skip


def test_bundled_training_rows_give_away_no_held_out_case():
    cases = read_file(BUNDLED / "clinical_cases.jsonl")
    rows = [
        Example(case["id"], case["question"], case["reasoning"], case["answer"], tuple(case["options"].values()))
        for case in cases
        if case["split"] == "train"
    ]
    held_out = [
        Asked("cases", case["id"], case["question"], tuple(case["options"].values()))
        for case in cases
        if case["split"] == "validation"
    ]
    assert find_leaks(rows, held_out) == []


def test_published_items_are_found_among_published_rows_and_no_others(real_rows):
    medqa = read_file(real_rows / "medqa_us_test_300.jsonl")
    medmcqa = read_file(real_rows / "medmcqa_dev_300.jsonl")
    pubmedqa = json.loads((real_rows / "pubmedqa_pqal_200.json").read_text(encoding="utf-8"))
    reasoned = read_file(real_rows / "medical_o1_150.json")
    asked = [(case["question"], tuple(case["options"].values())) for case in medqa]
    asked += [(case["question"], tuple(case[f"op{letter}"] for letter in "abcd")) for case in medmcqa]
    asked += [(case["QUESTION"], ("yes", "no", "maybe")) for case in pubmedqa.values()]
    items = [Asked("published", str(n), stem, options) for n, (stem, options) in enumerate(asked)]
    others = [Example("other", case["Question"], case["Complex_CoT"], case["Response"]) for case in reasoned]
    rows = [Example(item.id, listed(item.stem, item.options[::-1]), "", "") for item in items]
    rows += [Example(item.id, item.stem, "", "", item.options) for item in items]
    found = [(leak.row, leak.item) for leak in find_leaks([*rows, *others], items)]
    assert sorted(found) == sorted((item.id, item.id) for item in items * 2)
