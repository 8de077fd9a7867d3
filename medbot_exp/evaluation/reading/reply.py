"""What of a completion is the reply: without the thought, what another turn adds, and the marks of a format."""

import re
import unicodedata

from medbot_exp.prompt import END_THINK, THINK

# What a chat template's assistant turn begins with, where a model writes it out itself.
OWN_TURN = re.compile(
    r"\s*(?:<bos>|<\|begin_of_text\|>|<s>)*\s*(?:<\|im_start\|>\s*assistant|<start_of_turn>\s*model"
    r"|<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>"
    r"|#+\s*response:?|assistant:|(?:<s>\s*)?\[INST\].*?\[/INST\])\s*",
    re.I,
)
# Where another turn begins: of an invented user, or of the next question of a worked example.
NEXT_TURN = re.compile(
    r"<\|(?:im_end|eot_id|endoftext|end_of_text|end)\|>|<｜end▁of▁sentence｜>|</s>|\[/?INST\]"
    r"|<\|im_start\|>\s*user|<\|start_header_id\|>\s*user"
    r"|<(?:end|start)_of_turn>|<eos>|<\|(?:eom_id|return|call|start)\|>"
    r"|\n\s*(?:user|human|student|patient|context)\s*:"
    r"|\n\s*#{1,4}\s*(?:instruction|question|input)\b|\n\s*(?:next )?(?:question|q)\s*\d*\s*[:.]",
    re.I,
)
# A question that the model asks itself: a line that asks, and options below it.
NEXT_QUESTION = re.compile(r"\n[^\n]*(?:\?|:|\bis|\bare)\s*\n\s*\(?A[.):]\s[^\n]*\n\s*\(?B[.):]\s", re.I)
# What other models put around a thought, apart from a reply that may stand before it or behind it.
BLOCK = re.compile(
    r"<(reasoning|rationale|analysis|thought|thoughts|scratchpad|explanation)>.*?(?:</\1>|\Z)", re.I | re.S
)
# What they put in the place of `<think>` and `</think>`.
THOUGHT_BEGINS = re.compile(
    r"<thinking>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|channel\|>\s*(?:analysis|commentary)\s*<\|message\|>", re.I
)
THOUGHT_ENDS = re.compile(
    r"</thinking>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|channel\|>\s*final\s*<\|message\|>", re.I
)
# A field of JSON that holds the reasoning, with another before or behind it.
REASONING = (
    r'"(?:reason(?:ing|s)?|rationale|explanation|thoughts?|thinking|analysis|justification|step_by_step\w*)"\s*:\s*'
)
REASONING_FIELD = re.compile(rf'{REASONING}"(?:[^"\\]|\\.)*"\s*,|,\s*{REASONING}"(?:[^"\\]|\\.)*(?:"|\Z)', re.I)
# Each with what is read in its place.
MARKUP = {
    r"~~[^~\n]*~~": "",  # struck through
    r"<0x0A>|</?(?:p|div|li|br|ul)\b[^>]*>": "\n",
    r"\\boxed\s*\{|<\s*(?:answer|choice|final_answer|final|option)\s*>": " answer: {",
    r"\\q?quad\b|<\|[^|<>]*\|>|<｜[^<>]*｜>|</?[a-z_]+\d?\s*/?>": " ",
    r"\\(?:text|textbf|mathbf|mathrm|textit|mbox)\b|[*`$#>~]|__|\\[\[\]()]|(?m:^\s*-{3,}\s*$)": "",
    r"\byes\s*/\s*no(?:\s*/\s*maybe)?\s*:": ": ",  # how the question asked to answer
    r"\bmm\s+Hg\b": "mmHg",
    r"(?<=[A-Za-z])_(?=[A-Za-z])": " ",  # correct_option
}


def behind_thought(completion: str, opened: bool) -> str | None:
    """What stands behind the last `</think>`: all where nothing was thought, None where a thought is not closed.

    The opening tag may be missing, as chat templates put it into the prompt and some servers drop it.

    Args:
        opened: the prompt ended inside a thought.
    """
    # In backticks a tag is spoken of.
    marked = re.sub(r"`</?think>`", "", completion)
    if THOUGHT_BEGINS.search(marked):
        marked = THOUGHT_ENDS.sub(END_THINK, THOUGHT_BEGINS.sub(THINK, marked))
    _, closing, reply = marked.rpartition(END_THINK)
    return None if THINK in reply or (opened and not closing) else reply


def plain(reply: str) -> str:
    """`reply` up to the next turn, in plain letters and without marks of markdown, LaTeX, HTML or XML."""
    text = unicodedata.normalize("NFKC", reply).replace("\u2019", "'")
    text = re.sub(r"(\s)\1{2,}", r"\1\1", text)
    own = OWN_TURN.match(text)
    text = BLOCK.sub("", text[own.end() :] if own else text)
    text = REASONING_FIELD.sub("", text)
    for other in (NEXT_TURN, NEXT_QUESTION):
        found = other.search(text, pos=first_word(text))
        text = text[: found.start()] if found else text
    for mark, read in MARKUP.items():
        text = re.sub(mark, read, text, flags=re.I)
    return text.strip()


def first_word(text: str) -> int:
    """Where `text` has begun to say something."""
    found = re.search(r"\w", text)
    return found.end() if found else 0
