"""Applications with the configurations that hydra-optuna-sweeper documents and tests: they run unchanged."""

import re

import optuna
import pytest
import yaml

APPLICATION = """
import hydra

@hydra.main(version_base=None, config_path="conf", config_name="config")
def task(cfg):
    if cfg.get("broken", False):
        raise RuntimeError("cfg.broken is True")
    {returned}

{more}

if __name__ == "__main__":
    task()
"""

BOWL = """
defaults:
  - override hydra/sweeper: optuna
  - override hydra/sweeper/sampler: tpe
hydra:
  sweeper:
    sampler:
      seed: 123
    direction: minimize
    study_name: bowl
    storage: null
    n_trials: 4
    n_jobs: 1
    max_failure_rate: 0.0
    params:
      x: range(-5.5, 5.5, step=0.5)
      y: choice(-5 ,0 ,5)
x: 1
y: 1
z: 1
broken: false
"""

SUM_OF_SQUARES = "return cfg.x**2 + cfg.y**2"


@pytest.fixture
def application(tmp_path, run_python_in):
    """application(config, returned, more="", name="app"): write one; it runs with the overrides that it is called with.

    What comes back is the finished process and optimization_results.yaml, if it came so far.
    """

    def write(config, returned=SUM_OF_SQUARES, more="", name="app"):
        (tmp_path / "conf").mkdir(exist_ok=True)
        (tmp_path / "conf" / "config.yaml").write_text(config)
        (tmp_path / f"{name}.py").write_text(APPLICATION.format(returned=returned, more=more))

        def run(*overrides):
            finished = run_python_in(tmp_path, f"{name}.py", "--multirun", "hydra.sweep.dir=out", *overrides)
            results = tmp_path / "out" / "optimization_results.yaml"
            return finished, yaml.safe_load(results.read_text()) if results.is_file() else None

        return run

    return write


def started(finished):
    """The overrides of each trial, as the launcher of Hydra's own logs them."""
    lines = re.findall(r"#\d+ : (.*)", finished.stdout)
    return [dict(word.split("=") for word in line.split() if not word.startswith("~")) for line in lines]


def test_one_objective(application):
    finished, results = application(BOWL)("hydra.job.chdir=True", "~z")
    assert finished.status == 0, finished.stderr
    values = [float(trial["x"]) ** 2 + float(trial["y"]) ** 2 for trial in started(finished)]
    assert results["name"] == "optuna" and results["best_value"] == min(values) and len(values) == 4
    assert set(results["best_params"]) == {"x", "y"}


def test_overrides_of_the_command_line(application):
    run = application(BOWL)
    finished, results = run("x=int(interval(-5.0, 5.0))", "y=tag(log, interval(1, 10))", "hydra/sweeper/sampler=random")
    assert finished.status == 0, finished.stderr
    assert type(results["best_params"]["x"]) is int and 1 <= results["best_params"]["y"] <= 10
    finished, results = run("x=choice(0, 1, 2)", "y=3", "hydra.sweep.dir=fixed", "hydra.sweeper.direction=maximize")
    assert finished.status == 0, finished.stderr
    assert {trial["y"] for trial in started(finished)} == {"3"}


def test_range_reaches_its_stop_but_shuffled_it_does_not(application):
    arguments = ("x=range(1,3)", "y=shuffle(range(0,2))")
    finished, _ = application(BOWL)(*arguments, "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=6")
    assert finished.status == 0, finished.stderr
    assert "3" in {trial["x"] for trial in started(finished)}
    assert {trial["y"] for trial in started(finished)} == {"0", "1"}
    assert "x=range(1,3): 3 is one of its numbers" in finished.stdout


def test_grid_runs_each_point_once(application):
    config = """
defaults:
  - override hydra/sweeper: optuna
  - override hydra/sweeper/sampler: grid
hydra:
  sweeper:
    direction: minimize
    study_name: grid
    storage: null
    n_trials: 20
    n_jobs: 1
    params:
      x: choice(-1, 1)
      y: range(-1.0, 1.0, step=1)
      z: choice("foo", "bar")
x: 1
y: 1
z: foo
"""
    finished, results = application(config)()
    assert finished.status == 0, finished.stderr
    points = {tuple(trial.values()) for trial in started(finished)}
    assert points == {(x, y, z) for x in ("-1", "1") for y in ("-1.0", "0.0") for z in ("foo", "bar")}
    assert len(started(finished)) == 8 and results["best_value"] == 1 and results["best_params"]["y"] == 0


