"""Training through Unsloth: what fails in it is told, and it learns from the tokens that PEFT does."""

import json
import shutil
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from medbot_exp.errors import ConfigError, ModelError
from medbot_exp.model import byte_tokenizer, random_llama
from medbot_exp.rundir import RunDirectory
from medbot_exp.training import backend, unsloth
from medbot_exp.whole_files import read_jsonl

needs_unsloth = pytest.mark.skipif(find_spec("unsloth") is None, reason="unsloth is not installed")
# Notes every batch that the training step is given, then runs the command as a user would.
RECORD = """
import json, sys
from pathlib import Path
from medbot_exp.training import backend
from medbot_exp.config import BackendName

wanted = next(word.partition("=")[2] for word in sys.argv[2:] if word.startswith("backend="))
backend.begin(BackendName[wanted], Path("cache"))
from medbot_exp.training import solo

step = solo.Trainer.training_step

def noted(self, model, inputs, *arguments, **keywords):
    keys = ("input_ids", "labels", "attention_mask", "position_ids")
    batches.append({key: inputs[key].tolist() for key in keys if key in inputs})
    return step(self, model, inputs, *arguments, **keywords)

batches, solo.Trainer.training_step = [], noted
file = sys.argv.pop(1)
from medbot_exp.cli import entrypoint
entrypoint()
Path(file).write_text(json.dumps(batches))
"""


def test_a_process_has_the_libraries_in_one_way_alone(compose, tmp_path, monkeypatch):
    import transformers  # noqa: F401  # as a run before this one has

    with pytest.raises(ConfigError, match="a process that has transformers.* without it.*hydra/launcher=local"):
        backend.begin(compose("backend=unsloth").backend.name, tmp_path)
    monkeypatch.setitem(sys.modules, "unsloth", object())
    with pytest.raises(ConfigError, match="backend=peft in a process that has Unsloth's changes"):
        backend.begin(compose("backend=peft").backend.name, tmp_path)


class Failing:
    """Stands in for unsloth.FastLanguageModel where it fails."""

    def __init__(self, error):
        self.error = error

    def from_pretrained(self, **settings):
        raise self.error

    def get_peft_model(self, *arguments, **settings):
        raise self.error


@pytest.mark.parametrize("error", [TypeError("Unsloth: no"), NotImplementedError("Unsloth: no"), AssertionError()])
def test_what_fails_inside_of_it_is_told_with_a_remedy_and_its_cause(compose, tmp_path, monkeypatch, error):
    monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace(FastLanguageModel=Failing(error)))
    config = compose("backend=unsloth", "model=directory", "model.path=model", "lora.target_modules=[q_proj]")
    with pytest.raises(ModelError, match=rf"that Unsloth knows, but: {type(error).__name__}.*; backend=peft") as caught:
        unsloth.reader(config)(config.model, tmp_path, torch.bfloat16, torch.device("cpu"))
    assert caught.value.__cause__ is error
    base = random_llama(compose("model=tiny").model.architecture, byte_tokenizer(), "sdpa")
    with pytest.raises(ModelError, match=r"the adapter of `lora`, but: .*; use lora=all_linear, or backend") as caught:
        unsloth.attach(base, config)
    assert caught.value.__cause__ is error


def test_want_of_memory_inside_of_it_stays_what_it_is(compose, tmp_path, monkeypatch):
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace(FastLanguageModel=Failing(full)))
    config = compose("backend=unsloth", "model=directory", "model.path=model")
    with pytest.raises(torch.OutOfMemoryError):
        unsloth.reader(config)(config.model, tmp_path, torch.bfloat16, torch.device("cpu"))


