"""What hydra/sweeper/sampler=<name> and hydra/sweeper/pruner=<name> offer: the arguments of Optuna's classes.

Keys and defaults are those of Optuna 5.0. Keys that hydra-optuna-sweeper 1.3 had and Optuna no longer wants are kept,
so that its users' overrides compose; samplers.py says what becomes of them. Optuna itself is not imported here.
"""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING


@dataclass
class SamplerConf:
    _target_: str = MISSING


@dataclass
class TpeConf(SamplerConf):
    """sampler=tpe: trials where good ones were dense (Bergstra et al. 2011; Optuna's own default)."""

    _target_: str = "optuna.samplers.TPESampler"
    seed: int | None = None
    n_startup_trials: int = 10
    n_ei_candidates: int = 24
    multivariate: bool | None = None
    group: bool = False
    constant_liar: bool = True
    constraints_func: Any = None
    consider_prior: bool = True
    prior_weight: float = 1.0
    consider_magic_clip: bool = True
    consider_endpoints: bool = False
    warn_independent_sampling: bool = True


@dataclass
class RandomConf(SamplerConf):
    """sampler=random: every trial independent of the others."""

    _target_: str = "optuna.samplers.RandomSampler"
    seed: int | None = None


@dataclass
class CmaEsConf(SamplerConf):
    """sampler=cmaes: CMA-ES over the numbers of one objective (Hansen and Ostermeier 2001)."""

    _target_: str = "optuna.samplers.CmaEsSampler"
    seed: int | None = None
    x0: dict[str, Any] | None = None
    sigma0: float | None = None
    n_startup_trials: int = 1
    independent_sampler: Any = None
    warn_independent_sampling: bool = True
    consider_pruned_trials: bool = False
    popsize: int | None = None
    use_separable_cma: bool = False
    with_margin: bool = False
    lr_adapt: bool = False
    source_trials: Any = None
    restart_strategy: Any = None
    inc_popsize: int = 2


@dataclass
class NsgaIIConf(SamplerConf):
    """sampler=nsgaii: a genetic algorithm, for several objectives (Deb et al. 2002)."""

    _target_: str = "optuna.samplers.NSGAIISampler"
    seed: int | None = None
    population_size: int = 50
    mutation: Any = None
    mutation_prob: float | None = None
    crossover: Any = None
    crossover_prob: float = 0.9
    swapping_prob: float = 0.5
    constraints_func: Any = None
    elite_population_selection_strategy: Any = None
    child_generation_strategy: Any = None
    after_trial_strategy: Any = None


@dataclass
class NsgaIIIConf(NsgaIIConf):
    """sampler=nsgaiii: NSGA-II with reference points, for four objectives and more (Deb and Jain 2014)."""

    _target_: str = "optuna.samplers.NSGAIIISampler"
    reference_points: Any = None
    dividing_parameter: int = 3


@dataclass
class MotpeConf(SamplerConf):
    """sampler=motpe: TPE for several objectives, which Optuna's TPESampler has become."""

    _target_: str = "optuna.samplers.MOTPESampler"
    seed: int | None = None
    n_startup_trials: int = 10
    n_ehvi_candidates: int = 24
    consider_prior: bool = True
    prior_weight: float = 1.0
    consider_magic_clip: bool = True
    consider_endpoints: bool = False


@dataclass
class GridConf(SamplerConf):
    """sampler=grid: every combination once, in a shuffled order."""

    _target_: str = "optuna.samplers.GridSampler"
    _partial_: bool = True
    seed: int | None = None


@dataclass
class GpConf(SamplerConf):
    """sampler=gp: a Gaussian process; for few trials that are dear."""

    _target_: str = "optuna.samplers.GPSampler"
    seed: int | None = None
    n_startup_trials: int = 10
    deterministic_objective: bool = False
    independent_sampler: Any = None
    constraints_func: Any = None
    warn_independent_sampling: bool = True


