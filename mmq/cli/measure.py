"""`mmq measure`: what an exported model costs in its engine, beside the unquantized one."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from mmq.cli.command import command
from mmq.cli.options import no_leftovers, options_from
from mmq.errors import InputError
from mmq.export.measure import PER_ANSWER, Measurement
from mmq.studies.options import MeasureOptions
from mmq.system.disk import MIB

if TYPE_CHECKING:
    from mmq.studies.measure_run import MeasuredExport

ROWS = {  # title by metric
    "load_seconds": "load (s)",
    "vision_seconds": "vision encoder (s)",
    "first_token_seconds": "first token (s)",
    "tokens_per_second": "tokens per second",
    "answer_seconds": "answer (s)",
    "peak_bytes": "peak memory (MiB)",
    "file_bytes": "files (MiB)",
}


@command("measure", "mmq measure ./mine --repeats 20")
@click.argument("folder", metavar="FOLDER", default="")
@options_from(MeasureOptions)
@click.pass_context
def measure(
    context: click.Context, options: MeasureOptions, plugin_options: Mapping[str, str], folder: str
) -> None:
    """Time the exported model in FOLDER beside the unquantized one, in the same engine.

    Both are open at once and answer in turns. Medians, their range and ratios are logged.
    """
    from mmq.studies.measure_run import run_measure

    no_leftovers(context)
    if folder and options.path:
        raise InputError(f"path: {folder} and --path {options.path} are given; give one")
    if folder:
        options = dataclasses.replace(options, path=folder)
    result = run_measure(options)
    click.echo(table(result))
    click.echo(f"Open:      {result.url}")


def table(result: "MeasuredExport") -> str:
    """The costs of a model and of the unquantized one, as text."""
    model = result.model
    head = f"{model.engine}, {model.processor}"
    cells = [("", "exported", "unquantized", "ratio")]
    for name, title in ROWS.items():
        ratio = result.ratios.get(name)
        row = (title, _cell(model, name), _cell(result.unquantized, name), str(ratio or ""))
        if row[1]:
            cells.append(row)
    widths = [max(len(row[k]) for row in cells) for k in range(4)]
    lines = ["  ".join(cell.ljust(widths[k]) for k, cell in enumerate(row)) for row in cells]
    note = [result.note] if result.note else []
    return "\n".join([head, *(line.rstrip() for line in lines), *note])


def _cell(model: Measurement | None, name: str) -> str:
    if model is None:
        return ""
    if name in PER_ANSWER:
        return str(model.spread(name) or "")
    value = model.metrics().get(name)
    if value is None:
        return ""
    return f"{value / MIB:.1f}" if name.endswith("_bytes") else f"{value:.3g}"
