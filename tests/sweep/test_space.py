"""The search space: what is searched, under which conditions, and which overrides a trial gets."""

import json
import math
import random
from pathlib import Path

import optuna
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from medbot_exp.errors import ConfigError
from medbot_exp.sweep.space import SearchSpace, fractions, read_space, unknown_keys, written

EMPTY = OmegaConf.create({})


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def space_of(*arguments, params=None, search_space=None, when=None, custom=None, loader=None) -> SearchSpace:
    return read_space(params, search_space, when, custom, arguments, loader)


def faults_of(*arguments, **keys) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        space_of(*arguments, **keys)
    return str(caught.value).splitlines()


def trial_with(**values):
    """A trial whose parameters are `values`, dots in the keys written as two underscores."""
    return optuna.trial.FixedTrial({key.replace("__", "."): value for key, value in values.items()})


def trials_of(space, config=EMPTY, count=50):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask(), config) for _ in range(count)]


def read(override):
    """What Hydra itself reads."""
    return OverridesParser.create().parse_override(override).value()


# What is searched


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(-5.5, 5.5)", FloatDistribution(-5.5, 5.5)),
        ("interval(1,64)", FloatDistribution(1.0, 64.0)),
        ("int(interval(1,64))", IntDistribution(1, 64)),
        ("float(interval(1,64))", FloatDistribution(1.0, 64.0)),
        ("tag(log,interval(1e-5,1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
        ("tag(log, int(interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("int(tag(log,interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("tag(mine,interval(0,1))", FloatDistribution(0.0, 1.0)),
        ("range(1,9)", IntDistribution(1, 8)),
        ("range(8)", IntDistribution(0, 7)),
        ("range(1,10,4)", IntDistribution(1, 9, step=4)),
        ("range(1,9,4)", IntDistribution(1, 5, step=4)),
        ("range(5,1,-2)", IntDistribution(3, 5, step=2)),
        ("tag(log,range(1,65))", IntDistribution(1, 64, log=True)),
        ("range(0,1,0.25)", FloatDistribution(0.0, 0.75, step=0.25)),
        ("range(0,0.9,0.3)", FloatDistribution(0.0, 0.6, step=0.3)),
        ("float(range(1,4))", FloatDistribution(1.0, 3.0, step=1.0)),
        ("shuffle(range(1,4))", CategoricalDistribution([1, 2, 3])),
        ("shuffle(range(0,0.4,0.1))", CategoricalDistribution([0.0, 0.1, 0.2, 0.3])),
        ("shuffle(range(0,0.9,0.3))", CategoricalDistribution([0.0, 0.3, 0.6])),
        ("sort(range(5,1,-1))", IntDistribution(2, 5)),
        ("choice(-5 ,0 ,5)", CategoricalDistribution([-5, 0, 5])),
        ("a,b,c", CategoricalDistribution(["a", "b", "c"])),
        ("shuffle(3,1,2)", CategoricalDistribution([3, 1, 2])),
        ("sort(3,1,2)", CategoricalDistribution([1, 2, 3])),
        ("int(choice(1.5,2.5))", CategoricalDistribution([1, 2])),
        ("null,true,0.5", CategoricalDistribution([None, True, 0.5])),
        ("choice([q_proj,v_proj],all-linear)", CategoricalDistribution(["[q_proj,v_proj]", "all-linear"])),
    ],
)
def test_override_syntax_becomes_optunas_distribution(text, expected):
    found = space_of(params={"x": text}).distributions["x"]
    assert found == expected
    assert [type(value) for value in vars(found).values()] == [type(value) for value in vars(expected).values()]


@pytest.mark.parametrize("text", ["range(1,9)", "range(2,9,3)", "range(9,1,-3)", "range(0,1,0.25)", "a,b", "1,0.5"])
def test_grid_has_the_points_of_hydras_own(text):
    own = OverridesParser.create().parse_override(f"x={text}")
    assert sorted(map(str, space_of(f"x={text}").grid()["x"])) == sorted(own.sweep_string_iterator())


def test_grid_counts_decimals_as_on_paper():
    assert space_of("x=range(0,0.5,0.1)").grid() == {"x": [0.0, 0.1, 0.2, 0.3, 0.4]}
    assert space_of("x=int(interval(1,4))").grid() == {"x": [1, 2, 3, 4]}


def test_grid_names_every_parameter_that_it_cannot_count():
    space = space_of("x=interval(0,1)", "y=1,2", "z=tag(log,interval(1,2))", "w=1,2", when={"w": "y=1"})
    with pytest.raises(ConfigError) as caught:
        space.grid()
    assert [line.split(" but got ")[1].split()[0] for line in str(caught.value).splitlines()[:2]] == ["x", "z"]
    assert "w is searched only when y=1" in str(caught.value)
    with pytest.raises(ConfigError, match="4,000,000 of x"):
        space_of("x=range(4000000)").grid()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("interval(3,1)", "low <= high"),
        ("interval(0,inf)", "finite ends"),
        ("tag(log,interval(0,1))", "low > 0"),
        ("range(3,3)", "there is none"),
        ("range(0,1,0)", "must end"),
        ("range(0,-1,0.5)", "there is none"),
        ("tag(log,range(1,9,2))", "no steps"),
        ("tag(log,choice(1,2))", "around an interval"),
        ("a,choice(b,c)", "whole value"),
        ("[choice(1,2)]", "whole value"),
        ("glob(*)", "ConfigLoader"),
        ("nothing(1)", "Unknown function"),
        ("interval(a,b)", "mismatch type"),
        ("a b)", "extraneous"),
        ("str(interval(0,1))", "cannot be cast"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_its_key_and_an_example(text, reason):
    (fault,) = faults_of(params={"x": text})
    assert fault.startswith(f"`x={text}` must be") and reason in fault and "for example lora.r=8,16,32" in fault


def test_every_fault_is_told_at_once():
    faults = faults_of("a=interval(2,1)", "b=range(0)", "c=1,2", when={"d": "c=1", "c": "?"}, custom="no.such")
    assert [fault.split()[0] for fault in faults] == [
        "`a=interval(2,1)`",
        "`b=range(0)`",
        "`hydra.sweeper.when`",
        "`hydra.sweeper.when.c`",
        "`hydra.sweeper.custom_search_space`",
    ]


def test_sweep_without_anything_to_search_is_refused():
    (fault,) = faults_of("seed=1", params={"lora.r": 16})
    assert "must have something to search, but got seed=1; for example lora.r=8,16,32" in fault
    assert faults_of(params={"lora": {"r": "8,16"}})[0].endswith("as in lora.r: 1,2")


# What a trial is given


def test_published_examples_give_the_overrides_of_the_published_plugin():
    sphere = space_of("z=10", params={"x": "interval(-5.5, 5.5)", "y": "choice(-5 ,0 ,5)"})
    assert sphere.suggest(trial_with(x=1.25, y=-5), EMPTY) == ["x=1.25", "y=-5", "z=10"]
    binh_korn = space_of(params={"x": "range(0, 5, step=0.5)", "y": "range(0, 3, step=0.5)"})
    assert binh_korn.suggest(trial_with(x=4.5, y=0.0), EMPTY) == ["x=4.5", "y=0.0"]
    command_line = space_of("x=interval(-5,5)", "y=0,1", "+z=a", params={"y": "interval(0,1)"})
    assert command_line.suggest(trial_with(y=1, x=0.5), EMPTY) == ["y=1", "x=0.5", "+z=a"]


def random_value(source: random.Random, depth: int = 0):
    """Any value that a config can hold."""
    texts = "ab1 .,=:'\"\\{}[]()$%*@+-_/~#é\t\n?|&"
    kinds = 6 if depth > 1 else 8
    kind = source.randrange(kinds)
    if kind == 0:
        return source.choice([None, True, False])
    if kind == 1:
        return source.choice([0, -7, 10**15, source.randrange(-99, 99)])
    if kind == 2:
        return source.choice([0.1, -0.0, 1e-05, 1e16, 2.5e-300, math.inf, source.uniform(-1, 1), 3.0])
    if kind == 3:
        return source.choice(["null", "true", "False", "1", "1e-5", "inf", "", " ", "a,b", "choice(1,2)", "nan", "\\"])
    if kind in (4, 5):
        return "".join(source.choice(texts) for _ in range(source.randrange(8)))
    if kind == 6:
        return [random_value(source, depth + 1) for _ in range(source.randrange(4))]
    return {source.choice("abcd") * 2: random_value(source, depth + 1) for _ in range(source.randrange(3))}


def test_written_text_is_read_by_hydra_as_exactly_the_value():
    source = random.Random(3407)
    for _ in range(1000):
        value = random_value(source)
        override = OverridesParser.create().parse_override(f"key={written(value)}")
        assert not override.is_sweep_override()
        # repr tells 1 from 1.0 and true, and -0.0 from 0.0.
        assert repr(override.value()) == repr(value)


@pytest.mark.parametrize(
    "choices",
    [
        "null,'null',NULL",
        "'true',true,'1',1",
        "1,true,1.0",
        "'a,b',\"it's\",a b",
        "'x=1','é','a: b',' pad '",
        "1e-5,1e-05,0.1",
        "[q_proj,v_proj],'[q_proj,v_proj]',{a:1,b:[x,'y,z']},all-linear",
        "nan,inf,-inf",
        "${lora.r},'',path/to/file.txt",
        "str(1),b",
    ],
)
def test_trial_reads_back_exactly_the_choices_that_were_typed(choices):
    space = space_of(f"+k={choices}")
    own = OverridesParser.create().parse_override(f"k={choices}")
    typed = {repr(own._convert_value(value)) for value in own.value().list}
    found = {repr(read(override)) for (override,) in trials_of(space)}
    assert found == typed


@pytest.mark.parametrize("text", ["true,1", "[1],'[1]'", "null,'null'"])
def test_choices_that_python_confuses_stay_apart_in_storage(text):
    space = space_of(f"x={text}")
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage())
    for _ in range(20):
        trial = study.ask()
        (override,) = space.suggest(trial, EMPTY)
        again = optuna.trial.Trial(study, trial._trial_id)
        assert space.suggest(again, EMPTY) == [override]
    assert len({repr(trial.params["x"]) for trial in study.trials}) == 2


def test_numbers_of_a_trial_are_read_back_as_they_were_suggested():
    space = space_of("x=tag(log,interval(1e-12,1e-3))", "n=int(tag(log,interval(1,1000)))", "s=range(0,1,0.1)")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        trial = study.ask()
        values = dict(override.split("=") for override in space.suggest(trial, EMPTY))
        for key, text in values.items():
            assert type(read(f"k={text}")) is type(trial.params[key]) and read(f"k={text}") == trial.params[key]


def test_signs_groups_and_deletions_are_kept_as_a_user_types_them():
    space = space_of("+experiment=a,b", "~tracking", "~model=tiny", "++x.y='1'", "db@old=a/b", "k=", "l=[1,a b]")
    (first, *others) = space.suggest(optuna.trial.FixedTrial({"+experiment": "b"}), EMPTY)
    assert first == "+experiment=b"
    assert others == ["~tracking", "~model=tiny", "++x.y='1'", "db@old=a/b", "k=''", "l=[1,a b]"]
    assert [read(override) for override in others if not override.startswith("~")] == ["1", "a/b", "", [1, "a b"]]


def test_command_line_wins_over_params_whatever_the_sign():
    space = space_of("lora.r=8", "a=3,4", params={"++lora.r": "8,16", "a": "1,2", "b": "1,2"})
    assert list(space.distributions) == ["a", "b"] and space.fixed == {"lora.r": "8"}
    assert space.distributions["a"] == CategoricalDistribution([3, 4])


@pytest.mark.parametrize(
    ("value", "text"), [(5, "5"), (True, "true"), (None, "null"), ([1, "a,b"], "[1,'a,b']"), (1e-5, "1e-05")]
)
def test_yaml_values_in_params_are_fixed(value, text):
    assert space_of("x=1,2", params=OmegaConf.create({"k": value})).fixed == {"k": text}


def test_choice_that_is_there_twice_counts_once(caplog):
    assert space_of("x=a,b,a").distributions["x"] == CategoricalDistribution(["a", "b"])
    assert "there twice" in caplog.text


def composed(directory: Path, overrides=()) -> DictConfig:
    """A config with the group `optimizer`, and Hydra's own node in it."""
    (directory / "optimizer").mkdir(exist_ok=True)
    (directory / "optimizer" / "adamw.yaml").write_text("name: adamw\nlr: 0.1\n")
    (directory / "optimizer" / "sgd.yaml").write_text("name: sgd\nlr: 0.1\nmomentum: 0.9\n")
    (directory / "config.yaml").write_text(
        "defaults: [optimizer: adamw, _self_]\n"
        "lora: {r: 16, alpha: '${.r}', rslora: false, target: [a, b]}\nnone: null\n"
    )
    with initialize_config_dir(str(directory), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=True)


def test_glob_chooses_from_the_options_of_a_group(tmp_path):
    from hydra.core.global_hydra import GlobalHydra

    composed(tmp_path)
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        space = space_of("optimizer=glob(*)", loader=loader)
        (fault,) = faults_of("optimizer=glob(x*)", loader=loader)
    assert space.distributions["optimizer"] == CategoricalDistribution(["adamw", "sgd"])
    assert "has no option that matches ['x*']" in fault


# Conditions


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
def test_condition_looks_at_fixed_values_and_the_composed_config(tmp_path, condition, holds):
    space = space_of("x=1,2", "+seed=3", when={"x": condition})
    keys = [override.split("=")[0] for override in space.suggest(trial_with(x=1), composed(tmp_path))]
    assert keys == (["x", "+seed"] if holds else ["+seed"])


def test_conditional_parameter_follows_the_one_that_it_depends_on():
    space = space_of(
        params={"ratio": "interval(1,2)", "rs": "true,false", "+r": "8,16,32"},
        when={"ratio": "rs=true", "rs": "r>=16"},
    )
    assert list(space.distributions) == ["+r", "rs", "ratio"]
    seen = set()
    for overrides in trials_of(space, OmegaConf.create({"rs": False}), 60):
        values = dict(override.split("=") for override in overrides)
        assert ("rs" in values) == (int(values["+r"]) >= 16)
        assert ("ratio" in values) == ("rs" in values and values["rs"] == "true")
        seen.add(tuple(sorted(values)))
    assert len(seen) == 3


def test_key_that_a_trial_does_not_search_has_its_composed_value():
    space = space_of("a=1,2", "b=1,2", "c=1,2", when={"b": "a=2", "c": "b=7"})
    assert space.suggest(trial_with(a=1, b=1, c=1), OmegaConf.create({"b": 7})) == ["a=1", "c=1"]
    assert space.suggest(trial_with(a=2, b=1, c=1), OmegaConf.create({"b": 7})) == ["a=2", "b=1"]


def test_conditions_that_cannot_be_are_refused():
    (circle,) = faults_of("a=1,2", "b=1,2", "c=1,2", when={"a": "b=1", "b": "c=1", "c": "a=1"})
    assert "no circles" in circle and " when " in circle
    assert "no circles" in faults_of("a=1,2", when={"a": "a=1"})[0]
    (unknown,) = faults_of("lora.r=1,2", when={"lora.rr": "x=1"})
    assert unknown == "`hydra.sweeper.when` must name what is searched, but got lora.rr; did you mean lora.r?"
    for text in ("a", "=1", "b>=x", "b>1,2", "b=interval(0,1)", "b=[choice(1,2)]", "b==1", 3):
        assert faults_of("a=1,2", when={"a": text})[0].startswith("`hydra.sweeper.when.a` must be conditions"), text


def test_conditional_parameter_can_be_fixed_on_the_command_line():
    space = space_of("a=5", params={"a": "1,2", "b": "1,2"}, when={"a": "b=1"})
    assert space.conditions == {} and space.suggest(trial_with(b=2), EMPTY) == ["b=2", "a=5"]


# Custom and deprecated search spaces


def test_custom_search_space_adds_its_parameters_after_the_plain_ones(tmp_path, monkeypatch):
    (tmp_path / "spaces.py").write_text(
        "def configure(cfg, trial):\n"
        "    x = trial.params['x']\n"
        "    trial.suggest_float('z', x - cfg.width, x + cfg.width)\n"
        "    trial.suggest_categorical('+w', ['[1,2]'])\n"
        "    trial.suggest_categorical('n', [None])\n"
        "    trial.suggest_categorical('t', ['a,b'])\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    space = space_of("y=1", params={"x": "interval(0,1)"}, custom="spaces.configure")
    config = OmegaConf.create({"width": 2.0})
    fixed = optuna.trial.FixedTrial({"x": 0.5, "z": 2.5, "+w": "[1,2]", "n": None, "t": "a,b"})
    assert space.suggest(fixed, config) == ["x=0.5", "z=2.5", "+w=[1,2]", "n=null", "t='a,b'", "y=1"]
    clash = space_of("+z=1", params={"x": "interval(0,1)"}, custom="spaces.configure")
    with pytest.raises(ConfigError, match=r"suggests what is fixed by \+z=1"):
        clash.suggest(fixed, config)
    assert space_of(custom="spaces.configure").distributions == {}
    with pytest.raises(ConfigError, match="custom_search_space=spaces.configure"):
        space.grid()
    assert "of type int" in faults_of(custom="spaces.number")[0]
    assert "has no attribute 'nothing'" in faults_of(custom="spaces.nothing")[0]


def test_deprecated_search_space_still_works_and_loses_to_params(caplog):
    old = {
        "a": {"type": "float", "low": -5.5, "high": 5.5, "step": 0.5},
        "b": {"type": "int", "low": 1, "high": 64, "log": True},
        "c": {"type": "categorical", "choices": [-5, None, "x"]},
        "d": {"type": "float", "low": 1e-5, "high": 1, "log": True},
        "e": {"type": "int", "low": 0, "high": 10, "step": 5},
    }
    space = space_of("e=3", search_space=OmegaConf.create(old))
    assert space.distributions == {
        "a": FloatDistribution(-5.5, 5.5, step=0.5),
        "b": IntDistribution(1, 64, log=True),
        "c": CategoricalDistribution([-5, None, "x"]),
        "d": FloatDistribution(1e-5, 1, log=True),
    }
    assert "deprecated" in caplog.text
    assert list(space_of(params={"x": "1,2"}, search_space=old).distributions) == ["x"]
    assert "search_space is ignored" in caplog.text
    for wrong in ({"type": "int"}, {"type": "text"}, {"type": "categorical"}, {"typ": 1}, 3, {"type": "int", "low": 2}):
        assert "hydra.sweeper.search_space.k" in faults_of(search_space={"k": wrong})[0]


# Two commands, and the config


def test_description_is_json_and_tells_two_spaces_apart():
    def described(*arguments, **keys):
        return json.loads(json.dumps(space_of(*arguments, **keys).describe()))

    base = described("a=1,2", "b=interval(0,1)", when={"a": "b>0.5"})
    assert base == described("b=interval(0,1)", "a=choice(1,2)", when={"a": ["b > 0.5"]})
    others = [
        described("a=1,2", "b=interval(0,1)"),
        described("a=1,2", "b=interval(0,1)", when={"a": "b>0.6"}),
        described("a=1,3", "b=interval(0,1)", when={"a": "b>0.5"}),
        described("a=1,2", "b=interval(0,2)", when={"a": "b>0.5"}),
        described("a=1,2", "b=interval(0,1)", "c=1", when={"a": "b>0.5"}),
    ]
    assert base not in others


def test_keys_that_are_not_in_the_config_are_told_with_the_one_that_was_meant(tmp_path):
    config = composed(tmp_path)
    good = space_of(
        "optimizer=adamw,sgd",
        "optimizer.momentum=0.5,0.9",
        "+new.key=1",
        "lora.target.0=a",
        "lora.r=1,2",
        when={"lora.r": "new.key=1"},
    )
    assert unknown_keys(good, config) == []
    (fault,) = unknown_keys(space_of("lora.rr=1,2", "~lora.alpha"), config)
    assert fault == "`lora.rr` must be a key of the config, but there is none; did you mean lora.r?; +lora.rr adds one"
    assert len(unknown_keys(space_of("x=1,2", "optimizer.momentum=0.5", "lora.target.2=a"), config)) == 3
    assert unknown_keys(space_of("+experiment=a,b", "brought.by.it=1"), config) == []


def test_conditions_on_what_is_not_known_before_the_trial_are_told(tmp_path):
    config = composed(tmp_path)
    space = space_of(
        "optimizer=adamw,sgd",
        "lora.r=1,2",
        "+new.y=1,2",
        when={"new.y": ["optimizer.name=sgd", "lora.alpha=2", "lora.dropuot=1", "lora.r=1", "lora.rslora=true"]},
    )
    faults = [fault for fault in unknown_keys(space, config) if "when" in fault]
    assert ["group that is searched" in faults[0], "follows from other keys" in faults[1]] == [True, True]
    assert "lora.dropuot is no key" in faults[2] and len(faults) == 3


def test_floats_for_a_whole_number_are_told_before_the_first_trial():
    from dataclasses import dataclass

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
