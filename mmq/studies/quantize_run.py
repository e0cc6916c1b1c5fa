"""Quantize every component at every width into the store, here or by several workers."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmq.allocation.allocation import BitAllocation, parse_widths
from mmq.artifacts.artifacts import Artifacts
from mmq.artifacts.remote import RemoteStore
from mmq.artifacts.shares import ClaimedBlocks
from mmq.contracts.quantizer import CalibratedQuantizer, Quantizer
from mmq.contracts.report import LayerReport
from mmq.errors import InputError
from mmq.models.components import Component
from mmq.models.loading import LoadedModel
from mmq.prepare import Prepared, prepare
from mmq.studies.names import safe_name
from mmq.studies.options import QuantizeOptions
from mmq.studies.session import opened
from mmq.studies.work_list import Claim, WorkList
from mmq.studies.workers import Placement, commands, follow, for_workers, placement
from mmq.system.database import Database
from mmq.system.hashing import digest
from mmq.system.home import home
from mmq.system.worker import end_with_launcher, is_worker


@dataclass(frozen=True, slots=True)
class StoredBlocks:
    """The layers of the quantized blocks, and the folder of the store that has them."""

    rows: Sequence[LayerReport]
    root: Path


def run_quantize(
    options: QuantizeOptions, plugin_options: Mapping[str, Any]
) -> StoredBlocks | None:
    """Fill the store, here or by workers, and log it; None in a worker, which does its share."""
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
        _as_worker(prepared, widths)
        return None
    return _complete(options, prepared, widths)


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
    with work.present():
        follow(
            place.launcher,
            request,
            lambda: work.count_done(every),
            len(every),
            lambda: not work.count_open(every),
            "block" if not is_sequential(prepared.quantizer) else "unit",
        )
    if missing := len(every) - work.count_done(every):
        raise InputError(
            f"workers: {missing} of {len(every)} units are not done; run the same command to retry"
        )


def _as_worker(prepared: Prepared, widths: Sequence[int]) -> None:
    """As a worker: compute the blocks that no other worker computes."""
    end_with_launcher()
    work, every = work_list(prepared, widths), units(prepared, widths)
    work.check_offered([str(unit) for unit in every])
    with work.present(), opened([prepared], quiet=True) as (session,):
        fill_share(session.model, session.artifacts, work, every)


def _complete(options: QuantizeOptions, prepared: Prepared, widths: Sequence[int]) -> StoredBlocks:
    """Fill the store with what it lacks, and log a row per layer and width."""
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
        return StoredBlocks(rows, artifacts.store.root)


@dataclass(frozen=True, slots=True)
class Unit:
    """An independent unit of work: a block, or what must be computed in sequence.

    block: None for all blocks of the component. component: "" for all of them at one width.
    """

    component: str
    block: int | None
    bits: Sequence[int]

    def __str__(self) -> str:
        what = self.component or "every component"
        block = "" if self.block is None else f" block {self.block}"
        return f"{what}{block} at {', '.join(map(str, self.bits))} bits"


def units(prepared: Prepared, widths: Sequence[int]) -> list[Unit]:
    """The units in the order in which they are claimed.

    Blocks are independent of each other, unless a block reads what the quantized block before it
    computes: then a component at one width is a unit.
    """
    components = prepared.skeleton.components
    if not is_sequential(prepared.quantizer):
        return [Unit(c.name, k, widths) for c in components.values() for k in range(c.blocks)]
    alone = [Unit(name, None, [bits]) for name in components for bits in widths]
    return [*alone, *(Unit("", None, [bits]) for bits in widths)]


def is_sequential(quantizer: Quantizer) -> bool:
    """Whether a block's codes depend on the quantized blocks before it."""
    return (
        isinstance(quantizer, CalibratedQuantizer) and quantizer.calibration_inputs == "sequential"
    )


def study_name(prepared: Prepared, widths: Sequence[int]) -> str:
    """The name of the shared work, different for every eval spec and choice of widths."""
    spec = prepared.eval_spec
    model = spec.model.rstrip("/").split("/")[-1]
    return safe_name(f"quantize-{model}-{spec.quantizer}-{digest([spec.key, list(widths)])[:8]}")


def work_list(prepared: Prepared, widths: Sequence[int]) -> WorkList:
    """The work list that all workers of this command share."""
    return WorkList(Database(home()), study_name(prepared, widths))


def fill_share(
    model: LoadedModel, artifacts: Artifacts, work: WorkList, every: Sequence[Unit]
) -> None:
    """Compute units that no other worker computes, until all of them are done or failed.

    The caller is present in the work list.
    """
    artifacts.locks = False
    for component, some in _by_component(every):
        by_name = {str(unit): unit for unit in some}
        for claim in work.claims(list(by_name)):
            unit = by_name[claim.unit]
            try:
                _fill(model, artifacts, work, claim, unit, model.components.get(component))
            except Exception:
                work.fail(claim)
                raise


def _by_component(every: Sequence[Unit]) -> Iterator[tuple[str, list[Unit]]]:
    for component in dict.fromkeys(unit.component for unit in every):
        yield component, [unit for unit in every if unit.component == component]


def _fill(
    model: LoadedModel,
    artifacts: Artifacts,
    work: WorkList,
    claim: Claim,
    unit: Unit,
    component: Component | None,
) -> None:
    if component is None:
        fill_uniform(model, artifacts, unit.bits)
    elif unit.block is None:
        artifacts.fill(model, component.name, unit.bits)
    else:
        blocks = {k: Unit(unit.component, k, unit.bits) for k in range(component.blocks)}
        artifacts.fill(model, component.name, unit.bits, _share(work, claim, unit.block, blocks))
    work.complete(claim)  # even if the store had it already


def _share(work: WorkList, first: Claim, number: int, blocks: Mapping[int, Unit]) -> ClaimedBlocks:
    """One pass over a component: the claimed block, and later ones that are free by then."""
    claims: dict[int, Claim] = {number: first}

    def claim(block: int) -> bool:
        is_new = block not in claims and block > number
        if is_new and (more := work.claim(str(blocks[block]))) is not None:
            claims[block] = more
        return block in claims

    def complete(block: int) -> None:
        work.complete(claims[block])

    return ClaimedBlocks(claim, complete)


def fill_uniform(model: LoadedModel, artifacts: Artifacts, widths: Sequence[int]) -> None:
    """Every component, each after the components before it at the same width."""
    for bits in widths:
        try:
            artifacts.write_(model, BitAllocation.uniform(list(model.components), bits))
        finally:
            model.restore_()
