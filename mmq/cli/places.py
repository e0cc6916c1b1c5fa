"""The last lines of a command: where its results are saved, and how to browse them."""

import click

from mmq.system.home import home


def print_where_saved() -> None:
    """Print the folder with the records and the quantized weights."""
    click.echo(f"Saved in:  {home()}")


def print_how_to_browse() -> None:
    """Print how to start the MLflow UI, unless a server already runs it."""
    from mmq.tracking import ui_command

    if command := ui_command():
        click.echo(f"Browse it: {command}")
