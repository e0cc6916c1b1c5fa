"""The last lines of a command: where its work is saved, and how to look at it."""

import click

from mmq.system.home import home


def say_where_saved() -> None:
    """Print the folder that has the records and the quantized weights."""
    click.echo(f"Saved in:  {home()}")


def say_how_to_browse() -> None:
    """Print how to start the UI, where no server runs it already."""
    from mmq.tracking import ui_command

    if command := ui_command():
        click.echo(f"Browse it: {command}")
