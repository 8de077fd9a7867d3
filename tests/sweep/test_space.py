"""The search space: what is read, what is refused, and which overrides a trial gets."""

import json

import optuna
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from medbot_exp.errors import ConfigError

EMPTY = OmegaConf.create({})


def trials_of(space, count=50):
    """The overrides of `count` random trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask(), EMPTY) for _ in range(count)]


def read(override):
    """What Hydra itself reads."""
    return OverridesParser.create().parse_override(override).value()


@pytest.mark.parametrize("text", ["range(1,9)", "range(2,9,3)", "range(9,1,-3)", "range(0,1,0.25)", "a,b", "1,0.5"])
def test_grid_has_the_points_of_hydras_own(text, space_of):
    own = OverridesParser.create().parse_override(f"x={text}")
    assert sorted(map(str, space_of(f"x={text}").grid()["x"])) == sorted(own.sweep_string_iterator())


def test_grid_counts_decimals_as_on_paper(space_of):
    assert space_of("x=range(0,0.5,0.1)").grid() == {"x": [0.0, 0.1, 0.2, 0.3, 0.4]}
    assert space_of("x=int(interval(1,4))").grid() == {"x": [1, 2, 3, 4]}


def test_grid_names_every_parameter_that_it_cannot_count(space_of):
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
def test_what_cannot_be_searched_is_refused_with_its_key_and_an_example(text, reason, faults_of):
    (fault,) = faults_of(params={"x": text})
    assert fault.startswith(f"`x={text}` must be") and reason in fault and "for example lora.r=8,16,32" in fault


def test_every_fault_is_told_at_once(faults_of):
    faults = faults_of("a=interval(2,1)", "b=range(0)", "c=1,2", when={"d": "c=1", "c": "?"}, custom="no.such")
    assert [fault.split()[0] for fault in faults] == [
        "`a=interval(2,1)`",
        "`b=range(0)`",
        "`hydra.sweeper.when`",
        "`hydra.sweeper.when.c`",
        "`hydra.sweeper.custom_search_space`",
    ]


def test_params_have_keys_as_on_the_command_line(faults_of):
    assert faults_of(params={"lora": {"r": "8,16"}})[0].endswith("as in lora.r: 1,2")


def test_published_examples_give_the_overrides_of_the_published_plugin(space_of):
    sphere = space_of("z=10", params={"x": "interval(-5.5, 5.5)", "y": "choice(-5 ,0 ,5)"})
    assert sphere.suggest(FixedTrial({"x": 1.25, "y": -5}), EMPTY) == ["x=1.25", "y=-5", "z=10"]
    binh_korn = space_of(params={"x": "range(0, 5, step=0.5)", "y": "range(0, 3, step=0.5)"})
    assert binh_korn.suggest(FixedTrial({"x": 4.5, "y": 0.0}), EMPTY) == ["x=4.5", "y=0.0"]
    command_line = space_of("x=interval(-5,5)", "y=0,1", "+z=a", params={"y": "interval(0,1)"})
    assert command_line.suggest(FixedTrial({"y": 1, "x": 0.5}), EMPTY) == ["y=1", "x=0.5", "+z=a"]


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
def test_trial_reads_back_exactly_the_choices_that_were_typed(choices, space_of):
    space = space_of(f"+k={choices}")
    own = OverridesParser.create().parse_override(f"k={choices}")
    typed = {repr(own._convert_value(value)) for value in own.value().list}
    found = {repr(read(override)) for (override,) in trials_of(space)}
    assert found == typed


@pytest.mark.parametrize("text", ["true,1", "[1],'[1]'", "null,'null'"])
def test_choices_that_python_confuses_stay_apart_in_storage(text, space_of):
    space = space_of(f"x={text}")
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage())
    for _ in range(20):
        trial = study.ask()
        (override,) = space.suggest(trial, EMPTY)
        again = optuna.trial.Trial(study, trial._trial_id)
        assert space.suggest(again, EMPTY) == [override]
    assert len({repr(trial.params["x"]) for trial in study.trials}) == 2


def test_numbers_of_a_trial_are_read_back_as_they_were_suggested(space_of):
    space = space_of("x=tag(log,interval(1e-12,1e-3))", "n=int(tag(log,interval(1,1000)))", "s=range(0,1,0.1)")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        trial = study.ask()
        values = dict(override.split("=") for override in space.suggest(trial, EMPTY))
        for key, text in values.items():
            assert type(read(f"k={text}")) is type(trial.params[key]) and read(f"k={text}") == trial.params[key]


def test_signs_groups_and_deletions_are_kept_as_a_user_types_them(space_of):
    space = space_of("+experiment=a,b", "~tracking", "~model=tiny", "++x.y='1'", "db@old=a/b", "k=", "l=[1,a b]")
    (first, *others) = space.suggest(FixedTrial({"+experiment": "b"}), EMPTY)
    assert first == "+experiment=b"
    assert others == ["~tracking", "~model=tiny", "++x.y='1'", "db@old=a/b", "k=''", "l=[1,a b]"]
    assert [read(override) for override in others if not override.startswith("~")] == ["1", "a/b", "", [1, "a b"]]


def test_command_line_wins_over_params_whatever_the_sign(space_of):
    space = space_of("lora.r=8", "a=3,4", params={"++lora.r": "8,16", "a": "1,2", "b": "1,2"})
    assert list(space.distributions) == ["a", "b"] and space.fixed == {"lora.r": "8"}
    assert space.distributions["a"] == CategoricalDistribution([3, 4])


@pytest.mark.parametrize(
    ("value", "text"), [(5, "5"), (True, "true"), (None, "null"), ([1, "a,b"], "[1,'a,b']"), (1e-5, "1e-05")]
)
def test_yaml_values_in_params_are_fixed(value, text, space_of):
    assert space_of("x=1,2", params=OmegaConf.create({"k": value})).fixed == {"k": text}


def test_glob_chooses_from_the_options_of_a_group(grouped_directory, space_of, faults_of):
    with initialize_config_dir(str(grouped_directory), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        space = space_of("optimizer=glob(*)", loader=loader)
        (fault,) = faults_of("optimizer=glob(x*)", loader=loader)
    assert space.distributions["optimizer"] == CategoricalDistribution(["adamw", "sgd"])
    assert "has no option that matches ['x*']" in fault


def test_custom_search_space_adds_its_parameters_after_the_plain_ones(tmp_path, monkeypatch, space_of, faults_of):
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
    fixed = FixedTrial({"x": 0.5, "z": 2.5, "+w": "[1,2]", "n": None, "t": "a,b"})
    assert space.suggest(fixed, config) == ["x=0.5", "z=2.5", "+w=[1,2]", "n=null", "t='a,b'", "y=1"]
    clash = space_of("+z=1", params={"x": "interval(0,1)"}, custom="spaces.configure")
    with pytest.raises(ConfigError, match=r"suggests what is fixed by \+z=1"):
        clash.suggest(fixed, config)
    assert space_of(custom="spaces.configure").distributions == {}
    with pytest.raises(ConfigError, match="custom_search_space=spaces.configure"):
        space.grid()
    assert "of type int" in faults_of(custom="spaces.number")[0]
    assert "has no attribute 'nothing'" in faults_of(custom="spaces.nothing")[0]


def test_deprecated_search_space_still_works_and_loses_to_params(caplog, space_of, faults_of):
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


def test_description_is_json_and_tells_two_spaces_apart(space_of):
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
