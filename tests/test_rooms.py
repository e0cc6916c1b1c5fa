"""Imports between packages point one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = (
    *(
        "errors",
        "system",
        "allocation",
        "tensors",
        "contracts",
        "config",
        "task_names",
        "data",
        "eval_spec",
        "models",
    ),
    *("quantization", "artifacts", "evaluation", "analysis", "record", "model_setup", "prepare"),
    *("trial", "export", "studies", "tracking", "arguments", "api", "testing", "cli"),
)
LEAVES = ("errors", "system", "tensors", "contracts")  # all that a contract may import


def imported_rooms(path):
    """The rooms of mmq that a module imports when it is imported itself."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("mmq."))


def modules():
    for path in sorted((ROOT / "mmq").rglob("*.py")):
        room = path.relative_to(ROOT / "mmq").parts[0].removesuffix(".py")
        if room not in ("__init__", "__main__"):
            yield pytest.param(room, path, id=str(path.relative_to(ROOT)))


@pytest.mark.parametrize(("room", "path"), modules())
def test_a_module_imports_only_rooms_below_its_own(room, path):
    result = set(imported_rooms(path)) - {room}
    above = sorted(name for name in result if ORDER.index(name) > ORDER.index(room))
    assert not above


@pytest.mark.parametrize(
    "path", sorted((ROOT / "mmq" / "contracts").glob("*.py")), ids=lambda p: p.name
)
def test_contracts_import_nothing_but_tensors_and_what_lies_below(path):
    assert set(imported_rooms(path)) <= set(LEAVES)
