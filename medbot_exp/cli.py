"""The entrypoint: compose, check, run one task, say how it ended.

`main` is Hydra's (launchers import it by name), `entrypoint` wraps it with the exit status. Nothing heavy
is imported here: --help and every config error answer before torch loads.
"""

import os
import sys

import hydra
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from medbot_exp import rundir
from medbot_exp.config import RunConfig, conf_directory, typed
from medbot_exp.errors import Interrupted, MedbotError, storage_error
from medbot_exp.explain import explain

ConfigStore.instance().store(name="schema", node=RunConfig, provider="medbot_exp")
# Cached: a directory's name holds the time, and Hydra asks for it more than once.
OmegaConf.register_new_resolver("medbot_exp.run_directory", rundir.run_directory, use_cache=True)
OmegaConf.register_new_resolver("medbot_exp.study_directory", rundir.study_directory, use_cache=True)
OmegaConf.register_new_resolver("medbot_exp.trial", rundir.trial_name)


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="config")
def main(cfg: DictConfig) -> float | None:
    """One run of the composed task; the objective's value, for sweepers."""
    settings = HydraConfig.get()
    multirun = settings.mode is RunMode.MULTIRUN
    try:
        return perform(cfg, settings, study=str(cfg.study) if multirun else None)
    except Exception as error:
        # A single run reports here: Hydra would print the overrides once more. A sweeper wants the exception.
        if multirun:
            raise
        report(error)
        raise


def perform(cfg: DictConfig, settings: HydraConf, study: str | None) -> float | None:
    """Check `cfg` and run its task in Hydra's output directory."""
    directory = rundir.RunDirectory(settings.runtime.output_dir)
    try:
        config = typed(cfg)
    except MedbotError:
        directory.discard_empty()
        raise
    hydra_files = rundir.HydraFiles(
        config=OmegaConf.to_yaml(cfg),
        hydra=OmegaConf.to_yaml(HydraConfig.instance().cfg),
        overrides=OmegaConf.to_yaml(settings.overrides.task),
        resolved=OmegaConf.to_yaml(cfg, resolve=True),
    )
    from medbot_exp.tasks import train

    return train.run(config, directory, hydra_files, study)


def entrypoint() -> None:
    """Run `main` and leave with 0 (done), 2 (the user can mend it), 130 (stopped) or 1 (our fault)."""
    # Makes Hydra raise instead of printing its own report and leaving with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        main()
    except KeyboardInterrupt:
        leave(130, "stopped", "there was nothing to resume yet")
    except Exception as error:
        report(error)
        raise


def report(error: Exception) -> None:
    """Leave with the status and the block that `error` deserves; return where it is a fault of ours."""
    if isinstance(error, Interrupted):
        leave(130, "stopped", str(error))
    known = explain(error) or storage_error(error)
    if known is not None:
        leave(2, type(known).__name__, str(known))


def leave(status: int, title: str, text: str) -> None:
    """Print one short block on stderr and exit with `status`."""
    body = "\n".join(f"  {line}" for line in text.splitlines())
    print(f"medbot_exp: {title}\n{body}", file=sys.stderr)
    sys.exit(status)
