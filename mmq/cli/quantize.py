"""`mmq quantize`: every component at every width, into the store."""

from collections.abc import Mapping, Sequence

import click

from mmq.analysis.tables import aligned, number
from mmq.cli.command import command
from mmq.cli.options import options_from
from mmq.contracts.report import LayerReport, QuantReport
from mmq.studies.options import QuantizeOptions
from mmq.system.progress import notify

MIB = 8 * 1024**2  # bits


@command("quantize", "mmq quantize --model embedded-llava --quantizer gptq --bits 3,4")
@options_from(QuantizeOptions)
def quantize(options: QuantizeOptions, plugin_options: Mapping[str, str]) -> None:
    """Quantize every component at every width, and store the blocks for later trials.

    Run the same command again to resume at the interrupted block. If calibration inputs come from
    the quantized model, each component is quantized after unquantized components and after
    components of its own width; trials of other allocations quantize the others themselves.
    """
    from mmq.studies.quantize_run import run_quantize

    stored = run_quantize(options, plugin_options)
    if stored is None:  # as a worker: the command that launched it reports
        return
    click.echo(table(stored.rows))
    for note in notes(stored.rows):
        click.echo(note)
    notify("")
    click.echo(f"Stored in {stored.root}; `mmq store` lists the blocks.")


def table(rows: Sequence[LayerReport]) -> str:
    """One line per component and width: its size and its mean errors."""
    lines = []
    for name, bits in dict.fromkeys((row.component, row.bits) for row in rows):
        part = [row for row in rows if (row.component, row.bits) == (name, bits)]
        size = sum(row.stored_bits or 0 for row in part) / MIB
        errors = [number(error, 4) for error in QuantReport(tuple(part)).mean_errors().values()]
        lines.append((name, str(bits), str(len(part)), f"{size:.3f}", *errors))
    head = ("component", "bits", "layers", "MiB", "weight error", "output error")
    return aligned(head, lines)


def notes(rows: Sequence[LayerReport]) -> list[str]:
    """Notes on layers, each with how many layers it applies to and the first of them."""
    by_note: dict[str, list[LayerReport]] = {}
    for row in rows:
        if row.note:
            by_note.setdefault(row.note, []).append(row)
    return [
        f"{len(part)} x {note} ({part[0].name}, {part[0].bits} bits"
        + (", ...)" if len(part) > 1 else ")")
        for note, part in by_note.items()
    ]
