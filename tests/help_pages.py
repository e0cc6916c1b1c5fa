"""docs/cli.md: the help of every command, generated from the commands.

python tests/help_pages.py --write   write the page (`make docs`)
"""

import sys
from pathlib import Path

import click

from mmq.cli.main import cli
from mmq.contracts import registry

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = """# The commands

Generated from the commands by `make docs`. Pass options of a plugin (`mmq plugins` lists them)
like any other. With `mlflow run . -e COMMAND`, write `-P group_size=64` instead of
`--group-size 64`.
"""
WIDTH = 98


def pages(command: click.Command, name: str, parent: click.Context | None = None) -> list[str]:
    """The help of a command and of those in its group, each under a heading."""
    settings = {**(cli.context_settings if parent is None else {}), "max_content_width": WIDTH}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    context.terminal_width = WIDTH
    path = context.command_path
    texts = [f"## {path}\n\n```text\n{command.get_help(context).rstrip()}\n```"]
    if isinstance(command, click.Group):
        strangers = {p.name for p in registry.installed("command") if p.distribution != "mmq"}
        for each in command.list_commands(context):
            if parent is None and each in strangers:
                continue
            inner = command.get_command(context, each)
            assert inner is not None
            texts += pages(inner, each, context)
    return texts


def page() -> str:
    """The whole page."""
    return "\n\n".join([HEAD.rstrip(), *pages(cli, "mmq")]) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page())
    else:
        print(page())
