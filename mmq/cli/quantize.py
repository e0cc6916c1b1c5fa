"""`mmq quantize`: every component at every width, into the store."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

from mmq.allocation.allocation import BitAllocation, parse_widths
from mmq.analysis.tables import aligned, number
from mmq.artifacts.artifacts import Artifacts
from mmq.cli.options import options_from
from mmq.config import option
from mmq.contracts.report import LayerReport, QuantReport
from mmq.models.loading import LoadedModel
from mmq.prepare import prepare
from mmq.studies.session import opened
from mmq.studies.single import BaselineOptions

MIB = 8 * 1024**2  # bits


@dataclass(frozen=True, slots=True)
class QuantizeOptions(BaselineOptions):
    """What to quantize, and at which widths."""

    bits: str = option("2,3,4,5,6,8", "Widths to quantize every component at (e.g. 3,4,8).")


@click.command("quantize")
@options_from(QuantizeOptions)
def quantize(options: QuantizeOptions, plugin_options: Mapping[str, str]) -> None:
    """Quantize every component at every width, and store the blocks for later trials.

    Run the same command again to resume at the interrupted block. If calibration inputs come from
    the quantized model, each component is quantized after unquantized components and after
    components of its own width; trials of other allocations quantize the others themselves.
    """
    from mmq.tracking import plain_run
    from mmq.tracking.params import eval_spec_params

    widths = parse_widths(options.bits)
    prepared = prepare(
        options, plugin_options, lambda parts: [BitAllocation.uniform(parts, b) for b in widths]
    )
    params = eval_spec_params(prepared.eval_spec) | {"quantize.bits": options.bits}
    with (
        opened([prepared], options.experiment) as (session,),
        plain_run(options.experiment, f"quantize {options.quantizer}", params) as run,
    ):
        model, artifacts = session.model, session.artifacts
        rows: list[LayerReport] = []
        for name in model.components:
            started = time.perf_counter()
            artifacts.fill(model, name, widths)
            run.log(metrics={f"seconds/{name}": time.perf_counter() - started})
            for bits in widths:
                rows += artifacts.reports(model, name, bits)
        if artifacts.behind_quantized:
            _fill_uniform(model, artifacts, widths)
        run.log_layers(rows)
        click.echo(table(rows))
    for note in notes(rows):
        click.echo(note)
    click.echo(f"\nStored in {artifacts.store.root}; `mmq store` lists what is there.")


def _fill_uniform(model: LoadedModel, artifacts: Artifacts, widths: Sequence[int]) -> None:
    """Every component behind those before it at the same width."""
    for bits in widths:
        try:
            artifacts.write_(model, BitAllocation.uniform(list(model.components), bits))
        finally:
            model.restore_()


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
