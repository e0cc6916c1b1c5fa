"""docs/cli.md matches the help of the commands."""

import os

import help_pages


def test_the_page_of_the_commands_is_up_to_date(fork_server, tmp_path):
    # in a process of its own: click caches the help option of a command that a test has called
    result = fork_server.run(script=help_pages.__file__, cwd=tmp_path, env=dict(os.environ))
    assert result.stdout == f"{help_pages.PAGE.read_text()}\n", "run `make docs`"


def test_every_option_has_a_help_sentence():
    import click

    from mmq.cli.main import cli

    def commands(group, context):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            yield name, command
            if isinstance(command, click.Group):
                yield from commands(command, context)

    for name, command in commands(cli, click.Context(cli)):
        assert command.help, name
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, (name, option.name)
                assert option.help.endswith((".", ")")), (name, option.name)
                assert len(option.help) < 110, (name, option.name)


def test_the_example_of_each_command_has_options_of_that_command():
    import shlex

    import click

    from mmq.cli.command import Command
    from mmq.cli.main import cli

    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if isinstance(command, Command):
            program, given, *arguments = shlex.split(command.example)
            assert (program, given) == ("mmq", name)
            assert command.make_context(name, arguments).args == []


def test_every_option_is_in_a_section(capsys):
    import click

    from mmq.cli.main import cli
    from mmq.cli.sections import OTHER, section_of

    context = click.Context(cli)
    others = {
        parameter.name
        for name in ("search", "trial", "grid", "analyze", "size", "export", "evaluate")
        for parameter in cli.get_command(context, name).params
        if section_of(parameter.name) == OTHER
    }
    assert others <= {"samples", "trees", "bootstrap", "repeats", "no_verify", "verify_samples"}


def test_help_lists_the_options_of_the_plugins_on_the_command_line(capsys):
    from mmq.cli import main

    main(["search", "--quantizer", "rtn", "--task=vqa", "--help"])
    text = capsys.readouterr().out
    assert "Options of the quantizer rtn" in text
    assert "--scale-dtype" in text
    assert "Dtype in which scales are rounded and stored." in text
    assert "Options of the evaluator vqa" in text


def test_an_option_of_another_plugin_names_the_plugins_that_have_it():
    import pytest

    from mmq.contracts import registry
    from mmq.contracts.options import distribute
    from mmq.errors import InputError

    plugins = {"quantizer": registry.load("quantizer", "uniform")}
    with pytest.raises(InputError, match="--act-order belongs to .*gptq"):
        distribute({"act-order": "true"}, plugins)
