"""What a study came to: the best, the importances, the table, and the best as a config that composes."""

import csv
import math
import sys

import hydra
import optuna
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from medbot_exp.config import conf_directory
from medbot_exp.errors import ConfigError
from medbot_exp.report.study import Notes, counts, states_of, summarize, write_experiment, write_trials_csv
from medbot_exp.sweep.study import counted, failed

optuna.logging.set_verbosity(optuna.logging.ERROR)
GROUPS = {path.name for path in conf_directory().iterdir() if path.is_dir()} - {"hydra"}


def random_study(directions=("minimize",), seed=0):
    return optuna.create_study(
        directions=list(directions), study_name="fake", sampler=optuna.samplers.RandomSampler(seed=seed)
    )


def test_trials_say_what_optuna_knows_and_the_notes_say_the_rest():
    study = random_study()

    def objective(trial):
        trial.suggest_float("lr", 1e-5, 1e-2, log=True)
        if trial.number == 0:
            raise ValueError
        for step in (10, 5):
            trial.report(step / 4, step)
        if trial.number == 1:
            raise optuna.TrialPruned
        return 1.5

    study.optimize(objective, 3, catch=(ValueError,))
    study.ask()
    study.enqueue_trial({"lr": 1e-3}, user_attrs={"retry_of": 0})
    notes = {0: Notes(reason="no memory"), 2: Notes(directory="trial-0002")}
    summary = summarize(study, ["loss"], lambda trial: notes.get(trial.number, Notes()))
    assert [row.state for row in summary.trials] == ["retried", "pruned", "complete", "running", "waiting"]
    assert [row.reason for row in summary.trials] == ["no memory", None, None, None, None]
    assert (summary.trials[4].retry_of, summary.trials[2].directory) == (0, "trial-0002")
    assert list(summary.trials[1].intermediate.items()) == [(5, 1.25), (10, 2.5)]
    assert summary.trials[2].values == [1.5] and summary.trials[0].values is None
    assert summary.trials[2].seconds == pytest.approx(study.trials[2].duration.total_seconds())
    assert summary.trials[4].seconds is None
    assert summary.spaces["lr"].log and (summary.spaces["lr"].low, summary.spaces["lr"].high) == (1e-5, 1e-2)


def test_only_a_failed_trial_whose_place_another_took_is_retried_and_it_counts_towards_nothing():
    def made(number, state, **user_attrs):
        value = 1.0 if state == "COMPLETE" else None
        trial = optuna.trial.create_trial(state=optuna.trial.TrialState[state], value=value, user_attrs=user_attrs)
        trial.number = number
        return trial

    trials = [
        made(0, "FAIL"),
        made(1, "FAIL", retry_of=0),
        made(2, "FAIL"),
        made(3, "WAITING", retry_of=1),
        made(4, "COMPLETE"),
        made(5, "RUNNING", retry_of=4),
    ]
    words = ["retried", "retried", "failed", "waiting", "complete", "running"]
    assert states_of(trials) == dict(enumerate(words))
    assert [trial.number for trial in counted(trials)] == [2, 3, 4, 5]
    assert [trial.number for trial in failed(trials)] == [2]
    assert list(counts(words)) == ["complete", "failed", "running", "waiting", "retried"]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_best_is_the_one_that_optuna_names(direction):
    study = random_study([direction])
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1), 20)
    assert [row.number for row in summarize(study).best] == [study.best_trial.number]


def test_best_keeps_the_constraints_and_the_first_of_equals_wins():
    study = random_study()

    def objective(trial):
        trial.set_constraint("memory", 1.0 if trial.number < 2 else -1.0)
        return [0.0, 1.0, 3.0, 2.0, 2.0][trial.number]

    study.optimize(objective, 5)
    summary = summarize(study)
    assert [row.feasible for row in summary.trials] == [False, False, True, True, True]
    assert [row.number for row in summary.best] == [3] == [study.best_trial.number]


def test_infinite_best_of_a_diverged_study_is_a_best_and_no_trial_is_none():
    study = random_study()
    assert summarize(study).best == [] and summarize(study).trials == []
    study.optimize(lambda trial: math.inf, 1)
    assert [row.number for row in summarize(study).best] == [0]


