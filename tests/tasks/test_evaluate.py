"""task=evaluate: a run's adapter is the one that was trained, its base is its base, and neither is asked twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
import yaml
from omegaconf import OmegaConf

from medbot_exp.errors import ConfigError, DataError, Interrupted, ModelError, RunDirectoryError
from medbot_exp.evaluation import examine as room
from medbot_exp.rundir import HydraFiles, RunDirectory, read_jsonl, write_json
from medbot_exp.tasks import evaluate, train

SMALL = (
    "model=tiny",
    "prompt=direct",
    "lora.r=4",
    "optimizer.lr=2.0e-2",
    "trainer.max_steps=2",
    "trainer.eval_limit=3",
    "trainer.samples=0",
    "tracking=none",
)
HYDRA = "hydra: {runtime: {config_sources: []}, job: {config_name: config}}"


@pytest.fixture(scope="module")
def trained(compose, tmp_path_factory):
    """trained(name, *overrides): the directory of a small run, made once in this module."""
    folder = tmp_path_factory.mktemp("runs")
    made = {}

    def made_once(*overrides):
        if overrides not in made:
            config = compose(*SMALL, *overrides)
            config.cache_dir = str(folder / "cache")
            directory = RunDirectory(folder / f"run-{len(made)}")
            resolved = OmegaConf.to_yaml(OmegaConf.structured(config))
            train.run(config, directory, HydraFiles("", HYDRA, "", resolved), None, None)
            made[overrides] = directory
        return made[overrides]

    return made_once


@pytest.fixture
def run_of(trained, tmp_path):
    """run_of(*overrides): a run of its own, that a test may change, and its cache."""

    def copied(*overrides):
        original = trained("benchmark.cases.limit=4", *overrides)
        shutil.copytree(original.path, tmp_path / "run")
        shutil.copytree(original.path.parent / "cache", tmp_path / "cache")
        return RunDirectory(tmp_path / "run")

    return copied


@pytest.fixture
def evaluated(compose, tmp_path):
    """evaluated(run, *overrides): the accuracy that task=evaluate ends with."""

    def perform(run, *overrides):
        words = ["task=evaluate", "tracking=none", *([] if run is None else [f"task.run={run.path}"]), *overrides]
        config = compose(*words)
        config.cache_dir = str(tmp_path / "cache")
        resolved = OmegaConf.to_yaml(OmegaConf.structured(config))
        files = HydraFiles("", HYDRA, yaml.safe_dump(words), resolved)
        return evaluate.run(config, RunDirectory(tmp_path / "new"), files)

    return perform


@pytest.fixture
def whenever_asked():
    """whenever_asked(do): have `do` called before each pass of a language model."""
    from torch.nn.modules.module import register_module_forward_pre_hook
    from transformers import PreTrainedModel

    with ExitStack() as stack:

        def begin(do):
            def called(module, arguments):
                if isinstance(module, PreTrainedModel) and hasattr(module, "lm_head"):
                    do()

            stack.callback(register_module_forward_pre_hook(called).remove)

        yield begin


def test_what_the_run_itself_asked_is_not_asked_again(run_of, evaluated, whenever_asked):
    run = run_of()
    before = {name: run.predictions(name).read_bytes() for name in ("cases", "cases-base")}
    whenever_asked(lambda: pytest.fail("asked again"))
    accuracy = evaluated(run)
    result, found = (json.loads(path.read_text()) for path in (run.result, run.evaluation("cases")))
    assert accuracy == result["metrics"]["eval/cases/accuracy"]
    assert found["against_base"] == result["against_base"]["cases"]
    assert {name: run.predictions(name).read_bytes() for name in before} == before


@pytest.mark.parametrize("init", ["default", "gaussian", "orthogonal", "pissa", "olora", "dora"])
def test_adapter_answers_as_it_did_at_the_end_of_its_training(run_of, evaluated, tmp_path, init):
    run = run_of("lora.dora=true" if init == "dora" else f"lora.init={init}")
    before = read_jsonl(run.predictions("cases"))
    shutil.rmtree(tmp_path / "cache" / "evaluations")
    evaluated(run)
    found = read_jsonl(run.predictions("cases"))
    assert found == before
    base = read_jsonl(run.predictions("cases-base"))
    assert [row["log_likelihoods"] for row in base] != [row["log_likelihoods"] for row in found]


def test_other_benchmarks_are_asked_of_both(run_of, evaluated, tmp_path, capsys):
    run = run_of()
    rows = [
        {"question": f"Q {n}?", "options": {x: f"{x}{n}" for x in "ABCD"}, "answer": f"B{n}", "answer_idx": "B"}
        for n in range(5)
    ]
    (tmp_path / "medqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = ("benchmark=[medqa,cases]", f"benchmark.medqa.path={tmp_path}/medqa.jsonl")
    written = ("benchmark.medqa.answer_tokens=4", "benchmark.cases.limit=4")
    accuracy = evaluated(run, *own, *written)
    found = json.loads(run.evaluation("medqa").read_text())
    assert accuracy == found["tuned"]["eval/medqa/accuracy"]
    assert found["settings"]["answer_tokens"] == 4 and found["base"]["eval/medqa/n"] == 5
    assert found["against_base"]["n"] == 5 and sum(found["leaks"].values()) == 0
    assert [row["stop"] for row in read_jsonl(run.predictions("medqa"))].count("length") > 0
    printed = capsys.readouterr().out
    assert "accuracy on medqa (n=5)" in printed and "accuracy on cases (n=4)" in printed
    assert not (tmp_path / "new").exists()


def test_items_that_the_run_was_chosen_by_are_not_asked(run_of, evaluated):
    run = run_of("objective=accuracy", "benchmark.cases.development=40")
    chosen_by = {row["id"] for row in read_jsonl(run.predictions("cases_development"))}
    evaluated(run, "benchmark=[cases]", "benchmark.cases.limit=null", "benchmark.cases.development=1")
    asked = {row["id"] for row in read_jsonl(run.predictions("cases"))}
    assert (len(chosen_by), len(asked)) == (40, 5) and not chosen_by & asked


def test_items_that_rows_of_the_training_give_away_are_told(run_of, evaluated, caplog):
    # The run's benchmark was of four cases, so the others were let through among its rows.
    run = run_of("data.columns.split=null", "data.validation=0.1")
    evaluated(run, "benchmark=[cases]", "benchmark.cases.limit=null")
    found = json.loads(run.evaluation("cases").read_text())
    assert "rows that were trained on and give away an item of a benchmark:" in caplog.text
    # Those four were dropped, and some more are held out.
    assert 4 <= found["tuned"]["eval/cases/clean/n"] < 45
    assert found["tuned"]["eval/cases/clean/n"] == 45 - found["leaks"]["overlap"]


def test_rows_that_have_changed_are_not_held_against_it(run_of, evaluated, caplog):
    run = run_of()
    told = json.loads(run.manifest.read_text())
    told["data"]["train"] = "0" * 64
    write_json(run.manifest, told)
    evaluated(run)
    assert "are not held against the benchmarks: they have changed since" in caplog.text
    assert json.loads(run.evaluation("cases").read_text())["leaks"] is None


def test_rows_that_its_prompt_shows_must_be_there(run_of, evaluated):
    run = run_of("prompt.shots=1", "model.max_length=4096")
    evaluated(run)
    told = json.loads(run.manifest.read_text())
    told["data"]["train"] = "0" * 64
    write_json(run.manifest, told)
    with pytest.raises(DataError, match="the run's prompt shows 1 of its rows, which must be there, but: they have ch"):
        evaluated(run)


def test_base_model_alone_gets_a_record_of_its_own(evaluated, tmp_path, capsys):
    accuracy = evaluated(None, "model=tiny", "prompt=direct", "benchmark.cases.limit=4")
    run = RunDirectory(tmp_path / "new")
    result = json.loads(run.result.read_text())
    assert result["status"] == "complete" and result["adapter"] is None
    assert result["metrics"]["eval/cases/accuracy"] == accuracy
    assert len(read_jsonl(run.predictions("cases"))) == 4
    told = json.loads(run.manifest.read_text())
    assert told["model"]["name"] == "tiny" and len(told["benchmarks"]["cases"]["fingerprint"]) == 64
    assert "base" in capsys.readouterr().out


def test_stopped_evaluation_leaves_the_run_as_it_was_and_keeps_its_answers(run_of, evaluated, tmp_path, whenever_asked):
    run = run_of()
    shutil.rmtree(tmp_path / "cache" / "evaluations")
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    asked = []

    def stop_at_the_third():
        asked.append(1)
        if len(asked) == 5:  # a pass of the question, and one of its options
            raise KeyboardInterrupt

    whenever_asked(stop_at_the_third)
    with pytest.raises(Interrupted, match="the same command goes on behind the answers so far"):
        evaluated(run, "benchmark=[cases]", "benchmark.cases.limit=4", "benchmark.cases.batch_size=2")
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    (kept,) = (tmp_path / "cache" / "evaluations").rglob("predictions.jsonl")
    assert len(read_jsonl(kept)) == 2


def test_killed_evaluation_goes_on_and_gives_the_bytes_of_an_unbroken_one(evaluated, tmp_path, monkeypatch):
    """Killed at work on a batch; tests/benchmarks/kills.py does so behind each of 200 items."""
    rows = [
        {"question": f"Q {'n' * n}?", "options": {x: f"{x}{n}" for x in "ABCD"}, "answer": f"B{n}", "answer_idx": "B"}
        for n in range(18)
    ]
    (tmp_path / "medqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("model=tiny", "prompt=direct", "benchmark=[medqa]", f"benchmark.medqa.path={tmp_path}/medqa.jsonl")
    words += ("benchmark.medqa.batch_size=3", "benchmark.medqa.answer_tokens=40")
    own = ("task=evaluate", "tracking=none", f"cache_dir={tmp_path}/cache", f"root={tmp_path}/multirun")
    process = subprocess.Popen(
        [sys.executable, "-m", "medbot_exp", *own, *words],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    kept = tmp_path / "cache" / "evaluations"
    while process.poll() is None and not any(path.stat().st_size for path in kept.glob("*/predictions.jsonl")):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (answers,) = kept.glob("*/predictions.jsonl")
    before = answers.read_bytes()
    assert 3 <= before.count(b"\n") < 18

    replies, asked = room.replies, []
    monkeypatch.setattr(room, "replies", lambda *arguments: asked.append(arguments) or replies(*arguments))
    evaluated(None, *words)
    assert 3 * len(asked) == 18 - before.count(b"\n") // 3 * 3 and answers.read_bytes().startswith(before)
    continued = (tmp_path / "new" / "predictions" / "medqa.jsonl").read_bytes()
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(tmp_path / "new")
    evaluated(None, *words)
    assert (tmp_path / "new" / "predictions" / "medqa.jsonl").read_bytes() == continued


def without_adapter(run):
    (run.adapter / "adapter_model.safetensors").unlink()


def torn_adapter(run):
    path = run.adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def other_rank(run):
    text = run.config.read_text()
    run.config.write_text(text.replace("r: 4\n", "r: 8\n", 1))


def other_base(run):
    told = json.loads(run.manifest.read_text())
    told["model"] = {"name": "other", "source": "someone/else", "version": "f" * 40}
    write_json(run.manifest, told)


def unfinished(run):
    run.result.unlink()


def older_config(run):
    text = run.config.read_text()
    run.config.write_text(text.replace("  on_leak: drop\n", ""))


@pytest.mark.parametrize(
    "spoil, error, words",
    [
        (
            without_adapter,
            RunDirectoryError,
            "must name a run with an adapter, but .* has no adapter_model.safetensors",
        ),
        (torn_adapter, ModelError, "an adapter must be whole safetensors, but"),
        (other_rank, ModelError, "an adapter must fit the lora values of its run, but .* has r=4 and the run lora.r=8"),
        (other_base, RunDirectoryError, "but the run's was someone/else .ffffffffffff., and random weights is"),
        (unfinished, RunDirectoryError, "must name a run that is complete, but .* is unfinished; go on with it first"),
        (
            older_config,
            RunDirectoryError,
            "must name a run of this version, but .*config.yaml does not fit it: `data.on",
        ),
    ],
)
def test_run_that_cannot_be_evaluated_is_refused(run_of, evaluated, spoil, error, words, whenever_asked):
    run = run_of()
    spoil(run)
    whenever_asked(lambda: pytest.fail("the base was asked first"))
    with pytest.raises(error, match=words):
        evaluated(run)


def test_folder_that_is_no_run_is_refused(evaluated, tmp_path):
    with pytest.raises(RunDirectoryError, match="`task.run` must name a run directory, but"):
        evaluated(RunDirectory(tmp_path / "nothing"))


@pytest.mark.parametrize("word", ["lora.r=8", "prompt=chat", "model=smollm2_135m", "seed=1"])
def test_what_is_the_runs_own_cannot_be_changed(run_of, evaluated, word):
    with pytest.raises(ConfigError, match=f"its own model, prompt and adapter, but got {word}; leave that out"):
        evaluated(run_of(), word)


def test_evaluation_goes_into_the_runs_own_wandb_run(run_of, evaluated, read_wandb_run):
    run = run_of()
    evaluated(run, "tracking=wandb", "tracking.mode=offline")
    run_id = json.loads(run.manifest.read_text())["run_id"]
    records = read_wandb_run(run.path, run_id)
    assert any("eval/cases/accuracy" in json.dumps(record) for record in records)


def test_command_prints_a_table_and_is_of_one_run(tmp_path, run_python_in):
    words = ("task=evaluate", "model=tiny", "tracking=none", "benchmark.cases.limit=2")
    finished = run_python_in(tmp_path, "-m", "medbot_exp", *words)
    assert finished.status == 0, finished.stderr
    assert "accuracy on cases (n=2)" in finished.stdout
    finished = run_python_in(tmp_path, "-m", "medbot_exp", "-m", *words, "seed=1,2")
    assert finished.status == 2 and "task=evaluate is about one run" in finished.stderr
