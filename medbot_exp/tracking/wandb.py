"""The W&B mirror of a run, and whether it goes online.

The mode is decided before `wandb.init`: left to itself, W&B raises without a key and a terminal, and with
a key but no network it blocks for well over a minute.
"""

import netrc
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from medbot_exp.config import TrackingConfig, TrackingMode
from medbot_exp.errors import ConfigError
from medbot_exp.tracking.record import Mirror

DEFAULT_HOST = "https://api.wandb.ai"
REACHABLE_WITHIN_SECONDS = 3.0


@dataclass(frozen=True)
class Mode:
    """online, offline or disabled (W&B takes everything and keeps nothing), and why."""

    name: str
    reason: str


def decide_mode(tracking: TrackingConfig) -> Mode:
    """Online where asked or where a key and the server are there; offline otherwise.

    Raises:
        ConfigError: online was asked for, and there is no key.
    """
    environment = os.environ.get("WANDB_MODE", "").lower()
    if environment in ("online", "offline", "disabled"):
        return Mode(environment, f"WANDB_MODE={environment}")
    address = urlparse(os.environ.get("WANDB_BASE_URL", DEFAULT_HOST))
    host = address.hostname or ""
    if tracking.mode is TrackingMode.online and not has_key(host):
        raise ConfigError(
            f"tracking.mode=online needs a W&B key for {host}, and there is none; wandb login, or tracking.mode=auto"
        )
    if tracking.mode is not TrackingMode.auto:
        return Mode(tracking.mode.name, f"tracking.mode={tracking.mode.name}")
    if not has_key(host):
        return Mode("offline", f"no W&B key for {host}: wandb login, or WANDB_API_KEY")
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return Mode("online", f"a W&B key for {host} was found; through a proxy the server is not tried first")
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((host, port), timeout=REACHABLE_WITHIN_SECONDS).close()
    except (OSError, ValueError) as error:
        return Mode("offline", f"{host or address.geturl()} cannot be reached ({error})")
    return Mode("online", f"a W&B key for {host} was found")


def has_key(host: str) -> bool:
    """Whether the environment or the user's netrc holds a W&B key; the key itself is not kept."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    for path in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        if path and Path(path).expanduser().is_file():
            try:
                return netrc.netrc(Path(path).expanduser()).authenticators(host) is not None
            except (netrc.NetrcParseError, OSError):
                return False
    return False


class WandbMirror(Mirror):
    """One W&B run. Its id comes from the run directory's manifest, so a resumed run stays the same run."""

    def __init__(
        self,
        tracking: TrackingConfig,
        mode: Mode,
        directory: Path,
        run_id: str,
        name: str,
        config: dict[str, Any],
        study: str | None,
    ):
        import wandb

        # Said once for the process: what is printed outside of a run follows these settings, not the run's.
        wandb.setup(wandb.Settings(silent=True))
        self.log_adapter = tracking.log_adapter
        self.run = wandb.init(
            project=tracking.project,
            entity=tracking.entity,
            name=name,
            id=run_id,
            group=study,
            job_type="train" if study is None else "trial",
            tags=tracking.tags or None,
            notes=tracking.notes,
            config=config,
            dir=directory,
            mode=mode.name,  # type: ignore[arg-type]
            resume="allow" if mode.name == "online" else None,
            reinit="create_new",
            # disable_git: a remote's address may hold a token; the manifest has the commit.
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
        )
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("*", step_metric="step")
        self.starts_empty = mode.name == "offline"  # a new folder; the server knows the lines of an online run
        self.description = {
            "online": str(self.run.url),
            "offline": f"offline; wandb sync {self.folder()}",
            "disabled": "disabled by WANDB_MODE",
        }[mode.name]

    def folder(self) -> str:
        """The directory that `wandb sync` takes."""
        path = Path(self.run.dir).parent
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log({"step": step, **metrics})

    def summarize(self, result: Mapping[str, Any]) -> None:
        self.run.summary.update({key: value for key, value in result.items() if value is not None})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        self.run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def adapter(self, directory: Path) -> None:
        import wandb

        if self.log_adapter:
            artifact = wandb.Artifact(f"adapter-{self.run.id}", type="adapter")
            artifact.add_dir(str(directory))
            self.run.log_artifact(artifact)

    def finish(self, failed: bool) -> None:
        self.run.finish(exit_code=1 if failed else 0)
