"""Commands, examples, plugins, tables and links of README and docs/ work."""

import os
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner
from doc_commands import PAGES, ROOT, blocks, check, commands_of
from mlflow import MlflowClient

from mmq.testing import FamilyContract, LauncherContract, TargetContract

README = ROOT / "README.md"
COMMANDS = [command for page in PAGES for command in commands_of(page)]
STORY = [c for c in commands_of(README) if c.executed and c.words[0] == "mmq"]
TINY = {  # options that make a shown command quick; the last value of an option counts
    "search": ["--limit", "8", "--n-trials", "3"],
    "export": ["--verify-samples", "4", "--register", "no"],
    "measure": ["--tokens", "2", "--repeats", "1"],
}
TESTED_ELSEWHERE = {"docs/data.md": "plugins/test_table_commands.py"}
PLUGINS = ROOT / "docs" / "plugins.md"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, empty_store):
    """A folder with a store of its own, and the environment of a newcomer's shell in it."""
    folder = tmp_path_factory.mktemp("newcomer")
    shutil.copy(empty_store, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(uri).create_experiment("mmq", artifact_location=(folder / "runs").as_uri())
    own = {"MLFLOW_TRACKING_URI": uri, "MMQ_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    return folder, os.environ | own


def test_the_commands_of_the_readme_lead_to_an_exported_model(workplace, fork_server):
    pytest.importorskip("xllamacpp", reason="needs mmq[gguf]")
    folder, env = workplace
    assert [c.words[1] for c in STORY] == ["size", "search", "status", "export", "measure"]
    printed = {}
    for command in STORY:
        _, name, *arguments = command.words
        result = fork_server.run(name, *arguments, *TINY.get(name, ()), cwd=folder, env=env)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        printed[name] = result.stdout
    assert "smallest within 2%: " in printed["search"]
    assert "3 of 3 allocations evaluated" in printed["status"]
    assert "64 of 64 weights read back bit for bit" in printed["export"]
    assert "tokens per second" in printed["measure"]
    assert (folder / "mine" / "model.gguf").exists()


def test_all_other_executed_commands_are_those_of_the_readme_or_of_another_test():
    story = {c.text for c in STORY}
    for command in COMMANDS:
        if command.executed and command.words[0] == "mmq" and command.text not in story:
            assert (ROOT / "tests" / TESTED_ELSEWHERE[command.page]).exists(), command


@pytest.mark.parametrize("page", sorted({c.page for c in COMMANDS}))
def test_every_shown_command_is_parsed_by_the_program_it_calls(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for command in COMMANDS:
        if command.page == page:
            try:
                check(command.words)
            except Exception as error:
                raise AssertionError(f"{page}: {command.text}") from error


@pytest.mark.parametrize(
    "text",
    [
        "mmq serch",
        "mmq search --grain fine",
        "mmq search --num-beams many",
        "mmq search --task vqqa",
        "mmq trial --bits vit=4 llm=3",
        "mlflow run . -e search --env-manager local -P bist=3",
        "make tests",
        "pip install '.[guf]'",
        "python benchmarks/no_such.py",
    ],
)
def test_an_invalid_command_is_detected(text, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(Exception):  # noqa: B017, PT011 - of click, of mmq, or an assertion
        check(shown(text).words)


def shown(text):
    return COMMANDS[0].__class__("here", text, False)


def test_the_two_commands_are_targets_of_the_makefile():
    made = [c.text for c in commands_of(README) if c.executed and c.words[0] == "make"]
    assert made == ["make search", "make test"]
    recipes = {"search": "mlflow run . -e search", "test": "-m pytest", "ui": "mlflow ui"}
    makefile = (ROOT / "Makefile").read_text()
    for target, recipe in recipes.items():
        assert recipe in re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]


def test_the_readme_is_one_screen():
    assert len(README.read_text().splitlines()) <= 65


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_pictures_and_sections_are_there(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith(("http", "mailto:")):
            path, _, section = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), target
            assert not section or section in sections(linked), target


def sections(page):
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", title.replace("`", "").lower()) for title in titles]
    return {re.sub(r"[\s-]+", "-", title.strip()) for title in plain}


def test_every_page_is_in_the_sites_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    docs = ROOT / "docs"
    pages = {str(page.relative_to(docs)) for page in docs.rglob("*.md")}
    assert set(re.findall(r": (\S+\.md)$", text, re.MULTILINE)) == pages


@pytest.mark.parametrize(
    ("script", "page"),
    [("estimate", "worked-example.md"), ("samples_needed", "samples.md")],
)
def test_tables_of_a_page_are_what_its_script_prints(script, page, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    text = (ROOT / "docs" / page).read_text()
    module = import_module(script)
    tables = [function() for name, function in vars(module).items() if name.endswith("_table")]
    assert len(tables) >= 2
    for table in tables:
        assert table in text


def example(containing):
    (text,) = (t for t in blocks(PLUGINS, "python", "toml") if containing in t)
    return text


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """The quantizer of docs/plugins.md, built and installed as a distribution of its own."""
    folder = tmp_path_factory.mktemp("clipped")
    (folder / "mmq_clipped.py").write_text(example("class Clipped"))
    (folder / "pyproject.toml").write_text(example("mmq-clipped"))
    site = folder / "site"
    install = "pip install --quiet --no-deps --no-build-isolation --disable-pip-version-check"
    command = [sys.executable, "-m", *install.split(), "--target", str(site), str(folder)]
    assert os.spawnv(os.P_WAIT, sys.executable, command) == 0
    return site


def test_the_quantizer_of_the_docs_is_installed_and_searched_with(
    stranger, workplace, fork_server
):
    folder, env = workplace
    script = stranger / "run_mmq.py"
    script.write_text("from mmq.cli import main\n\nmain()\n")

    def mmq(*arguments):
        result = fork_server.run(*arguments, cwd=folder, env=env, script=script)
        assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
        return result.stdout

    assert re.search(r"quantizer +clipped +mmq-clipped +0\.1 +ok", mmq("plugins"))
    tiny = ["--limit", "8", "--num-beams", "1", "--n-trials", "2"]
    output = mmq("search", "--quantizer", "clipped", "--clip", "0.9", *tiny)
    assert "vit=8 qformer=8 llm=8" in output


def run_example(name, containing):
    """Execute an example of docs/plugins.md as a module of that name."""
    module = ModuleType(name)
    sys.modules[name] = module
    exec(example(containing), vars(module))
    return vars(module)


run_example("mmq_clipped", "class Clipped")
TestClipped = run_example("test_clipped", "QuantizerContract")["TestClipped"]
evaluator = run_example("similarity", "class Similarity(")
exec(example("class TestSimilarity"), evaluator)
TestSimilarity = evaluator["TestSimilarity"]


def test_the_other_contract_examples_define_tests():
    for base, name in ((FamilyContract, "TestMyFamily"), (TargetContract, "TestMyTarget"),
                       (LauncherContract, "TestMyLauncher")):  # fmt: skip
        contract = run_example(name.lower(), f"class {name}")[name]
        assert issubclass(contract, base)
        assert not contract.__abstractmethods__


def test_the_command_of_the_docs_is_a_command():
    command = run_example("front_of", "import click")["front_of"]
    assert isinstance(command, click.Command)
    assert "front of STUDY" in CliRunner().invoke(command, ["--help"]).output


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.stem)
def test_every_python_example_compiles(page):
    for text in blocks(page, "python"):
        compile(text, str(Path(page).name), "exec")
