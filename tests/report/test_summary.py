"""The table that ends a run, as text."""

import io

import pytest
from rich.console import Console

from medbot_exp.report.summary import change, final_words, print_summary
from medbot_exp.rundir import RunDirectory

RESULT = {
    "status": "complete",
    "before": {
        "validation/loss": 2.5,
        "validation/perplexity": 12.1825,
        "eval/cases/accuracy": 0.2,
        "eval/cases/n": 45,
    },
    "metrics": {
        "validation/loss": 2.0,
        "validation/perplexity": 7.38906,
        "eval/cases/accuracy": 0.4222,
        "eval/cases/n": 45,
        "eval/cases/accuracy_low": 0.2904,
        "eval/cases/accuracy_high": 0.5663,
        "eval/cases/accuracy_best": 0.4889,
        "eval/cases/chance": 0.25,
        "eval/cases/majority": 0.4,
        "eval/cases/unparsed": 0.0444,
        "eval/cases/truncated": 0.0,
        "eval/cases/unclosed_think": 0.0222,
        "eval/cases/too_long": 1,
        "eval/cases/negated/accuracy": 0.1,
    },
    "against_base": {"cases": {"interval": {"low": 0.0311, "high": 0.4133}, "p": 0.0213, "detectable": 0.2512}},
    "steps": 12,
    "resumed_from": None,
    "tokens": 10500,
    "tokens_per_second": 249.6,
    "peak_memory_gib": 1.5049,
    "trainable_parameters": 4884480,
    "seconds": {"load": 5.2, "before": 21.0, "train": 65.0, "total": 125.4},
}
SAMPLE = {
    "id": "a-1",
    "question": "What now?",
    "reference": "Rest.",
    "before": "um",
    "after": "<think>\nx\n</think>\n\nRest",
}


def printed(result=RESULT, samples=(SAMPLE,), directory="multirun/runs/d/t-n", width=120, **others) -> str:
    """The summary on a console without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None, emoji=False)
    place = RunDirectory(directory)
    facts = {"tracking": "offline; wandb sync x", "following": "python -m medbot_exp -m lora.r=8,16"} | others
    print_summary(console, result, samples, place, **facts)
    return console.file.getvalue()


def line_with(text: str, start: str) -> list[str]:
    """The words behind `start` in the line that begins with it."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(start)]
    return line.strip().removeprefix(start).split()


class TestChange:
    def test_of_a_share_is_in_points(self):
        assert change("eval/cases/accuracy", 0.2, 0.4222) == "+22.2 points"
        assert change("eval/cases/accuracy", 0.5, 0.4) == "-10.0 points"

    def test_of_anything_else_is_in_percent(self):
        assert change("validation/loss", 2.5, 2.0) == "-20.0%"
        assert change("validation/perplexity", 10.0, 12.5) == "+25.0%"

    def test_of_nothing_is_zero(self):
        assert change("validation/loss", 2.5, 2.5) == "+0.0%"


class TestFinalWords:
    def test_are_those_behind_the_reasoning(self):
        assert final_words("<think>\nlong\n</think>\n\nRest,\n  then walk.") == "Rest, then walk."

    def test_are_everything_where_no_block_was_closed(self):
        assert final_words("<think>\nlong") == "<think> long"

    @pytest.mark.parametrize("text", ["", "<think>\nlong\n</think>\n"])
    def test_say_so_when_there_are_none(self, text):
        assert final_words(text) == "(nothing)"

    def test_are_cut_with_a_mark(self):
        assert final_words("x" * 300) == "x" * 300
        assert final_words("x" * 301) == "x" * 300 + "…"


