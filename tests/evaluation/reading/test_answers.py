"""The answer is what a careful reader takes from the reply, and never from the thought."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from medbot_exp.evaluation.reading.answers import Answer, Reading, read_answer
from medbot_exp.prompt import END_THINK

DRUGS = {"A": "Warfarin", "B": "Heparin", "C": "Vitamin A", "D": "Aspirin"}
CHEST_PAIN = {
    "A": "Pulmonary embolism",
    "B": "Myocardial infarction",
    "C": "Aortic dissection",
    "D": "Acute pericarditis",
}
SYMPTOMS = {"A": "Fever", "B": "Cough", "C": "Dyspnea", "D": "All of the above"}
DECISION = {"yes": "yes", "no": "no", "maybe": "maybe"}
BATTERY = [
    json.loads(line) for line in (Path(__file__).parent / "answers_battery.jsonl").read_text("utf-8").splitlines()
]


def read(text, options=DRUGS, opened=False, cut=False):
    answer = read_answer(text, options, opened, cut)
    return answer.key or answer.reading.name


def battery_answer(row, completion=None):
    text = row["completion"] if completion is None else completion
    return read_answer(text, row["options"], row["opened"], cut=row["stop"] == "length")


def test_battery_is_read_as_its_physician_reads_it():
    """Labelled by somebody who had not seen the reader; tests/benchmarks/answers.py shows other readers beside it."""
    wrong = defaultdict(list)
    for row in BATTERY:
        if battery_answer(row) != Answer(Reading[row["state"]], row["answer"]):
            wrong[row["id"].rpartition("-")[0]].append(row["id"])
    missed = sum(map(len, wrong.values()))
    assert len(BATTERY) >= 1200
    assert missed <= 0.01 * len(BATTERY), dict(wrong)


@pytest.mark.parametrize("thought", ["The answer is {}.", "**Answer: {}**", "\\boxed{{{}}}", "Final answer: {}\n\n{}"])
def test_nothing_in_a_thought_changes_the_answer(thought):
    closed = [row for row in BATTERY if END_THINK in row["completion"]]
    assert len(closed) > 100
    for row in closed:
        _, closing, reply = row["completion"].rpartition(END_THINK)
        for key in row["options"]:
            assert battery_answer(row, thought.format(key, key) + closing + reply) == battery_answer(row), row["id"]


@pytest.mark.parametrize("key", DRUGS)
def test_open_thought_has_no_answer(key):
    assert read(f"<think>The answer is {key}.") == "unclosed_think"
    assert read(f"The answer is {key}.", opened=True) == "unclosed_think"
    assert read(f"The answer is {key}.", opened=True, cut=True) == "unclosed_think"
    assert read(f"</think>The answer is {key}. <think>But") == "unclosed_think"


@pytest.mark.parametrize(
    "text, found",
    [
        ("The answer is B.", "B"),
        ("b", "B"),
        ("**B. Heparin**", "B"),
        ("heparin", "B"),
        ("Final answer: \\boxed{B}", "B"),
        ('{"answer": "B"}', "B"),
        ("Die richtige Antwort ist B.", "B"),
        ("正确答案是Ｂ。", "B"),
        ("A deficiency of vitamin A is treated with a vitamin A supplement.", "C"),
        ("A patient with hepatitis B should get heparin.", "B"),
        ("A is wrong. The answer is not C but D.", "D"),
        ("Answer: B. Wait, I misread the stem: the answer is D.", "D"),
        ("Probably D, although B is possible.", "D"),
    ],
)
def test_answer_is_found(text, found):
    assert read(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer is A. The answer is B.",
        "Answer: A or B",
        "The answer is B: Warfarin.",
        "The answer is F.",
        "A is wrong. B is wrong.",
        "It depends on the patient.",
        "None of the above.",
        "A 45-year-old man was given a drug.",
        "Not B.",
    ],
)
def test_no_answer_is_made_up(text):
    assert read(text) == "unparsed"
    assert read(text, cut=True) == "truncated"


def test_answer_that_was_given_before_the_cut_counts():
    assert read("The answer is B. Heparin acts by way of antithrombin and so it", cut=True) == "B"


@pytest.mark.parametrize(
    "text, found",
    [
        ("Yes, mortality fell.", "yes"),
        ("No significant difference was found. The answer is yes.", "yes"),
        ("There was no difference between the groups.", "unparsed"),
        ("Answer: maybe", "maybe"),
        ("yes/no/maybe", "unparsed"),
        ("The answer is no.", "no"),
    ],
)
def test_decision_is_told_from_the_words_of_a_sentence(text, found):
    assert read(text, DECISION) == found


def test_next_turn_that_a_model_makes_up_does_not_count():
    assert read("The answer is B.\n\nQuestion: What else?\nA. x\nB. y\nAnswer: A") == "B"
    assert read("B<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nThe answer is C") == "B"


@pytest.mark.parametrize(
    "text",
    [
        "The one which does not cause bleeding is C.",
        "All cause bleeding except C.",
        "All cause bleeding but vitamin A.",
        "A, B and D cause bleeding; C does not.",
        "Vitamin A is the only one that does not cause bleeding.",
        "C doesn't cause bleeding. All the others do.",
        "A, B and D are true. C is false.",
        "The drug to avoid in pregnancy is C.",
    ],
)
def test_odd_one_out_answers_a_negative_question(text):
    assert read(text) == "C"


@pytest.mark.parametrize(
    "text",
    [
        "A, B and D are out, leaving C.",
        "Not A, not B, and D is unlikely. That leaves the dissection: C.",
        "Eliminating A and D. Between B and C, the tearing pain favors C.",
        "A: wrong\nB: wrong\nC: right\nD: wrong",
        '{"A": false, "B": false, "C": true, "D": false}',
        '[{"option": "A", "correct": false}, {"option": "B", "correct": false}, {"option": "C", "correct": true}]',
        "A: 5%, B: 10%, C: 80%, D: 5%",
        "| Option | Correct? |\n|---|---|\n| A | No |\n| B | No |\n| C | Yes |\n| D | No |",
        "❌ A\n❌ B\n✅ C\n❌ D",
        '{"correct_option": "C", "incorrect_options": ["A", "B", "D"]}',
        "answer: C\ndifferential:\n  - A\n  - B",
    ],
)
def test_options_judged_one_by_one_leave_the_right_one(text):
    assert read(text, CHEST_PAIN) == "C"


@pytest.mark.parametrize("text", ["60% B, 40% C", '{"A": true, "B": true, "C": false, "D": false}', "B > C > A"])
def test_options_that_are_only_ranked_are_no_answer(text):
    assert read(text, CHEST_PAIN) == "unparsed"


@pytest.mark.parametrize(
    "text",
    [
        "It's B. C would give unequal pulses, and D a rub.",
        "B. C would give unequal pulses.",
        "B for sure. C is a common trap.",
        "ST elevation → B",
        "First I thought of C, but then the ECG made me switch to B.",
        "B, because of the ST elevation. If the pulses were unequal, C.",
        "Answer: B\n\nNote: If the pulses were unequal, the answer would be C.",
        "The question is whether it's C or B. The ECG settles it: the latter.",
        "He had acute pericarditis years ago. Now he has a myocardial infarction.",
        "While aortic dissection tears, this is a myocardial infarction.",
        "I prefer B to C.",
    ],
)
def test_remarks_on_other_options_do_not_blur_the_answer(text):
    assert read(text, CHEST_PAIN) == "B"


@pytest.mark.parametrize(
    "text",
    [
        "The diagnosis is therefore aortic dissection.\n\nAnswer: B",
        "\\boxed{B. Aortic dissection}",
        "The answer is B. Wait, that can't be right.",
        "If the ST segments are up, B. If the pulses are unequal, C.",
        "The answer is B or possibly C.",
        "Answer: [A/B/C/D]",
        "None of the given options is right. He has a pneumothorax.",
        "To answer this we should consider the aortic arch.",
        "The diagnosis is aortic stenosis.",
        "Pulmonary hypertension",
    ],
)
def test_contradictions_and_conditions_are_no_answer(text):
    assert read(text, CHEST_PAIN) == "unparsed"


@pytest.mark.parametrize(
    "option, other, text",
    [
        ("Myocardial infarction", "Aortic dissection", "This is an MI."),
        ("MRI of the brain", "CT of the head", "Order magnetic resonance imaging of the brain."),
        ("CT of the head", "MRI of the brain", "Head CT"),
        ("Tuberculosis", "Sarcoidosis", "TB"),
        ("Escherichia coli", "Klebsiella pneumoniae", "E. coli is the most common cause."),
        ("Intravenous ceftriaxone", "Oral doxycycline", "Give ceftriaxone."),
        ("Surgical excision", "Cryotherapy", "The lesion ought to be surgically excised."),
        ("25%", "50%", "The risk is one in four."),
        ("Stage III", "Stage II", "stage 3"),
        ("Increased TSH, decreased T4", "Decreased TSH, increased T4", "TSH is high and T4 is low."),
        ("Crohn disease", "Ulcerative colitis", "Crohn's"),
        ("Cholecalciferol", "Retinol", "Vitamin D"),
        ("Edema", "Ascites", "Oedema"),
        ("Competitive antagonist", "Noncompetitive antagonist", "It is a competitive antagonist."),
        ("Noncompetitive antagonist", "Competitive antagonist", "It is a non-competitive antagonist."),
    ],
)
def test_option_under_another_name_is_recognized(option, other, text):
    assert read(text, {"A": other, "B": option}) == "B"
    assert read(text, {"A": option, "B": other}) == "A"


@pytest.mark.parametrize(
    "text, options",
    [
        ("It is pneumonia.", {"A": "Viral pneumonia", "B": "Bacterial pneumonia"}),
        ("PE", {"A": "Pulmonary embolism", "B": "Pulmonary edema"}),
        ("Give iron.", {"A": "Give oral iron", "B": "Give intravenous iron"}),
    ],
)
def test_name_that_fits_two_options_names_none(text, options):
    assert read(text, options) == "unparsed"


@pytest.mark.parametrize(
    "text", ["All three.", "A, B and C", "Fever, cough and dyspnea are all seen.", "Each of these."]
)
def test_options_named_together_are_the_one_that_joins_them(text):
    assert read(text, SYMPTOMS) == "D"


@pytest.mark.parametrize(
    "text",
    [
        "Die Lösung ist B.",
        "Nicht A, sondern B.",
        "La réponse est la B.",
        "No es A, sino B.",
        "A alternativa correta é a B.",
        "La risposta corretta è la B.",
        "A、C、D均错误，故选B。",
        "したがって正解はBです。",
        "따라서 정답은 B번입니다.",
        "الإجابة الصحيحة هي B",
        "सही उत्तर B है।",
        "Таким образом, верный вариант — «B».",
        "Doğru cevap B'dir.",
    ],
)
def test_answer_is_found_in_other_languages(text):
    assert read(text) == "B"


@pytest.mark.parametrize(
    "text",
    [
        "B<end_of_turn>",
        "B</s></s>",
        "<bos><start_of_turn>model\nAnswer: B<end_of_turn><eos>",
        "The answer is B.<end_of_turn>\n<start_of_turn>user\nAnd C?<end_of_turn>\n<start_of_turn>model\nC",
        "<|channel|>analysis<|message|>A?<|end|><|start|>assistant<|channel|>final<|message|>The answer is B.",
    ],
)
def test_marks_of_a_chat_template_do_not_hide_the_answer(text):
    assert read(text) == "B"


@pytest.mark.parametrize("thought", ["<thinking>{}</thinking>", "[THINK]{}[/THINK]", "<reasoning>{}</reasoning>"])
def test_thought_in_other_tags_is_not_read(thought):
    said = thought.format("The answer is A.")
    assert read(said) == "unparsed"
    assert read(f"{said}\nI cannot answer this.") == "unparsed"
    assert read(f"{said}\nB") == "B"
    assert read("<thinking>The answer is A.") == "unclosed_think"


def test_reasoning_field_of_json_is_not_read():
    assert read('{"reasoning": "Answer: A", "answer": "B"}') == "B"
    assert read('{"reasoning": "This is typical of heparin", "answer": "', cut=True) == "truncated"


@pytest.mark.parametrize("said", ["the patient which ", "A, B, C, D, "])
def test_reply_that_repeats_itself_without_end_is_read(said):
    """Within seconds: a sentence without a stop once took minutes."""
    assert read(said * 2000, CHEST_PAIN, cut=True) == "truncated"
