"""The table that ends an evaluation, as text."""

import io

from rich.console import Console

from medbot_exp.report.evaluation import print_evaluation
from medbot_exp.report.summary import accuracy_label
from medbot_exp.rundir import RunDirectory


def metrics(accuracy):
    values = {
        "n": 45,
        "accuracy": accuracy,
        "accuracy_low": 0.29,
        "accuracy_high": 0.57,
        "accuracy_best": accuracy,
        "chance": 0.25,
        "majority": 0.4,
        **dict.fromkeys(("unparsed", "truncated", "unclosed_think", "too_long"), 0),
    }
    return {f"eval/medqa/{key}": value for key, value in values.items()}


def printed(tuned, against_base):
    console = Console(file=io.StringIO(), width=120, color_system=None, emoji=False)
    evaluation = {"base": metrics(0.2), "tuned": tuned, "against_base": against_base}
    print_evaluation(console, {"medqa": evaluation}, RunDirectory("multirun/runs/d/t-n"), "offline; wandb sync x")
    return " ".join(console.file.getvalue().split())


def test_tuned_model_stands_beside_its_base():
    text = printed(metrics(0.4), {"interval": {"low": 0.03, "high": 0.37}, "p": 0.021, "detectable": 0.25})
    assert "base tuned change" in text
    assert "accuracy on medqa (n=45) 20.0% 40.0% +20.0 points (+3.0 to +37.0)" in text
    assert (
        "medqa 29.0% to 57.0% (95%); chance 25.0%, most frequent label 40.0%; against the base p 0.021, where" in text
    )
    assert "answers multirun/runs/d/t-n/evaluations" in text and "W&B offline; wandb sync x" in text


def test_few_groups_are_said_to_show_no_difference():
    text = printed(metrics(0.4), {"interval": {"low": -0.1, "high": 0.5}, "p": 0.25, "detectable": 1.0})
    assert "against the base p 0.25, where no difference can show" in text


def test_base_model_alone_has_one_column():
    text = printed(None, None)
    assert "accuracy on medqa (n=45) 20.0% medqa 29.0% to 57.0% (95%)" in text
    assert "tuned" not in text and "against the base" not in text


def test_label_tells_of_how_many_items_an_accuracy_is():
    found = {"eval/medqa/n": 240, "eval/medqa/too_long": 0, "eval/medqa/items": 60}
    assert accuracy_label(found, "medqa") == "accuracy on medqa (n=240, 60 items in turns)"
    assert (
        accuracy_label({"eval/medqa/n": 60, "eval/medqa/too_long": 240}, "medqa") == "accuracy on medqa (n=60 of 300)"
    )
