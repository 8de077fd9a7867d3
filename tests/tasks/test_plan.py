"""task=plan says what a run takes, without training."""

import json
import re

import pytest
import torch

from medbot_exp.errors import ConfigError, MedbotError
from medbot_exp.model import byte_tokenizer, load
from medbot_exp.rundir import HydraFiles
from medbot_exp.tasks import plan

HYDRA = "hydra: {runtime: {config_sources: []}, job: {config_name: config}}"
SMALL = (
    "model=tiny",
    "tracking=none",
    "benchmark=[]",
    "trainer.samples=0",
    "trainer.eval_limit=2",
    "data.limit=26",
    "prompt=direct",
)


@pytest.fixture
def told(compose, tmp_path, capsys):
    """told(*overrides): the lines of a plan by their names."""

    def read(*overrides):
        config = compose("task=plan", *overrides)
        config.cache_dir = str(tmp_path / "cache")
        plan.run(config, HydraFiles("", HYDRA, "\n".join(f"- {word}" for word in ("task=plan", *overrides)), "{}"))
        lines = re.findall(r"^ {2}(\S.*?) {2,}(\S.*)$", capsys.readouterr().out, re.MULTILINE)
        return dict(lines)

    return read


def test_plan_of_a_run_says_what_the_run_then_takes(told, tmp_path, run_python_in):
    words = (*SMALL, "trainer.max_steps=null", "trainer.epochs=1", "trainer.batch_size=2", "trainer.eval_steps=50")
    words = (*words, "trainer.gradient_accumulation_steps=2", "lora.r=4")
    lines = told(*words)
    finished = run_python_in(tmp_path, "-m", "medbot_exp", *words)
    assert finished.status == 0, finished.stderr
    (path,) = tmp_path.glob("multirun/runs/*/*/result.json")
    result = json.loads(path.read_text())
    steps, rows, tokens = re.match(r"(\d+) steps of (\d+) rows, ([\d,]+) tokens", lines["training"]).groups()
    assert (int(steps), int(rows)) == (result["steps"], 4)
    assert int(tokens.replace(",", "")) == result["tokens"]
    assert f"and {result['trainable_parameters']:,} trained" in lines["parameters"]
    assert lines["training"].endswith(", 1 pass over the rows")
    assert lines["time"].startswith("about ") and f"{steps} steps of" in lines["time"]
    assert lines["to train"] == "python -m medbot_exp " + " ".join(words).replace("benchmark=[]", "'benchmark=[]'")


def test_plan_for_a_gpu_that_is_elsewhere_says_the_memory_alone(told, tmp_path, compose):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    loaded = load(compose("model=tiny").model, tmp_path, torch.device("cpu"))
    loaded.model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    lines = told("model=directory", f"model.path={tmp_path / 'model'}", "model.quantization=nf4", *SMALL[1:])
    assert lines["run"] == "directory: backend=peft, on a CUDA GPU with bf16 and Liger's kernels"
    assert lines["time"] == "not timed: it needs a CUDA GPU, and this machine has none"
    assert lines["in all"].strip().endswith("MiB") and "workspace (of matrix products)" in lines
    assert lines["needs"] == 'a CUDA GPU, and there: pip install ".[gpu]"'
    assert "fits" not in lines


def test_plan_for_a_gpu_can_be_had_on_any_machine(told):
    lines = told(*SMALL, "task.device=cuda")
    assert lines["run"] == "tiny: backend=peft, on a CUDA GPU with bf16 and Liger's kernels"
    assert lines["weights (16 bits)"] and "workspace (of matrix products)" in lines and "fits" not in lines
    assert lines["time"] == "not timed: task.device=cuda is about a GPU elsewhere"
    assert "needs" in lines and "task." not in lines["to train"]


