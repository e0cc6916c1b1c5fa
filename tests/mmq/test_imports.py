"""Help is fast: it does not import the libraries that commands need."""

import subprocess
import sys

import click
import pytest

from mmq.cli.main import BUILT_IN, cli
from mmq.cli.overview import by_section, first_sentence
from mmq.contracts import registry

HEAVY = ("mlflow", "optuna", "pandas", "scipy", "sqlalchemy", "torch", "transformers")


@pytest.mark.parametrize("arguments", [["--help"], ["size", "--help"], ["search", "--help"]])
def test_help_imports_none_of_the_heavy_libraries(arguments):
    script = (
        f"import sys; from mmq.cli import main; main({arguments}); "
        f"print(*sys.modules, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Usage: mmq" in result.stdout
    assert not set(HEAVY) & set(result.stderr.split())


def test_the_overview_shows_the_first_sentence_of_each_commands_help():
    context = click.Context(cli)
    text = " ".join(cli.get_help(context).split())
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert " ".join(command.help.split("\n")[0].split()) in text, name


def test_every_built_in_command_is_in_a_section_of_the_overview():
    sections = by_section([*BUILT_IN, "strange"])
    assert sections.pop("Other") == ["strange"]
    assert sorted(name for names in sections.values() for name in names) == sorted(BUILT_IN)


def test_the_first_sentence_of_a_module_without_source_is_empty():
    assert first_sentence("itertools", "chain") == ""


def test_a_bare_mmq_prints_the_overview(capsys):
    from mmq.cli import main

    main([])
    assert "Usage: mmq" in capsys.readouterr().out


def test_every_plugin_command_is_listed():
    listed = cli.list_commands(click.Context(cli))
    assert {plugin.name for plugin in registry.installed("command")} <= set(listed)
