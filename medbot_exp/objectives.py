"""What the results of a run are called, and which of them a run can be chosen by."""

import re
from functools import cache

from omegaconf import OmegaConf

from medbot_exp.config import BenchmarkConfig, Method, RunConfig, conf_directory

DEVELOPMENT = "_development"  # what the name of a benchmark ends in where its development part is meant
# Those of a run's metrics that are known while its model trains.
REPORTED = ("validation/loss", "validation/perplexity")


def objectives_of(config: RunConfig) -> list[str]:
    """The metrics that a run of `config` can be chosen by: of a benchmark its development part, never the test."""
    scored = []
    for name, benchmark in config.benchmark.items():
        written = ["completion_tokens"] if benchmark.method is Method.generate else []
        scored += [f"eval/{development_name(name, benchmark)}/{metric}" for metric in ("accuracy", *written)]
    return [*REPORTED, *scored, "trainable_parameters", "peak_memory_gib"]


def measured_of(config: RunConfig) -> list[str]:
    """Those of `objectives_of` that a run of `config` does measure: development parts for their own objectives."""
    prefixes = [f"eval/{development_name(n, b)}/" for n, b in config.benchmark.items() if not is_developed(config, n)]
    return [metric for metric in objectives_of(config) if not metric.startswith(tuple(prefixes))]


def metric_name(name: str, benchmark: BenchmarkConfig) -> str:
    """What results on the benchmark `name` are called: another name where another part is asked for.

    A part is `hub_config` or `split`, where it is not the one in conf/benchmark/<name>.yaml: medqa_train,
    mmlu_medical_anatomy. Of a local file nothing is known but these.
    """
    given = [benchmark.hub_config, benchmark.split]
    others = [part for part, own in zip(given, own_parts(name), strict=True) if part is not None and part != own]
    return "_".join([name, *(re.sub(r"[^A-Za-z0-9.-]+", "_", part) for part in others)])


@cache
def own_parts(name: str) -> tuple[str | None, str | None]:
    """`hub_config` and `split` of the benchmark `name` as conf/ has them; none where it has no such benchmark."""
    path = conf_directory() / "benchmark" / f"{name}.yaml"
    if not path.is_file():
        return None, None
    own = OmegaConf.load(path)
    return own.hub_config, own.split


def development_name(name: str, benchmark: BenchmarkConfig) -> str:
    """What results on the development part of the benchmark `name` are called."""
    return f"{metric_name(name, benchmark)}{DEVELOPMENT}"


def is_developed(config: RunConfig, name: str) -> bool:
    """Whether runs of `config` are chosen by the development part of the benchmark `name`."""
    prefix = f"eval/{development_name(name, config.benchmark[name])}/"
    return any(metric.startswith(prefix) for metric in config.objective.goals())
