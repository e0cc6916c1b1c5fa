"""`mmq plugins`: list the installed plugins."""

import dataclasses
import json

import click

from mmq.cli.command import command
from mmq.cli.options import no_leftovers
from mmq.config import flag
from mmq.contracts import registry
from mmq.errors import InputError


@command("plugins", "mmq plugins")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@click.pass_context
def plugins(context: click.Context, as_json: bool) -> None:
    """List installed plugins, their options, and whether they can be used."""
    no_leftovers(context)
    rows = []
    for kind in registry.GROUPS:
        for plugin in registry.installed(kind):
            options = ""
            try:
                loaded = registry.load(kind, plugin.name)
                state = "ok"
                if kind in ("quantizer", "evaluator", "target", "launcher"):
                    options = option_text(loaded)
            except InputError as error:
                state = str(error)
            row = (kind, plugin.name, plugin.distribution, plugin.version, state, options)
            rows.append(row)
    if as_json:
        keys = ("kind", "name", "distribution", "version", "state", "options")
        click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=1))
        return
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, *row[4:]]).rstrip())


def option_text(plugin: type) -> str:
    """A plugin's options with their defaults, as they are given on the command line."""
    if not dataclasses.is_dataclass(plugin):
        return ""
    options = [f for f in dataclasses.fields(plugin) if f.init]
    shown = [
        flag(f.name) if f.default is None or f.default is dataclasses.MISSING
        else f"{flag(f.name)} {f.default}"
        for f in options
    ]  # fmt: skip
    return " ".join(shown)
