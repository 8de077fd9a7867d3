"""What a study came to, as data and as files: trials.csv, and the best trial as an experiment to compose.

Nothing here knows this package's own config: it serves the study of any Hydra application.
"""

import csv
import io
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbot_exp.errors import ConfigError
from medbot_exp.sweep.study import RETRY_OF, tried_again
from medbot_exp.whole_files import write_text

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
# A trial that came to no end and was tried again under another number.
RETRIED = "retried"
FEWEST_FOR_IMPORTANCES = 4
# PED-ANOVA asks what sets the best trials apart from all; its authors want five of the best to ask that of.
BEST_FOR_IMPORTANCES = 5
BEST_SHARE = 0.1


@dataclass(frozen=True)
class Notes:
    """What a sweeper knows of a trial beside what Optuna does.

    Attributes:
        reason: why it failed.
        directory: where its files are, relative to the study's directory where they are below it.
    """

    reason: str | None = None
    directory: str | None = None


@dataclass(frozen=True)
class TrialRow:
    """A trial.

    Attributes:
        state: complete, pruned, failed, running, waiting, or retried: its place was taken by another try.
        values: one per objective; Optuna gives a pruned trial its last reported value.
        intermediate: reported value by step.
        retry_of: number of the trial that it repeats.
        feasible: whether it keeps every constraint; true where it has none.
    """

    number: int
    state: str
    params: dict[str, Any]
    values: list[float] | None
    intermediate: dict[int, float]
    seconds: float | None
    reason: str | None
    retry_of: int | None
    feasible: bool
    directory: str | None


@dataclass(frozen=True)
class Space:
    """Where a parameter was looked for: a range from `low` to `high`, or `choices`."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class StudySummary:
    """All that table, page and W&B show of a study.

    Attributes:
        directions: `minimize` or `maximize`, one per objective.
        trials: by number.
        best: the best complete and feasible trial, or the Pareto front of several objectives; empty where none is.
        spaces: by parameter, in the order in which they first appear.
        importances: share of each parameter in what sets the best trials apart; None where too little is known.
    """

    name: str
    directions: list[str]
    metric_names: list[str]
    trials: list[TrialRow]
    best: list[TrialRow]
    spaces: dict[str, Space]
    importances: dict[str, float] | None


def counts(states: Iterable[str]) -> dict[str, int]:
    """How many of `states` there are of each, in the order of STATES, with RETRIED last."""
    counter = Counter(states)
    return {state: counter[state] for state in (*STATES.values(), RETRIED) if counter[state]}


def states_of(trials: "list[FrozenTrial]") -> dict[int, str]:
    """The state of each of a study's `trials` by its number, in a word of STATES or RETRIED."""
    again = tried_again(trials)
    return {trial.number: RETRIED if trial.number in again else STATES[trial.state.name] for trial in trials}


def no_notes(trial: "FrozenTrial") -> Notes:
    """Nothing beside what Optuna knows."""
    return Notes()


def summarize(
    study: "Study", metric_names: list[str] | None = None, describe: Callable[["FrozenTrial"], Notes] = no_notes
) -> StudySummary:
    """What `study` came to so far.

    Args:
        metric_names: one per objective; None takes the study's own, or `value`, or `value 0`, `value 1` and so on.
        describe: the sweeper's notes on a trial.
    """
    frozen = sorted(study.get_trials(deepcopy=False), key=lambda trial: trial.number)
    directions = [direction.name.lower() for direction in study.directions]
    several = len(directions) > 1
    fallback = [f"value {index}" for index in range(len(directions))] if several else ["value"]
    rows = rows_of(frozen, describe)
    return StudySummary(
        name=study.study_name,
        directions=directions,
        metric_names=metric_names or study.metric_names or fallback,
        trials=rows,
        best=best_of(rows, directions),
        spaces=spaces_of(frozen),
        importances=importances_of(study, rows),
    )


def rows_of(trials: "list[FrozenTrial]", describe: Callable[["FrozenTrial"], Notes] = no_notes) -> list[TrialRow]:
    """All `trials` of a study with what the sweeper noted."""
    states = states_of(trials)
    return [row_of(trial, states[trial.number], describe(trial)) for trial in trials]


def row_of(trial: "FrozenTrial", state: str, notes: Notes) -> TrialRow:
    """`trial`, which is in `state`, with what the sweeper noted."""
    return TrialRow(
        number=trial.number,
        state=state,
        params=dict(trial.params),
        values=None if trial.values is None else list(trial.values),
        intermediate=dict(sorted(trial.intermediate_values.items())),
        seconds=None if trial.duration is None else trial.duration.total_seconds(),
        reason=notes.reason,
        retry_of=trial.user_attrs.get(RETRY_OF),
        feasible=all(value <= 0 for value in trial.constraints.values()),
        directory=notes.directory,
    )


def best_of(rows: list[TrialRow], directions: list[str]) -> list[TrialRow]:
    """The complete and feasible trials that no other one is better than, by number; of one objective the first."""
    signs = [1 if direction == "minimize" else -1 for direction in directions]
    losses = {
        row.number: [sign * value for sign, value in zip(signs, row.values, strict=True)]
        for row in rows
        if row.state == "complete" and row.feasible and row.values and not any(map(math.isnan, row.values))
    }
    if len(directions) == 1:
        first = min(losses, key=lambda number: (losses[number], number), default=None)
        return [row for row in rows if row.number == first]
    return [
        row
        for row in rows
        if row.number in losses and not any(dominates(other, losses[row.number]) for other in losses.values())
    ]


def dominates(left: list[float], right: list[float]) -> bool:
    """Whether the losses `left` are nowhere above and somewhere below those of `right`."""
    return left != right and all(a <= b for a, b in zip(left, right, strict=True))


