"""On a GPU: a run that will not fit is refused before its weights are read, and one that runs out says what would."""

import json
import re

import pytest

from medbot_exp.rundir import RunDirectory

# 2,048 rows of 2,000 tokens at a time, on a model of eight million parameters: more than any one GPU has.
LARGE = (
    "model=tiny",
    "model.architecture.hidden_size=512",
    "model.architecture.intermediate_size=2048",
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
