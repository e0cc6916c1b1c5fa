"""Solvers of packages whose own __init__ does not run."""

import sys
import textwrap

import pytest
from mmq_plugins.quantizers.legacy import load_solver

from mmq.errors import InputError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose __init__ fails and whose solver, with a neighbour, does not."""
    folder = tmp_path / "oldpack"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('gone in version 5')\n")
    (folder / "deep" / "__init__.py").write_text("")
    (folder / "helper.py").write_text("ANSWER = 42\n")
    solver = """
        from oldpack.helper import ANSWER
        from .other import BASE
        class Solver: value = ANSWER + BASE
    """
    (folder / "deep" / "solver.py").write_text(textwrap.dedent(solver))
    (folder / "deep" / "other.py").write_text("BASE = 1\n")
    (folder / "deep" / "broken.py").write_text("import oldpack.not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "oldpack"
    load_solver.cache_clear()


def test_a_solver_is_imported_though_its_package_cannot_be(package):
    with pytest.raises(ImportError, match="gone in version 5"):
        __import__(package)
    assert load_solver(f"{package}.deep.solver").Solver.value == 43
    assert load_solver(f"{package}.deep.solver") is load_solver(f"{package}.deep.solver")


def test_nothing_of_the_package_stays_imported_and_what_was_comes_back(package, monkeypatch):
    marker = object()
    monkeypatch.setitem(sys.modules, f"{package}.helper", marker)
    assert load_solver(f"{package}.deep.solver").ANSWER == 42
    assert sys.modules[f"{package}.helper"] is marker
    assert [name for name in sys.modules if name.startswith(package)] == [f"{package}.helper"]


def test_a_package_that_is_not_installed_is_named_with_the_command():
    with pytest.raises(
        InputError, match=r"not_there is not installed. Install it with: pip install 'mmq\[legacy"
    ):
        load_solver("not_there.solver")


def test_a_solver_that_cannot_be_imported_is_named_with_its_cause_and_the_command(package):
    with pytest.raises(
        InputError, match=r"broken cannot be imported .*oldpack.not_there.*--constraint"
    ):
        load_solver(f"{package}.deep.broken")
    assert not [name for name in sys.modules if name.startswith(package)]
