"""Search spaces that do not fit the config which they search are told before the first trial."""

from dataclasses import dataclass

from omegaconf import OmegaConf

from medbot_exp.sweep.space_check import fractions, unknown_keys


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
