"""The entrypoint: compose, check, run one task, say how it ended.

`main` is Hydra's (launchers import it by name), `entrypoint` wraps it with the exit status. Nothing heavy
is imported here: --help and every config error answer before torch loads.
"""

import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from types import FrameType
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from medbot_exp import rundir
from medbot_exp.config import RunConfig, TaskName, conf_directory
from medbot_exp.errors import ConfigError, Interrupted, TrialPruned, resource_error
from medbot_exp.explain import explain, misspelt_override
from medbot_exp.processes import Processes, forget_place, launched, linger
from medbot_exp.rules import typed

HELP_FLAGS = {"-h", "--help"}
# With these flags, key=value is something else than a value of our config.
OTHER_KEYS = ("--config-n", "-cn", "--config-p", "-cp", "--shell", "-sc")
HELP = """\
medbot_exp: LoRA fine-tuning experiments for medical reasoning language models

  python -m medbot_exp lora.r=16                                one run on the embedded default
  python -m medbot_exp -m lora.r=8,16,32 prompt=medbot,direct   a grid
  python -m medbot_exp -m +sweep=lora_quick                     an Optuna search: pruned, the same command again goes on
  python -m medbot_exp task=plan lora.r=16                      what that would cost: memory, steps, time
  python -m medbot_exp task=evaluate task.run=<run directory> benchmark=[medqa]   a run's model against its base
  python -m medbot_exp trainer.resume=<run directory>           go on with an interrupted run, its overrides repeated
  python -m medbot_exp +experiment=medbot backend=peft          the MedBot recipe (a CUDA GPU, bitsandbytes)

Groups: choose with group=option, several benchmarks with benchmark=[a,b]; +experiment= and +sweep= are added

{options}

The composed config: change any value with key=value

{config}

Hydra's own flags: --hydra-help. Tab completion: eval "$(medbot-exp --shell-completion install=bash)"
"""

ConfigStore.instance().store(name="schema", node=RunConfig, provider="medbot_exp")
# Cached: a directory's name holds the time, and Hydra asks for it more than once.
OmegaConf.register_new_resolver("medbot_exp.run_directory", rundir.run_directory, use_cache=True)
OmegaConf.register_new_resolver("medbot_exp.study_directory", rundir.study_directory, use_cache=True)
OmegaConf.register_new_resolver("medbot_exp.trial", rundir.trial_name)


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="config")
def main(cfg: DictConfig) -> float | list[float]:
    """One run of the composed task; the objective's value, for sweepers."""
    settings = HydraConfig.get()
    study = str(cfg.study) if settings.mode is RunMode.MULTIRUN else None
    directory = rundir.RunDirectory(settings.runtime.output_dir)
    try:
        return perform(cfg, settings, directory, study)
    except KeyboardInterrupt:
        directory.discard_empty()
        raise
    except TrialPruned:
        raise
    except Exception as error:
        directory.discard_empty()
        # A single run reports here: Hydra would print the overrides once more. A sweeper wants the exception.
        if study is not None:
            known = explain(error) or resource_error(error) or error
            print_block(f"{directory}: {type(known).__name__}", str(known))
            raise
        report(error)
        raise


def perform(
    cfg: DictConfig, settings: HydraConf, directory: rundir.RunDirectory, study: str | None
) -> float | list[float]:
    """Check `cfg` and run its task in `directory`."""
    config = typed(cfg)
    hydra_files = rundir.HydraFiles(
        config=OmegaConf.to_yaml(cfg),
        hydra=OmegaConf.to_yaml(OmegaConf.create({"hydra": settings})),
        overrides=OmegaConf.to_yaml(settings.overrides.task),
        resolved=OmegaConf.to_yaml(cfg, resolve=True),
    )
    if config.task.name is TaskName.plan:
        refuse_several(launched(), "a plan must be made by one process, whose GPU it is about")
        from medbot_exp.tasks import plan

        try:
            plan.run(config, hydra_files)
        except KeyboardInterrupt as stop:
            raise Interrupted("a plan writes nothing, so nothing is left of it") from stop
        directory.discard_empty()
        return 0.0
    if config.task.name is TaskName.evaluate:
        refuse_several(launched(), "an evaluation must be made by one process")
        from medbot_exp.tasks import evaluate

        return evaluate.run(config, directory, hydra_files)
    from medbot_exp.sweep.job import current_trial
    from medbot_exp.tasks import train

    trial = current_trial()
    return train.run(config, directory, hydra_files, study if trial is None else trial.study_name, trial)


