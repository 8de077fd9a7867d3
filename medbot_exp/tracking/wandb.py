"""The W&B mirror of a run, and whether it goes online.

The mode is decided before `wandb.init`: left to itself, W&B raises without a key and a terminal, and with
a key but no network it blocks for well over a minute.
"""

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from medbot_exp.config import TrackingConfig, TrackingMode, TrackingName
from medbot_exp.errors import ConfigError, first_line
from medbot_exp.tracking.record import Mirror

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)

REACHABLE_WITHIN_SECONDS = 3.0


@dataclass(frozen=True)
class Mode:
    """online, offline or disabled (W&B takes everything and keeps nothing), and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Place:
    """Where a run belongs in W&B.

    Attributes:
        directory: its files are below it, in wandb/.
        study: its group; None for a run by itself.
        job_type: train, trial, or study for the run that sums up a whole study.
    """

    directory: Path
    run_id: str
    name: str
    study: str | None
    job_type: str


def decide_mode(tracking: TrackingConfig) -> Mode:
    """Online where asked or where a key and the server are there; offline otherwise.

    Raises:
        ConfigError: online was asked for, and there is no key; or W&B rejects its own settings.
    """
    if tracking.mode is TrackingMode.offline:
        return Mode("offline", "tracking.mode=offline")
    environment = os.environ.get("WANDB_MODE", "").lower()
    if tracking.mode is TrackingMode.auto and environment in ("offline", "disabled"):
        return Mode(environment, f"WANDB_MODE={environment}")
    asked = "WANDB_MODE=online" if environment == "online" else ""
    asked = "tracking.mode=online" if tracking.mode is TrackingMode.online else asked
    settings = wandb_settings()
    address = urlsplit(settings.base_url)
    host = str(address.hostname)
    if not has_key(settings):
        if asked:
            raise ConfigError(
                f"{asked} needs a W&B key for {host}, and there is none; wandb login, or tracking.mode=offline"
            )
        return Mode("offline", f"no W&B key for {host}: wandb login, or WANDB_API_KEY")
    if asked:
        return Mode("online", asked)
    if address.scheme in getproxies() and not proxy_bypass(host):
        return Mode("online", f"a W&B key for {host} was found; through a proxy the server is not tried first")
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((host, port), timeout=REACHABLE_WITHIN_SECONDS).close()
    except OSError as error:
        return Mode("offline", f"{host} cannot be reached ({error})")
    return Mode("online", f"a W&B key for {host} was found")


def decide_mode_for_trials(tracking: TrackingConfig) -> None:
    """Decide the mode once, for every process that this one starts: each would try the server for itself.

    Raises:
        ConfigError: as `decide_mode`.
    """
    if tracking.name is TrackingName.wandb and tracking.mode is TrackingMode.auto:
        mode = decide_mode(tracking)
        log.info("W&B is %s for all trials: %s", mode.name, mode.reason)
        os.environ["WANDB_MODE"] = mode.name


def wandb_settings() -> "wandb.Settings":
    """What W&B would start with: its settings files, then its environment variables.

    Raises:
        ConfigError: a variable holds what W&B cannot take; it may be a key, so its name alone is told.
    """
    import wandb
    from pydantic import ValidationError

    # As wandb.setup() reads them, but anew each time: setup keeps what it found first for the whole process.
    settings = wandb.Settings()
    folder = os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")
    settings.settings_system = str(Path(folder, "settings").expanduser())
    settings.update_from_system_settings()
    try:
        settings.update_from_env_vars(dict(os.environ))
    except ValidationError as error:
        names = ", ".join(f"WANDB_{str(name).upper()}" for fault in error.errors() for name in fault["loc"])
        raise ConfigError(f"W&B must accept its environment variables, but rejects {names}; mend or unset it") from None
    return settings


def has_key(settings: "wandb.Settings") -> bool:
    """Whether W&B would find a key or an identity token without asking for one; the key itself is not kept.

    Raises:
        ConfigError: what stands there for a key is none.
    """
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib.wbauth import check_api_key, read_netrc_auth

    if settings.identity_token_file:
        return True
    if settings.api_key:
        problem = check_api_key(settings.api_key)
        if problem:
            raise ConfigError(f"WANDB_API_KEY must hold a W&B key, but: {problem.rstrip('.')}; mend or unset it")
        return True
    try:
        return read_netrc_auth(host=settings.base_url) is not None
    except AuthenticationError as error:
        reason = first_line(error).rstrip(".")
        raise ConfigError(f"W&B must accept the key in its login file, but: {reason}; wandb login") from None


def open_mirror(
    tracking: TrackingConfig,
    mode: Mode,
    place: Place,
    config: dict[str, Any],
) -> "WandbMirror":
    """The W&B run, opened as `mode` says; offline where the server then refuses and `tracking.mode` is auto.

    Raises:
        ConfigError: `tracking.mode` is online, and the server refuses.
    """
    import wandb

    try:
        return WandbMirror(tracking, mode, place, config)
    except wandb.Error as error:
        reason = first_line(error)
        if tracking.mode is TrackingMode.online:
            raise ConfigError(
                f"W&B must take the run, but: {reason}\nLog in again with wandb login, or use tracking.mode=offline"
            ) from error
    offline = Mode("offline", f"the server refused the run ({reason})")
    log.warning("W&B is %s: %s", offline.name, offline.reason)
    wandb.teardown()  # its service holds the id of the run that was refused
    return WandbMirror(tracking, offline, place, config)


class WandbMirror(Mirror):
    """One W&B run. Its id comes from the run directory's manifest, so a resumed run stays the same run."""

    def __init__(
        self,
        tracking: TrackingConfig,
        mode: Mode,
        place: Place,
        config: dict[str, Any],
    ):
        import wandb

        # Said once for the process: what is printed outside of a run follows these settings, not the run's.
        wandb.setup(wandb.Settings(silent=True))
        self.log_adapter = tracking.log_adapter
        self.run = wandb.init(
            project=tracking.project,
            entity=tracking.entity,
            name=place.name,
            id=place.run_id,
            group=place.study,
            job_type=place.job_type,
            tags=tracking.tags or None,
            notes=tracking.notes,
            config=config,
            dir=place.directory,
            mode=mode.name,  # type: ignore[arg-type]
            resume="allow" if mode.name == "online" else None,
            reinit="create_new",
            # disable_git: a remote's address may hold a token; the manifest has the commit.
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
        )
        self.starts_empty = not self.run.resumed
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
        # The step is W&B's own: what a resumed online run tells again, the server has and does not take twice.
        self.run.log(dict(metrics), step=step)

    def series(self, axis: str, rows: Mapping[int, Mapping[str, float]]) -> None:
        """Take the metrics of `rows` over an axis of their own: W&B's steps only grow, and drop what comes late."""
        self.run.define_metric(axis)
        for name in {name for metrics in rows.values() for name in metrics}:
            self.run.define_metric(name, step_metric=axis)
        for place, metrics in rows.items():
            self.run.log({axis: place, **metrics})

    def summarize(self, result: Mapping[str, Any]) -> None:
        others = {key: value for key, value in result.items() if key != "metrics" and value is not None}
        # The metrics at the top, as W&B shows and sorts them: of the adapter that was kept, not of the last step.
        self.run.summary.update(others | result.get("metrics", {}))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        self.run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def page(self, name: str, path: Path) -> None:
        """Take an HTML file that needs nothing beside itself."""
        import wandb

        self.run.log({name: wandb.Html(path, inject=False)})

    def adapter(self, directory: Path) -> None:
        import wandb

        if self.log_adapter:
            artifact = wandb.Artifact(f"adapter-{self.run.id}", type="adapter")
            artifact.add_dir(str(directory))
            self.run.log_artifact(artifact)

    def tag(self, name: str) -> None:
        self.run.tags = (*(self.run.tags or ()), name)

    def finish(self, exit_code: int) -> None:
        self.run.finish(exit_code=exit_code)
