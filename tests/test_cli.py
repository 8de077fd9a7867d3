"""The command as a user meets it: exit status, the block on stderr, what is left on disk; and who imports whom."""

import ast
import graphlib
import os
import signal
import subprocess
import sys
import time
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

import medbot_exp
from medbot_exp.cli import interrupt

PACKAGE = Path(medbot_exp.__file__).parent

UNSLOTH_IS_HERE = find_spec("unsloth") is not None

# arguments: words that the block must hold
BAD_INPUT = {
    ("lora.dropuot=0.1",): ["`lora.dropuot` is no key", "did you mean lora.dropout?"],
    ("+lora.dropuot=0.1",): ["`lora.dropuot` is no key", "lora has: r, alpha, dropout"],
    ("lora=fulll",): ["`lora=fulll` is no option", "all_linear, attention, mlp"],
    ("+experiment=medbto",): ["`experiment=medbto` is no option", "medbot"],
    ("lora.r=eight",): ["`lora.r` must be a whole number", "'eight'"],
    ("lora.r=8,16",): ["`lora.r` takes one value", "python -m medbot_exp -m lora.r=8,16", "lora.r=[8,16]"],
    ("prompt=medbot,direct",): ["`prompt` takes one value", "python -m medbot_exp -m prompt=medbot,direct"],
    ("benchmark=medqa,cases",): ["python -m medbot_exp -m benchmark=medqa,cases", "list: benchmark=[medqa,cases]"],
    ("lora=null",): ["`lora` must be one of its options: lora=<all_linear|attention|mlp>", "lora=null"],
    ("benchmark=none",): ["`benchmark=none` is no option", "benchmark=[] takes none"],
    ("~trainer.epochs",): ["a key cannot be taken out", "~trainer.epochs", "null"],
    ("--foo", "lora.r=8"): ["there is no flag --foo", "--hydra-help"],
    ("model.attention=flash",): ["`model.attention` must be one of sdpa, eager, flash_attention_2, but got 'flash'"],
    ("optimizer.schedule=nope",): ["`optimizer.schedule` must be one of linear, cosine"],
    ("tracking.tags=mine",): ["`tracking.tags` must be a list: tracking.tags=[a,b]"],
    ("benchmark=[]", "benchmark.cases.limit=3"): ["`benchmark.cases` is no key", "benchmark=[] was chosen"],
    ("--resolve",): ["--resolve flag can only be used in conjunction with --cfg"],
    ("prompt.template=Q {question}",): ["an override must read key=value", "goes in quotes of its own"],
    ("trainer.resume=/etc/hostname",): ["`trainer.resume` must name a run directory", "/etc/hostname"],
    ("trainer.logging_steps=20",): ["try trainer.checkpoint_steps=20"],
    ("root=", "tracking.project="): ["`root` must not be empty", "`tracking.project` must not be empty"],
    ("lora.r=8", "--config-dir"): ["expected one argument", "--hydra-help"],
    ("trainer.epochs=3",): ["trainer.max_steps=10 trainer.epochs=3.0", "trainer.max_steps=null"],
    ("lora.r=0",): ["lora.r=0", "8, 16 or 32"],
    ("lora.r=-1", "lora.alpha=-2", "lora.dropout=1.5"): ["lora.r=-1;", "lora.alpha=-2.0;", "lora.dropout=1.5;"],
    ("prompt.template=Why?",): ["`prompt.template` must hold {question}", "'Why?'"],
    ("name=../../x",): ["`name` must be 1 to 64 characters", "'../../x'"],
    ("-m", "study=../x", "lora.r=8,16"): ["`study` must be 1 to 64 characters", "'../x'"],
    ("-m", "lora.rr=8,16"): ["`lora.rr` is no key", "did you mean lora.r?"],
    ("-m", "lora.r=8,0", "seed=1,-1"): ["lora.r=0; try 8, 16 or 32", "seed=-1; try 3407"],
    ("-m", "lora.r=8,abc"): ["`lora.r` must be a whole number, but got 'abc'"],
    ("-m", "lora.r=8,16", "trainer.resume=x"): ["`trainer.resume` goes on with one run", "without -m"],
    ("root=/proc/x",): ["writing must be possible", "/proc/x", "root=<directory>"],
    ("data=file", "data.path=none.csv"): ["`data.path` must name a file", "none.csv"],
    ("model=directory", "model.path=."): ["`model.path` must be a directory with config.json"],
    ("tracking.mode=online",): ["tracking.mode=online needs a W&B key", "wandb login"],
    ("trainer.resume=nowhere",): ["`trainer.resume` must name a run directory", "nowhere"],
    ("backend=unsloth",): ["backend=unsloth needs ", "the package unsloth, which is not installed", "use backend=peft"],
}


