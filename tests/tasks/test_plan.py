"""task=plan says what a run takes, without training; a run that will not fit is refused, or told what would."""

import json
import re
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig

from medbot_exp.config import Precision
from medbot_exp.errors import ConfigError, MedbotError, OutOfMemoryError
from medbot_exp.model import byte_tokenizer, load
from medbot_exp.rundir import HydraFiles
from medbot_exp.tasks import plan
from medbot_exp.tasks.memory_plan import MemoryPlan, explained
from medbot_exp.training import footprint
from medbot_exp.training.footprint import GIB, Longest, Setting

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
    assert lines["in all"].strip().endswith("MiB") and "workspace" in lines
    assert lines["to train"].endswith(", on a machine with a CUDA GPU")
    assert "fits" not in lines


def test_flash_attention_is_planned_for_a_gpu_that_is_elsewhere(told):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    lines = told(*SMALL, "model.attention=flash_attention_2")
    assert "on a CUDA GPU" in lines["run"] and lines["time"].startswith("not timed: it needs a CUDA GPU")


def test_memory_of_the_host_is_not_explained_as_the_gpus(memory):
    with pytest.raises(RuntimeError, match="can't allocate memory"), explained(memory(80)):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


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
            ("benchmark=[cases]", "benchmark.cases.limit=null", "data.limit=null", "data.columns.split=null"),
            "no benchmark question may be trained on",
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
    assert finished.status == 2 and "task=plan plans one run" in finished.stderr
    assert not (tmp_path / "multirun").exists()


@pytest.fixture
def memory(compose):
    """memory(free, *overrides): the plan of a training on a GPU with so many GiB left."""

    def planned(free, *overrides):
        model = footprint.transformer(LlamaConfig(num_hidden_layers=4, hidden_size=2048, vocab_size=32000))
        config = compose("model=directory", "model.path=model", "trainer.batch_size=8", *overrides)
        config = replace(config, trainer=replace(config.trainer, eval_batch_size=1))
        setting = Setting(Precision.bf16, weight_bytes=2, cuda=True, liger=True)
        return MemoryPlan(config, model, Longest(2048, 256), setting, free=free * GIB)

    return planned


def test_a_run_that_will_not_fit_is_refused_with_what_would(memory):
    need = memory(80).footprint().gib()
    memory(need + 0.1).refuse()
    with pytest.raises(OutOfMemoryError) as caught:
        memory(need - 0.1).refuse()
    first, *lines = str(caught.value).splitlines()
    assert f"takes about {need:.1f} GiB of {need - 0.1:.1f} that are free" in first
    assert lines[0] == "What would fit, each by itself:" and len(lines) == 5
    assert "trainer.gradient_checkpointing=true" in lines[1]
    assert "trainer.ignore_memory_plan=true" in lines[-1]
    memory(need - 0.1, "trainer.ignore_memory_plan=true").refuse()


def test_running_out_all_the_same_says_what_takes_clearly_less(memory):
    plan_of_it = memory(80)
    with pytest.raises(OutOfMemoryError, match="trainer.gradient_checkpointing=true") as caught, explained(plan_of_it):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB"
        )
    assert "Tried to allocate 2.00 GiB.\n" in str(caught.value)
    for gib in re.findall(r"\((\d+\.\d) GiB\)", str(caught.value)):
        assert float(gib) <= 0.86 * plan_of_it.footprint().gib()


def test_other_errors_pass(memory):
    with pytest.raises(KeyError), explained(memory(80)):
        raise KeyError("x")
    with pytest.raises(torch.OutOfMemoryError), explained(None):
        raise torch.OutOfMemoryError("CUDA out of memory")
