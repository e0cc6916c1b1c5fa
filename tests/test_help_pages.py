"""docs/cli.md says what the commands say."""

import help_pages


def test_the_page_of_the_commands_is_up_to_date():
    assert help_pages.PAGE.read_text() == help_pages.page(), "run `make docs`"


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
