"""The installed package outside its checkout: conf/ inside the wheel, the console script, tab completion."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


def test_tab_completion_offers_the_options_of_a_group(run_python_in, tmp_path):
    words = {"COMP_LINE": "medbot-exp lora=", "COMP_POINT": "16"}
    finished = run_python_in(tmp_path, "-m", "medbot_exp", "--shell-completion", "query=bash", env=words)
    assert finished.status == 0, finished.stderr
    assert {"lora=all_linear", "lora=attention", "lora=mlp"} <= set(finished.stdout.split())


def test_plugin_that_hydra_finds_is_the_checkouts_own(run_python_in, tmp_path):
    """An editable install that copied it would go on with the copy."""
    finished = run_python_in(tmp_path, "-c", "import hydra_plugins.medbot_exp as found; print(found.__file__)")
    assert Path(finished.stdout.strip()).is_relative_to(CHECKOUT), finished.stderr


@pytest.mark.network  # the build back end comes from PyPI
def test_wheel_works_outside_the_checkout(run_python_in, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", tmp_path, CHECKOUT], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    assert {
        "medbot_exp/conf/config.yaml",
        "medbot_exp/data/bundled/clinical_cases.jsonl",
        "hydra_plugins/hydra_optuna_sweeper/optuna_sweeper.py",
        "hydra_plugins/medbot_exp/__init__.py",
    } <= set(names)
    assert any(
        "medbot-exp = medbot_exp.cli:entrypoint" in zipfile.ZipFile(wheel).read(n).decode()
        for n in names
        if n.endswith("entry_points.txt")
    )
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel], check=True)
    place = "import medbot_exp, medbot_exp.config as c; print(medbot_exp.__file__, c.conf_directory())"
    found = run_python_in(tmp_path, "-c", place, env={"PYTHONPATH": str(site)})
    assert found.stdout.count(str(site)) == 2
    helped = run_python_in(tmp_path, "-m", "medbot_exp", "--help", env={"PYTHONPATH": str(site)})
    assert helped.status == 0 and "smollm2_135m" in helped.stdout
