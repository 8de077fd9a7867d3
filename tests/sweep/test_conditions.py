"""Parameters that a trial has only where others have the values that they depend on."""

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.trial import FixedTrial


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("optimizer=sgd", False),
        ("optimizer=adamw", True),
        ("optimizer!=sgd", True),
        ("optimizer != sgd,adamw", False),
        ("lora.r=8,16", True),
        ("lora.r=16.0", True),
        ("lora.r='16'", False),
        ("lora.r>=16", True),
        ("lora.r>16", False),
        ("lora.r <= 1e1", False),
        ("lora.r<17", True),
        ("lora.rslora=false", True),
        ("lora.rslora=0", False),
        ("lora.target=[a,b]", True),
        ("none=null", True),
        ("none>=0", False),
        ("optimizer.name=adamw", True),
        ("absent!=1", False),
        ("seed=3", True),
        (["lora.r=16", "seed=3"], True),
        (["lora.r=16", "seed=4"], False),
    ],
)
def test_condition_looks_at_fixed_values_and_the_composed_config(grouped_config, condition, holds, space_of):
    space = space_of("x=1,2", "+seed=3", when={"x": condition})
    keys = [override.split("=")[0] for override in space.suggest(FixedTrial({"x": 1}), grouped_config)]
    assert keys == (["x", "+seed"] if holds else ["+seed"])


def test_conditional_parameter_follows_the_one_that_it_depends_on(space_of):
    space = space_of(
        params={"ratio": "interval(1,2)", "rs": "true,false", "+r": "8,16,32"},
        when={"ratio": "rs=true", "rs": "r>=16"},
    )
    assert list(space.distributions) == ["+r", "rs", "ratio"]
    seen = set()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(60):
        overrides = space.suggest(study.ask(), OmegaConf.create({"rs": False}))
        values = dict(override.split("=") for override in overrides)
        assert ("rs" in values) == (int(values["+r"]) >= 16)
        assert ("ratio" in values) == ("rs" in values and values["rs"] == "true")
        seen.add(tuple(sorted(values)))
    assert len(seen) == 3


def test_key_that_a_trial_does_not_search_has_its_composed_value(space_of):
    space = space_of("a=1,2", "b=1,2", "c=1,2", when={"b": "a=2", "c": "b=7"})
    assert space.suggest(FixedTrial({"a": 1, "b": 1, "c": 1}), OmegaConf.create({"b": 7})) == ["a=1", "c=1"]
    assert space.suggest(FixedTrial({"a": 2, "b": 1, "c": 1}), OmegaConf.create({"b": 7})) == ["a=2", "b=1"]


def test_conditions_that_cannot_be_are_refused(faults_of):
    (circle,) = faults_of("a=1,2", "b=1,2", "c=1,2", when={"a": "b=1", "b": "c=1", "c": "a=1"})
    assert "no circles" in circle and " when " in circle
    assert "no circles" in faults_of("a=1,2", when={"a": "a=1"})[0]
    (unknown,) = faults_of("lora.r=1,2", when={"lora.rr": "x=1"})
    assert unknown == "`hydra.sweeper.when` must name what is searched, but got lora.rr; did you mean lora.r?"
    for text in ("a", "=1", "b>=x", "b>1,2", "b=interval(0,1)", "b=[choice(1,2)]", "b==1", 3):
        assert faults_of("a=1,2", when={"a": text})[0].startswith("`hydra.sweeper.when.a` must be conditions"), text


def test_conditional_parameter_can_be_fixed_on_the_command_line(space_of):
    space = space_of("a=5", params={"a": "1,2", "b": "1,2"}, when={"a": "b=1"})
    assert space.conditions == {} and space.suggest(FixedTrial({"b": 2}), OmegaConf.create({})) == ["b=2", "a=5"]