def test_two_objectives(application):
    config = """
defaults:
  - override hydra/sweeper: optuna
  - override hydra/sweeper/sampler: nsgaii
hydra:
  sweeper:
    sampler:
      seed: 123
      population_size: 50
      mutation_prob: null
      crossover_prob: 0.9
      swapping_prob: 0.5
      constraints_func: null
    direction: [minimize, minimize]
    study_name: front
    storage: null
    n_trials: 6
    n_jobs: 1
    params:
      x: range(0, 5, step=0.5)
      y: range(0, 3, step=0.5)
x: 1
y: 1
"""
    returned = "return 4 * cfg.x**2 + 4 * cfg.y**2, (cfg.x - 5) ** 2 + (cfg.y - 5) ** 2"
    finished, results = application(config, returned)()
    assert finished.status == 0, finished.stderr
    assert list(results) == ["name", "solutions"]
    front = [solution["values"] for solution in results["solutions"]]
    for one in front:
        assert not any(other != one and other[0] <= one[0] and other[1] <= one[1] for other in front)
    (x, y), values = results["solutions"][0]["params"].values(), results["solutions"][0]["values"]
    assert values == [4 * x**2 + 4 * y**2, (x - 5) ** 2 + (y - 5) ** 2] and x % 0.5 == y % 0.5 == 0


OWN_SPACE = """
def configure(cfg, trial):
    near = trial.params["x"]
    if "z" not in trial.user_attrs:
        trial.suggest_float("z", near - cfg.width, near + cfg.width)
    trial.suggest_float("+w", 0.0, 1.0)
"""


@pytest.mark.parametrize("path", ["own-space.configure", ".own-space.configure"])
def test_custom_search_space_of_a_file_that_has_a_hyphen(application, path):
    config = BOWL.replace("    params:", f"    custom_search_space: {path}\n    params:") + "width: 0.5\n"
    run = application(config, "return cfg.w**2 + cfg.x**2 + cfg.y**2 + cfg.z**2", OWN_SPACE, "own-space")
    finished, results = run("width=0.3", *(["z=7"] if path.startswith(".") else []))
    assert finished.status == 0, finished.stderr
    for trial in started(finished):
        near = abs(float(trial["x"]) - float(trial["z"])) <= 0.3
        assert (trial["z"] == "7" if path.startswith(".") else near) and 0 <= float(trial["+w"]) <= 1
    assert {"x", "y", "+w"} <= set(results["best_params"])


def test_custom_search_space_may_not_suggest_what_is_fixed(application):
    config = BOWL.replace("    params:", "    custom_search_space: app.configure\n    params:")
    finished, _ = application(config, more="def configure(cfg, trial):\n    trial.suggest_int('z', 1, 2)")("z=3")
    assert finished.status == 1 and "suggests what is fixed by z=3" in finished.stderr


def test_search_space_of_before_params(application):
    params = BOWL[BOWL.index("    params:") : BOWL.index("x: 1")]
    old = """
    search_space:
      x: {type: float, low: -5.5, high: 5.5, step: 0.5}
      y: {type: categorical, choices: [0, 1]}
"""
    finished, results = application(BOWL.replace(params, old))()
    assert finished.status == 0, finished.stderr
    assert "hydra.sweeper.search_space is deprecated" in finished.stdout
    assert results["best_params"]["x"] % 0.5 == 0 and results["best_params"]["y"] in (0, 1)


@pytest.mark.parametrize("rate, status", [(0.5, 1), (1.0, 0)])
def test_failures_end_the_sweep_with_their_own_traceback(application, rate, status):
    run = application(BOWL)
    finished, _ = run("broken=true", "hydra.sweeper.n_jobs=2", f"hydra.sweeper.max_failure_rate={rate}")
    assert finished.status == status
    assert ('raise RuntimeError("cfg.broken is True")' in finished.stderr) == (status == 1)
    assert "failed after" in finished.stdout