def test_pareto_front_is_the_one_that_optuna_names():
    study = random_study(["minimize", "maximize"])
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)), 40)
    summary = summarize(study)
    assert [row.number for row in summary.best] == sorted(trial.number for trial in study.best_trials)
    assert 1 < len(summary.best) < 40
    assert summary.metric_names == ["value 0", "value 1"] and summary.directions == ["minimize", "maximize"]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_metric_name_falls_back_to_the_studys_own():
    study = random_study()
    assert summarize(study).metric_names == ["value"]
    study.set_metric_names(["validation/loss"])
    assert summarize(study).metric_names == ["validation/loss"]
    assert summarize(study, ["given"]).metric_names == ["given"]


@pytest.mark.parametrize("seed", range(5))
def test_importances_sum_to_one_and_find_the_parameter_that_matters(seed):
    study = random_study(seed=seed)
    study.optimize(lambda trial: trial.suggest_float("a", 0, 1) ** 2 + 1e-3 * trial.suggest_float("b", 0, 1), 60)
    importances = summarize(study).importances
    assert sum(importances.values()) == pytest.approx(1)
    assert list(importances) == ["a", "b"] and importances["a"] > 0.8


def test_importances_know_a_conditional_parameter_without_scikit_learn_or_scipy(monkeypatch):
    for name in ("sklearn", "scipy"):
        monkeypatch.setitem(sys.modules, name, None)
    study = random_study()

    def objective(trial):
        kind = trial.suggest_categorical("kind", ["sgd", "adam"])
        return trial.suggest_float("momentum", 0, 1) if kind == "sgd" else 2 + trial.suggest_float("beta", 0, 1)

    study.optimize(objective, 30)
    assert set(summarize(study).importances) == {"kind", "momentum", "beta"}


def trials_of(values, *names):
    study = random_study()
    study.optimize(
        lambda trial: values[trial.number] + 0 * sum(trial.suggest_float(n, 0, 1) for n in names), len(values)
    )
    return study


@pytest.mark.parametrize(
    "values,names",
    [([1, 2, 3], "ab"), ([1, 2, 3, 4], "a"), ([1, 1, 1, 1], "ab"), ([1, math.inf, 2, 3], "ab")],
    ids=["few trials", "one parameter", "one value", "few numbers"],
)
def test_importances_are_none_where_they_cannot_be_said(values, names):
    assert summarize(trials_of(values, *names)).importances is None
    assert summarize(trials_of([1, 2, 3, 5], "a", "b")).importances is not None


def test_a_parameter_that_never_varied_makes_no_importances():
    study = random_study()
    study.optimize(lambda trial: trial.suggest_float("a", 0, 1) + trial.suggest_int("b", 2, 2), 10)
    assert summarize(study).importances is None


def test_choices_tell_true_from_one():
    study = random_study()
    study.optimize(lambda trial: float(trial.suggest_categorical("c", [1, True, "2"])), 3)
    assert list(map(repr, summarize(study).spaces["c"].choices)) == ["1", "True", "'2'"]


def test_space_spans_all_trials():
    study = random_study()
    for high in (8, 64):
        space = {"r": optuna.distributions.IntDistribution(1, high)}
        study.add_trial(optuna.create_trial(params={"r": 3}, distributions=space, value=1.0))
    found = summarize(study).spaces["r"]
    assert (found.low, found.high, found.whole, found.log, found.choices) == (1, 64, True, False, [])


def test_csv_reads_back_as_it_was(tmp_path):
    study = random_study()

    def objective(trial):
        trial.suggest_categorical("prompt", ['a,"b"\nc', None, True])
        if trial.number % 2:
            trial.suggest_float("lr", 1e-5, 1e-2, log=True)
        if trial.number == 3:
            raise ValueError
        if trial.number == 4:
            trial.set_user_attr("retry_of", 3)
        return 0.1 + trial.number

    study.optimize(objective, 8, catch=(ValueError,))
    describe = {3: Notes(reason="line one\r\nline, two")}
    summary = summarize(study, ["validation/loss"], lambda trial: describe.get(trial.number, Notes()))
    write_trials_csv(tmp_path / "trials.csv", summary)
    with (tmp_path / "trials.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    assert header == [
        "number", "state", "validation/loss", "params.prompt", "params.lr", "seconds", "retry_of", "reason"
    ]  # fmt: skip
    shown = {None: "null", True: "true"}
    for trial, row in zip(study.trials, rows, strict=True):
        assert row[:2] == [str(trial.number), "retried" if trial.number == 3 else "complete"]
        assert (float(row[2]) if row[2] else None) == trial.value
        assert row[3] == shown.get(trial.params["prompt"], trial.params["prompt"])
        assert (float(row[4]) if row[4] else None) == trial.params.get("lr")
    assert rows[3][6:] == ["", "line one\r\nline, two"] and rows[4][6:] == ["3", ""]
    assert (tmp_path / "trials.csv").read_bytes().startswith(b"number,state,validation/loss")
    assert b"\r\n" in (tmp_path / "trials.csv").read_bytes()


