"""When W&B goes online, what an offline run holds (read back with W&B's own reader), and what it must not hold."""

import json
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import wandb
from wandb.sdk.lib.wbauth import write_netrc_auth

from medbot_exp.config import TrackingConfig, TrackingMode, TrackingName
from medbot_exp.errors import ConfigError
from medbot_exp.tracking.wandb import Mode, Place, WandbMirror, decide_mode, open_mirror

CANARY = "canary" + "0123456789abcdef" * 2 + "zz"  # 40 characters, as a key has
UNREACHABLE = "http://127.0.0.1:9"


def tracking(mode: TrackingMode = TrackingMode.auto, log_adapter: bool = True) -> TrackingConfig:
    """A config with two tags."""
    return TrackingConfig(TrackingName.wandb, mode, "trials", None, ["nightly", "tiny"], "a note", log_adapter)


@pytest.fixture
def no_account(tmp_path, monkeypatch) -> Path:
    """A home directory without any login, and no W&B variable set; the home directory."""
    for name in [name for name in os.environ if name.startswith("WANDB_")] + ["NETRC"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def server(monkeypatch) -> Iterator[str]:
    """The host and port of a W&B server that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place = f"127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", f"http://{place}")
        yield place


@pytest.mark.usefixtures("no_account")
class TestDecideMode:
    @pytest.mark.parametrize("value", ["offline", "OFFLINE", "disabled"])
    def test_environment_decides_where_the_config_leaves_it_open(self, monkeypatch, value):
        monkeypatch.setenv("WANDB_MODE", value)
        assert decide_mode(tracking()) == Mode(value.lower(), f"WANDB_MODE={value.lower()}")

    @pytest.mark.parametrize("value", ["", "online"])
    def test_config_that_says_offline_is_obeyed_whatever_the_environment(self, monkeypatch, value):
        monkeypatch.setenv("WANDB_MODE", value)
        assert decide_mode(tracking(TrackingMode.offline)) == Mode("offline", "tracking.mode=offline")

    def test_online_is_refused_without_a_key(self, monkeypatch):
        with pytest.raises(ConfigError, match="tracking.mode=online needs a W&B key"):
            decide_mode(tracking(TrackingMode.online))
        monkeypatch.setenv("WANDB_MODE", "online")
        with pytest.raises(ConfigError, match="WANDB_MODE=online needs a W&B key"):
            decide_mode(tracking())

    def test_online_in_the_environment_is_taken_with_a_key(self, monkeypatch):
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_API_KEY", CANARY)
        assert decide_mode(tracking()) == Mode("online", "WANDB_MODE=online")

    def test_online_is_taken_with_a_key_without_trying_the_server(self, monkeypatch):
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        assert decide_mode(tracking(TrackingMode.online)) == Mode("online", "tracking.mode=online")

    def test_no_key_is_offline_and_says_how_to_get_one(self, server):
        decided = decide_mode(tracking())
        assert decided.name == "offline"
        assert decided.reason == "no W&B key for 127.0.0.1: wandb login, or WANDB_API_KEY"

    def test_no_key_for_the_public_server_names_it(self):
        host = urlsplit(wandb.Settings().base_url).hostname
        assert decide_mode(tracking()).reason.startswith(f"no W&B key for {host}:")

    def test_login_that_wandb_wrote_itself_counts(self, server):
        write_netrc_auth(host=f"http://{server}", api_key=CANARY)
        assert decide_mode(tracking()).name == "online"

    def test_server_in_wandbs_own_settings_file_is_the_one_that_is_asked(self, no_account, monkeypatch, server):
        monkeypatch.delenv("WANDB_BASE_URL")
        monkeypatch.setenv("WANDB_CONFIG_DIR", str(no_account))
        (no_account / "settings").write_text(f"[default]\nbase_url = http://{server}\n")
        monkeypatch.setenv("WANDB_API_KEY", CANARY)
        assert decide_mode(tracking()) == Mode("online", "a W&B key for 127.0.0.1 was found")

    @pytest.mark.parametrize(
        "name, value",
        [("WANDB_API_KEY", "c4nary"), ("WANDB_BASE_URL", "c4nary"), ("WANDB_MODE", "c4nary")],
    )
    def test_variable_that_wandb_cannot_take_is_named_without_its_value(self, monkeypatch, name, value):
        monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError, match=name) as caught:
            decide_mode(tracking())
        assert value not in str(caught.value)

    def test_login_file_with_a_key_that_is_none_is_said(self, no_account, server):
        (no_account / ".netrc").write_text(f"machine {server}\n  login user\n  password c4nary\n")
        with pytest.raises(ConfigError, match="login file.*wandb login") as caught:
            decide_mode(tracking())
        assert "c4nary" not in str(caught.value)

    def test_key_in_the_environment_is_online_where_the_server_answers(self, monkeypatch, server):
        monkeypatch.setenv("WANDB_API_KEY", CANARY)
        assert decide_mode(tracking()) == Mode("online", "a W&B key for 127.0.0.1 was found")

    @pytest.mark.parametrize("place", [".netrc", "_netrc", "elsewhere"])
    def test_key_in_a_login_file_counts(self, no_account, monkeypatch, server, place):
        (no_account / place).write_text(f"machine {server}\n  login user\n  password {CANARY}\n")
        if place == "elsewhere":
            monkeypatch.setenv("NETRC", str(no_account / place))
        assert decide_mode(tracking()).name == "online"

    def test_key_for_another_host_does_not_count(self, no_account, server):
        (no_account / ".netrc").write_text(f"machine example.org\n  login user\n  password {CANARY}\n")
        assert decide_mode(tracking()).reason.startswith("no W&B key for 127.0.0.1")

    def test_login_file_that_cannot_be_parsed_is_no_key(self, no_account, server):
        (no_account / ".netrc").write_text("machine\n  nonsense nonsense")
        assert decide_mode(tracking()).name == "offline"

    def test_key_without_a_server_is_offline_within_seconds(self, monkeypatch):
        monkeypatch.setenv("WANDB_API_KEY", CANARY)
        monkeypatch.setenv("WANDB_BASE_URL", UNREACHABLE)
        started = time.monotonic()
        decided = decide_mode(tracking())
        assert time.monotonic() - started < 5
        assert decided.name == "offline"
        assert "127.0.0.1 cannot be reached" in decided.reason

    def test_server_that_never_answers_costs_seconds_and_no_more(self, monkeypatch):
        monkeypatch.setenv("WANDB_API_KEY", CANARY)
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(0)
            monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
            waiting = [socket.socket() for _ in range(4)]  # more than the queue holds: Linux then drops what comes
            for client in waiting:
                client.setblocking(False)
                client.connect_ex(silent.getsockname())
            started = time.monotonic()
            decided = decide_mode(tracking())
            spent = time.monotonic() - started
            for client in waiting:
                client.close()
        assert decided.name == "offline"
        assert 2 < spent < 6

    @pytest.mark.parametrize("mode", list(TrackingMode))
    def test_key_is_in_no_reason(self, monkeypatch, mode):
        monkeypatch.setenv("WANDB_API_KEY", CANARY)
        monkeypatch.setenv("WANDB_BASE_URL", UNREACHABLE)
        assert CANARY not in decide_mode(tracking(mode)).reason


@pytest.fixture
def refusing_server(no_account, monkeypatch) -> Iterator[None]:
    """A W&B server that knows nobody, and a key for it."""

    class Refuse(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b'{"errors": [{"message": "user is not logged in"}]}')

        do_GET = do_POST

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.server_address[1]}")
        monkeypatch.setenv("WANDB_API_KEY", CANARY)
        wandb.teardown()  # W&B keeps the server that it found first for the whole process
        yield
        wandb.teardown()
        listening.shutdown()


@pytest.mark.usefixtures("refusing_server")
class TestRefusedRun:
    def test_goes_offline_where_the_mode_is_left_open(self, tmp_path, caplog):
        mode = decide_mode(tracking())
        assert mode.name == "online"
        mirror = open_mirror(tracking(), mode, Place(tmp_path, "run00002", "first", None, "train"), CONFIG)
        mirror.log(0, {"validation/loss": 2.5})
        mirror.finish(0)
        assert str(mirror.description).startswith("offline; wandb sync")
        assert "user is not logged in" in caplog.text and CANARY not in caplog.text

    def test_is_an_error_where_online_was_asked_for(self, tmp_path):
        asked = tracking(TrackingMode.online)
        with pytest.raises(ConfigError, match="user is not logged in.*\n.*wandb login") as caught:
            open_mirror(asked, decide_mode(asked), Place(tmp_path, "run00003", "first", None, "train"), CONFIG)
        assert CANARY not in str(caught.value)


CONFIG = {"lora": {"r": 16, "target_modules": ["q_proj", "v_proj"]}, "name": "tiny"}
SAMPLES = [["a-1", "What now?", "Rest."], ["a-2", "Häm?", "[b]Ja[/b]"]]
RESULT = {
    "status": "complete",
    "objective": {"validation/loss": 2.0},
    "metrics": {"validation/loss": 2.0},
    "steps": 2,
    "tokens_per_second": 250.5,
    "error": None,
}


@dataclass(frozen=True)
class Offline:
    """What two mirrors left behind: a run that went well, and a trial that failed beside it."""

    directory: Path
    run: list[dict[str, Any]]
    trial: list[dict[str, Any]]
    descriptions: tuple[str, str]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind in the run that went well."""
        return [record[kind] for record in self.run if record["type"] == kind]


@pytest.fixture(scope="module")
def offline(tmp_path_factory, read_wandb_run) -> Offline:
    """Two mirrors open at the same time, with keys in the environment, read back."""
    base = tmp_path_factory.mktemp("offline")
    directory, adapter = base / "run", base / "run" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"r": 16}')
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(base / "home"))
        for name in ("WANDB_API_KEY", "HF_TOKEN"):
            patch.setenv(name, CANARY)
        mode = Mode("offline", "a test")
        run = WandbMirror(tracking(), mode, Place(directory, "run00001", "first", None, "train"), CONFIG)
        trial = WandbMirror(
            tracking(log_adapter=False), mode, Place(directory, "trial001", "trial-0001", "study-a", "trial"), CONFIG
        )
        run.log(0, {"validation/loss": 2.5})
        trial.log(0, {"validation/loss": 7.0})
        run.log(1, {"train/loss": 1.5, "train/tokens_per_second": 250.5})
        run.log(2, {"train/loss": math.nan})
        run.table("samples", ("id", "question", "after"), SAMPLES)
        for mirror in (run, trial):
            mirror.adapter(adapter)
        run.summarize(RESULT)
        run.finish(0)
        trial.summarize({"status": "failed", "error": "the loss left the numbers"})
        trial.finish(1)
        descriptions = (run.description, trial.description)
    return Offline(
        directory, read_wandb_run(directory, "run00001"), read_wandb_run(directory, "trial001"), descriptions
    )


