"""A run that will not fit is refused before its weights are read; one that runs out of memory is told what would."""

import json
import re
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, T5Config

from medbot_exp.config import Precision
from medbot_exp.errors import OutOfMemoryError
from medbot_exp.model import outline
from medbot_exp.rundir import RunDirectory
from medbot_exp.tasks.memory_plan import MemoryPlan, explained, plan_elsewhere, plan_memory
from medbot_exp.training import footprint
from medbot_exp.training.footprint import GIB, Longest, Setting

# 2,048 rows of 2,000 tokens at a time, on a model of eight million parameters: more than any one GPU has.
LARGE = (
    "model=tiny",
    "model.architecture.hidden_size=512",
    "model.architecture.intermediate_size=2048",
    "model.architecture.max_position_embeddings=4096",
    "model.max_length=4096",
    "tracking=none",
    "benchmark=[]",
    "trainer.samples=0",
    "trainer.eval_limit=2",
    "trainer.batch_size=2048",
    "data=file",
    "data.path=rows.json",
    "data.validation=2",
)


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


def test_the_machines_memory_is_short_for_a_cpu_alone(memory):
    on_gpu = memory(80)
    on_cpu = replace(on_gpu, setting=replace(on_gpu.setting, cuda=False, liger=False), free=None)
    need = on_cpu.footprint().total()
    assert on_cpu.shortage(need) is None and on_gpu.shortage(0) is None
    short = on_cpu.shortage(need - 1)
    assert short is not None and short.startswith(
        f"{need / GIB:.2f} GiB of the machine's memory are free\nWhat would fit"
    )


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


def test_memory_of_the_host_is_not_explained_as_the_gpus(memory):
    with pytest.raises(RuntimeError, match="can't allocate memory"), explained(memory(80)):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


@pytest.mark.parametrize(
    "overrides, setting",
    [
        ([], Setting(Precision.fp32, weight_bytes=4, cuda=False, liger=False, processes=2)),
        (["model.dtype=bfloat16"], Setting(Precision.fp32, weight_bytes=2, cuda=False, liger=False, processes=2)),
    ],
)
def test_plan_is_of_what_this_machine_runs_with(compose, tmp_path, overrides, setting):
    config = compose("model=tiny", *overrides)
    outlined = outline(config.model, tmp_path)
    made = plan_memory(config, outlined, Longest(64, 64), torch.device("cpu"), processes=2)
    assert (made.setting, made.free) == (setting, None)


@pytest.mark.parametrize(
    "overrides, setting",
    [
        ([], Setting(Precision.bf16, weight_bytes=2, cuda=True, liger=True)),
        (["trainer.precision=fp16"], Setting(Precision.fp16, weight_bytes=2, cuda=True, liger=True)),
        (["model.dtype=float32"], Setting(Precision.bf16, weight_bytes=4, cuda=True, liger=True)),
        (["backend=unsloth"], Setting(Precision.bf16, weight_bytes=2, cuda=True, liger=False)),
    ],
)
def test_plan_for_elsewhere_is_of_what_a_gpu_runs_with(compose, tmp_path, overrides, setting):
    config = compose("model=directory", "model.path=model", *overrides)
    made = plan_elsewhere(config, outline(compose("model=tiny").model, tmp_path), Longest(64, 64))
    assert (made.setting, made.free, made.fits()) == (setting, None, True)


def test_model_of_unknown_build_has_no_plan(compose, tmp_path, caplog):
    config = compose("model=tiny")
    outlined = replace(outline(config.model, tmp_path), config=T5Config())
    assert plan_elsewhere(config, outlined, Longest(64, 64)) is None


@pytest.fixture
def folder(tmp_path):
    """Where rows.json has 2,200 rows of about 2,000 bytes."""
    row = {"reasoning": "because " * 125, "answer": "yes " * 250}
    rows = [{"question": f"what is case {number}?", **row} for number in range(2200)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return tmp_path


@pytest.mark.gpu
def test_run_that_will_not_fit_is_refused_and_one_that_tries_is_told_what_would(folder, run_python_in):
    refused = run_python_in(folder, "-m", "medbot_exp", *LARGE, "hydra.run.dir=refused")
    assert refused.status == 2
    assert "the run must fit into the GPU's memory" in refused.stderr
    assert "trainer.ignore_memory_plan=true" in refused.stderr
    tried = run_python_in(folder, "-m", "medbot_exp", *LARGE, "hydra.run.dir=tried", "trainer.ignore_memory_plan=true")
    assert tried.status == 2 and "Traceback" not in tried.stderr
    assert "CUDA out of memory" in tried.stderr and "What would fit" in tried.stderr
    result = json.loads(RunDirectory(folder / "tried").result.read_text())
    assert result["status"] == "failed" and "CUDA out of memory" in result["error"]
    smaller = re.search(r"^ +(trainer\.batch_size=.*?)  \(", tried.stderr, re.MULTILINE)[1].split()
    fits = run_python_in(folder, "-m", "medbot_exp", *LARGE, *smaller, "trainer.max_steps=1", "hydra.run.dir=fits")
    assert fits.status == 0, fits.stderr
