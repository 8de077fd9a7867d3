"""task=evaluate: a run's adapter is the one that was trained, its base is its base, and neither is asked twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from medbot_exp.config import TrackingMode, TrackingName
from medbot_exp.errors import ConfigError, DataError, Interrupted, ModelError, RunDirectoryError
from medbot_exp.evaluation import examine as room
from medbot_exp.evaluation.benchmarks.pubmedqa import official_ids
from medbot_exp.rundir import HydraFiles, RunDirectory
from medbot_exp.tasks import evaluate, train
from medbot_exp.tasks.subject import config_of
from medbot_exp.whole_files import read_jsonl, write_json

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
LONGER = ("model.max_length=4096", "model.architecture.max_position_embeddings=4096")
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
    assert {name: run.evaluated(name).read_bytes() for name in before} == before


def test_answers_that_the_runs_result_is_of_are_left_alone(run_of, evaluated):
    run = run_of()
    before = {path.name: path.read_bytes() for path in run.predictions("cases").parent.iterdir()}
    evaluated(run, "benchmark=[cases]", "benchmark.cases.limit=6")
    assert len(read_jsonl(run.evaluated("cases"))) == len(read_jsonl(run.evaluated("cases-base"))) == 6
    assert {path.name: path.read_bytes() for path in run.predictions("cases").parent.iterdir()} == before


def test_evaluation_that_is_replaced_by_one_with_other_settings_is_told(run_of, evaluated, caplog):
    run = run_of()
    evaluated(run)
    evaluated(run, "benchmark=[cases]", "benchmark.cases.limit=4")
    assert "replaced" not in caplog.text
    evaluated(run, "benchmark=[cases]", "benchmark.cases.limit=6", "benchmark.cases.order=shuffled")
    (told,) = [record.getMessage() for record in caplog.records if "replaced" in record.getMessage()]
    assert told == (
        f"{run.evaluation('cases')} and its answers are replaced by those of another evaluation: "
        "benchmark.cases.limit 4 before, 6 now; benchmark.cases.order published before, shuffled now; "
        "4 items before, 6 now, and not the same"
    )


@pytest.mark.parametrize("init", ["default", "gaussian", "orthogonal", "pissa", "olora", "dora"])
def test_adapter_answers_as_it_did_at_the_end_of_its_training(run_of, evaluated, tmp_path, init):
    run = run_of("lora.dora=true" if init == "dora" else f"lora.init={init}")
    before = read_jsonl(run.predictions("cases"))
    shutil.rmtree(tmp_path / "cache" / "evaluations")
    evaluated(run)
    found = read_jsonl(run.evaluated("cases"))
    assert found == before
    base = read_jsonl(run.evaluated("cases-base"))
    assert [row["log_likelihoods"] for row in base] != [row["log_likelihoods"] for row in found]


def test_other_benchmarks_are_asked_of_both(run_of, evaluated, tmp_path, capsys):
    run = run_of()
    (tmp_path / "medqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in medqa_rows(range(5))))
    own = ("benchmark=[medqa,cases]", f"benchmark.medqa.path={tmp_path}/medqa.jsonl")
    written = ("benchmark.medqa.answer_tokens=4", "benchmark.cases.limit=4")
    accuracy = evaluated(run, *own, *written)
    found = json.loads(run.evaluation("medqa").read_text())
    assert accuracy == found["tuned"]["eval/medqa/accuracy"]
    assert found["settings"]["answer_tokens"] == 4 and found["base"]["eval/medqa/n"] == 5
    assert found["against_base"]["n"] == 5 and sum(found["leaks"]["rows"].values()) == 0
    assert [row["stop"] for row in read_jsonl(run.evaluated("medqa"))].count("length") > 0
    printed = capsys.readouterr().out
    assert "accuracy on medqa (n=5)" in printed and "accuracy on cases (n=4)" in printed
    assert not (tmp_path / "new").exists()


def test_items_that_the_run_was_chosen_by_are_not_asked(run_of, evaluated, caplog):
    run = run_of("objective=accuracy", "benchmark.cases.development=40")
    chosen_by = {row["id"] for row in read_jsonl(run.predictions("cases_development"))}
    with caplog.at_level("INFO"):
        evaluated(run, "benchmark=[cases]", "benchmark.cases.limit=null")
    asked = {row["id"] for row in read_jsonl(run.evaluated("cases"))}
    assert (len(chosen_by), len(asked)) == (40, 5) and not chosen_by & asked
    assert "cases: 40 of 45 items are left out, as the run was chosen by them" in caplog.text


@pytest.fixture
def chosen_run(run_of, tmp_path):
    """chosen_run(file, content, *overrides): a run that is chosen by 8 items of a part of a benchmark."""

    def trained_on(benchmark, content, *overrides):
        name = f"{benchmark}.json" if isinstance(content, dict) else f"{benchmark}.jsonl"
        text = json.dumps(content) if isinstance(content, dict) else "".join(json.dumps(row) + "\n" for row in content)
        (tmp_path / name).write_text(text)
        asked = [f"benchmark=[{benchmark}]", f"benchmark.{benchmark}.method=loglikelihood"]
        goal = [f"objective.metric=eval/{benchmark}_development/accuracy", "objective.direction=maximize"]
        words = [f"benchmark=[{benchmark},cases]", *asked[1:], *goal, f"benchmark.{benchmark}.development=8"]
        return run_of(*words, *overrides), asked, tmp_path / name

    return trained_on


def medqa_rows(numbers):
    return [
        {"question": f"Q {n}?", "options": {x: f"{x}{n}" for x in "ABCD"}, "answer": f"B{n}", "answer_idx": "B"}
        for n in numbers
    ]


def test_part_that_the_run_was_chosen_by_is_not_its_test_under_the_benchmarks_name(chosen_run, evaluated, tmp_path):
    (tmp_path / "test.jsonl").write_text(json.dumps(medqa_rows([99])[0]) + "\n")
    own = f"benchmark.medqa.path={tmp_path}/test.jsonl"
    train = f"benchmark.medqa.development_path={tmp_path}/medqa.jsonl"
    run, asked, path = chosen_run("medqa", medqa_rows(range(12)), own, train)
    # The part is known from the record: also where its rows stand in another order, under other letters.
    rows = [row | {"options": {"A": "B" + row["question"][2:-1]}} for row in medqa_rows(range(11, -1, -1))]
    for row, old in zip(rows, medqa_rows(range(11, -1, -1)), strict=True):
        row["options"] |= {"B": old["options"]["A"], "C": old["options"]["D"], "D": old["options"]["C"]}
        row["answer_idx"] = "A"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluated(run, *asked, f"benchmark.medqa.path={path}")
    assert json.loads(run.evaluation("medqa").read_text())["items"] == 4
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["question"] in chosen_questions(run)))
    with pytest.raises(DataError, match="the run was chosen by all 8 of medqa; ask another part with benchmark.medqa"):
        evaluated(run, *asked, f"benchmark.medqa.path={path}")


def chosen_questions(run):
    prompts = [row["prompt"] for row in read_jsonl(run.predictions("medqa_development"))]
    return {question for n in range(12) if any((question := f"Q {n}?") in prompt for prompt in prompts)}


def test_part_that_was_set_apart_is_not_asked_in_a_larger_file(chosen_run, evaluated, tmp_path):
    apart = "benchmark.medqa.development_split=null"
    run, asked, path = chosen_run("medqa", medqa_rows(range(12)), f"benchmark.medqa.path={tmp_path}/medqa.jsonl", apart)
    path.write_text("".join(json.dumps(row) + "\n" for row in medqa_rows(range(20))))
    chosen_by = {row["id"] for row in read_jsonl(run.predictions("medqa_development"))}
    evaluated(run, *asked, f"benchmark.medqa.path={path}")
    left = {row["id"] for row in read_jsonl(run.evaluated("medqa"))}
    assert (len(chosen_by), len(left)) == (8, 12) and not chosen_by & left


def test_part_that_the_run_was_chosen_by_is_not_asked_under_another_metric(chosen_run, evaluated, tmp_path):
    row = {"CONTEXTS": ["We asked them."], "final_decision": "yes"}
    official = sorted(official_ids())[:3]
    rows = {key: row | {"QUESTION": f"Is it {key}?"} for key in [*official, *map(str, range(10))]}
    places = [f"benchmark.pubmedqa.{part}={tmp_path}/pubmedqa.json" for part in ("path", "development_path")]
    run, asked, path = chosen_run("pubmedqa", rows, *places)
    evaluated(run, *asked, f"benchmark.pubmedqa.path={path}", "benchmark.pubmedqa.split=labeled")
    assert json.loads(run.evaluation("pubmedqa_labeled").read_text())["items"] == len(rows) - 8


def test_part_that_runs_are_chosen_by_cannot_be_typed(run_of, evaluated):
    with pytest.raises(ConfigError, match="which it has in its record, but got benchmark.cases.development=1; leave"):
        evaluated(run_of(), "benchmark=[cases]", "benchmark.cases.development=1")


def test_items_that_rows_of_the_training_give_away_are_told(run_of, evaluated, caplog):
    run = run_of("data.columns.split=null", "data.validation=0.1", "data.on_leak=report")
    evaluated(run, "benchmark=[cases]", "benchmark.cases.limit=null")
    found = json.loads(run.evaluation("cases").read_text())
    assert "rows that were trained on and give away an item of a benchmark:" in caplog.text
    # The others are held out.
    assert 0 < found["tuned"]["eval/cases/clean/n"] < 10
    assert found["tuned"]["eval/cases/clean/n"] == 45 - found["leaks"]["rows"]["overlap"]


def test_rows_that_a_base_model_is_shown_are_the_only_ones_that_give_it_anything_away(evaluated, tmp_path, caplog):
    words = ("model=tiny", *LONGER, "prompt=direct", "prompt.shots=1", "data.columns.split=null")
    evaluated(None, *words, "data.validation=0.1", "benchmark.cases.split=train", "benchmark.cases.limit=null")
    (found,) = (json.loads(path.read_text()) for path in (tmp_path / "new").glob("evaluations/*.json"))
    assert sum(found["leaks"]["rows"].values()) == 1 and found["items"] == 135
    clean = [value for key, value in found["base"].items() if key.endswith("clean/n")]
    assert clean == [134]
    assert "rows that the prompt shows and that give away an item of a benchmark: 1 of 1 do" in caplog.text


def test_rows_that_have_changed_are_not_held_against_it(run_of, evaluated, tmp_path, caplog):
    run = run_of()
    told = json.loads(run.manifest.read_text())
    told["data"]["train"] = "0" * 64
    write_json(run.manifest, told)
    # Worked examples are, whatever the rows were.
    stem = "A {} woman has had tremor, heat intolerance and weight loss for two months. Which antibody explains it?"
    for name, woman in (("test", "younger"), ("shots", "youngish")):
        row = {"question": stem.format(woman), "options": dict(zip("ABCD", "wxyz", strict=True))}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row | {"answer": "w", "answer_idx": "A"}))
    places = (f"benchmark.medqa.path={tmp_path}/test.jsonl", f"benchmark.medqa.shots_path={tmp_path}/shots.jsonl")
    words = ("benchmark=[medqa,cases]", "benchmark.cases.limit=4", "benchmark.medqa.method=loglikelihood")
    evaluated(run, *words, *places, "benchmark.medqa.shots=1")
    assert "are not held against the benchmarks: they have changed since" in caplog.text
    medqa, cases = (json.loads(run.evaluation(name).read_text()) for name in ("medqa", "cases"))
    assert cases["leaks"] == {"rows": None, "worked": None}
    assert medqa["leaks"] == {"rows": None, "worked": {"overlap": 0, "ngrams": 0, "fuzzy": 1}}
    assert medqa["tuned"]["eval/medqa/clean/n"] == 0


def test_run_is_evaluated_where_the_file_of_its_rows_is_gone(run_of, evaluated, tmp_path, caplog):
    rows = "".join(json.dumps({"question": f"Q {n}?", "reasoning": "r", "answer": "a"}) + "\n" for n in range(20))
    (tmp_path / "rows.jsonl").write_text(rows)
    run = run_of("data=file", f"data.path={tmp_path}/rows.jsonl", "data.validation=0.2")
    (tmp_path / "rows.jsonl").unlink()
    evaluated(run)
    assert "are not held against the benchmarks: `data.path` must name a file, but there is none at" in caplog.text


def test_rows_that_its_prompt_shows_must_be_there(run_of, evaluated):
    run = run_of("prompt.shots=1", *LONGER)
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
    assert len(read_jsonl(run.evaluated("cases-base"))) == 4
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
    continued = (tmp_path / "new" / "evaluations" / "medqa-base.jsonl").read_bytes()
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(tmp_path / "new")
    evaluated(None, *words)
    assert (tmp_path / "new" / "evaluations" / "medqa-base.jsonl").read_bytes() == continued


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


def other_adapter_config(**changes):
    """Writes `changes` into the run's adapter_config.json, as a hand or another program does."""

    def spoil(run):
        path = run.adapter / "adapter_config.json"
        write_json(path, json.loads(path.read_text()) | changes)

    return spoil


