"""task=train, from the composed config to the record: what a run leaves behind, whatever happens to it."""

import json
import math
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config

from medbot_exp.errors import ConfigError, DataError, DivergenceError, Interrupted, MedbotError, RunDirectoryError
from medbot_exp.evaluation.paper import read_papers
from medbot_exp.model import load
from medbot_exp.rundir import HydraFiles, RunDirectory
from medbot_exp.tasks import train
from medbot_exp.tracking.record import Mirror, Record
from medbot_exp.whole_files import read_jsonl

SMALL = (
    "model=tiny",
    "lora.r=4",
    "trainer.max_steps=4",
    "trainer.batch_size=2",
    "trainer.eval_steps=2",
    "trainer.checkpoint_steps=2",
    "trainer.eval_limit=3",
    "trainer.samples=1",
    "trainer.sample_thinking_tokens=3",
    "trainer.sample_answer_tokens=3",
    "benchmark.cases.limit=3",
)
HYDRA = "hydra: {runtime: {config_sources: []}, job: {config_name: config}}"
PARTS = ["train", "train", "train", "validation"]
LONGER = ("trainer.max_steps=8", "lora.dropout=0.1", "tracking=none")


@pytest.fixture
def run(compose, tmp_path):
    """run(name, *overrides): a small run in tmp_path/name, in this process."""

    def perform(name, *overrides):
        others = any(word.startswith("benchmark=[") for word in overrides)
        small = [word for word in SMALL if not others or "benchmark" not in word]
        config = compose(*small, *overrides)
        config.cache_dir = str(tmp_path / "cache")
        directory = RunDirectory(tmp_path / name)
        return train.run(config, directory, HydraFiles("", HYDRA, "", "{}"), None, None), directory

    return perform


def test_run_leaves_a_complete_record(run):
    objective, directory = run("run", "tracking=none")
    result = json.loads(directory.result.read_text())
    assert result["status"] == "complete" and result["error"] is None
    assert objective == result["objective"]["validation/loss"] == result["metrics"]["validation/loss"]
    assert result["metrics"]["validation/loss"] < result["before"]["validation/loss"]
    assert set(result["before"]) == set(result["metrics"])
    assert result["steps"] == 4 and result["tokens"] > 0 and result["tokens_per_second"] > 0
    assert set(result["seconds"]) == {"load", "before", "train", "after", "total"}
    assert {"config.yaml", "manifest.json", "metrics.jsonl", "run.log", ".hydra"} <= set(os.listdir(directory.path))
    assert (directory.path / result["adapter"] / "adapter_model.safetensors").is_file()
    manifest = json.loads(directory.manifest.read_text())
    assert {"command", "git", "packages", "hardware", "model", "data", "tokenized", "seeds"} <= set(manifest)


def test_metrics_hold_every_step_and_every_evaluation(run):
    _, directory = run("run", "tracking=none")
    lines = read_jsonl(directory.metrics)
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "validation/loss" in line] == [0, 2, 4]
    assert [line["step"] for line in lines if "eval/cases/accuracy" in line] == [0, 4]


def test_predictions_hold_every_item_before_and_after(run):
    _, directory = run("run", "tracking=none")
    base, tuned = (read_jsonl(directory.predictions(name)) for name in ("cases-base", "cases"))
    assert [row["id"] for row in base] == [row["id"] for row in tuned] and len(tuned) == 3
    assert all(len(row["log_likelihoods"]) == 4 for row in [*base, *tuned])
    assert [row["log_likelihoods"] for row in base] != [row["log_likelihoods"] for row in tuned]
    compared = json.loads(directory.result.read_text())["against_base"]["cases"]
    assert (compared["n"], compared["difference"]) == (
        3,
        (sum(row["state"] == "correct" for row in tuned) - sum(row["state"] == "correct" for row in base)) / 3,
    )
    (sample,) = read_jsonl(directory.predictions("samples"))
    assert {"id", "question", "reference", "before", "after"} <= set(sample)