def test_csv_tells_which_trials_break_a_constraint(tmp_path):
    study = random_study()

    def objective(trial):
        trial.set_constraint("memory", float(trial.number))
        return 1.0

    study.optimize(objective, 2)
    write_trials_csv(tmp_path / "t.csv", summarize(study))
    with (tmp_path / "t.csv").open(newline="") as file:
        assert [row["feasible"] for row in csv.DictReader(file)] == ["true", "false"]


def composed(*overrides, searchpath=None):
    with hydra.initialize_config_dir(config_dir=str(conf_directory()), version_base="1.3"):
        path = [f"hydra.searchpath=[file://{searchpath}]"] if searchpath else []
        return OmegaConf.to_container(hydra.compose("config", overrides=[*path, *overrides, "study=s"]))


OVERRIDES = {
    "nothing": [],
    "values": ["lora.r=32", "optimizer.lr=1e-5", "trainer.max_steps=null", "lora.rslora=true", "seed=7"],
    "texts": ["name='1e-5'", "model.revision='a: b # c'", "trainer.resume='null'", "root='${name}/x'"],
    "lists": ["lora.target_modules=[q_proj,v_proj]", "lora.alpha=${.r}"],
    "options": ["model=tiny", "prompt=direct", "lora=attention", "lora.r=4", "tracking=none"],
    "no benchmark": ["benchmark=[]"],
    "benchmarks": ["benchmark=[cases]", "benchmark.cases.limit=3"],
    "experiment": ["+experiment=medbot", "model=tiny", "lora.r=8", "backend=peft"],
    "added": ["++lora.r=2", "lora.r=3"],
}


@pytest.mark.parametrize("overrides", OVERRIDES.values(), ids=OVERRIDES)
def test_best_composes_to_what_its_overrides_compose_to(tmp_path, overrides):
    path = tmp_path / "experiment" / "best.yaml"
    command = "python -m medbot_exp --config-dir=" + "x" * 600  # Hydra reads no header beyond the first 512 letters
    write_experiment(path, overrides, GROUPS, ["The best trial", command])
    assert composed("+experiment=best", searchpath=tmp_path) == composed(*overrides)
    assert path.read_text().splitlines()[:3] == ["# @package _global_", "# The best trial", f"# {command}"]
    if overrides:
        assert composed(*overrides) != composed()


def test_best_of_another_application_composes(tmp_path):
    app = tmp_path / "app"
    files = {
        "config": "defaults:\n  - db: one\n  - _self_\n  - server/log: plain\nport: 1\n",
        **{f"db/{name}": f"name: {name}\nsize: 1\n" for name in ("one", "two", "three")},
        **{f"server/log/{name}": f"kind: {name}\n" for name in ("plain", "json")},
        "extra/more": "more: 1\n",
    }
    for name, content in files.items():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / f"{name}.yaml").write_text(content)
    groups = {"db", "server/log", "extra"}

    def compose(*words):
        with hydra.initialize_config_dir(config_dir=str(app), version_base="1.3"):
            return OmegaConf.to_container(hydra.compose("config", overrides=list(words)))

    for overrides in (
        ["db=two", "server/log=json", "db.size=3"],
        ["db=[two,three]"],
        ["+extra=more", "+new.key={a: 1, b: [x, null]}", "++port=0x"],
        ["+db@backup=two", "backup.size=9"],
        ["~server/log"],
    ):
        write_experiment(app / "experiment" / "best.yaml", overrides, groups, ["best"])
        assert compose("+experiment=best") == compose(*overrides), overrides
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize("override", ["~lora.r", "lora.target_modules.0=x", "lora.r=1,2"])
def test_what_a_config_file_cannot_express_is_refused(tmp_path, override):
    with pytest.raises(ConfigError, match="a config file .* but got"):
        write_experiment(tmp_path / "experiment" / "best.yaml", [override], GROUPS, [])
    assert not (tmp_path / "experiment").exists()