def test_import_that_fails_is_told(tmp_path, monkeypatch):
    (tmp_path / "unsloth.py").write_text("raise NotImplementedError('Unsloth cannot find any torch accelerator')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "unsloth", raising=False)
    for name in ("UNSLOTH_COMPILE_LOCATION", "UNSLOTH_DISABLE_STATISTICS"):
        monkeypatch.setenv(name, "")  # and taken away again
    with pytest.raises(ConfigError, match=r"must load, but: NotImplementedError: Unsloth cannot find .*; install the"):
        unsloth.begin(tmp_path)


@pytest.fixture
def small_model(tmp_path, run_python_in):
    """A directory with a Llama of random weights that Unsloth's kernels take."""
    make = (
        "import torch; from pathlib import Path; from medbot_exp.config import ArchitectureConfig;"
        "from medbot_exp.model import byte_tokenizer, random_llama;"
        "tokenizer = byte_tokenizer(); shape = ArchitectureConfig(0, 256, 512, 2, 4, 2, 512, 4096);"
        "random_llama(shape, tokenizer, 'sdpa').to(torch.bfloat16).save_pretrained('model');"
        "tokenizer.save_pretrained('model')"
    )
    assert run_python_in(tmp_path, "-c", make).status == 0
    return tmp_path / "model"


@pytest.mark.gpu
@needs_unsloth
def test_it_goes_on_from_a_checkpoint_as_if_unbroken(tmp_path, run_python_in, small_model):
    words = ["backend=unsloth", "model=directory", f"model.path={small_model}", "model.quantization=nf4"]
    words += ["prompt=direct", "benchmark=[]", "tracking=none", "trainer.samples=0", "optimizer=adamw_8bit"]
    words += ["trainer.max_steps=6", "trainer.checkpoint_steps=3", "trainer.eval_steps=6", "optimizer.lr=1.0e-3"]
    words += ["trainer.gradient_checkpointing=true", "model.max_length=2048", f"cache_dir={tmp_path / 'cache'}"]
    finished = run_python_in(tmp_path, "-m", "medbot_exp", *words, "hydra.run.dir=run")
    assert finished.status == 0, finished.stderr
    directory = RunDirectory(tmp_path / "run")
    expected = losses(directory)
    directory.result.unlink()
    shutil.rmtree(directory.checkpoints / "checkpoint-6")
    finished = run_python_in(tmp_path, "-m", "medbot_exp", *words, f"trainer.resume={directory.path}")
    assert finished.status == 0 and "resuming after step 3" in finished.stderr, finished.stderr
    assert losses(directory) == pytest.approx(expected, rel=2e-3)  # bf16; kernels that add in any order


def losses(directory):
    return [line["train/loss"] for line in read_jsonl(directory.metrics) if "train/loss" in line]


@pytest.mark.gpu
@needs_unsloth
def test_it_learns_from_the_same_tokens_as_peft(tmp_path, run_python_in, small_model):
    (tmp_path / "record.py").write_text(RECORD)
    words = ["model=directory", f"model.path={small_model}", "model.max_length=4096", "prompt=medbot", "benchmark=[]"]
    words += ["tracking=none", "trainer.max_steps=4", "trainer.batch_size=3", "trainer.samples=0"]
    words += ["trainer.gradient_accumulation_steps=2", "optimizer.lr=1.0e-3", f"cache_dir={tmp_path / 'cache'}"]
    rows, told = {}, {}
    for name in ("peft", "unsloth"):
        finished = run_python_in(tmp_path, "record.py", f"{name}.json", f"backend={name}", f"name={name}", *words)
        assert finished.status == 0, finished.stderr
        batches = json.loads((tmp_path / f"{name}.json").read_text())
        rows[name] = [row for batch in batches for row in rows_of(batch)]
        (directory,) = tmp_path.glob(f"multirun/runs/*/*-{name}")
        told[name] = losses(RunDirectory(directory))
    assert len(rows["peft"]) == 4 * 3 * 2
    assert rows["unsloth"] == rows["peft"]
    assert told["unsloth"] == pytest.approx(told["peft"], rel=0.01)  # bf16 in another order


def rows_of(batch):
    """(token, label) of every token that is no padding, row by row; a first token has nothing that predicts it."""
    if "attention_mask" in batch:
        triples = zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True)
        return [
            [
                (token, label if place else -100)
                for place, (token, label, real) in enumerate(zip(*row, strict=True))
                if real
            ]
            for row in triples
        ]
    rows = []
    for token, label, position in zip(*(batch[key][0] for key in ("input_ids", "labels", "position_ids")), strict=True):
        if position == 0:
            rows.append([])
        rows[-1].append((token, label if position else -100))
    return rows