def test_same_command_twice_gives_the_same_losses_bit_for_bit(run):
    _, first = run("first", "tracking=none", "lora.dropout=0.1")
    _, second = run("second", "tracking=none", "lora.dropout=0.1")

    def losses(directory):
        return [
            {key: value for key, value in line.items() if key != "train/tokens_per_second"}
            for line in read_jsonl(directory.metrics)
        ]

    assert losses(first) == losses(second)


def test_second_run_does_not_tokenise_again(run, caplog):
    caplog.set_level("INFO", logger="medbot_exp")
    run("first", "tracking=none")
    assert "tokenised before" not in caplog.text
    run("second", "tracking=none")
    assert caplog.text.count("tokenised before") == 2


def test_run_that_the_machines_memory_will_hardly_hold_is_warned_of_and_goes_on(run, caplog, leave_free):
    leave_free(2**29)
    _, directory = run("run", "tracking=none", "benchmark=[]", "trainer.samples=0")
    assert "GiB, but 0.50 GiB of the machine's memory are free\nNone of our changes" in caplog.text
    assert json.loads(directory.result.read_text())["status"] == "complete"


def test_run_without_benchmark_and_samples_measures_the_loss_alone(run):
    _, directory = run("run", "tracking=none", "benchmark=[]", "trainer.samples=0")
    assert set(json.loads(directory.result.read_text())["metrics"]) == {"validation/loss", "validation/perplexity"}
    assert all(len(line) > 1 for line in read_jsonl(directory.metrics))  # the end adds nothing, so no line


@pytest.mark.parametrize("prompt", ["chat", pytest.param("direct", marks=pytest.mark.slow)])
def test_every_prompt_trains(run, prompt):
    longer = ("model.max_length=4096", "model.architecture.max_position_embeddings=4096")
    _, directory = run("run", "tracking=none", f"prompt={prompt}", "prompt.shots=1", *longer)
    assert directory.status() == "complete"


@pytest.mark.parametrize("targets", ["all-linear", "[c_attn,c_proj,c_fc]"])
def test_layers_of_gpt2_are_trained(run, tmp_path, tiny_tokenizer, targets):
    shape = GPT2Config(vocab_size=len(tiny_tokenizer), n_positions=2048, n_embd=32, n_layer=1, n_head=2)
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    words = ("model=directory", f"model.path={tmp_path / 'model'}", f"lora.target_modules={targets}")
    _, directory = run("run", "tracking=none", *words, "trainer.max_steps=2", "benchmark=[]", "trainer.samples=0")
    adapter = load_file(directory.adapter / "adapter_model.safetensors")
    trained = {name for name, tensor in adapter.items() if "lora_B" in name and tensor.any()}
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert trained == {f"base_model.model.transformer.h.0.{layer}.lora_B.weight" for layer in layers}


def test_directory_of_another_run_is_left_as_it_is(run):
    _, directory = run("run", "tracking=none")
    before = {path: path.stat().st_mtime_ns for path in directory.path.rglob("*")}
    with pytest.raises(RunDirectoryError, match="must be new"):
        run("run", "tracking=none")
    assert {path: path.stat().st_mtime_ns for path in directory.path.rglob("*")} == before


def test_failure_is_recorded_with_its_reason(run, tmp_path, caplog):
    caplog.set_level("DEBUG", logger="medbot_exp")  # as conf/hydra/job_logging does
    with pytest.raises(DataError):
        run("run", "tracking=none", "model.max_length=64", "data.on_too_long=error")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "failed" and "every row must fit" in result["error"]
    assert "DataError" in (tmp_path / "run" / "run.log").read_text()


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["data=file", "data.path=/nowhere/rows.json"], "/nowhere/rows.json"),
        (["prompt.shots=500"], "prompt.shots=500 of 135 rows"),
        (["model.path=/nowhere"], "config.json, but there is none in /nowhere"),
        (["trainer.precision=fp16"], "needs a CUDA GPU"),
        (["lora.target_modules=[q_proj,nowhere]"], "it has no nowhere; it has: down_proj, gate_proj"),
    ],
)
def test_run_that_cannot_start_leaves_nothing(run, tmp_path, overrides, words):
    with pytest.raises(MedbotError, match=words):
        run("run", "tracking=none", *overrides)
    assert not (tmp_path / "run").exists()


