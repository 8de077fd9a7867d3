"""A model answers a benchmark: by writing, or by how likely it holds each option."""

import hashlib
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medbot_exp.config import Ask, BenchmarkConfig, Method, PromptConfig
from medbot_exp.data.example import Example
from medbot_exp.errors import DivergenceError
from medbot_exp.evaluation.ask import Question, put
from medbot_exp.evaluation.generate import Budget, Decoding, Reply, Transformers, Writer, write_replies
from medbot_exp.evaluation.item import fingerprint
from medbot_exp.evaluation.kept import Kept, computed
from medbot_exp.evaluation.paper import Paper, fitting
from medbot_exp.evaluation.prediction import Prediction, measured, written
from medbot_exp.evaluation.score import choice_log_likelihoods, in_float32
from medbot_exp.processes import Processes
from medbot_exp.prompt import END_THINK, slot_tokens

log = logging.getLogger(__name__)

# What a thought is closed with that has spent its budget: the answer is asked for.
CLOSING = f"\n{END_THINK}\n\nThe answer is"
SECONDS_BETWEEN_LINES = 30
# Settings of a benchmark on which no reply depends, or which the identity has in another form.
UNASKED = ("limit", "fingerprint", "engine", "batch_size", "vllm_batch_size")
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "unsloth", "unsloth_zoo", "liger_kernel")


@dataclass(frozen=True)
class Candidate:
    """A model that answers, and all that its answers depend on besides the questions.

    Attributes:
        writer: the model itself; one that is asked for likelihoods is in memory.
        prompt: the run's own.
        shots: rows that the prompt shows in front of every question.
        identity: of the weights, and of what they are computed with.
    """

    writer: Writer
    tokenizer: Any
    prompt: PromptConfig
    shots: Sequence[Example]
    identity: dict[str, Any]


def examine(
    candidate: Candidate, paper: Paper, cache_dir: Path, processes: Processes
) -> tuple[list[Prediction], float]:
    """The predictions of `candidate` on `paper`, in the order of its items, and the seconds that they took.

    What was answered before, by this process or another, is read from `cache_dir`. Where there are several processes,
    all answer all of it, as divided weights need each of them in every pass, and the first one writes.
    """
    questions = questions_of(paper, candidate.prompt, candidate.shots, candidate.tokenizer)
    batches = batched(questions, candidate.writer.batch_size(paper.benchmark))
    kept = Kept.below(cache_dir, identity(candidate, paper, questions))
    with kept.held() if processes.first else nullcontext():
        done = processes.of_first(lambda: kept.begin([len(batch) for batch in batches]))
        if done == len(batches):
            log.info("%s: answered before, by the same weights under the same settings", paper.metric)
        else:
            log.info(to_answer(paper, candidate, questions, sum(map(len, batches[:done]))))
            candidate.writer.begin()
        told = Told(paper.metric, len(questions), sum(map(len, batches[:done])))

        def answer(batch: Sequence[Question]) -> list[dict[str, Any]]:
            rows = replies(candidate, paper.benchmark, batch)
            told.add(len(rows))
            return rows

        if processes.first:
            computed(kept, batches, answer)
        else:
            for batch in batches[done:]:
                answer(batch)
    rows, seconds = processes.of_first(lambda: (kept.rows(), kept.seconds()))
    by_id = {row.pop("id"): row for row in rows}
    return [prediction_of(question, by_id[question.item.id], paper.benchmark.ask) for question in questions], seconds


def to_answer(paper: Paper, candidate: Candidate, questions: Sequence[Question], done: int) -> str:
    """What is to be done for `paper`, of whose `questions` some are `done`, for the log."""
    benchmark = paper.benchmark
    if benchmark.method is Method.loglikelihood:
        how = "by the likelihood of their options"
    else:
        most = max(written_room(questions, benchmark, candidate.prompt, candidate.tokenizer))
        size = candidate.writer.batch_size(benchmark)
        how = f"in writing, {size} at a time, in at most {most} tokens each, by {candidate.writer.name}"
    kept = f", {done} of them kept" if done else ""
    return f"{paper.metric}: {len(questions)} answers{kept}, {how}"


class Told:
    """How far an evaluation is, in the log every half minute: a thousand thoughts take hours.

    Args:
        name: of what is asked.
        done: of the `items` before it begins.
    """

    def __init__(self, name: str, items: int, done: int) -> None:
        self.name, self.items, self.done, self.begun_with = name, items, done, done
        self.begun = self.last = time.monotonic()

    def add(self, answered: int) -> None:
        """Count `answered` items more."""
        self.done += answered
        now = time.monotonic()
        if now - self.last < SECONDS_BETWEEN_LINES:
            return
        self.last = now
        left = (now - self.begun) / (self.done - self.begun_with) * (self.items - self.done)
        log.info("%s: %d of %d items answered, about %.0f s left", self.name, self.done, self.items, left)


def questions_of(paper: Paper, prompt: PromptConfig, shots: Sequence[Example], tokenizer: Any) -> list[Question]:
    """The questions on `paper`, as a model under `prompt` is asked them."""
    return put(paper.items, paper.worked, shots, paper.benchmark, prompt, paper.name, tokenizer)


def with_room(paper: Paper, prompt: PromptConfig, shots: Sequence[Example], tokenizer: Any, positions: int) -> Paper:
    """`paper` with the items that a model of `positions` tokens has room for; errors as of `fitting`."""
    questions = questions_of(paper, prompt, shots, tokenizer)
    if paper.benchmark.method is Method.loglikelihood:
        room = [max(map(len, question.answer_tokens(paper.benchmark.ask, tokenizer)[0])) for question in questions]
    else:
        room = written_room(questions, paper.benchmark, prompt, tokenizer)
    return fitting(paper, questions, room, positions)