def test_search_that_is_chosen_as_a_group_and_spells_out_its_classes(application, tmp_path):
    run = application(
        "defaults: [_self_, {optional search: null}]\nmodel: {lr: 0.1}\nbatch: 1\nmetric: none\n",
        """
    assert cfg.metric == "accuracy"
    return cfg.model.lr * cfg.batch""",
    )
    (tmp_path / "conf" / "search").mkdir()
    (tmp_path / "conf" / "search" / "short.yaml").write_text(
        """# @package _global_
defaults:
  - override /hydra/sweeper: optuna
metric: accuracy
hydra:
  mode: MULTIRUN
  sweeper:
    _target_: hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper
    storage: null
    study_name: null
    n_jobs: 1
    direction: maximize
    n_trials: 3
    sampler:
      _target_: optuna.samplers.TPESampler
      seed: 1234
      consider_prior: true
      prior_weight: 1.0
      consider_magic_clip: true
      consider_endpoints: false
      n_startup_trials: 10
      n_ei_candidates: 24
      multivariate: false
      warn_independent_sampling: true
    params:
      model.lr: interval(0.0001, 0.1)
      batch: choice(32, 64, 128, 256)
"""
    )
    finished, results = run("search=short")
    assert finished.status == 0, finished.stderr
    assert results["best_value"] == max(float(t["model.lr"]) * int(t["batch"]) for t in started(finished))


def test_group_that_must_be_given_may_be_searched(application, tmp_path):
    (tmp_path / "conf" / "db").mkdir(parents=True)
    for cost, name in enumerate(("a", "b")):
        (tmp_path / "conf" / "db" / f"{name}.yaml").write_text(f"cost: {cost}")
    run = application(BOWL.replace("defaults:", "defaults:\n  - db: ???"), "return cfg.db.cost")
    finished, results = run("db=a,b", "db.cost=range(3,4)", "hydra/sweeper/sampler=grid")
    assert finished.status == 0, finished.stderr
    assert {trial["db"] for trial in started(finished)} == {"a", "b"} and results["best_value"] == 3
    finished, _ = run("db=a,c", "hydra.sweep.dir=typo")
    assert finished.status == 1 and "Could not find 'db/c'" in finished.stderr and not (tmp_path / "typo").exists()


@pytest.mark.parametrize("default, words", [("${oc.env:NO_SUCH_VARIABLE}", ()), ("${z}", ("z=1,2",))])
def test_default_that_cannot_be_resolved_yet_is_no_matter(application, default, words):
    config = BOWL.replace("x: 1\n", f"x: {default}\n").replace("z: 1\n", "z: ???\n" if words else "z: 1\n")
    finished, results = application(config)(*words)
    assert finished.status == 0, finished.stderr
    assert len(started(finished)) == 4


def test_nothing_to_search_runs_the_same_trial_again(application):
    finished, results = application(BOWL)("x=2", "y=1", "hydra.sweeper.n_trials=2")
    assert finished.status == 0, finished.stderr
    assert started(finished) == [{"x": "2", "y": "1"}] * 2 and results["best_value"] == 5
    assert "must have something to search, but got x=2 y=1" in finished.stdout


def test_study_of_optunas_own_goes_on_and_is_read_by_it(application, tmp_path):
    storage = f"sqlite:///{tmp_path}/kept.db"
    study = optuna.create_study(storage=storage, study_name="bowl")
    study.optimize(lambda trial: trial.suggest_float("x", -5.5, 5.5, step=0.5) ** 2, n_trials=2)
    finished, _ = application(BOWL)("hydra.sweeper.storage=sqlite:///kept.db", "y=0", "hydra.sweeper.n_trials=4")
    assert finished.status == 0, finished.stderr
    trials = optuna.load_study(storage=storage, study_name="bowl").trials
    assert [trial.value for trial in trials] == [trial.params["x"] ** 2 for trial in trials] and len(trials) == 4


def test_joblib_launcher_runs_a_batch(application):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    finished, results = application(BOWL)("hydra/launcher=joblib", "hydra.sweeper.n_jobs=2")
    assert finished.status == 0, finished.stderr
    values = [float(trial["x"]) ** 2 + float(trial["y"]) ** 2 for trial in started(finished)]
    assert results["best_value"] == min(values) and len(values) == 4


def test_values_that_count_and_values_that_do_not(application):
    returned = "return {0: None, 1: float('nan'), 2: '3.5', 3: float('inf'), 4: 2, 5: [1], 6: True}[cfg.x]"
    run = application(BOWL, returned)
    rate = "hydra.sweeper.max_failure_rate=0.5"
    finished, results = run("x=range(0,7)", "y=0", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=9", rate)
    assert finished.status == 0, finished.stderr
    assert results["best_value"] == 1.0
    assert len(re.findall("the task function must return a number, but returned", finished.stdout)) == 3