HEAVY = [
    "torch",
    "transformers",
    "trl",
    "peft",
    "unsloth",
    "wandb",
    "optuna",
    "datasets",
    "huggingface_hub",
    "tokenizers",
]

# Top to bottom; a module may import from its own line and from the lines below.
FLOORS = [
    ("__main__",),
    ("cli", "explain", "plugins"),
    ("tasks",),
    ("report",),
    ("training", "evaluation", "sweep"),
    ("prompt", "data", "model", "model_files", "embedded", "lora", "saved_adapter", "tracking"),
    ("digest", "rundir", "rules", "objectives", "device", "processes", "padding", "config"),
    ("layout", "override_text", "whole_files"),
    ("errors", ""),
]


def left_behind(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def assert_block(finished, words):
    """A user error: status 2, one block on stderr that holds `words`, nothing else."""
    assert finished.status == 2, finished.stderr
    title, *body = finished.stderr.splitlines()
    assert title.startswith("medbot_exp: ") and title.endswith("Error")
    assert body and all(line.startswith("  ") for line in body)
    assert "object_type" not in finished.stderr and "full_key" not in finished.stderr  # Hydra's own words
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""
    assert [word for word in words if word not in finished.stderr] == []


@pytest.fixture(scope="session")
def outcome(run_python_in, tmp_path_factory):
    """outcome(arguments): how the command ended, and what lies in its folder afterwards."""

    @cache
    def run(arguments):
        folder = tmp_path_factory.mktemp("cli")
        return run_python_in(folder, "-m", "medbot_exp", *arguments), left_behind(folder)

    return run


def cases():
    """The bad inputs, each under its own name."""
    for arguments in BAD_INPUT:
        marks = [pytest.mark.skipif(UNSLOTH_IS_HERE, reason="unsloth is here")] if "unsloth" in arguments[0] else []
        yield pytest.param(arguments, id=" ".join(arguments), marks=marks)


@pytest.mark.parametrize("arguments", cases())
def test_bad_input_gets_a_block_and_exit_status_2(outcome, arguments):
    finished, _ = outcome(arguments)
    assert_block(finished, BAD_INPUT[arguments])


@pytest.mark.parametrize("arguments", cases())
def test_bad_input_leaves_nothing_on_disk(outcome, arguments):
    _, left = outcome(arguments)
    assert left == []


def test_broken_yaml_gets_a_block_with_file_and_line(run_cli, tmp_path):
    broken = tmp_path / "mine" / "lora" / "broken.yaml"
    broken.parent.mkdir(parents=True)
    broken.write_text("# mine\nr: [8\nalpha: 8\n")
    before = left_behind(tmp_path)
    assert_block(run_cli("--config-dir=mine", "lora=broken"), ["valid YAML", "lora/broken.yaml", "line 3"])
    assert left_behind(tmp_path) == before


def test_unknown_key_in_a_file_of_the_users_own_is_named(run_cli, tmp_path):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "mine.yaml").write_text("r: 8\ndropuot: 0.1\n")
    assert_block(run_cli(f"--config-dir={tmp_path}", "lora=mine"), ["`lora.dropuot` is no key", "did you mean"])


@pytest.mark.parametrize(
    "content, words",
    [
        pytest.param(b"- r\n", ["must hold keys and values"], id="a list"),
        pytest.param(b"# \xff\nr: 8\n", ["must be UTF-8"], id="no text"),
    ],
)
def test_file_of_the_users_own_that_is_no_mapping_is_named(run_cli, tmp_path, content, words):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "mine.yaml").write_bytes(content)
    assert_block(run_cli(f"--config-dir={tmp_path}", "lora=mine"), words)


