"""What results are called, and which of them runs can be chosen by."""

import pytest

from medbot_exp.evaluation.score import held_out_metrics
from medbot_exp.objectives import REPORTED, is_developed, measured_of, metric_name, objectives_of


def test_what_a_model_reports_while_it_trains_is_its_held_out_loss():
    assert tuple(held_out_metrics(1.0)) == REPORTED


def test_run_can_be_chosen_by_development_parts_alone_and_measures_those_of_its_objective(compose):
    benchmarks = ["benchmark=[cases,medqa]", "benchmark.medqa.method=generate"]
    goal = ["objective.metric=eval/medqa_development/accuracy", "objective.direction=maximize"]
    others = [*REPORTED, "trainable_parameters", "peak_memory_gib"]
    medqa = ["eval/medqa_development/accuracy", "eval/medqa_development/completion_tokens"]
    config = compose(*benchmarks, *goal)
    assert sorted(objectives_of(config)) == sorted([*others, *medqa, "eval/cases_development/accuracy"])
    assert sorted(measured_of(config)) == sorted([*others, *medqa])
    assert sorted(measured_of(compose(*benchmarks))) == sorted(others)


def test_name_that_conf_has_no_file_for_has_no_part_of_its_own(compose):
    benchmark = compose("benchmark=[medqa]").benchmark["medqa"]
    assert metric_name("medqa", benchmark) == "medqa"
    assert metric_name("mine", benchmark) == f"mine_{benchmark.split}"


@pytest.mark.parametrize(
    "overrides, name",
    [
        (["benchmark=[medqa]", "benchmark.medqa.path=train.jsonl"], "medqa"),
        (["benchmark=[pubmedqa]"], "pubmedqa"),
        (["benchmark=[medqa]", "benchmark.medqa.split=train"], "medqa_train"),
        (["benchmark=[medqa]", "benchmark.medqa.split='test[:50]'"], "medqa_test_50_"),
        (["benchmark=[mmlu_medical]", "benchmark.mmlu_medical.hub_config=anatomy"], "mmlu_medical_anatomy"),
        (["benchmark=[pubmedqa]", "benchmark.pubmedqa.split=labeled"], "pubmedqa_labeled"),
        (["benchmark=[cases]", "benchmark.cases.split=train"], "cases_train"),
    ],
)
def test_results_on_another_part_have_another_name(compose, overrides, name):
    config = compose(*overrides)
    ((benchmark, settings),) = config.benchmark.items()
    assert metric_name(benchmark, settings) == name
    goal = [f"objective.metric=eval/{name}_development/accuracy", "objective.direction=maximize"]
    assert is_developed(compose(*overrides, *goal), benchmark)
