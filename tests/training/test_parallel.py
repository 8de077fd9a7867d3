"""Two processes train what one does: the same rows in each step, the same losses, the same adapter, one record."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from medbot_exp.data.prepare import TokenizedRows
from medbot_exp.rundir import HydraFiles, RunDirectory
from medbot_exp.tasks import train
from medbot_exp.training.parallel import EpochOrder, blanks_for, with_blanks
from medbot_exp.whole_files import read_jsonl

SMALL = (
    "model=tiny",
    "prompt=direct",
    "tracking=none",
    "lora.r=4",
    "data.limit=40",
    "trainer.max_steps=4",
    "trainer.batch_size=2",
    "trainer.gradient_accumulation_steps=2",
    "trainer.eval_steps=2",
    "trainer.checkpoint_steps=2",
    "trainer.eval_batch_size=2",
    "trainer.eval_limit=5",
)
UNASKED = ("benchmark=[]", "trainer.samples=0")
ASKED = (
    "benchmark.cases.limit=2",
    "trainer.samples=2",
    "trainer.sample_thinking_tokens=3",
    "trainer.sample_answer_tokens=5",
)
# Three rows a process, so that the micro-batch is divided, and a number of rows that leaves a rest in each epoch.
EPOCHS = (
    *UNASKED,
    "trainer.max_steps=null",
    "trainer.epochs=2",
    "trainer.batch_size=3",
    "trainer.checkpoint_steps=1",
    "trainer.checkpoint_limit=99",
)
EARLY = (
    *UNASKED,
    "optimizer.lr=8.0",
    "optimizer.schedule=constant",
    "trainer.max_steps=40",
    "trainer.eval_steps=1",
    "trainer.checkpoint_steps=1",
    "trainer.early_stopping_patience=2",
)
FULL = ("trainer.sharding=full",)
RUNS = {
    "steps": ASKED,
    "sharded": (*FULL, *ASKED),
    "sharded_bf16": (*FULL, *UNASKED, "trainer.gradient_checkpointing=true", "trainer.precision=bf16"),
    "sharded_dropout": (*FULL, *UNASKED, "lora.dropout=0.2"),
    "epochs": EPOCHS,
    "early": EARLY,
}
# Begun by two processes, broken off behind a step, gone on with by two.
AGAIN = {"epochs_again": ("epochs", 9), "sharded_dropout_again": ("sharded_dropout", 2)}
HYDRA = "hydra: {runtime: {config_sources: []}, job: {config_name: config}}"
# Every run in the same two processes, one after the other, as starting them costs more than all of the runs.
DRIVER = """
import json, shutil, sys
from pathlib import Path

import hydra
import torch

import medbot_exp.cli
from medbot_exp import lora
from medbot_exp.config import conf_directory
from medbot_exp.model import byte_tokenizer, random_llama
from medbot_exp.processes import launched
from medbot_exp.rules import typed
from medbot_exp.rundir import HydraFiles, RunDirectory
from medbot_exp.tasks import train
from medbot_exp.training.lora_linear import fuse
from medbot_exp.training.parallel import shard

def composed(overrides):
    with hydra.initialize_config_dir(config_dir=str(conf_directory()), version_base="1.3"):
        return typed(hydra.compose("config", overrides=overrides))