def spaces_of(trials: "list[FrozenTrial]") -> dict[str, Space]:
    """The space of each parameter, over all trials: a resumed study may have widened it."""
    found: dict[str, list[Any]] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            found.setdefault(name, []).append((distribution, trial.params[name]))
    return {name: space_of([seen[0] for seen in pairs], [seen[1] for seen in pairs]) for name, pairs in found.items()}


def space_of(distributions: list[Any], values: list[Any]) -> Space:
    """What `distributions` span together; choices where one of them is no range."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if any(isinstance(distribution, CategoricalDistribution) for distribution in distributions):
        offered = [getattr(distribution, "choices", ()) for distribution in distributions]
        # By type as well, as Optuna does: 1 and true are two choices.
        distinct = {(type(choice), choice): choice for choices in [*offered, values] for choice in choices}
        return Space(choices=list(distinct.values()))
    return Space(
        # A trial that the user enqueued may lie outside.
        low=min(*(distribution.low for distribution in distributions), *values),
        high=max(*(distribution.high for distribution in distributions), *values),
        log=all(distribution.log for distribution in distributions),
        whole=all(isinstance(distribution, IntDistribution) for distribution in distributions),
    )


def importances_of(study: "Study", rows: list[TrialRow]) -> dict[str, float] | None:
    """Each parameter's share, most important first, summing to 1; None where it cannot be said.

    PED-ANOVA (https://arxiv.org/abs/2304.10255), as `optuna.importance` computes it: it takes numpy alone, where
    fANOVA takes scikit-learn, and it knows parameters that only some trials have.
    """
    complete = [row for row in rows if row.state == "complete" and row.values and all(map(math.isfinite, row.values))]
    varied = {
        name
        for name in {name for row in complete for name in row.params}
        if len({repr(row.params.get(name)) for row in complete}) > 1
    }
    different = len({tuple(row.values or ()) for row in complete}) > 1
    if len(complete) < FEWEST_FOR_IMPORTANCES or len(varied) < 2 or not different:
        return None
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    share = max(BEST_SHARE, min(0.5, BEST_FOR_IMPORTANCES / len(complete)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental, and that few trials say little
        shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=share))
    # Equal shares are Optuna's way to say that nothing set the best apart.
    return dict(shares) if len(set(shares.values())) > 1 else None


def write_trials_csv(path: Path, summary: StudySummary) -> None:
    """Replace `path` by a table of the trials (RFC 4180), whole or not at all.

    Columns: number, state, one per metric, params.<name>, seconds, `feasible` where one is not, retry_of, reason.
    """
    constrained = not all(row.feasible for row in summary.trials)
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    params = [f"params.{name}" for name in summary.spaces]
    feasible = ["feasible"] if constrained else []
    writer.writerow(["number", "state", *summary.metric_names, *params, "seconds", *feasible, "retry_of", "reason"])
    for row in summary.trials:
        values = [""] * len(summary.metric_names) if row.values is None else list(map(repr, row.values))
        settings = [plain(row.params[name]) if name in row.params else "" for name in summary.spaces]
        seconds = "" if row.seconds is None else f"{row.seconds:.3f}"
        kept = [plain(row.feasible)] if constrained else []
        retry_of = "" if row.retry_of is None else row.retry_of
        writer.writerow([row.number, row.state, *values, *settings, seconds, *kept, retry_of, row.reason or ""])
    write_text(path, file.getvalue())


def plain(value: Any) -> str:
    """`value` as one types it in Hydra: null, true, 0.001."""
    named = {None: "null", True: "true", False: "false"}
    return named[value] if value is None or isinstance(value, bool) else str(value)


def write_experiment(path: Path, overrides: list[str], choices: set[str], header: Iterable[str]) -> None:
    """Replace `path` by a config that does what `overrides` do, whole or not at all.

    It is for a group of experiments: `+experiment=best` composes `<config directory>/experiment/best.yaml`.

    Args:
        path: its folder has the group's name, so that an added option of the same group becomes a sibling.
        overrides: as on the command line, a value each.
        choices: the application's config groups; an override of another key sets a value.
        header: comment lines; what the file is, and its command.

    Raises:
        ConfigError: an override that a config file cannot express.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    # Hydra looks for the package in the first line alone.
    text = "# @package _global_\n" + "".join(f"# {line}\n" for entry in header for line in entry.splitlines() or [""])
    defaults: list[Any] = []
    values = OmegaConf.create()
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_sweep_override():
            raise ConfigError(f"a config file holds one value a key, but got {override.input_line}; choose one")
        key, value = override.key_or_group, override.value()
        if key in choices and not isinstance(value, dict):
            defaults.append(default_entry(override, path.parent.name))
        elif override.is_delete():
            raise ConfigError(f"a config file cannot remove a value, but got {override.input_line}; repeat the command")
        elif any(part.isdecimal() for part in key.split(".")):
            raise ConfigError(
                f"a config file cannot set one item of a list, but got {override.input_line}; repeat the command"
            )
        else:
            OmegaConf.update(values, key, value, merge=True, force_add=True)
    if defaults:
        text += OmegaConf.to_yaml(OmegaConf.create({"defaults": [*defaults, "_self_"]})) + "\n"
    write_text(path, text + (OmegaConf.to_yaml(values) if values else ""))


def default_entry(override: Any, group: str) -> Any:
    """The entry of a defaults list that does what `override` of a config group does, in a file of `group`."""
    key = override.key_or_group
    value = None if override.is_delete() else override.value()
    if override.is_add() and key == group:
        return value  # a group is chosen once: the other option of it is taken in as a sibling
    target = f"/{key}@{override.package}" if override.package else f"/{key}"
    return {target if override.is_add() else f"override {target}": value}
