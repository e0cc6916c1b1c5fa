"""What the README says is done here, word for word."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]


@pytest.fixture(autouse=True)
def _store(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")


def environment(tmp_path, **variables):
    """A store of the test's own; its files too, or they would land in the project's folder."""
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    if client.get_experiment_by_name("mmq") is None:
        client.create_experiment("mmq", artifact_location=(tmp_path / "artifacts").as_uri())
    bin_folder = str(Path(sys.executable).parent)
    return os.environ | {
        "PATH": bin_folder + os.pathsep + os.environ["PATH"],
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "OMP_NUM_THREADS": "1",
        **variables,
    }


def shell(command, cwd, **options):
    result = subprocess.run(
        ["bash", "-c", command], cwd=cwd, capture_output=True, text=True, timeout=600, **options
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("make")])
def test_command_runs(command, tmp_path, fork_server):
    program, *arguments = shlex.split(command)
    if program == "mmq":
        result = fork_server.run(*arguments, cwd=ROOT, env=environment(tmp_path))
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    else:
        assert command.startswith("mlflow run . ")
        shell(command, ROOT, env=environment(tmp_path))


def test_the_two_commands_are_targets_of_the_makefile():
    assert [c for c in COMMANDS if c.startswith("make")] == ["make search", "make test"]
    expected = {"search": "mlflow run . -e search", "test": "-m pytest", "ui": "mlflow ui"}
    for target, recipe in expected.items():
        assert recipe in shell(f"make {target} --dry-run", ROOT)


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target).exists(), target


def block(kind, containing):
    return next(text for k, text in BLOCKS if k == kind and containing in text)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """The README's quantizer, built and installed as a distribution of its own."""
    folder = tmp_path_factory.mktemp("clipped")
    (folder / "mmq_clipped.py").write_text(block("python", "class Clipped"))
    (folder / "pyproject.toml").write_text(block("toml", "mmq-clipped"))
    (folder / "test_clipped.py").write_text(block("python", "QuantizerContract"))
    site = folder / "site"
    install = "pip install --quiet --no-deps --no-build-isolation --disable-pip-version-check"
    shell(f"{sys.executable} -m {install} --target {site} .", folder)
    return folder, site


def test_the_readmes_quantizer_is_found_and_searched_with(stranger, tmp_path):
    _, site = stranger
    env = environment(tmp_path, PYTHONPATH=str(site))
    assert re.search(
        r"quantizer +clipped +mmq-clipped +0\.1 +ok", shell("mmq plugins", tmp_path, env=env)
    )
    command = "mmq search --quantizer clipped --clip 0.9 --limit 8 --num-beams 1 --n-trials 2"
    output = shell(command, tmp_path, env=env)
    assert "vit=8 qformer=8 llm=8" in output


def test_the_readmes_quantizer_keeps_the_contract(stranger, tmp_path):
    folder, site = stranger
    env = environment(tmp_path, PYTHONPATH=str(site))
    output = shell(
        f"{sys.executable} -m pytest -q -p no:cacheprovider test_clipped.py", folder, env=env
    )
    assert "passed" in output
