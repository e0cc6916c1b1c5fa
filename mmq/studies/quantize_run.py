"""Quantize every component at every width into the store, here or by several workers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.artifacts import Artifacts
from mmq.artifacts.shares import ClaimedBlocks
from mmq.contracts.quantizer import CalibratedQuantizer, Quantizer
from mmq.models.components import Component
from mmq.models.loading import LoadedModel
from mmq.prepare import Prepared
from mmq.studies.names import safe_name
from mmq.studies.work_list import Claim, WorkList
from mmq.system.database import Database
from mmq.system.hashing import digest
from mmq.system.home import home


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work that needs no other: a block, or what must be computed in sequence.

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
    """Compute what no other worker does, until all units are done or failed."""
    artifacts.locks = False
    with work.present():
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
    work.complete(claim)  # also if the store had it already


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
    """Every component behind those before it at the same width."""
    for bits in widths:
        try:
            artifacts.write_(model, BitAllocation.uniform(list(model.components), bits))
        finally:
            model.restore_()
