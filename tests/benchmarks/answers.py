"""How often the answer that a physician reads is the one taken, by our reader and by those of two libraries.

Over tests/evaluation/reading/answers_battery.jsonl, written and labelled by hand. The code is the libraries' own, with
the settings that they ship: the harness's filters, stops and exact_match as each task's YAML has them, read also behind
its `think_end_token` (off by default); lighteval's metric and inspect_ai's choice(), which `lighteval eval` uses,
behind the removal of thoughts that each does by default. The tasks were not asked in their own words here: an
extractor that waits for the sentence its prompt demands is shown what it misses without it.

  as labelled     the labelled answer was taken, or none where there is none
  missed          there is an answer and none was taken
  another         there is an answer and another was taken
  made up         there is none and one was taken
  from thought    one was taken although the thought is unclosed, or it is named before `</think>` and not behind it

An extractor that takes nothing is right wherever there is nothing to take. Questions of yes, no and maybe are left out
where letters alone are read: the harness scores pubmedqa by likelihood; lighteval compares the whole text.

Measured on 30 November 2026 (1,276 rows, 1,146 of them with letters; lm_eval 0.4.13, lighteval 0.13.0, inspect_ai
0.3.285): as labelled 99.7% by ours, 58.4% by the best of the harness and 60.4% by that of lighteval; from a thought
0, 31 and 63; made up 1 of 293, 85 of 265 and 188 of 265. Of the last 320 rows ours had 303 (94.7%) when it first saw
them. The battery is also a test that our reader must pass, and the others need not: the gap says how far they go on
outputs like these, not how ours does on others.

usage: OMP_NUM_THREADS=1 python tests/benchmarks/answers.py
needs: pip install lm_eval==0.4.13 inspect_ai GitPython termcolor aenum pycountry langcodes
       pip install --no-deps lighteval==0.13.0 latex2sympy2_extended==1.0.6
       (lighteval pins an antlr4 that Hydra cannot load; nothing that reads letters needs it)
"""

import argparse
import json
import logging
import re
import sys
import types
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medbot_exp.evaluation.reading.answers import read_answer
from medbot_exp.prompt import END_THINK, THINK

BATTERY = Path(__file__).parents[1] / "evaluation" / "reading" / "answers_battery.jsonl"
INSTALL = (
    "pip install lm_eval==0.4.13 inspect_ai GitPython termcolor aenum pycountry langcodes && "
    "pip install --no-deps lighteval==0.13.0 latex2sympy2_extended==1.0.6"
)
# A task of each distinct set of filters, with the file under lm_eval/tasks that holds them.
HARNESS = {
    "gpqa_main_cot_zeroshot": "gpqa/cot_zeroshot/_gpqa_cot_zeroshot_yaml",
    "mmlu_flan_cot_zeroshot": "mmlu/flan_cot_zeroshot/_mmlu_flan_cot_zeroshot_template_yaml",
    "mmlu_flan_cot_fewshot": "mmlu/flan_cot_fewshot/_mmlu_flan_cot_fewshot_template_yaml",
    "mmlu_flan_n_shot_generative": "mmlu/flan_n_shot/generative/_mmlu_flan_generative_template_yaml",
    "mmlu_generative": "mmlu/generative/_default_template_yaml",
    "mmlu_redux_generative": "mmlu-redux/generative/_default_template_yaml",
    "mmlu_pro": "mmlu_pro/_default_template_yaml",
    "mmlu_cot_llama": "llama3/instruct/mmlu_cot/_mmlu_cot_llama_template_yaml",
    "mmlu_pro_llama": "llama3/instruct/mmlu_pro/_default_template_yaml",
    "kormedmcqa": "kormedmcqa/_template_yaml",
}
DECISION = {"yes", "no", "maybe"}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Extractor:
    """A way to take answers.

    Attributes:
        take: the key of the option taken from each row, or None.
        reads: which rows it can read.
    """

    name: str
    library: str
    take: Callable[[Sequence[Row]], list[str | None]]
    reads: Callable[[Row], bool]


@dataclass(frozen=True)
class Taken:
    """A row, and what an extractor took from it."""

    row: Row
    key: str | None

    @property
    def as_labelled(self) -> bool:
        return self.key == self.row["answer"]

    @property
    def missed(self) -> bool:
        return self.key is None and not self.as_labelled

    @property
    def another(self) -> bool:
        return self.key is not None and self.row["answer"] is not None and not self.as_labelled

    @property
    def made_up(self) -> bool:
        return self.key is not None and self.row["answer"] is None

    @property
    def from_thought(self) -> bool:
        if self.key is None:
            return False
        thought, _, reply = self.row["completion"].rpartition(END_THINK)
        unclosed = self.row["state"] == "unclosed_think"
        return unclosed or (self.names(thought) and not self.names(reply))

    def names(self, text: str) -> bool:
        """Whether `text` has the key by itself, or the option's text."""
        plain = unicodedata.normalize("NFKC", text)
        letter = re.search(rf"(?<![A-Za-z]){self.key}(?![A-Za-z])", plain, re.I)
        return bool(letter) or self.row["options"][self.key].lower() in plain.lower()


