"""Samplers and pruners: what the published plugin's configs become, and what is refused before a study begins."""

import functools
import inspect
import subprocess
import sys
import warnings

import optuna
import pytest
from omegaconf import OmegaConf

from medbot_exp.errors import ConfigError
from medbot_exp.sweep.options import PRUNERS, SAMPLERS
from medbot_exp.sweep.samplers import build_pruner, build_sampler
from medbot_exp.sweep.space import SearchSpace, read_space

ONE, TWO = ["minimize"], ["minimize", "maximize"]


def space_of(*arguments, when=None) -> SearchSpace:
    return read_space(None, None, when, None, arguments, None, with_stop=False)


NUMBERS = space_of("x=interval(-5.5,5.5)", "y=interval(0,1)")
POINTS = space_of("x=range(0,1,0.25)", "y=choice(-5,0,5)", "z=[a,b],c")
CHOICES = space_of("a=1,2", "b=x,y")


def node(options, **values):
    """What Hydra composes from an option of ours and overrides of its keys."""
    return OmegaConf.merge(OmegaConf.structured(options), values)


def run(sampler, space, directions=ONE, trials=12):
    """A study whose objective is a number of its own; the overrides of each trial."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler, directions=directions)
    overrides = []

    def objective(trial):
        overrides.append(tuple(space.suggest(trial, OmegaConf.create({}))))
        return [float(trial.number)] * len(directions)

    study.optimize(objective, n_trials=trials)
    return overrides


@pytest.mark.parametrize(
    ("name", "directions"),
    [
        (name, directions)
        for name in sorted(SAMPLERS)
        for directions in (ONE, TWO)
        if (name, directions) != ("cmaes", TWO)
    ],
)
def test_every_option_makes_a_sampler_without_a_warning(name, directions, caplog):
    for package in {"cmaes": ["cmaes"], "gp": ["scipy"], "qmc": ["scipy"]}.get(name, []):
        pytest.importorskip(package)
    space = POINTS if name in ("grid", "brute_force") else NUMBERS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = build_sampler(node(SAMPLERS[name]), space, directions)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(run(sampler, space, directions)) == 12


@pytest.mark.parametrize(
    ("options", "node_class"), [*((SAMPLERS, c) for c in SAMPLERS), *((PRUNERS, c) for c in PRUNERS)]
)
def test_options_are_the_arguments_of_optunas_class_with_its_defaults(options, node_class):
    composed = OmegaConf.structured(options[node_class])
    name = composed._target_.rpartition(".")[2].replace("MOTPE", "TPE")
    module = optuna.samplers if options is SAMPLERS else optuna.pruners
    parameters = inspect.signature(getattr(module, name).__init__).parameters
    own = {key: None if OmegaConf.is_missing(composed, key) else composed[key] for key in composed}
    # Those of the published plugin alone, or with a default of its own.
    kept = {"_target_", "_partial_", "n_ehvi_candidates", "inc_popsize", "warn_independent_sampling"}
    kept |= {"consider_prior", "prior_weight", "consider_magic_clip", "consider_endpoints"}
    for key, value in own.items():
        if key not in kept:
            default = parameters[key].default
            assert value == (None if default is inspect.Parameter.empty else default), key
    # Not those that take code or Optuna deprecates; motpe is TPE with the published plugin's few keys.
    left_out = {"self", "args", "kwargs", "gamma", "weights", "search_space"}
    if node_class != "motpe":
        assert set(parameters) - left_out <= set(own)


PUBLISHED = {
    "tpe": "seed consider_prior prior_weight consider_magic_clip consider_endpoints n_startup_trials n_ei_candidates "
    "multivariate warn_independent_sampling",
    "random": "seed",
    "cmaes": "seed x0 sigma0 independent_sampler warn_independent_sampling consider_pruned_trials restart_strategy "
    "inc_popsize use_separable_cma source_trials",
    "nsgaii": "seed population_size mutation_prob crossover_prob swapping_prob constraints_func",
    "motpe": "seed consider_prior prior_weight consider_magic_clip consider_endpoints n_startup_trials "
    "n_ehvi_candidates",
    "grid": "_partial_",
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_keys_compose(name):
    composed = OmegaConf.structured(SAMPLERS[name])
    assert set(PUBLISHED[name].split()) <= set(composed)


def test_motpe_is_tpe_with_the_candidates_that_were_asked_for():
    sampler = build_sampler(node(SAMPLERS["motpe"], n_ehvi_candidates=7, seed=1), NUMBERS, TWO)
    assert type(sampler) is optuna.samplers.TPESampler and sampler._n_ei_candidates == 7
    named = {"_target_": "optuna.samplers.MOTPESampler", "n_ehvi_candidates": 8}
    assert build_sampler(named, NUMBERS, TWO)._n_ei_candidates == 8


def test_deprecated_arguments_are_obeyed_where_optuna_obeys_them(caplog):
    asked = {"prior_weight": 2.0, "consider_endpoints": True, "consider_prior": False}
    sampler = build_sampler(node(SAMPLERS["tpe"], **asked), NUMBERS, ONE)
    parameters = sampler._parzen_estimator_parameters
    assert (parameters.prior_weight, parameters.consider_endpoints, parameters.consider_magic_clip) == (2.0, True, True)
    messages = [record.message for record in caplog.records]
    assert [sum(key in message for message in messages) for key in (*asked, "magic_clip")] == [1, 1, 1, 0]
    assert "hydra.sweeper.sampler.consider_prior=False has no effect" in caplog.text


def test_cmaes_keeps_its_published_config(caplog):
    pytest.importorskip("cmaes")
    sampler = build_sampler(
        node(
            SAMPLERS["cmaes"],
            x0={"x": 1.0, "y": 0.5},
            sigma0=0.2,
            restart_strategy="ipop",
            use_separable_cma=True,
            independent_sampler={"_target_": "optuna.samplers.MOTPESampler", "seed": 3, "consider_prior": True},
        ),
        NUMBERS,
        ONE,
    )
    assert sampler._x0 == {"x": 1.0, "y": 0.5} and type(sampler._x0) is dict and sampler._use_separable_cma
    assert type(sampler._independent_sampler) is optuna.samplers.TPESampler
    assert "restart_strategy=ipop has no effect" in caplog.text and "`x0` has been deprecated" in caplog.text


def test_functions_of_a_user_are_passed_on(tmp_path, monkeypatch):
    (tmp_path / "limits.py").write_text("def limit(trial):\n    return (0.5,)\n")
    monkeypatch.syspath_prepend(tmp_path)
    for given in (
        {"_target_": "limits.limit", "_partial_": True},
        {"_target_": "hydra.utils.get_method", "path": "limits.limit"},
    ):
        sampler = build_sampler(node(SAMPLERS["nsgaii"], constraints_func=given), NUMBERS, TWO)
        assert sampler._constraints_func(None) == (0.5,)


def test_objects_are_taken_as_they_are():
    sampler, pruner = optuna.samplers.RandomSampler(1), optuna.pruners.MedianPruner()
    assert build_sampler(sampler, NUMBERS, ONE) is sampler
    assert build_pruner(pruner, ONE) is pruner
    assert type(build_pruner(None, TWO)) is optuna.pruners.NopPruner


@pytest.mark.parametrize(
    "given", [functools.partial(optuna.samplers.GridSampler), OmegaConf.structured(SAMPLERS["grid"])]
)
def test_grid_visits_every_point_once(given):
    overrides = run(build_sampler(given, POINTS, ONE), POINTS, trials=100)
    assert len(overrides) == len(set(overrides)) == 4 * 3 * 2
    assert ("x=0.75", "y=-5", "z=[a,b]") in overrides


def test_brute_force_visits_every_point_that_a_condition_leaves():
    space = space_of("a=1,2", "b=1,2,3", when={"b": "a=2"})
    overrides = run(build_sampler(node(SAMPLERS["brute_force"]), space, ONE), space, trials=20)
    assert sorted(overrides) == [("a=1",), ("a=2", "b=1"), ("a=2", "b=2"), ("a=2", "b=3")]


@pytest.mark.parametrize(
    ("name", "values", "space", "directions", "message"),
    [
        ("grid", {}, NUMBERS, ONE, "got x from -5.5 to 5.5 without a step"),
        ("brute_force", {}, NUMBERS, ONE, "got y from 0.0 to 1.0 without a step"),
        ("grid", {}, space_of("a=1,2", "b=1,2", when={"b": "a=1"}), ONE, "sampler=brute_force"),
        ("cmaes", {}, NUMBERS, TWO, "one objective, but got 2 directions"),
        ("cmaes", {}, CHOICES, ONE, "choices alone: a, b"),
        ("nsgaii", {"population_size": 1}, NUMBERS, ONE, "population_size=1.*greater than or equal to 2"),
        ("qmc", {"qmc_type": "best"}, NUMBERS, ONE, "halton"),
        ("tpe", {"group": True, "multivariate": False}, NUMBERS, ONE, "only be enabled when"),
    ],
)
def test_sampler_that_cannot_search_is_refused_with_its_reason(name, values, space, directions, message):
    with pytest.raises(ConfigError, match=message):
        build_sampler(node(SAMPLERS[name], **values), space, directions)


def test_arguments_and_targets_that_do_not_exist_are_named():
    tpe = {"_target_": "optuna.samplers.TPESampler"}
    with pytest.raises(ConfigError, match=r"sampler\.n_startup_trial` is no argument.*did you mean n_startup_trials\?"):
        build_sampler(tpe | {"n_startup_trial": 1}, NUMBERS, ONE)
    with pytest.raises(ConfigError, match=r"sampler\.independent_sampler\.sed` is no argument of TPESampler"):
        nested = {"_target_": "optuna.samplers.CmaEsSampler", "independent_sampler": tpe | {"sed": 1}}
        build_sampler(nested, NUMBERS, ONE)
    with pytest.raises(ConfigError, match="got optuna.samplers.BestSampler: AttributeError"):
        build_sampler({"_target_": "optuna.samplers.BestSampler"}, NUMBERS, ONE)
    with pytest.raises(ConfigError, match="must be a config with a _target_"):
        build_sampler("tpe", NUMBERS, ONE)
    with pytest.raises(ConfigError, match="must be one of Optuna's"):
        build_sampler({"_target_": "optuna.pruners.MedianPruner"}, NUMBERS, ONE)
    with pytest.raises(ConfigError, match="search_space` must be left out"):
        build_sampler({"_target_": "optuna.samplers.GridSampler", "search_space": {"x": [1]}}, POINTS, ONE)


@pytest.mark.parametrize(("name", "package"), [("cmaes", "cmaes"), ("gp", "scipy"), ("qmc", "scipy")])
def test_package_that_a_sampler_lacks_is_named(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"needs {package}; try pip install {package}"):
        build_sampler(node(SAMPLERS[name]), NUMBERS, ONE)


@pytest.mark.parametrize("name", sorted(PRUNERS))
def test_every_option_makes_a_pruner_without_a_warning(name, caplog):
    if name == "wilcoxon":
        pytest.importorskip("scipy")
    needed = {"percentile": {"percentile": 25.0}, "patient": {"patience": 2}, "threshold": {"upper": 9.0}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner = build_pruner(node(PRUNERS[name], **needed.get(name, {})), ONE)
    assert type(pruner).__name__.lower().startswith(name.replace("_", "").replace("none", "nop"))
    assert not caplog.records


def test_patient_pruner_wraps_another():
    inner = {"_target_": "optuna.pruners.PercentilePruner", "percentile": 25.0}
    pruner = build_pruner(node(PRUNERS["patient"], patience=3, wrapped_pruner=inner), ONE)
    assert type(pruner._wrapped_pruner) is optuna.pruners.PercentilePruner


@pytest.mark.parametrize(
    ("name", "values", "directions", "message"),
    [
        ("median", {}, TWO, "several objectives.*MedianPruner and 2 directions"),
        ("percentile", {}, ONE, r"`hydra\.sweeper\.pruner\.percentile` must be given"),
        ("percentile", {"percentile": 101.0}, ONE, "between 0 and 100 inclusive"),
        ("threshold", {}, ONE, "Either lower or upper must be specified"),
        ("hyperband", {"reduction_factor": 1}, ONE, "reduction_factor >= 2"),
        ("hyperband", {"max_resource": "much"}, ONE, "integer or 'auto'"),
        ("successive_halving", {"min_resource": 0}, ONE, "min_resource >= 1"),
        ("patient", {"patience": -1}, ONE, "patience cannot be negative"),
        (
            "patient",
            {"patience": 1, "wrapped_pruner": {"_target_": "optuna.pruners.HyperbandPruner", "reduction_factor": 0}},
            ONE,
            "reduction_factor >= 2",
        ),
    ],
)
def test_pruner_that_cannot_be_is_refused_with_optunas_reason(name, values, directions, message):
    with pytest.raises(ConfigError, match=message):
        build_pruner(node(PRUNERS[name], **values), directions)


def test_options_load_without_optuna():
    code = "import sys, medbot_exp.sweep.options; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