def torn_adapter_config(run):
    path = run.adapter / "adapter_config.json"
    path.write_text(path.read_text()[:100])


def adapter_of_another_base(run):
    """One of the same lora values, for a model with other layers and wider ones."""
    path = run.adapter / "adapter_model.safetensors"
    weights = load_file(path)
    for name, tensor in list(weights.items()):
        if "layers.1" in name:
            weights[name.replace("layers.1", "layers.2")] = weights.pop(name)
        elif "q_proj.lora_A" in name:
            weights[name] = torch.cat([tensor, tensor], dim=1)
    save_file(weights, path)
    other_adapter_config(base_model_name_or_path="someone/else")(run)


def adapter_that_lacks_a_layer(run):
    path = run.adapter / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if "layers.1" not in name}, path)


def adapter_without_numbers(run):
    path = run.adapter / "adapter_model.safetensors"
    weights = load_file(path)
    next(tensor for name, tensor in weights.items() if "q_proj.lora_B" in name)[0, 0] = float("nan")
    save_file(weights, path)


def unfinished(run):
    run.result.unlink()


def older_manifest(run):
    told = json.loads(run.manifest.read_text())
    del told["chosen_by"]
    write_json(run.manifest, told)


def torn_manifest(run):
    run.manifest.write_text("{")