def test_model_without_weights_is_planned_as_the_one_that_has_them(told, tmp_path, compose):
    loaded = load(compose("model=tiny").model, tmp_path, torch.device("cpu"))
    loaded.model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    words = ("model=directory", f"model.path={tmp_path / 'model'}", *SMALL[1:])
    whole = told(*words, "task.rehearse=false")
    (tmp_path / "model" / "model.safetensors").unlink()
    assert told(*words, "task.rehearse=false") == whole
    assert told(*words)["time"].startswith("about ")


def test_rows_longer_than_the_model_is_made_for_are_not_planned(told, tmp_path, compose):
    loaded = load(compose("model=tiny").model, tmp_path, torch.device("cpu"))
    loaded.model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    written = json.loads(config.read_text())
    del written["max_position_embeddings"]  # 2048 by transformers
    config.write_text(json.dumps(written))
    words = ("model=directory", f"model.path={tmp_path / 'model'}", *SMALL[1:], "model.max_length=2049")
    with pytest.raises(ConfigError, match=r"2048 tokens as transformers has it .*; use model.max_length=2048$"):
        told(*words)


def test_flash_attention_is_planned_for_a_gpu_that_is_elsewhere(told):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    lines = told(*SMALL, "model.attention=flash_attention_2")
    assert "on a CUDA GPU" in lines["run"] and lines["time"].startswith("not timed: it needs a CUDA GPU")


def test_what_does_not_fit_into_the_machines_memory_is_said_and_not_timed(told, leave_free):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "fits" not in told(*SMALL, "task.rehearse=false")
    leave_free(2**29)
    lines = told(*SMALL)
    few = r"not timed: a model with few layers may take up to [\d.]+ GiB of the machine's memory, 0\.50 GiB are free"
    assert re.fullmatch(few, lines["time"])
    assert lines["fits"] == "no: 0.50 GiB of the machine's memory are free"


def test_batch_has_no_more_rows_than_there_are(told):
    few = told(*SMALL, "task.rehearse=false", "trainer.batch_size=20")
    many = told(*SMALL, "task.rehearse=false", "trainer.batch_size=4000", "trainer.eval_batch_size=4000")
    assert few["in all"] == many["in all"] and ", 10 passes over" in many["training"]
    assert many["training"].startswith("10 steps of 20 rows, ")
    (name,) = (name for name in many if name.startswith("activations"))
    assert name.startswith("activations (20 rows of ")


def test_plan_without_a_rehearsal_is_of_memory_and_steps(told):
    lines = told(*SMALL, "task.rehearse=false")
    assert lines["time"] == "not timed: task.rehearse=false"
    assert "GiB" in lines["in all"] and "rehearse" not in lines["to train"]


@pytest.mark.parametrize(
    "overrides, words",
    [
        (("trainer.resume=multirun/runs/x",), "leave trainer.resume out"),
        (("trainer.sharding=full",), "plan it with trainer.sharding=none"),
        (
            ("benchmark=[cases]", "data.on_leak=error", "data.limit=null", "data.columns.split=null"),
            "no training row may give away an item of a benchmark",
        ),
    ],
)
def test_what_no_run_would_do_is_not_planned(told, overrides, words):
    with pytest.raises(MedbotError, match=re.escape(words)):
        told(*SMALL, "data.validation=0.1", *overrides)


def test_a_target_that_the_model_lacks_is_told(told):
    with pytest.raises(ConfigError, match="it has no query"):
        told(*SMALL, "lora.target_modules=[query]")


def test_plan_leaves_no_directory_and_is_of_one_run(tmp_path, run_python_in):
    finished = run_python_in(tmp_path, "-m", "medbot_exp", "task=plan", *SMALL)
    assert finished.status == 0, finished.stderr
    assert not (tmp_path / "multirun").exists()
    finished = run_python_in(tmp_path, "-m", "medbot_exp", "-m", "task=plan", *SMALL, "lora.r=2,4")
    assert finished.status == 2 and "task=plan is about one run" in finished.stderr
    assert not (tmp_path / "multirun").exists()
