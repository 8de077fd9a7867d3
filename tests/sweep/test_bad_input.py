"""A search of our own application that cannot be: one clear block, exit status 2, and neither study nor directory."""

import shutil

import optuna
import pytest

COMMAND = (
    "-m",
    "hydra/sweeper=optuna",
    "hydra/launcher=local",
    "model=tiny",
    "tracking=none",
    "benchmark=[]",
    "study=bad",
)

# What is typed, and what must be told: the rule, the value, the remedy.
CASES = [
    (["lora.r=16"], ["must have something to search", "lora.r=16", "for example lora.r=8,16,32"]),
    (
        ["lora.r=8,16", "+hydra.sweeper.params={lora.rr: '1,2'}"],
        ["`lora.rr` must be a key of the config", "did you mean lora.r?"],
    ),
    (["lora.r=8,16", "+hydra.sweeper.params={+zoo: '1,2'}"], ["`zoo` is no key", "the config has: task, model"]),
    (
        ["+hydra.sweeper.params={+experiment: 'medbot,nothing'}"],
        ["`experiment=nothing` is no option", "experiment has: medbot"],
    ),
    (
        ["hydra.sweeper.params={lora.rr: '1,2'}"],
        ["`lora.rr` must be a key of the config", "did you mean lora.r?"],
    ),
    (
        ["optimizer.lr=interval(1e-4,1e-3)", "hydra/sweeper/sampler=grid"],
        ["that can be counted", "optimizer.lr from 0.0001 to 0.001", "try range("],
    ),
    (
        ["lora.r=8,16", "hydra/sweeper/sampler=cmaes"],
        ["must have a number to search", "choices alone: lora.r", "try hydra/sweeper/sampler=tpe"],
    ),
    (
        ["lora.r=8,16", "hydra/sweeper/pruner=median", "objective=loss_and_size"],
        ["several objectives", "MedianPruner and 2 directions", "try hydra/sweeper/pruner=none"],
    ),
    (
        ["lora.r=8,16", "objective.metric=validation/los"],
        ["must be one that the run measures", "objective.metric=validation/los", "the run has: validation/loss, "],
    ),
    (
        ["lora.r=8,16", "objective.metric=eval/medqa/accuracy", "objective.direction=maximize"],
        ["must be one that the run measures", "objective.metric=eval/medqa/accuracy", "the run has: validation/loss, "],
    ),
    (
        ["lora.r=8,16", "objective=accuracy_and_tokens", "benchmark=[cases]"],
        ["must be one that the run measures", "benchmark.cases.method=generate has it write, and its tokens counted"],
    ),
    (
        ["lora.r=8,16", "hydra.sweeper.storage='postgresql+psycopg2://me@127.0.0.1:1/none'", "hydra.sweeper.n_jobs=1"],
        ["must be usable", "postgresql+psycopg2://me@127.0.0.1:1/none", "See that the server runs"],
    ),
    (
        ["hydra.sweeper.params=lora.r", 'hydra.sweeper.when="lora.r>=16"'],
        ["`hydra.sweeper.params` must be a mapping, but got hydra.sweeper.params=lora.r", "`hydra.sweeper.when` must"],
    ),
    (
        ["lora.r=8,16", "hydra.sweeper={storage: 'postgresql+psycopg2://me:s3cr3t@h/d'}", "hydra.sweeper.n_jobs=1"],
        ["must have a word of its own", "write hydra.sweeper.storage=<url>"],
    ),
    (
        ["lora.r=8,16", "+hydra.sweeper.n_trails=3"],
        ["`hydra.sweeper.n_trails` is no key", "did you mean hydra.sweeper.n_trials?"],
    ),
    (["lora.r=8,16", "hydra.sweeper.n_trails=3"], ["hydra.sweeper has: sampler, direction", "did you mean"]),
    (
        ["lora.r=8,16", "hydra.sweeper.n_jobs=2"],
        ["a GPU of its own", "n_jobs=2 and 1 of them", "hydra.sweeper.n_jobs=1"],
    ),
    (
        ["model=directory", "model.path=here,there"],
        ["`model.path` must be a directory with config.json, but there is none in here", "none in there"],
    ),
]


@pytest.mark.parametrize(("typed", "words"), CASES, ids=[" ".join(typed) for typed, _ in CASES])
def test_it_is_told_and_nothing_is_made(run_cli, tmp_path, typed, words):
    finished = run_cli(*COMMAND, *typed, env={"CUDA_VISIBLE_DEVICES": "0"})
    assert finished.status == 2, finished.stderr
    assert [word for word in words if word not in finished.stderr] == []
    assert finished.stderr.startswith("medbot_exp: ") and "Traceback" not in finished.stderr
    assert len(finished.stderr.splitlines()) <= 4
    assert [path.name for path in tmp_path.iterdir()] == []


def test_torn_tokenizer_of_one_point_of_a_grid_is_told_before_any_runs(run_cli, tmp_path, saved_tiny):
    for name in ("whole", "torn"):
        shutil.copytree(saved_tiny, tmp_path / name)
    (tmp_path / "torn" / "tokenizer.json").write_bytes((saved_tiny / "tokenizer.json").read_bytes()[:1000])
    grid = ("-m", "model=directory", "model.path=whole,torn", "tracking=none", "benchmark=[]")
    finished = run_cli(*grid, "hydra.sweep.dir=study")
    assert finished.status == 2, finished.stderr
    assert "tokenizer.json must be a JSON object, but in torn it is not" in finished.stderr
    assert "copy it again" in finished.stderr and "Traceback" not in finished.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["torn", "whole"]


def test_torn_tail_of_a_journal_is_cut_and_told(run_cli, tmp_path):
    journal = tmp_path / "study.log"
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.create_study(study_name="bad", storage=storage)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    with journal.open("a") as file:
        file.write('{"op_code": 4, "wor')
    finished = run_cli(*COMMAND, "lora.r=8,16", "hydra.sweeper.storage=study.log", "hydra.sweeper.n_trials=1")
    assert finished.status == 0, finished.stderr
    assert """its 19 bytes are cut off, '{"op_code": 4, "wor' is lost""" in finished.stderr
    assert "(1 trial: 1 complete)" in finished.stdout