def entrypoint() -> None:
    """Run `main` and leave with 0 (done), 2 (the user can mend it), 130 (stopped) or 1 (our fault)."""
    if sys.platform.startswith("linux"):
        # torch's memory on a GPU grows in place: about a tenth less lies idle between rows of many lengths.
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    # Makes Hydra raise instead of printing its own report and leaving with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # While a model trains, training/observer.py takes both signals; else either ends the run as Ctrl-C does.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, interrupt)
    processes = launched()
    if processes.count == 1:
        forget_place(os.environ)
    if not processes.first:
        processes.silence()
    if "--version" in sys.argv[1:]:
        print(f"medbot-exp {version('medbot-exp')}")
        return
    try:
        flags, overrides = split_flags(sys.argv[1:])
        misspelt = misspelt_override(overrides, RunConfig)
        if misspelt is not None and not any(flag.startswith(OTHER_KEYS) for flag in flags):
            raise misspelt
        if flags and HELP_FLAGS.issuperset(flags):
            show(help_text(overrides))
        else:
            for first, last in doubled(overrides):
                print(f"medbot_exp: {first} is not taken, as {last} comes behind it", file=sys.stderr)
            single = next((word for word in ("task=plan", "task=evaluate") if word in overrides), None)
            if single and {"-m", "--multirun"} & set(flags):
                raise ConfigError(
                    f"{single} is about one run, but got -m; leave -m out, and give one value of each key"
                )
            if is_chosen(overrides, "sweep") and not {"-m", "--multirun"} & set(flags):
                search = "leave out task=plan and add -m" if "task=plan" in overrides else "add -m"
                print(
                    f"medbot_exp: one run, with what +sweep= sets for its trials; to search, {search}", file=sys.stderr
                )
            own = [*sweeper_of(flags, overrides), *place_of(processes, flags)]
            sys.argv[1:] = [*flags, *overrides, *own]  # Hydra's parser wants this order
            main()
    except KeyboardInterrupt as stop:
        if not processes.first:
            sys.exit(130)
        leave(130, "stopped", str(stop) or "there was nothing to resume yet")
    except Exception as error:
        report(error)
        raise


def show(text: str) -> None:
    """Print `text`; a reader that has seen enough (head, less) ends it without a word."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What Python flushes as it ends would fail once more (docs.python.org/3/library/signal.html).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, and again a moment later where Python would discard it: inside a `__del__`."""
    walked = frame
    while walked is not None:
        if walked.f_code.co_name == "__del__":
            signal.setitimer(signal.ITIMER_REAL, 0.05)  # SIGALRM comes here as well
            return
        walked = walked.f_back
    raise KeyboardInterrupt


def split_flags(words: list[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags with their values, and the overrides: what `words` holds, in any order.

    Raises:
        ConfigError: a flag that Hydra does not have, or one without its value.
    """
    parser = get_args_parser()

    def fail(message: str) -> NoReturn:
        raise ConfigError(f"the command line must be flags and key=value, but {message}; see --help and --hydra-help")

    parser.error = fail  # type: ignore[method-assign]
    known, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        fail(f"there is no flag {unknown[0]}")
    left = Counter(known.overrides)
    flags = []
    for word in words:
        if left[word]:
            left[word] -= 1
        else:
            flags.append(word)
    return flags, known.overrides


def sweeper_of(flags: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The override that puts our grid in the place of Hydra's, where nothing else is chosen.

    In conf/config.yaml it would prevail over the sweeper that a +sweep= chooses.
    """
    chosen = is_chosen(overrides, "hydra/sweeper") or is_chosen(overrides, "sweep")
    return ["hydra/sweeper=grid"] if {"-m", "--multirun"} & set(flags) and not chosen else []


def place_of(processes: Processes, flags: Sequence[str]) -> list[str]:
    """The override that keeps Hydra from making a directory for a process whose run is in that of the first.

    Raises:
        ConfigError: a sweep is asked for.
    """
    if {"-m", "--multirun"} & set(flags):
        refuse_several(processes, "a sweep must be started by one process, as each trial is one with a GPU of its own")
    return [] if processes.first else ["hydra.run.dir=."]


def refuse_several(processes: Processes, rule: str) -> None:
    """Raise a ConfigError that begins with `rule` where a launcher started several processes."""
    if processes.count > 1:
        raise ConfigError(f"{rule}, but got {processes.count}; leave out torchrun: python -m medbot_exp …")


def doubled(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Each override whose key is given again with another value, and the last one of that key, which prevails."""
    last = {word.partition("=")[0]: word for word in overrides}
    return [(word, kept) for word in overrides if (kept := last[word.partition("=")[0]]) != word]


def is_chosen(overrides: Sequence[str], group: str) -> bool:
    """Whether `overrides` choose an option of `group`."""
    return any(word.lstrip("+").startswith(f"{group}=") for word in overrides)


def help_text(overrides: list[str]) -> str:
    """Usage, the groups with their options, and the config that `overrides` compose.

    Hydra's own --help loads and copies every file of every group, its own included, and takes twice as long.
    """
    groups = [path for path in sorted(conf_directory().iterdir()) if path.is_dir() and path.name != "hydra"]
    options = [f"  {path.name:<11} {', '.join(sorted(file.stem for file in path.glob('*.yaml')))}" for path in groups]
    with hydra.initialize_config_dir(str(conf_directory()), version_base="1.3"):
        composed = OmegaConf.to_yaml(hydra.compose("config", overrides))
    return HELP.format(options="\n".join(options), config=composed.rstrip())


def report(error: Exception) -> None:
    """Leave with the status and the block that `error` deserves; return where it is a fault of ours.

    Of several processes one tells of it, and the others leave.
    """
    if not launched().tells_of(error):
        linger()
        sys.exit(2)
    known = explain(error) or resource_error(error)
    if known is not None:
        leave(2, type(known).__name__, str(known))


def leave(status: int, title: str, text: str) -> None:
    """Print one short block on stderr and exit with `status`."""
    print_block(title, text)
    sys.exit(status)


def print_block(title: str, text: str) -> None:
    """Print `text` under `title` on stderr."""
    body = "\n".join(f"  {line}" for line in text.splitlines())
    print(f"medbot_exp: {title}\n{body}", file=sys.stderr)