def test_torn_tokenizer_is_told_before_anything_is_written(run, tmp_path, saved_tiny):
    shutil.copytree(saved_tiny, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_bytes((saved_tiny / "tokenizer.json").read_bytes()[:1000])
    with pytest.raises(MedbotError, match=r"tokenizer\.json must be a JSON object, but in .*; copy it again$"):
        run("run", "tracking=none", "model=directory", f"model.path={tmp_path / 'model'}")
    assert not (tmp_path / "run").exists()


def test_rows_longer_than_the_model_is_made_for_are_refused_before_anything_is_written(run, tmp_path, compose):
    model = load(compose("model=tiny").model, tmp_path, torch.device("cpu"))
    model.model.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    words = ("tracking=none", "model=directory", f"model.path={tmp_path / 'model'}")
    with pytest.raises(ConfigError, match=r"2048 tokens .*, but got model.max_length=2049; use model.max_length=2048$"):
        run("run", *words, "model.max_length=2049")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "dtype, remedy",
    [("bfloat16", "try model.dtype=float32 trainer.precision=fp32"), ("float32", "get the weights of the base model")],
)
def test_remedy_for_weights_that_are_no_numbers_is_none_that_is_taken_already(run, tmp_path, compose, dtype, remedy):
    model = load(compose("model=tiny").model, tmp_path, torch.device("cpu"))
    with torch.no_grad():
        model.model.lm_head.weight[0, 0] = math.nan
    model.model.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    words = ("tracking=none", "model=directory", f"model.path={tmp_path / 'model'}", f"model.dtype={dtype}")
    with pytest.raises(DivergenceError, match=f"was nan before training; {remedy}"):
        run("run", *words, "model.max_length=2048")


def test_divergence_keeps_the_record_up_to_its_step(run, tmp_path):
    overrides = ("optimizer.lr=1.0e30", "optimizer.warmup_ratio=0", "optimizer.max_grad_norm=1.0e30")
    with pytest.raises(DivergenceError, match="at step 2"):
        run("run", "tracking=none", *overrides)
    directory = RunDirectory(tmp_path / "run")
    assert directory.status() == "failed" and "at step 2" in json.loads(directory.result.read_text())["error"]
    assert [line["step"] for line in read_jsonl(directory.metrics)] == [0, 1]


def test_backend_that_cannot_train_is_refused_before_anything_is_written(run, tmp_path):
    with pytest.raises(ConfigError, match="or backend=peft"):
        run("run", "backend=unsloth")
    assert not (tmp_path / "run").exists()


def test_tokens_appear_in_no_file(run, monkeypatch):
    canaries = {"WANDB_API_KEY": "c4nary" * 7, "HF_TOKEN": "hf_c4naryc4nary", "HUGGING_FACE_HUB_TOKEN": "hf_c4nary"}
    for name, value in canaries.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_MODE", "offline")
    _, directory = run("run")
    files = [path for path in directory.path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if b"c4nary" in path.read_bytes()] == []


def test_tokens_appear_in_no_traceback(run_cli):
    finished = run_cli("model=tiny", "data=file", "data.path=none.json", env={"WANDB_API_KEY": "c4nary" * 7})
    assert finished.status == 2 and "c4nary" not in finished.stderr + finished.stdout