def longest(paper: Paper, prompt: PromptConfig, shots: Sequence[Example], tokenizer: Any) -> int:
    """The tokens of the longest question on `paper` and what may be written behind it."""
    questions = questions_of(paper, prompt, shots, tokenizer)
    rooms = zip(questions, written_room(questions, paper.benchmark, prompt, tokenizer), strict=True)
    return max(len(question.ids) + room for question, room in rooms)


def written_room(
    questions: Sequence[Question], benchmark: BenchmarkConfig, prompt: PromptConfig, tokenizer: Any
) -> list[int]:
    """How many tokens may come behind each of `questions` in writing."""
    budgets = [budget(benchmark, prompt, question.opened) for question in questions]
    closing = len(slot_tokens(CLOSING, tokenizer))
    return [each.thinking + (closing if each.thinking else 0) + each.answer for each in budgets]


def batched(questions: Sequence[Question], size: int) -> list[list[Question]]:
    """`questions` in batches, the longest first: those of one length together, and memory is shown at the start."""
    order = sorted(questions, key=lambda question: (-len(question.ids), question.item.id))
    return [list(order[start : start + size]) for start in range(0, len(order), size)]


def identity(candidate: Candidate, paper: Paper, questions: Sequence[Question]) -> dict[str, Any]:
    """All that the replies of `candidate` to `paper`, whose `questions` these are, depend on."""
    # Where items come from, and how many there are, is in the items themselves.
    settings = {
        key: value
        for key, value in plain(asdict(paper.benchmark)).items()
        if not key.endswith("path") and not key.startswith("development") and key not in UNASKED
    }
    asked = [(question.ids, question.opened, question.slot) for question in questions]
    return {
        **candidate.identity,
        "writer": candidate.writer.name,
        "ends": sorted(candidate.writer.ends),
        "prompt": plain(asdict(candidate.prompt)),
        "prompt_shots": hashlib.sha256(repr(list(candidate.shots)).encode()).hexdigest(),
        "benchmark": paper.name,
        "settings": settings,
        "questions": hashlib.sha256(repr(asked).encode()).hexdigest(),  # the tokenizer's chat template among it
        "items": fingerprint(paper.items),
        "worked": fingerprint(paper.worked),
        "batch_size": candidate.writer.batch_size(paper.benchmark),
        "closing": CLOSING,
        "packages": {name: installed(name) for name in PACKAGES},
    }


def installed(package: str) -> str | None:
    """The version of `package`; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:  # also of a folder that has its name, which can be found and is no package
        return None


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """`settings` with the names of their enums."""
    return {key: getattr(value, "name", value) for key, value in settings.items()}


def replies(candidate: Candidate, benchmark: BenchmarkConfig, batch: Sequence[Question]) -> list[dict[str, Any]]:
    """What `candidate` makes of each question of one batch, as it is kept: it is judged when it is read."""
    if benchmark.method is Method.loglikelihood:
        return [
            {"id": question.item.id, "log_likelihoods": likelihoods(candidate, benchmark, question)}
            for question in batch
        ]
    thinks = [question.opened for question in batch]
    written = write_replies(
        candidate.writer,
        candidate.tokenizer,
        [question.ids for question in batch],
        thinks,
        budget(benchmark, candidate.prompt, any(thinks)),
        Decoding(benchmark.temperature, benchmark.top_p, seed_of(benchmark.seed, batch[0].item.id)),
    )
    return [{"id": question.item.id, **asdict(reply)} for question, reply in zip(batch, written, strict=True)]


def prediction_of(question: Question, kept: Mapping[str, Any], ask: Ask) -> Prediction:
    """What the reply to `question` comes to, of which `kept` has all but the id."""
    if "log_likelihoods" in kept:
        return measured(question, kept["log_likelihoods"], ask)
    return written(question, Reply(**kept))


def budget(benchmark: BenchmarkConfig, prompt: PromptConfig, opened: bool) -> Budget:
    """What may be written; a thought is waited for where `prompt` wants one, or its template has `opened` one."""
    thinking = benchmark.thinking_tokens if prompt.reasoning or opened else 0
    return Budget(thinking, benchmark.answer_tokens, CLOSING)


def seed_of(seed: int, name: str) -> int:
    """A seed for one batch, so that it is drawn alike whether or not others were drawn before it."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big") % 2**63


def likelihoods(candidate: Candidate, benchmark: BenchmarkConfig, question: Question) -> dict[str, float]:
    """The log-likelihood of each option as the answer to `question`, in nats.

    Raises:
        DivergenceError: one is no number.
    """
    writer = candidate.writer
    assert isinstance(writer, Transformers), "rules.benchmark_rules"
    ids, starts = question.answer_tokens(benchmark.ask, candidate.tokenizer)
    values = choice_log_likelihoods(writer.model, question.ids, ids, starts, writer.precision)
    if any(map(math.isnan, values)):
        wider = (
            ""
            if in_float32(writer.model, writer.precision)
            else ", or with model.dtype=float32 trainer.precision=fp32, as a base model alone may be asked"
        )
        raise DivergenceError(
            f"the likelihood of each option must be a number, but item {question.item.id} has one that is none; "
            f"restore the weights of the base model, or train again with a smaller optimizer.lr{wider}"
        )
    return dict(zip(question.item.options, values, strict=True))