def torn_result(run):
    run.result.write_text("[]")


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
        (
            adapter_of_another_base,
            ModelError,
            "lacks 14 of the 28 weights that the model wants .*, and has 14 of 28 for layers that the model does not "
            r"have .*layers.2.*, and has 1 of 28 of another shape .*q_proj.lora_A.weight: \(4, 128\), the model "
            r"\(4, 64\)\); "
            "it is that of another base model .someone/else, as its adapter_config.json says.; restore the run's own",
        ),
        (adapter_that_lacks_a_layer, ModelError, "lacks 14 of the 28 weights .*layers.1.*; restore the run's own"),
        (
            adapter_without_numbers,
            ModelError,
            r"has others in 1 of its weights \(.*q_proj.lora_B.weight, …\); restore it",
        ),
        (other_base, RunDirectoryError, "but the run's was someone/else .ffffffffffff., and random weights is"),
        (unfinished, RunDirectoryError, "must name a run that is complete, but .* is unfinished; go on with it first"),
        (
            older_config,
            RunDirectoryError,
            "must name a run of this version, but .*config.yaml does not fit it: `data.on",
        ),
        (
            torn_manifest,
            RunDirectoryError,
            "a record must be one whole JSON object, but .*manifest.json is not: .*; res",
        ),
        (torn_result, RunDirectoryError, "one whole JSON object, but .*result.json is not: it is a list; restore it"),
        (older_manifest, RunDirectoryError, "of this version, but .*manifest.json does not say what it was chosen by"),
    ],
)
def test_run_that_cannot_be_evaluated_is_refused(run_of, evaluated, spoil, error, words, whenever_asked):
    run = run_of()
    spoil(run)
    whenever_asked(lambda: pytest.fail("the base was asked first"))
    with pytest.raises(error, match=words):
        evaluated(run)


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
@pytest.mark.parametrize(
    "spoil, words",
    [
        (
            other_adapter_config(lora_alpha=2400),
            'has lora_alpha=2400 and the run lora.alpha=4.0; .* "lora_alpha": 4.0 t',
        ),
        (
            torn_adapter_config,
            "adapter_config.json must be a whole JSON object, but .* is not: .*; restore it: the run",
        ),
    ],
)
def test_adapter_config_that_is_not_the_runs_is_refused_whoever_answers(run_of, evaluated, engine, spoil, words):
    run = run_of()
    spoil(run)
    with pytest.raises(ModelError, match=words):
        evaluated(run, "benchmark=[medqa]", f"benchmark.medqa.engine={engine}")