@dataclass
class QmcConf(SamplerConf):
    """sampler=qmc: points spread evenly over the numbers."""

    _target_: str = "optuna.samplers.QMCSampler"
    seed: int | None = None
    qmc_type: str = "sobol"
    scramble: bool = False
    independent_sampler: Any = None
    warn_asynchronous_seeding: bool = True
    warn_independent_sampling: bool = True


@dataclass
class BruteForceConf(SamplerConf):
    """sampler=brute_force: every combination once; unlike grid, also where a `when` makes some of them void."""

    _target_: str = "optuna.samplers.BruteForceSampler"
    seed: int | None = None
    avoid_premature_stop: bool = False


@dataclass
class PrunerConf:
    _target_: str = MISSING


@dataclass
class NoneConf(PrunerConf):
    """pruner=none: every trial runs to its end."""

    _target_: str = "optuna.pruners.NopPruner"


@dataclass
class MedianConf(PrunerConf):
    """pruner=median: ends a trial that is worse than the median of the earlier ones at the same step."""

    _target_: str = "optuna.pruners.MedianPruner"
    n_startup_trials: int = 5
    n_warmup_steps: int = 0
    interval_steps: int = 1
    n_min_trials: int = 1


@dataclass
class PercentileConf(PrunerConf):
    """pruner=percentile: as median, keeping the best `percentile` of 100."""

    _target_: str = "optuna.pruners.PercentilePruner"
    percentile: float = MISSING
    n_startup_trials: int = 5
    n_warmup_steps: int = 0
    interval_steps: int = 1
    n_min_trials: int = 1


@dataclass
class SuccessiveHalvingConf(PrunerConf):
    """pruner=successive_halving: at each rung the best 1/reduction_factor go on (Li et al. 2018, arXiv 1810.05934)."""

    _target_: str = "optuna.pruners.SuccessiveHalvingPruner"
    min_resource: Any = "auto"
    reduction_factor: int = 4
    min_early_stopping_rate: int = 0
    bootstrap_count: int = 0


@dataclass
class HyperbandConf(PrunerConf):
    """pruner=hyperband: successive halving with several first rungs side by side (Li et al. 2018, JMLR 18)."""

    _target_: str = "optuna.pruners.HyperbandPruner"
    min_resource: int = 1
    max_resource: Any = "auto"
    reduction_factor: int = 3
    bootstrap_count: int = 0


@dataclass
class PatientConf(PrunerConf):
    """pruner=patient: lets `wrapped_pruner` end a trial only after `patience` steps without a better value."""

    _target_: str = "optuna.pruners.PatientPruner"
    wrapped_pruner: Any = None
    patience: int = MISSING
    min_delta: float = 0.0


@dataclass
class ThresholdConf(PrunerConf):
    """pruner=threshold: ends a trial whose value leaves `lower` to `upper`."""

    _target_: str = "optuna.pruners.ThresholdPruner"
    lower: float | None = None
    upper: float | None = None
    n_warmup_steps: int = 0
    interval_steps: int = 1


@dataclass
class WilcoxonConf(PrunerConf):
    """pruner=wilcoxon: for values of problem instances, such as folds, instead of steps."""

    _target_: str = "optuna.pruners.WilcoxonPruner"
    p_threshold: float = 0.1
    n_startup_steps: int = 2


SAMPLERS: dict[str, type[SamplerConf]] = {
    "tpe": TpeConf,
    "random": RandomConf,
    "cmaes": CmaEsConf,
    "nsgaii": NsgaIIConf,
    "nsgaiii": NsgaIIIConf,
    "motpe": MotpeConf,
    "grid": GridConf,
    "gp": GpConf,
    "qmc": QmcConf,
    "brute_force": BruteForceConf,
}

PRUNERS: dict[str, type[PrunerConf]] = {
    "none": NoneConf,
    "median": MedianConf,
    "percentile": PercentileConf,
    "successive_halving": SuccessiveHalvingConf,
    "hyperband": HyperbandConf,
    "patient": PatientConf,
    "threshold": ThresholdConf,
    "wilcoxon": WilcoxonConf,
}
