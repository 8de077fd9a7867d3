"""Search spaces that do not fit the config which they search are told before the first trial."""

from dataclasses import dataclass

from omegaconf import OmegaConf

from medbot_exp.sweep.space_check import fractions, nothing_searched, sample_points, telling_points, unknown_keys


def test_keys_that_are_not_in_the_config_are_told_with_the_one_that_was_meant(grouped_config, space_of):
    good = space_of(
        "optimizer=adamw,sgd",
        "optimizer.momentum=0.5,0.9",
        "+new.key=1",
        "lora.target.0=a",
        "lora.r=1,2",
        when={"lora.r": "new.key=1"},
    )
    assert unknown_keys(good, grouped_config) == []
    (fault,) = unknown_keys(space_of("lora.rr=1,2", "~lora.alpha"), grouped_config)
    assert fault == "`lora.rr` must be a key of the config, but there is none; did you mean lora.r?; +lora.rr adds one"
    assert len(unknown_keys(space_of("x=1,2", "optimizer.momentum=0.5", "lora.target.2=a"), grouped_config)) == 3
    assert unknown_keys(space_of("+experiment=a,b", "brought.by.it=1"), grouped_config) == []


def test_conditions_on_what_is_not_known_before_the_trial_are_told(grouped_config, space_of):
    space = space_of(
        "optimizer=adamw,sgd",
        "lora.r=1,2",
        "+new.y=1,2",
        when={"new.y": ["optimizer.name=sgd", "lora.alpha=2", "lora.dropuot=1", "lora.r=1", "lora.rslora=true"]},
    )
    faults = [fault for fault in unknown_keys(space, grouped_config) if "when" in fault]
    assert ["group that is searched" in faults[0], "follows from other keys" in faults[1]] == [True, True]
    assert "lora.dropuot is no key" in faults[2] and len(faults) == 3


def test_floats_for_a_whole_number_are_told_before_the_first_trial(space_of):
    @dataclass
    class Lora:
        r: int = 16
        dropout: float = 0.0

    config = OmegaConf.create({"lora": OmegaConf.structured(Lora)})
    space = space_of("lora.r=interval(1,64)", "lora.dropout=interval(0,1)")
    assert fractions(space, config) == [
        "`lora.r` must be a whole number, but floats from 1.0 to 64.0 are searched; try lora.r='int(interval(1,64))'"
    ]
    assert fractions(space_of("lora.r=int(interval(1,64))"), config) == []


def test_space_in_which_all_trials_are_alike_is_told(space_of):
    (fault,) = nothing_searched(space_of("seed=1", params={"lora.r": 16}))
    assert "must have something to search, but got lora.r=16 seed=1; for example lora.r=8,16,32" in fault
    assert nothing_searched(space_of("seed=1,2")) == []


def test_sample_points_have_each_choice_and_both_ends(space_of, grouped_config):
    space = space_of(
        "optimizer=adamw,sgd", "lora.r=int(interval(1,64))", "+a=1,2,3", "+seed=5", when={"+a": "lora.r=64"}
    )
    assert sample_points(space, grouped_config) == [
        ["optimizer=adamw", "lora.r=1", "+seed=5"],
        ["optimizer=sgd", "lora.r=1", "+seed=5"],
        ["optimizer=adamw", "lora.r=64", "+a=1", "+seed=5"],
        ["optimizer=adamw", "lora.r=1", "+seed=5"],
        ["optimizer=adamw", "lora.r=1", "+seed=5"],
    ]


def test_points_that_tell_of_a_composition_bring_a_key_or_an_option(grouped_config):
    points = [["optimizer=adamw", "lora.r=1"], ["optimizer=adamw", "lora.r=2"], ["optimizer=sgd", "lora.r=1"]]
    points += [["optimizer=sgd", "lora.r=1", "none=1"], ["+extra=a"], ["+extra=b"], ["+extra=a"]]
    assert telling_points(points, grouped_config) == [points[place] for place in (0, 2, 3, 4, 5)]