class TestPrintSummary:
    def test_table_has_before_after_and_change(self):
        text = printed()
        assert line_with(text, "held-out loss (nats/token)") == ["2.5000", "2.0000", "-20.0%"]
        assert line_with(text, "held-out perplexity") == ["12.18", "7.39", "-39.3%"]
        interval = ["(+3.1", "to", "+41.3)"]
        assert line_with(text, "accuracy on cases (n=45 of 46)") == ["20.0%", "42.2%", "+22.2", "points", *interval]

    def test_accuracy_stands_beside_what_it_can_be_trusted_for(self):
        assert " ".join(line_with(printed(), "cases")) == (
            "29.0% to 56.6% (95%); chance 25.0%, most frequent label 40.0%; no answer: 4.4% unparsed, 2.2% unclosed "
            "think (at best 48.9%); 1 item too long for the model; against the base p 0.021, where differences show "
            "from 25.1 points on"
        )

    def test_interval_over_subjects_says_so(self):
        metrics = RESULT["metrics"] | {"eval/cases/subjects": 15}
        assert "29.0% to 56.6% (95%, over 15 subjects);" in printed(RESULT | {"metrics": metrics})

    def test_accuracy_on_what_no_row_gives_away_has_a_line_of_its_own(self):
        clean = {"eval/cases/clean/n": 40, "eval/cases/clean/accuracy": 0.3}
        changed = {part: RESULT[part] | clean for part in ("before", "metrics")}
        text = printed(RESULT | changed)
        assert line_with(text, "of 40 not given away") == ["30.0%", "30.0%", "+0.0", "points"]

    def test_facts_say_time_speed_memory_and_where_everything_is(self):
        text = printed()
        assert " ".join(line_with(text, "time")) == "2 min 05 s (load 5 s, before 21 s, train 1 min 05 s)"
        assert " ".join(line_with(text, "training")) == "12 steps, 10500 tokens, 250 tokens/s"
        assert " ".join(line_with(text, "memory")) == "1.50 GiB at most"
        assert " ".join(line_with(text, "adapter")) == "multirun/runs/d/t-n/adapter (4,884,480 parameters)"
        assert " ".join(line_with(text, "record")) == "multirun/runs/d/t-n"
        assert " ".join(line_with(text, "W&B")) == "offline; wandb sync x"

    def test_next_command_stays_on_one_line_to_be_copied(self):
        command = "python -m medbot_exp -m " + " ".join(f"trainer.key_{number}=value" for number in range(20))
        assert f"next      {command}\n" in printed(width=60, following=command)

    def test_samples_show_question_reference_and_both_answers(self):
        text = printed()
        assert "What now?" in text
        assert line_with(text, "reference") == ["Rest."]
        assert [line.split() for line in text.splitlines() if line.startswith("     before  ")] == [["before", "um"]]
        assert [line.split() for line in text.splitlines() if line.startswith("      after  ")] == [["after", "Rest"]]

    @pytest.mark.parametrize("text", ["[bold]loud[/bold] [/] [red", "a [link=x]y[/link]", "ends in a tag [/bold]"])
    def test_markup_is_shown_and_not_obeyed(self, text):
        sample = SAMPLE | {"question": text, "before": text, "after": text}
        assert printed(samples=[sample]).count(text) == 3
        assert printed(directory=text, samples=[]).count(text) >= 2
        assert printed(following=text, tracking=text).count(text) == 2

    def test_ratio_between_colons_stays_a_ratio(self):
        text = "Antibody titre 1:100: what does it mean?"
        assert text in printed(samples=[SAMPLE | {"question": text}])

    def test_run_without_benchmark_has_the_losses_alone(self):
        only = {"validation/loss": 2.5, "validation/perplexity": 12.18}
        text = printed(RESULT | {"before": only, "metrics": only}, samples=[])
        assert line_with(text, "held-out loss (nats/token)") == ["2.5000", "2.5000", "+0.0%"]
        assert "accuracy" not in text

    def test_metric_that_was_not_measured_before_has_no_row(self):
        before = {"validation/loss": 2.5, "validation/perplexity": 12.18}
        assert "accuracy" not in printed(RESULT | {"before": before})

    def test_run_that_is_not_compared_has_no_interval_of_the_change(self):
        assert line_with(printed(RESULT | {"against_base": {}}), "accuracy on cases")[-2:] == ["+22.2", "points"]

    def test_narrow_terminal_does_not_break_it(self):
        assert "2.0000" in printed(width=50)
