"""The last lines of a command: where its results are saved, and how to browse them."""

import json
import math
from typing import Any

import click

from mmq.system.home import home


def print_where_saved() -> None:
    """Print the folder with the records and the quantized weights."""
    click.echo(f"Saved in:  {home()}")


def print_json(document: Any) -> None:
    """Print the result of a command with --json; NaN and infinity, which JSON lacks, are null."""
    click.echo(json.dumps(_finite(document), indent=1))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_how_to_browse() -> None:
    """Print how to start the MLflow UI, unless a server already runs it."""
    from mmq.tracking import ui_command

    if command := ui_command():
        click.echo(f"Browse it: {command}")