def test_run_of_before_a_task_got_a_key_is_evaluated(run_of, evaluated):
    run = run_of()
    text = run.config.read_text()
    assert "  device: null\n" in text
    run.config.write_text(text.replace("  device: null\n", ""))
    evaluated(run)


def test_torn_adapter_config_can_be_taken_from_a_checkpoint(run_of, evaluated):
    run = run_of()
    torn_adapter_config(run)
    shutil.copy(run.last_checkpoint() / "adapter_config.json", run.adapter)
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


def test_evaluation_is_tracked_as_its_run_was_unless_the_command_says_otherwise(run_of, compose):
    run = run_of()  # with tracking=none
    own = config_of(run, compose("task=evaluate")).tracking

    def tracking(*words):
        config = compose("task=evaluate", f"task.run={run.path}", *words)
        files = HydraFiles("", HYDRA, yaml.safe_dump([f"task.run={run.path}", *words]), "")
        return evaluate.subject_of(config, run, files).config.tracking

    assert tracking() == own and tracking().name is TrackingName.none
    assert tracking("tracking=wandb").name is TrackingName.wandb
    assert tracking("tracking=wandb", "tracking.mode=offline").mode is TrackingMode.offline
    assert tracking("tracking.project=mine") == replace(own, project="mine")


def test_evaluation_of_a_run_without_tracking_starts_no_wandb_run(run_of, run_python_in, tmp_path):
    run = run_of()
    words = ("-m", "medbot_exp", "task=evaluate", f"task.run={run.path}")
    finished = run_python_in(tmp_path, *words, env={"MEDBOT_EXP_CACHE": str(tmp_path / "cache")})
    assert finished.status == 0, finished.stderr
    assert "W&B" not in finished.stdout + finished.stderr and not list(tmp_path.rglob("wandb"))


def test_command_prints_a_table_and_is_of_one_run(tmp_path, run_python_in):
    words = ("task=evaluate", "model=tiny", "tracking=none", "benchmark.cases.limit=2")
    finished = run_python_in(tmp_path, "-m", "medbot_exp", *words)
    assert finished.status == 0, finished.stderr
    assert "accuracy on cases (n=2)" in finished.stdout
    finished = run_python_in(tmp_path, "-m", "medbot_exp", "-m", *words, "seed=1,2")
    assert finished.status == 2 and "task=evaluate is about one run" in finished.stderr