def test_run_directory_that_exists_is_not_written_into(run_cli, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "result.json").write_text("mine")
    assert_block(run_cli("hydra.run.dir=taken", "model=tiny", "tracking=none"), ["must be new", "taken"])
    assert left_behind(tmp_path) == ["taken", "taken/result.json"]
    assert (tmp_path / "taken" / "result.json").read_text() == "mine"


def test_cache_that_is_a_file_gets_a_block(run_cli, tmp_path):
    (tmp_path / "taken").write_text("mine")
    assert_block(run_cli("cache_dir=taken", "model=tiny", "tracking=none"), ["writing must be possible", "cache_dir"])


def test_version_is_the_tools_own(run_cli):
    finished = run_cli("--version")
    assert (finished.status, finished.stdout) == (0, f"medbot-exp {version('medbot-exp')}\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_that_python_would_discard_is_asked_again(number):
    """An exception inside `__del__` is printed and forgotten, and libraries' objects die at any time."""
    previous = {kind: signal.signal(kind, interrupt) for kind in (number, signal.SIGALRM)}

    class Dying:
        def __del__(self):
            signal.raise_signal(number)

    try:
        with pytest.raises(KeyboardInterrupt):
            Dying()
            time.sleep(5)
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)


def test_root_that_is_a_file_gets_a_block(run_cli, tmp_path):
    (tmp_path / "taken").write_text("mine")
    assert_block(run_cli("root=taken", "model=tiny", "tracking=none"), ["root"])


@pytest.mark.parametrize(
    "argument, status",
    [
        ("--help", 0),
        ("lora.dropuot=0.1", 2),
        pytest.param("backend=unsloth", 2, marks=pytest.mark.skipif(UNSLOTH_IS_HERE, reason="unsloth is here")),
    ],
)
def test_answers_before_anything_heavy_is_imported(run_python_in, tmp_path, argument, status):
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import atexit, sys\n"
        f"atexit.register(lambda: print('LOADED', sorted(set(sys.modules) & set({HEAVY})), file=sys.stderr))\n"
        "from medbot_exp.cli import entrypoint\n"
        "entrypoint()\n"
    )
    finished = run_python_in(tmp_path, str(driver), argument)
    assert finished.status == status
    assert finished.stderr.splitlines()[-1] == "LOADED []"


def test_help_shows_the_commands_the_groups_and_the_config(run_cli):
    finished = run_cli("--help")
    assert (finished.status, finished.stderr) == (0, "")
    for words in (
        "python -m medbot_exp lora.r=16",
        "lora        all_linear, attention, mlp",
        "data        clinical_cases, file, medical_o1",
        "experiment  medbot",
        "alpha: ${.r}",
    ):
        assert words in finished.stdout


def test_help_ends_without_a_word_where_its_reader_has_gone():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "medbot_exp", "--help"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def module_files():
    """File by dotted module name, of the whole package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("medbot_exp", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree, modules):
    """Modules of the package that `tree` imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in names if node.module in modules)


def floor(module):
    """How high `module` lies, 0 for the lowest floor."""
    room = module.removeprefix("medbot_exp").lstrip(".").partition(".")[0]
    (height,) = [index for index, rooms in enumerate(reversed(FLOORS)) if room in rooms] or [None]
    assert height is not None, f"{module} has no floor: give it one in FLOORS, and in DESIGN section 3"
    return height


def test_imports_only_point_down():
    modules = module_files()
    assert {"medbot_exp.cli", "medbot_exp.data.sources", "medbot_exp.errors"} <= modules.keys()
    upward = [
        f"{module} imports {imported}"
        for module, path in modules.items()
        for imported in imports(ast.parse(path.read_text(encoding="utf-8")), modules)
        if floor(imported) > floor(module)
    ]
    assert upward == []


def test_imports_form_no_circle():
    modules = module_files()
    graph = {
        module: set(imports(ast.parse(path.read_text(encoding="utf-8")), modules)) - {module}
        for module, path in modules.items()
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_value_that_another_one_replaces_is_told(run_cli):
    finished = run_cli("task=plan", "task.rehearse=false", "model=tiny", "lora.r=8", "model=tiny", "lora.r=16")
    assert finished.status == 0
    assert finished.stderr.count(" is not taken, as ") == 1
    assert "medbot_exp: lora.r=8 is not taken, as lora.r=16 comes behind it\n" in finished.stderr
