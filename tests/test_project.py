"""Consistency of the project's files."""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from lanes import MARKERS
from mmq_plugins.embedded.command import TrainOptions
from mmq_search.command import SearchOptions
from mmq_search.status import StatusOptions

from mmq.cli.export import ExportOptions
from mmq.cli.import_results import ImportOptions
from mmq.config import flag
from mmq.contracts import registry
from mmq.studies.answers_run import CompareOptions
from mmq.studies.options import (
    AblateOptions,
    AnalyzeOptions,
    BaselineOptions,
    CurvesOptions,
    GridOptions,
    MeasureOptions,
    QuantizeOptions,
    QuantizerStudyOptions,
    SweepOptions,
    TrialOptions,
)

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONFIGS = {
    "main": ("search", SearchOptions),
    "search": ("search", SearchOptions),
    "status": ("status", StatusOptions),
    "trial": ("trial", TrialOptions),
    "export": ("export", ExportOptions),
    "measure": ("measure", MeasureOptions),
    "compare": ("compare", CompareOptions),
    "quantize": ("quantize", QuantizeOptions),
    "sweep-uniform": ("sweep-uniform", SweepOptions),
    "ablate": ("ablate", AblateOptions),
    "grid": ("grid", GridOptions),
    "compare-quantizers": ("compare-quantizers", QuantizerStudyOptions),
    "curves": ("curves", CurvesOptions),
    "analyze": ("analyze", AnalyzeOptions),
    "import-results": ("import-results", ImportOptions),
    "evaluate-baseline": ("evaluate-baseline", BaselineOptions),
    "train-embedded": ("train-embedded", TrainOptions),
}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(text):
    return canonical(re.match(r"[\w.-]+", text)[0])


def pins(name="constraints.txt"):
    lines = (ROOT / name).read_text().splitlines()
    rows = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonical(name): version for name, version in rows}


def test_every_mlproject_parameter_is_an_option_with_the_same_default():
    entry_points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert set(entry_points) == set(CONFIGS)
    for name, (command, config) in CONFIGS.items():
        entry = entry_points[name]
        # mlflow run chooses the experiment itself
        expected = {f.name: str(f.default) for f in fields(config) if f.name != "experiment"}
        given = {key: value["default"] for key, value in entry["parameters"].items()}
        assert given == expected, name
        assert f"python -m mmq {command} " in entry["command"]
        for key in expected:
            assert f"{flag(key)} {{{key}}}" in entry["command"], (name, key)


def test_constraints_pin_every_requirement():
    expected = [*PROJECT["project"]["dependencies"]]
    for extra in ("analysis", "docs", "legacy", "mysql", "postgresql", "ray", "s3", "dev"):
        expected += PROJECT["project"]["optional-dependencies"][extra]
    assert {requirement_name(text) for text in expected} <= set(pins())


def test_both_lanes_have_the_same_packages_but_for_transformers():
    main, second = pins(), pins("constraints-transformers-4.txt")
    engines = {  # exports need transformers 5
        *("compressed-tensors", "gguf", "loguru", "openvino", "openvino-telemetry", "xllamacpp")
    }
    assert set(main) - engines == set(second)
    differ = {name for name in second if main[name] != second[name]}
    assert differ == {"transformers", "huggingface-hub", "tokenizers"}
    assert main["transformers"].startswith("5.")
    assert second["transformers"].startswith("4.")


def test_every_module_that_lanes_lists_exists():
    for name, paths in MARKERS.items():
        missing = [path for path in paths if not (ROOT / "tests" / path).exists()]
        assert not missing, f"{name} in tests/lanes.py"