def test_full_disk_is_said_in_a_block(run, tmp_path):
    # A file size limit stands in for the full disk: the checkpoint is the first file to exceed it.
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    run("prepare", "tracking=none", "trainer.max_steps=1")  # leaves the tokenised rows in the cache
    process = start(tmp_path, "full", preexec=limit)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2, error
    assert "StorageError" in error and "Traceback" not in error
    assert RunDirectory(tmp_path / "full").status() == "failed"


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGINT])
def test_run_that_is_told_to_end_before_it_trains_says_how_to_go_on(tmp_path, number):
    process = start(tmp_path, "run", "trainer.sample_thinking_tokens=100000")
    log = RunDirectory(tmp_path / "run").log
    while not (log.is_file() and "measuring the model as it is" in log.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "medbot_exp: stopped" in error and "trainer.resume=run" in error and "Traceback" not in error
    assert RunDirectory(tmp_path / "run").status() is None


def test_killed_run_resumes_to_the_losses_and_weights_of_an_unbroken_one(run, tmp_path):
    run("whole", *LONGER)
    killed = start(tmp_path, "killed")
    metrics = RunDirectory(tmp_path / "killed").metrics
    while not any("train/loss" in line and line["step"] == 3 for line in read_jsonl(metrics)):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    resumed = start(tmp_path, "killed", "trainer.resume=killed")
    assert resumed.wait() == 0, resumed.communicate()
    weights = [tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("whole", "killed")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    whole, again = ([losses_of(line) for line in read_jsonl(path.parents[1] / "metrics.jsonl")] for path in weights)
    assert whole == again


def losses_of(line):
    return line["step"], line.get("train/loss"), line.get("validation/loss")


def start(folder, name, *overrides, preexec=None):
    """The command in a process of its own, its run in folder/name."""
    place = () if any(word.startswith("trainer.resume=") for word in overrides) else (f"hydra.run.dir={name}",)
    return subprocess.Popen(
        [sys.executable, "-m", "medbot_exp", *SMALL, *LONGER, *place, *overrides],
        cwd=folder,
        env=os.environ | {"MEDBOT_EXP_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=preexec,
    )


def test_killed_before_the_first_line_measures_again(run, compose, tmp_path):
    """A kill between the written answers and the first metrics leaves answers without a line."""
    _, whole = run("whole", "tracking=none")
    _, directory = run("run", "tracking=none")
    directory.metrics.unlink()
    directory.result.write_text('{"status": "failed"}')
    shutil.rmtree(directory.checkpoints)
    directory.config.write_text("{}")
    config = compose(*SMALL, "tracking=none")
    config.cache_dir, config.trainer.resume = str(tmp_path / "cache"), str(directory.path)
    train.run(config, directory, HydraFiles("", HYDRA, "", "{}"), None, None)
    assert directory.status() == "complete"
    assert [losses_of(line) for line in read_jsonl(directory.metrics)] == [
        losses_of(line) for line in read_jsonl(whole.metrics)
    ]


def test_resumption_on_other_rows_is_refused(run, compose, tmp_path):
    _, directory = run("run", "tracking=none")
    directory.result.unlink()
    config = compose(*SMALL, "tracking=none", "data.limit=100")
    config.cache_dir, config.trainer.resume = str(tmp_path / "cache"), str(directory.path)
    files = {path: path.read_bytes() for path in directory.path.rglob("*") if path.is_file() and path.name != "run.log"}
    with pytest.raises(
        RunDirectoryError, match=r"the rows to train on \(data.path, .* and the held-out rows \(.* changed"
    ):
        train.run(config, directory, HydraFiles("", HYDRA, "", "{}"), None, None)
    assert {path: path.read_bytes() for path in files} == files and directory.status() is None


def test_weights_that_do_not_change_measure_the_same_before_and_after(run):
    """The trainer wraps the model in autocast when it begins; the measurements must not depend on that."""
    _, directory = run("run", "tracking=none", "trainer.precision=bf16", "optimizer.lr=1.0e-12")
    result = json.loads(directory.result.read_text())
    seconds = {"eval/cases/seconds": None}
    assert result["before"] | seconds == result["metrics"] | seconds
    losses = [line["validation/loss"] for line in read_jsonl(directory.metrics) if "validation/loss" in line]
    assert len(set(losses)) == 1
    _, full = run("full", "tracking=none", "optimizer.lr=1.0e-12")
    assert json.loads(full.result.read_text())["before"] != result["before"]  # bf16 was in use


def test_question_in_both_of_the_users_parts_is_refused(run, tmp_path):
    rows = [{"question": f"Q {n % 3}?", "reasoning": "r", "answer": "a", "part": part} for n, part in enumerate(PARTS)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    own = ("data=file", f"data.path={tmp_path}/rows.json", "data.columns.split=part", "data.validation=null")
    with pytest.raises(DataError, match="no held-out question may be trained on, but 1 of 1"):
        run("run", "tracking=none", *own)


def test_reader_that_went_away_ends_neither_run_nor_grid(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "medbot_exp", "-m", *SMALL, "tracking=none", "lora.r=2,4", "study=grid"],
        cwd=tmp_path,
        env=os.environ | {"MEDBOT_EXP_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert process.wait(timeout=120) == 0, process.stderr.read()
    statuses = [RunDirectory(tmp_path / "multirun" / "grid" / f"trial-000{n}").status() for n in (0, 1)]
    assert statuses == ["complete", "complete"]


# All 180 cases may then be trained on, and those of the benchmark are among them.
LEAKING = ("data.columns.split=null", "data.validation=0.1")


def test_rows_that_give_away_an_item_are_not_trained_on(run, caplog):
    _, directory = run("run", "tracking=none", *LEAKING)
    asked = [row["id"] for row in read_jsonl(directory.predictions("cases"))]
    leaks = read_jsonl(directory.leaks)
    told = json.loads(directory.manifest.read_text())
    held_out = told["data"]["rows"]["validation"]
    # Three are asked, but no other item of the benchmark is trained on either.
    assert len(asked) == 3 and len({leak["item"] for leak in leaks} - set(asked)) > 30
    assert all(leak["row"] == leak["item"] and leak["part"] == "train" for leak in leaks)
    assert told["leaks"]["dropped"] == len(leaks) > 0
    assert told["data"]["rows"]["train"] == 180 - held_out - len(leaks)
    assert f"{len(leaks)} of {180 - held_out} do (row {leaks[0]['row']} gives away item" in caplog.text
    assert not any("clean" in key for key in json.loads(directory.result.read_text())["metrics"])


def test_rows_that_give_away_an_item_can_be_kept_and_the_others_scored_apart(run):
    _, directory = run("run", "tracking=none", *LEAKING, "data.on_leak=report")
    result, told = (json.loads(path.read_text()) for path in (directory.result, directory.manifest))
    leaked = {leak["item"] for leak in read_jsonl(directory.leaks)}
    asked = read_jsonl(directory.predictions("cases"))
    clean = [row["state"] == "correct" for row in asked if row["id"] not in leaked]
    assert told["leaks"]["dropped"] == 0 and told["leaks"]["benchmarks"]["cases"]["leaked"] == len(leaked)
    assert result["metrics"]["eval/cases/clean/n"] == len(clean) < len(asked) == 3
    if clean:
        assert result["metrics"]["eval/cases/clean/accuracy"] == sum(clean) / len(clean)


def test_rows_that_give_away_an_item_can_end_the_run(run, tmp_path):
    with pytest.raises(
        DataError, match="no training row may give away an item of a benchmark, but [34][0-9] of 1[0-9]* do"
    ):
        run("run", "tracking=none", *LEAKING, "data.on_leak=error")
    assert not (tmp_path / "run").exists()


def test_run_that_is_chosen_by_a_development_part_is_not_asked_the_test(run):
    value, directory = run("run", "tracking=none", "objective=accuracy", "benchmark.cases.development=4")
    result = json.loads(directory.result.read_text())
    assert value == result["metrics"]["eval/cases_development/accuracy"]
    assert result["metrics"]["eval/cases_development/n"] == 4
    assert "eval/cases/accuracy" not in result["metrics"]
    # Rows that give away an item of the test are not trained on all the same.
    assert set(json.loads(directory.manifest.read_text())["leaks"]["benchmarks"]) == {"cases", "cases_development"}


def test_item_that_the_model_has_no_room_for_is_left_out_and_counted(run, compose, tmp_path, caplog):
    # A token is a byte here, and the model has 2,048 places.
    long = {"question": "why " * 600 + "?", "options": dict.fromkeys("ABCD", "x"), "answer": "x", "answer_idx": "A"}
    short = long | {"question": "why?", "options": {"A": "x", "B": "y", "C": "z", "D": "u"}}
    (tmp_path / "medqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (long, short)))
    own = ("benchmark=[medqa]", f"benchmark.medqa.path={tmp_path}/medqa.jsonl", "benchmark.medqa.method=loglikelihood")
    _, directory = run("run", "tracking=none", *own)
    metrics = json.loads(directory.result.read_text())["metrics"]
    assert (metrics["eval/medqa/n"], metrics["eval/medqa/too_long"]) == (1, 1)
    assert "medqa: 1 of 2 items are left out, as they do not fit into the model's 2048 tokens: medqa-" in caplog.text
    # The record tells of what was asked, and pins all of the source.
    told = json.loads(directory.manifest.read_text())["benchmarks"]["medqa"]
    (tmp_path / "short.jsonl").write_text(json.dumps(short) + "\n")
    (paper,), _ = read_papers(compose("benchmark=[medqa]", f"benchmark.medqa.path={tmp_path}/short.jsonl"))
    assert (told["items"], told["asked"]) == (1, paper.asked) and told["fingerprint"] != paper.source


def test_mirror_that_fails_does_not_make_the_run_fail(tmp_path, caplog):
    class Broken(Mirror):
        def summarize(self, result):
            raise RuntimeError("the server is gone")

        def finish(self, exit_code):
            raise AssertionError("a mirror that was given up is told nothing more")

    record = Record(RunDirectory(tmp_path), Broken())
    record.finish({"status": "complete"})
    train.hand_over(record, {"status": "complete"}, [])
    assert record.directory.status() == "complete" and "the server is gone" in caplog.text


def test_stopped_trial_ends_the_grid():
    assert not issubclass(Interrupted, Exception)  # Hydra keeps an Exception and goes on with the next trial


def test_next_command_is_made_of_the_runs_own_overrides(compose):
    files = HydraFiles("", HYDRA, "- lora.r=16\n- name=a\n- prompt=direct\n", "")
    assert (
        train.next_grid(files, lora_config(compose, 16, "default"))
        == "python -m medbot_exp -m prompt=direct lora.r=8,16,32"
    )
    assert train.next_grid(files, lora_config(compose, 1, "default")).endswith("lora.r=1,2")
    assert train.next_grid(files, lora_config(compose, 2, "orthogonal")).endswith("lora.r=2,4")
    assert train.next_grid(files, lora_config(compose, 6, "orthogonal")).endswith("lora.r=2,6,12")


def test_command_that_reads_the_test_is_read_as_the_path_of_the_run(tmp_path):
    directory = RunDirectory(tmp_path / "what, [if] it's = so")
    *_, word = shlex.split(train.test_command(directory))
    override = OverridesParser.create().parse_override(word)
    assert (override.key_or_group, override.value()) == ("task.run", str(directory.path))


def lora_config(compose, rank, init):
    return compose(f"lora.r={rank}", f"lora.init={init}").lora