class TestOfflineRun:
    def test_has_its_id_name_project_tags_and_notes(self, offline):
        (run,) = offline.of("run")
        assert run["run_id"] == "run00001"
        assert run["display_name"] == "first"
        assert run["project"] == "trials"
        assert run["job_type"] == "train"
        assert run["tags"] == ["nightly", "tiny"]
        assert run["notes"] == "a note"
        assert "run_group" not in run

    def test_has_the_whole_config(self, offline):
        (run,) = offline.of("run")
        kept = run["config"]["update"]
        assert {key: value for key, value in kept.items() if key != "_wandb"} == CONFIG

    def test_has_every_metric_at_the_optimizer_step(self, offline):
        items = [history["item"] for history in offline.of("history")]
        logged = [(item["_step"], {key: value for key, value in item.items() if "/" in key}) for item in items]
        logged = [(step, {k: v for k, v in metrics.items() if not k.startswith("samples")}) for step, metrics in logged]
        assert logged == [
            (0, {"validation/loss": 2.5}),
            (1, {"train/loss": 1.5, "train/tokens_per_second": 250.5}),
            (2, {"train/loss": "NaN"}),
        ]

    def test_has_the_result_as_its_summary_without_empty_entries(self, offline):
        merged: dict[str, Any] = {}
        for summary in offline.of("summary"):
            merged |= summary["update"]
        assert merged["status"] == "complete"
        assert merged["objective"] == {"validation/loss": 2.0}
        assert merged["tokens_per_second"] == 250.5
        assert "error" not in merged

    def test_has_the_samples_as_a_table(self, offline):
        (path,) = offline.directory.glob("wandb/*run00001/files/media/table/samples_*.table.json")
        table = json.loads(path.read_text())
        assert table["columns"] == ["id", "question", "after"]
        assert table["data"] == SAMPLES

    def test_has_the_adapter_as_an_artifact(self, offline):
        (artifact,) = [artifact for artifact in offline.of("artifact") if artifact["type"] == "adapter"]
        assert artifact["name"] == "adapter-run00001"
        assert [entry["path"] for entry in artifact["manifest"]["contents"]] == ["adapter_config.json"]

    def test_ends_with_the_exit_code_of_success(self, offline):
        assert offline.of("exit")[0].get("exit_code", 0) == 0

    def test_says_what_to_type_to_send_it(self, offline):
        command = offline.descriptions[0].removeprefix("offline; wandb sync ")
        assert list(Path(command).glob("run-run00001.wandb"))


class TestTrialBesideIt:
    def test_is_grouped_under_its_study(self, offline):
        (run,) = (record["run"] for record in offline.trial if record["type"] == "run")
        assert (run["run_id"], run["job_type"], run["display_name"]) == ("trial001", "trial", "trial-0001")
        assert "study-a" in run.values()

    def test_has_its_own_metrics_alone(self, offline):
        items = [record["history"]["item"] for record in offline.trial if record["type"] == "history"]
        assert [item["validation/loss"] for item in items] == [7.0]

    def test_that_failed_has_an_exit_code_of_its_own(self, offline):
        (end,) = (record["exit"] for record in offline.trial if record["type"] == "exit")
        assert end["exit_code"] == 1

    def test_keeps_its_adapter_to_itself_where_asked(self, offline):
        artifacts = [record["artifact"]["type"] for record in offline.trial if record["type"] == "artifact"]
        assert "adapter" not in artifacts


def test_no_key_is_in_any_file_below_the_directory(offline):
    files = [path for path in offline.directory.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    assert CANARY not in json.dumps([offline.run, offline.trial])