def test_the_lanes_are_targets_of_the_makefile_and_ci_runs_both():
    makefile, ci = (ROOT / "Makefile").read_text(), (ROOT / ".ci" / "run").read_text()
    assert re.findall(r"^make (.+)$", ci, re.MULTILINE) == ["test", "test-4", "site", "package"]
    for target in ("test", "test-fast", "test-4", "site", "package"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
        assert f"make {target} " in makefile, "the list at the top"
    for name in re.findall(r"--constraint (\S+)", makefile):
        assert (ROOT / name).exists()


def test_conda_yaml_holds_the_requirements_at_their_pins():
    environment = yaml.safe_load((ROOT / "conda.yaml").read_text())
    packages = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert packages[-1] == "."
    given = dict(text.split("==") for text in packages[:-1])
    required = {requirement_name(text) for text in PROJECT["project"]["dependencies"]}
    assert given == {name: pins()[name] for name in required}


def test_all_design_packages_are_in_the_extra_all():
    extras = PROJECT["project"]["optional-dependencies"]
    assert extras["all"] == ["mmq[analysis,compressed-tensors,device-map,gguf,legacy,openvino]"]
    texts = PROJECT["project"]["dependencies"] + extras["analysis"] + extras["legacy"]
    expected = {"mlflow", "optuna", "torch", "transformers", "auto-gptq", "autoawq",
              "pycocoevalcap", "scikit-learn", "shap"}  # fmt: skip
    assert expected <= {requirement_name(text) for text in texts}


def test_every_entry_point_can_be_imported():
    for group, names in PROJECT["project"]["entry-points"].items():
        kind = next(kind for kind, result in registry.GROUPS.items() if result == group)
        for name in names:
            assert registry.load(kind, name)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


FORBIDDEN = {
    "mmq": {"mmq_plugins", "mmq_search", "optuna"},
    "plugins": {"mmq_search", "optuna", "mlflow"},
    "search": {"mmq_plugins", "mlflow"},
}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_point_one_way(room):
    for path in (ROOT / room).rglob("*.py"):
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & FORBIDDEN[room], path
        if room == "mmq" and "tracking" not in path.parts:
            assert "mlflow" not in roots, path
        if "analysis" in path.parts:
            assert not roots & {"torch", "mlflow"}, path


def test_a_plugin_never_imports_another():
    plugins = ROOT / "plugins" / "mmq_plugins"
    names = {
        entry.split(":")[0]
        for group in ("quantizers", "evaluators", "models", "datasets", "targets")
        for entry in PROJECT["project"]["entry-points"][f"mmq.{group}"].values()
    }
    for name in names:
        path = plugins.joinpath(*name.split(".")[1:]).with_suffix(".py")
        assert not set(imports(path)) & names, path


def test_files_and_functions_stay_readable():
    for room in FORBIDDEN:
        for path in (ROOT / room).rglob("*.py"):
            lines = path.read_text().splitlines()
            assert len(lines) <= 330, path
            for node in ast.walk(ast.parse("\n".join(lines))):
                if isinstance(node, ast.FunctionDef):
                    assert node.end_lineno - node.lineno <= 60, (path, node.name)


def test_the_wheel_brings_the_embedded_model_and_every_package(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"mmq/trial.py", "mmq_plugins/quantizers/rtn.py", "mmq_search/study.py"} <= names
    files = ("model.safetensors", "config.json", "tokenizer.json", "preprocessor_config.json")
    for model in ("blip2", "llava", "retrieval"):
        folder = f"mmq_plugins/embedded/assets/{model}"
        assert {f"{folder}/{file}" for file in files} <= names
    assert not any(name.endswith(".pt") for name in names)
    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    assert metadata.replace("METADATA", "licenses/LICENSE") in names
    assert "License-Expression: Apache-2.0" in zipfile.ZipFile(wheel).read(metadata).decode()
    assert wheel.stat().st_size < 60e6
    entry_points = metadata.replace("METADATA", "entry_points.txt")
    assert "mmq = mmq.cli:main" in zipfile.ZipFile(wheel).read(entry_points).decode()
    assert {f"{room}/py.typed" for room in ("mmq", "mmq_plugins", "mmq_search")} <= names
    tops = {name.split("/")[0] for name in names}
    assert tops == {"mmq", "mmq_plugins", "mmq_search", metadata.split("/")[0]}
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "Makefile", "tests/test_project.py", "docs/index.md"} <= packed
    assert sdist.stat().st_size < 60e6


def test_the_changelog_has_unreleased_changes_first_and_versions_in_descending_order():
    text = (ROOT / "CHANGELOG.md").read_text()
    first, *released = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert first == "Unreleased"
    numbers = [tuple(map(int, version.split("."))) for version in released]
    assert numbers == sorted(numbers, reverse=True)
    current = tuple(map(int, PROJECT["project"]["version"].split(".")))
    assert not numbers or current >= numbers[0]
