"""`mmq quantize`: every component at every width, into the store."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

from mmq.allocation.allocation import BitAllocation, parse_widths
from mmq.analysis.tables import aligned, number
from mmq.artifacts.remote import RemoteStore
from mmq.cli.options import options_from
from mmq.config import DRY_RUN_HELP, GPUS_HELP, LAUNCHER_HELP, WORKERS_HELP, option
from mmq.contracts.report import LayerReport, QuantReport
from mmq.errors import InputError
from mmq.prepare import Prepared, prepare
from mmq.studies.quantize_run import fill_share, fill_uniform, study_name, units, work_list
from mmq.studies.session import opened
from mmq.studies.single import BaselineOptions
from mmq.studies.workers import Placement, commands, follow, for_workers, placement
from mmq.system.worker import end_with_launcher, is_worker

MIB = 8 * 1024**2  # bits


@dataclass(frozen=True, slots=True)
class QuantizeOptions(BaselineOptions):
    """What to quantize, and at which widths."""

    bits: str = option("2,3,4,5,6,8", "Widths to quantize every component at (e.g. 3,4,8).")
    workers: int = option(1, WORKERS_HELP)
    launcher: str = option("local", LAUNCHER_HELP)
    gpus_per_worker: int = option(0, GPUS_HELP)
    dry_run: bool = option(False, DRY_RUN_HELP)


@click.command("quantize")
@options_from(QuantizeOptions)
def quantize(options: QuantizeOptions, plugin_options: Mapping[str, str]) -> None:
    """Quantize every component at every width, and store the blocks for later trials.

    Run the same command again to resume at the interrupted block. If calibration inputs come from
    the quantized model, each component is quantized after unquantized components and after
    components of its own width; trials of other allocations quantize the others themselves.
    """
    place, plugin_options = placement(options, plugin_options)
    options = for_workers(options, place)
    widths = parse_widths(options.bits)
    prepared = prepare(
        options, plugin_options, lambda parts: [BitAllocation.uniform(parts, b) for b in widths]
    )
    if not place.is_alone:
        lines = commands("quantize", options, plugin_options, place)
        _by_workers(prepared, widths, place, lines)
    elif is_worker():
        _share(prepared, widths)
        return
    _report(options, prepared, widths)


def _by_workers(
    prepared: Prepared, widths: Sequence[int], place: Placement, lines: Sequence[Sequence[str]]
) -> None:
    """Have workers fill the store; InputError if this machine would not see what they store."""
    request = place.request(study_name(prepared, widths), lines)
    if place.launcher.spans_machines() and RemoteStore.configured() is None:
        raise InputError(
            "launcher: its workers run on several machines, and would store the blocks there. Set "
            "MMQ_STORE to a shared folder or an object store (e.g. s3://bucket/mmq)."
        )
    every = [str(unit) for unit in units(prepared, widths)]
    work = work_list(prepared, widths)
    work.offer(every)
    follow(place.launcher, request, lambda: work.count_done(every), len(every), "block")
    if missing := len(every) - work.count_done(every):
        raise InputError(
            f"workers: {missing} of {len(every)} units are not done; run the same command to retry"
        )


def _share(prepared: Prepared, widths: Sequence[int]) -> None:
    """As a worker: fill the store with what no other worker does."""
    end_with_launcher()
    with opened([prepared], quiet=True) as (session,):
        work = work_list(prepared, widths)
        fill_share(session.model, session.artifacts, work, units(prepared, widths))


def _report(options: QuantizeOptions, prepared: Prepared, widths: Sequence[int]) -> None:
    """Fill the store with what it lacks, and print and log a row per component and width."""
    from mmq.tracking import plain_run
    from mmq.tracking.params import eval_spec_params

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
            fill_uniform(model, artifacts, widths)
        run.log_layers(rows)
        click.echo(table(rows))
    for note in notes(rows):
        click.echo(note)
    click.echo(f"\nStored in {artifacts.store.root}; `mmq store` lists what is there.")


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
