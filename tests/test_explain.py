"""Hydra's errors in this project's terms: the key as typed, the names there are, the remedy."""

import shlex

import hydra
import pytest

from medbot_exp.config import RunConfig, conf_directory
from medbot_exp.errors import ConfigError, DataError
from medbot_exp.explain import explain, misspelt_override


def explained(*overrides):
    """What `explain` makes of the exception that Hydra raises for `overrides`."""
    with (
        hydra.initialize_config_dir(config_dir=str(conf_directory()), version_base="1.3"),
        pytest.raises(Exception) as caught,  # noqa: PT011
    ):
        hydra.compose("config", overrides=list(overrides))
    return explain(caught.value)


@pytest.mark.parametrize(
    "override, message",
    [
        (
            "lora.dropuot=0.1",
            "`lora.dropuot` is no key; lora has: r, alpha, dropout, target_modules, rslora, dora, init; "
            "did you mean lora.dropout?",
        ),
        (
            "data.columns.anwser=a",
            "`data.columns.anwser` is no key; data.columns has: id, question, reasoning, answer, options, label, "
            "split; did you mean data.columns.answer?",
        ),
        (
            "benchmark.cases.limt=3",
            "`benchmark.cases.limt` is no key; benchmark.cases has: path, hub, hub_config, split",
        ),
        ("sede=1", "`sede` is no key; the config has: task, model, data,"),
        ("lora=mpl", "`lora=mpl` is no option; lora has: all_linear, attention, mlp; did you mean lora=mlp?"),
        ("data=xyz", "`data=xyz` is no option; data has: clinical_cases, file, medical_o1"),
        ("+experiment=medbto", "`experiment=medbto` is no option; experiment has: medbot"),
        ("benchmark=xyz", "`benchmark=xyz` is no option; benchmark has: cases"),
        (
            "benchmark='medqa, pubmedqa'",
            "`benchmark=medqa, pubmedqa` is no option; benchmark has: cases, medmcqa, medqa, mmlu_medical, pubmedqa; "
            "several are a list: benchmark=[medqa,pubmedqa]",
        ),
        ("benchmark='medqa,nonesuch'", "`benchmark=medqa,nonesuch` is no option; benchmark has: cases"),
        ("benchmark.cases.limit=", "`benchmark.cases.limit` must be a whole number or null, but got ''"),
        ("benchmark.cases.limit=abc", "`benchmark.cases.limit` must be a whole number or null, but got 'abc'"),
        ("trainer.epochs=abc", "`trainer.epochs` must be a number or null, but got 'abc'"),
        ("lora.r=eight", "`lora.r` must be a whole number, but got 'eight'"),
        ("optimizer.lr=high", "`optimizer.lr` must be a number, but got 'high'"),
        ("lora.dora=perhaps", "`lora.dora` must be true or false, but got 'perhaps'"),
        ("trainer.precision=bf17", "`trainer.precision` must be one of auto, bf16, fp16, fp32, but got 'bf17'"),
        ("tracking.tags=mine", "`tracking.tags` must be a list: tracking.tags=[a,b]"),
        ("lora.r=null", "`lora.r` must have a value, but got null"),
        ("lora.r", "an override must read key=value, but got 'lora.r'"),
        ("lora.target_modules=[q_proj", "an override must read key=value, but got 'lora.target_modules=[q_proj'"),
    ],
)
def test_override_is_explained_in_the_words_it_was_typed_in(override, message):
    error = explained(override)
    assert isinstance(error, ConfigError)
    assert str(error).startswith(message)


@pytest.mark.parametrize("value", ["a=b = 'c", 'say "yes" {now}', "it's", 'q: \\" [x', "{question}=1, 2"])
def test_text_that_hydra_cannot_read_is_shown_as_it_is_typed(value):
    told = str(explained(f"tracking.notes={value}"))
    (typed,) = shlex.split(told.partition("quotes of its own: ")[2])
    with hydra.initialize_config_dir(config_dir=str(conf_directory()), version_base="1.3"):
        assert hydra.compose("config", overrides=[typed]).tracking.notes == value


@pytest.mark.parametrize("value", ["[q_proj,v=proj]", "[q_proj,v=proj", "{path: a=b}"])
def test_list_that_hydra_cannot_read_is_not_made_a_text(value):
    assert str(explained(f"lora.target_modules={value}")).endswith("quotes of its own: 'key=\"…\"'")


def test_unknown_benchmark_in_a_list_names_the_benchmarks_there_are():
    assert "benchmark has: cases" in str(explained("benchmark=[xyz]"))


@pytest.mark.parametrize("word", ["benchmark=", "benchmark=null"])
def test_no_benchmark_is_written_as_an_empty_list(word):
    told = str(misspelt_override([word], RunConfig))
    assert "|pubmedqa>, or a list of them, benchmark=[] for none, but got " in told and told.endswith(word)
    assert "list" not in str(misspelt_override(["lora=null"], RunConfig))


def test_name_that_no_option_resembles_gets_no_guess():
    assert "did you mean" not in str(explained("lora.zzzzzz=1"))


def test_error_of_ours_inside_a_wrapper_is_found():
    fault = DataError("no rows")
    try:
        try:
            raise fault
        except DataError as error:
            raise RuntimeError("in a resolver") from error
    except RuntimeError as wrapper:
        assert explain(wrapper) is fault


def test_fault_of_ours_while_an_error_is_handled_stays_a_fault():
    try:
        try:
            raise DataError("no rows")
        except DataError:
            raise KeyError("x")  # noqa: B904
    except KeyError as fault:
        assert explain(fault) is None


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("lora"), AssertionError(), OSError(5, "Input/output error")]
)
def test_fault_of_the_program_is_not_taken_for_the_users(error):
    assert explain(error) is None
