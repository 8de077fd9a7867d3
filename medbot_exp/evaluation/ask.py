"""How a benchmark's question is put to a model: in the words of the run's prompt, or of lm-evaluation-harness."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medbot_exp.config import Ask, BenchmarkConfig, Method, PromptConfig
from medbot_exp.data.example import Example
from medbot_exp.evaluation.benchmarks.registry import READERS
from medbot_exp.evaluation.item import Item
from medbot_exp.prompt import THINK, answer_tokens, prompt_tokens, render


@dataclass(frozen=True)
class Question:
    """An item as a model is asked it.

    Attributes:
        text: the whole prompt.
        ids: its tokens.
        opened: it ends inside a thought.
        slot: what stands between it and an answer that is wanted without a thought.
    """

    item: Item
    text: str
    ids: list[int]
    opened: bool
    slot: str

    def answers(self, ask: Ask) -> list[str]:
        """What each option is measured as: its text, or its key, as lm-evaluation-harness does."""
        return list(self.item.options) if ask is Ask.harness else list(self.item.options.values())

    def answer_tokens(self, ask: Ask, tokenizer: Any) -> tuple[list[list[int]], list[int]]:
        """Token ids of each of `answers` behind the prompt, and how many of them lie before the answer itself."""
        space = " " if ask is Ask.harness else ""
        encoded = [answer_tokens(self.slot, space + answer, tokenizer) for answer in self.answers(ask)]
        return [ids for ids, _ in encoded], [before for _, before in encoded]


def put(
    items: Sequence[Item],
    worked: Sequence[Item],
    shots: Sequence[Example],
    benchmark: BenchmarkConfig,
    prompt: PromptConfig,
    name: str,
    tokenizer: Any,
) -> list[Question]:
    """The questions of `items`.

    Args:
        worked: items that are shown with their answers, in front of each question.
        shots: rows that the run's prompt shows besides.
        name: of the benchmark.
    """
    if benchmark.ask is Ask.harness:
        return [harness_question(item, worked, name, tokenizer) for item in items]
    examples = [*shots, *(worked_example(item, benchmark.method) for item in worked)]
    return [run_question(item, examples, benchmark.method, prompt, tokenizer) for item in items]


def run_question(
    item: Item, shots: Sequence[Example], method: Method, prompt: PromptConfig, tokenizer: Any
) -> Question:
    """`item` in the words of the run's prompt."""
    asked = Example(item.id, question_text(item, method), "", "")
    rendered = render(asked, shots, prompt, tokenizer)
    opened = rendered.prompt.rstrip().endswith(THINK)
    ids = prompt_tokens(rendered.prompt, prompt, tokenizer)
    return Question(item, rendered.prompt, ids, opened, rendered.answer_slot)


def worked_example(item: Item, method: Method) -> Example:
    """`item` with its answer, as a row of the run's prompt."""
    answer = item.options[item.label] if method is Method.loglikelihood else f"Answer: {item.label}"
    return Example(item.id, question_text(item, method), "", answer)


def question_text(item: Item, method: Method) -> str:
    """The question with what it is about, its options, and in which form the answer is wanted.

    By likelihood the model is to continue with an option's text, and is not told of the others' letters.
    """
    parts = [item.context] if item.context else []
    if method is Method.loglikelihood:
        return "\n\n".join([*parts, item.question])
    parts.append(item.question)
    if has_letters(item):
        parts.append(item.listed)
        parts.append(f'End with "Answer: " and one letter of {", ".join(item.options)}.')
    else:
        parts.append(f'End with "Answer: " and one of {", ".join(item.options)}.')
    return "\n\n".join(parts)


def has_letters(item: Item) -> bool:
    """Whether the options stand behind letters; yes, no and maybe are their own keys."""
    return any(key != option for key, option in item.options.items())


def harness_question(item: Item, worked: Sequence[Item], name: str, tokenizer: Any) -> Question:
    """`item` in the words of lm-evaluation-harness."""
    words = READERS[name].HARNESS
    assert words is not None, "rules.benchmark_rules"
    text = words.prompt(item, worked)
    return Question(item, text, tokenizer(text)["input_ids"], opened=False, slot="")