def with_letters(row: Row) -> bool:
    return not with_decision(row)


def with_decision(row: Row) -> bool:
    return set(row["options"]) == DECISION


def any_row(row: Row) -> bool:
    return True


def ours() -> Iterator[Extractor]:
    """The package's reader, on all rows and on those that the others read."""
    yield Extractor("read_answer", "medbot_exp", take_ours, any_row)
    yield Extractor("read_answer, rows with letters", "medbot_exp", take_ours, with_letters)


def take_ours(rows: Sequence[Row]) -> list[str | None]:
    """The answers of the package's own reader."""
    return [read_answer(row["completion"], row["options"], row["opened"], row["stop"] == "length").key for row in rows]


def harness() -> Iterator[Extractor]:
    """The filters of lm-evaluation-harness, of each task all, without and with its option to drop a thought."""
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    folder = Path(lm_eval.tasks.__file__).parent
    for task, file in HARNESS.items():
        settings = load_yaml(folder / file)
        for number, filters in enumerate(settings["filter_list"]):
            for token in (None, END_THINK):
                name = f"{task}, {filters['name']}" + (", think_end_token" if token else "")
                yield Extractor(name, "lm-evaluation-harness", harness_filter(settings, number, token), with_letters)


def harness_filter(
    settings: Mapping[str, Any], number: int, think_end_token: str | None
) -> Callable[[Sequence[Row]], list[str | None]]:
    """What the filters with `number` in a task's `settings` take, and its exact_match counts as a letter."""
    from lm_eval.api.instance import Instance
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters import build_filter_ensemble
    from lm_eval.models.utils import postprocess_generated_text

    steps = settings["filter_list"][number]["filter"]
    parts = [(step["function"], {key: step[key] for key in step if key != "function"}) for step in steps]
    (metric,) = settings["metric_list"]
    compared = {key: metric[key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore") if key in metric}

    def scored(found: str, keys: Sequence[str]) -> str | None:
        # Tasks write their targets as B or as (B).
        for key in keys:
            for target in (key, f"({key})"):
                if exact_match_hf_evaluate([found], [target], **compared)["exact_match"]:
                    return key
        return None

    def take(rows: Sequence[Row]) -> list[str | None]:
        until = settings["generation_kwargs"]["until"]
        asked = []
        for place, row in enumerate(rows):
            reply = postprocess_generated_text(row["completion"], until, think_end_token)
            doc = {"choices": list(row["options"].values())}
            asked.append(Instance("generate_until", doc, (), place, resps=[reply]))
        build_filter_ensemble("found", parts).apply(asked)
        found = [each.filtered_resps["found"] for each in asked]
        return [scored(text, list(row["options"])) for text, row in zip(found, rows, strict=True)]

    return take


def lighteval() -> Iterator[Extractor]:
    """What lighteval takes in its generative tasks of letters and of yes, no or maybe."""
    without_latex()
    from lighteval.tasks.tasks.mmlu_pro import mmlu_pro
    from lighteval.tasks.tasks.pubmedqa import pubmedqa

    # The pass@k of gpqa:diamond scores a sample by an extractive match with the same settings.
    names = "gpqa:diamond and mmlu_pro"
    (by_letter,) = (metric.sample_level_fn for metric in mmlu_pro.metrics)
    yield Extractor(f"{names}, extractive_match", "lighteval", lighteval_letters(by_letter), with_letters)
    yield Extractor(f"{names}, inspect_ai's choice()", "lighteval", take_by_choice, with_letters)
    yield Extractor("pubmedqa, exact_match", "lighteval", lighteval_decision(pubmedqa), with_decision)


def without_latex() -> None:
    """Stand in for the LaTeX parser that lighteval loads with its metrics, and no letter ever meets."""
    package = types.ModuleType("latex2sympy2_extended")
    parser = types.ModuleType("latex2sympy2_extended.latex2sympy2")
    parser.NormalizationConfig = types.SimpleNamespace  # type: ignore[attr-defined]
    sys.modules[package.__name__], sys.modules[parser.__name__] = package, parser


def behind_tags(completion: str) -> str:
    """`completion` as lighteval's pipeline scores it by default."""
    from lighteval.utils.utils import remove_reasoning_tags

    return remove_reasoning_tags(completion, [(THINK, END_THINK)])


def lighteval_letters(metric: Any) -> Callable[[Sequence[Row]], list[str | None]]:
    """The letters that `metric`, a multilingual extractive match, extracts."""
    from lighteval.metrics.utils.extractive_match_utils import extract_target_from_pred, get_extraction_regexes
    from lighteval.tasks.requests import Doc

    def taken(row: Row) -> str | None:
        doc = Doc(query="", choices=list(row["options"]), gold_index=0)
        patterns = get_extraction_regexes(doc, metric.pred_extraction_target, metric.language)
        settings = (metric.fallback_mode, metric.extraction_mode, metric.timeout_seconds)
        return next(iter(extract_target_from_pred(behind_tags(row["completion"]), patterns, *settings)), None)

    return lambda rows: [taken(row) for row in rows]


def lighteval_decision(task: Any) -> Callable[[Sequence[Row]], list[str | None]]:
    """The word that `task` finds to be the whole of a reply."""
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc

    (metric,) = task.metrics

    def taken(row: Row) -> str | None:
        response = ModelResponse(text=[behind_tags(row["completion"]).split(task.stop_sequence[0])[0]])
        docs = {key: Doc(query="", choices=[key], gold_index=0) for key in row["options"]}
        return next((key for key, doc in docs.items() if metric.sample_level_fn.compute(doc, response)), None)

    return lambda rows: [taken(row) for row in rows]


def take_by_choice(rows: Sequence[Row]) -> list[str | None]:
    """The letters that inspect_ai's multiple_choice() marks for its scorer choice()."""
    from inspect_ai.model import ModelName, ModelOutput
    from inspect_ai.model._reasoning import parse_content_with_reasoning
    from inspect_ai.solver import TaskState
    from inspect_ai.solver._multiple_choice import parse_answers

    def taken(row: Row) -> str | None:
        reply, _ = parse_content_with_reasoning(row["completion"])
        output = ModelOutput.from_content("none", reply)
        state = TaskState(ModelName("none/none"), 0, 0, "", [], choices=list(row["options"].values()), output=output)
        return next(iter(parse_answers(state, multiple_correct=False)), None)

    return [taken(row) for row in rows]


def taken_by(extractor: Extractor, rows: Sequence[Row]) -> list[Taken]:
    """What `extractor` takes from those of `rows` that it reads."""
    read = [row for row in rows if extractor.reads(row)]
    return [Taken(row, key) for row, key in zip(read, extractor.take(read), strict=True)]


def share(taken: Sequence[Taken]) -> str:
    return f"{100 * sum(each.as_labelled for each in taken) / len(taken):.1f}%"


def print_extractors(taken: Mapping[Extractor, Sequence[Taken]]) -> None:
    """A line for each extractor, over the rows that it reads."""
    print("| | extractor | rows (left out) | as labelled | missed | another | made up | from thought |")
    print("|---|---|---|---|---|---|---|---|")
    rows = max(map(len, taken.values()))
    for extractor, each in taken.items():
        none = sum(one.row["answer"] is None for one in each)
        counts = [sum(getattr(one, name) for one in each) for name in ("missed", "another", "made_up", "from_thought")]
        missed, another, made_up, thought = counts
        of_which = f"{len(each)} ({rows - len(each)}) | {share(each)} | {missed} | {another} | {made_up} of {none}"
        print(f"| {extractor.library} | {extractor.name} | {of_which} | {thought} |")


def print_kinds(taken: Mapping[Extractor, Sequence[Taken]]) -> None:
    """A line for each kind of output: ours beside the best of each library, on the rows that it reads."""
    best: dict[str, Extractor] = {}
    for extractor, each in taken.items():
        rival = best.get(extractor.library)
        if extractor.reads is not with_decision and (rival is None or hits(each) > hits(taken[rival])):
            best[extractor.library] = extractor
    chosen = list(best.values())
    print("\n| as labelled, by kind | rows | " + " | ".join(f"{each.library}: {each.name}" for each in chosen) + " |")
    print("|---|---|" + "---|" * len(chosen))
    for kind in sorted({kind_of(one.row) for one in taken[chosen[0]]}):
        mine = [[one for one in taken[each] if kind_of(one.row) == kind] for each in chosen]
        cells = [f"{share(each)} of {len(each)}" if each else "" for each in mine]
        print(f"| {kind} | {len(mine[0])} | " + " | ".join(cells) + " |")


def kind_of(row: Row) -> str:
    return row["id"].rpartition("-")[0]


def hits(taken: Sequence[Taken]) -> int:
    return sum(each.as_labelled for each in taken)


def print_behind(taken: Mapping[Extractor, Sequence[Taken]]) -> None:
    """The rows that our reader gets wrong, each with how many of the others' extractors get it right."""
    reader, *_ = taken
    others = [extractor for extractor in taken if extractor.library != reader.library]
    right = {extractor: {one.row["id"] for one in taken[extractor] if one.as_labelled} for extractor in others}
    wrong = [one for one in taken[reader] if not one.as_labelled]
    print("\n| wrong in ours | label | taken | right in the others |\n|---|---|---|---|")
    for one in wrong:
        found = sum(one.row["id"] in each for each in right.values())
        reading = sum(extractor.reads(one.row) for extractor in others)
        print(f"| {one.row['id']} | {one.row['answer']} | {one.key} | {found} of {reading} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    logging.disable(logging.WARNING)
    rows = [json.loads(line) for line in BATTERY.read_text("utf-8").splitlines()]
    try:
        taken = {extractor: taken_by(extractor, rows) for extractor in (*ours(), *harness(), *lighteval())}
    except ImportError as error:
        print(f"{error}; run: {INSTALL}", file=sys.stderr)
        sys.exit(2)
    print_extractors(taken)
    print_kinds(taken)
    print_behind(taken)


if __name__ == "__main__":
    main()