def gradients(prepare):
    # Of the adapter, after a pass of a model that is the same each time but for what `prepare` does to it.
    config = composed(["model=tiny", "lora.r=4"])
    torch.manual_seed(3)
    model = lora.attach(random_llama(config.model.architecture, byte_tokenizer(), "sdpa"), config.lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    fused = prepare(model)
    ids = torch.arange(4, 68).reshape(2, 32)
    model.train()(ids, labels=ids, use_cache=False).loss.backward()
    return fused, [parameter.grad for parameter in model.parameters() if parameter.requires_grad]

def fuse_and_divide(model):
    fused = fuse(model, torch.float32)
    shard(model, torch.device("cpu"))
    return fused

def run(name, overrides, processes):
    files = HydraFiles("", plan["hydra"], "", "{}")
    train.run_together(composed(overrides), RunDirectory(name), files, None, None, processes)

def break_off(whole, name, step):
    shutil.copytree(whole, name)
    broken = RunDirectory(name)
    broken.result.unlink()
    for path in broken.checkpoints.iterdir():
        if int(path.name.rpartition("-")[2]) > step:
            shutil.rmtree(path)

plan = json.loads(Path(sys.argv[1]).read_text())
if not launched().first:
    launched().silence()
with launched().met() as processes:
    for name, overrides in plan["runs"].items():
        run(name, overrides, processes)
    for name, (whole, step) in plan["again"].items():
        processes.of_first(lambda: break_off(whole, name, step))
        run(name, [*plan["runs"][whole], "trainer.resume=" + name], processes)
    _, expected = gradients(lambda model: 0)
    fused, found = gradients(fuse_and_divide)
    apart = max(float((one - other).abs().max()) for one, other in zip(expected, found, strict=True))
    largest = max(float(one.abs().max()) for one in expected)
    if processes.first:
        Path("fused.json").write_text(json.dumps({"layers": fused, "apart": apart, "largest": largest}))
"""


def with_cache(overrides, folder):
    return [*SMALL, *overrides, f"cache_dir={folder / 'cache'}"]


@pytest.fixture(scope="module")
def several(torchrun, tmp_path_factory):
    """The folder with what two processes left of RUNS and AGAIN."""
    folder = tmp_path_factory.mktemp("several")
    plan = {"hydra": HYDRA, "runs": {name: with_cache(words, folder) for name, words in RUNS.items()}, "again": AGAIN}
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "driver.py").write_text(DRIVER)
    finished = torchrun(folder, "driver.py", "plan.json")
    assert finished.status == 0, finished.stderr[-5000:]
    return folder


@pytest.fixture(scope="module")
def alone(compose, tmp_path_factory):
    """alone(name): the directory of the run `name`, trained by one process."""
    folder = tmp_path_factory.mktemp("alone")

    def run(name):
        directory = RunDirectory(folder / name)
        if not directory.path.exists():
            words = [word for word in RUNS[name] if word not in FULL]
            train.run(compose(*with_cache(words, folder)), directory, HydraFiles("", HYDRA, "", "{}"), None, None)
        return directory

    return run


def losses(directory):
    return [
        (line["step"], key, line[key])
        for line in read_jsonl(directory.metrics)
        for key in ("train/loss", "validation/loss")
        if key in line
    ]


def weights(directory):
    return load_file(directory.adapter / "adapter_model.safetensors")


def result_of(directory):
    return json.loads(directory.result.read_text())


def assert_same_training(one, other, tolerance):
    """The same losses at the same steps, and the same adapter."""
    assert [entry[:2] for entry in losses(other)] == [entry[:2] for entry in losses(one)]
    for (step, key, expected), (_, _, loss) in zip(losses(one), losses(other), strict=True):
        assert loss == pytest.approx(expected, abs=tolerance), (step, key)
    expected, trained = weights(one), weights(other)
    assert trained.keys() == expected.keys()
    moved = max(float(tensor.abs().max()) for name, tensor in expected.items() if "lora_B" in name)
    assert moved > 0.001  # B begins at zero
    for name, tensor in expected.items():
        torch.testing.assert_close(trained[name], tensor, rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("name", ["steps", "sharded", "epochs"])
def test_two_processes_train_what_one_does(several, alone, name):
    assert_same_training(alone(name), RunDirectory(several / name), 1e-5)


def test_divided_weights_train_in_half_precision_with_activations_made_again(several, alone):
    # bf16 has three digits, and sums of another order round another way.
    expected, divided = losses(alone("sharded_bf16")), losses(RunDirectory(several / "sharded_bf16"))
    assert [entry[2] for entry in divided] == pytest.approx([entry[2] for entry in expected], abs=2e-3)
    assert expected != losses(alone("steps"))  # bf16 was in use


@pytest.mark.parametrize("name", ["steps", "sharded"])
def test_two_processes_leave_the_record_of_one(several, alone, name):
    one, other = alone(name), RunDirectory(several / name)
    expected, result = result_of(one), result_of(other)
    assert result["status"] == "complete" and result["tokens"] == expected["tokens"]
    assert {path.name for path in other.path.iterdir()} == {path.name for path in one.path.iterdir()}
    for benchmark in ("cases", "samples"):
        rows = read_jsonl(other.predictions(benchmark))
        assert [row["id"] for row in rows] == [row["id"] for row in read_jsonl(one.predictions(benchmark))]
    assert json.loads(other.manifest.read_text())["processes"] == 2
    assert json.loads(one.manifest.read_text())["processes"] == 1


def test_processes_without_the_record_write_nothing(several):
    assert {path.name for path in several.iterdir()} == {
        *RUNS,
        *AGAIN,
        "cache",
        "fused.json",
        "driver.py",
        "plan.json",
    }


def test_early_stopping_ends_all_at_the_same_step(several, alone):
    one, other = result_of(alone("early")), result_of(RunDirectory(several / "early"))
    assert one["steps"] < 40 and one["adapter_step"] < one["steps"]
    assert (other["steps"], other["adapter_step"]) == (one["steps"], one["adapter_step"])
    assert_same_training(alone("early"), RunDirectory(several / "early"), 1e-2)  # at this rate, rounding grows


def test_fused_layers_find_their_divided_weights_whole(several):
    found = json.loads((several / "fused.json").read_text())
    assert found["layers"] == 14 and found["apart"] < 1e-6 < 1e-3 < found["largest"]


@pytest.mark.parametrize("name", AGAIN)
def test_resumed_processes_end_as_unbroken_ones(several, name):
    whole, resumed = RunDirectory(several / AGAIN[name][0]), RunDirectory(several / name)
    assert result_of(resumed)["resumed_from"] == AGAIN[name][1] < result_of(whole)["steps"]
    assert losses(resumed) == losses(whole)
    expected = weights(whole)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in weights(resumed).items())


def test_processes_draw_numbers_of_their_own(several):
    """Dropout with the same ones would drop the same places of the rows of all."""
    checkpoint = RunDirectory(several / "steps").last_checkpoint()
    first, second = (torch.load(checkpoint / f"rng_state_{rank}.pth", weights_only=False)["cpu"] for rank in (0, 1))
    assert not torch.equal(first, second)


def test_run_of_two_processes_is_gone_on_with_by_one(several, compose, tmp_path, alone):
    directory = RunDirectory(tmp_path / "again")
    shutil.copytree(several / "epochs", directory.path)
    directory.result.unlink()
    for path in directory.checkpoints.iterdir():
        if int(path.name.rpartition("-")[2]) > 9:
            shutil.rmtree(path)
    config = compose(*with_cache(EPOCHS, several))
    config.trainer.resume = str(directory.path)
    train.run(config, directory, HydraFiles("", HYDRA, "", "{}"), None, None)
    assert result_of(directory)["resumed_from"] == 9
    assert_same_training(alone("epochs"), directory, 1e-5)


@pytest.mark.parametrize("rows, together, blanks", [(12, 4, 0), (13, 4, 3), (1, 2, 1)])
def test_blank_rows_fill_up_an_epoch(rows, together, blanks):
    assert blanks_for(rows, together) == blanks
    real = TokenizedRows([[7, 8, 9]] * rows, [[0, 1, 1]] * rows, 0, 0, False)
    filled = with_blanks(real, blanks)
    assert len(filled) % together == 0 and filled.input_ids[:rows] == real.input_ids
    assert all(not any(mask) for mask in filled.completion_mask[rows:])


def test_order_of_an_epoch_is_that_of_its_number():
    epoch = 0
    order = EpochOrder(rows=9, blanks=3, seed=5, epoch=lambda: epoch)
    first, again = list(order), list(order)
    epoch = 1
    second = list(order)
    assert first == again != second
    assert sorted(first) == list(range(12)) and first[9:] == second[9:] == [9, 10, 11]
