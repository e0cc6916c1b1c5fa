"""Quantized blocks of a question: taken from the store, or computed for all widths and stored."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from tqdm import tqdm

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.allocation.parts import Part
from mmq.artifacts.snapshot import Snapshot
from mmq.artifacts.store import ArtifactKey, Store
from mmq.contracts import LayerReport
from mmq.contracts.quantizer import CalibratedQuantizer, Quantizer
from mmq.data.calibration import Calibration
from mmq.eval_spec import EvalSpec
from mmq.models.components import Component, Layer
from mmq.models.loaded import ORIGINAL
from mmq.models.loading import LoadedModel
from mmq.quantization.blocks import Block, capture
from mmq.quantization.sequential import (
    States,
    check_finite,
    initial_states,
    quantize_block,
    quantize_plainly,
)
from mmq.system.hashing import digest
from mmq.system.home import home
from mmq.system.memory import trim
from mmq.tensors.quantized_weight import QuantizedLayer

log = logging.getLogger(__name__)


class NotStoredError(RuntimeError):
    """A block that was in the store a moment ago is gone or damaged."""


@dataclass(slots=True)
class Artifacts:
    """The quantized blocks that the trials of a question are assembled from.

    widths: those that trials may ask for, by component. A quantizer whose calibration inputs do
    not depend on the width computes all of them as soon as it computes one.
    """

    question: EvalSpec
    quantizer: Quantizer
    store: Store
    calibration: Calibration | None = None
    widths: Mapping[str, Iterable[int]] = field(default_factory=dict)
    quiet: bool = False

    @property
    def behind_quantized(self) -> bool:
        """Whether a component's codes depend on how the components before it are quantized."""
        return (
            isinstance(self.quantizer, CalibratedQuantizer)
            and self.quantizer.calibration_inputs == "quantized"
        )

    def write_(self, model: LoadedModel, allocation: BitAllocation) -> list[LayerReport]:
        """Write an allocation's weights into an unquantized model; a report of every layer.

        Dequantized weights are written a block at a time: a large component never stands in
        memory twice. What turns out to be damaged meanwhile is computed again, once.
        """
        try:
            return self._write_(model, allocation)
        except NotStoredError as error:
            log.warning("%s: the allocation is written again", error)
            model.restore_()
            return self._write_(model, allocation)

    def _write_(self, model: LoadedModel, allocation: BitAllocation) -> list[LayerReport]:
        widths = allocation.widths(model.components)
        touched = {
            name: sorted(
                {bits for part, bits in widths.items() if part[0] == name} - {UNQUANTIZED}
            )
            for name in model.components
        }
        if not self.behind_quantized:
            for name, some in touched.items():  # all of them before the model is changed
                self.fill(model, name, self._with(name, some))
        reports: list[LayerReport] = []
        for name, component in model.components.items():
            if self.behind_quantized:
                self.fill(model, name, touched[name])
            reports += self._write_component_(model, component, widths)
        return reports

    def _with(self, name: str, widths: Sequence[int]) -> Sequence[int]:
        """The widths to compute where some of them are asked for."""
        if not widths or not self.quantizer.calibrated:
            return widths
        return sorted({*widths, *self.widths.get(name, ())} - {UNQUANTIZED})

    def _write_component_(
        self, model: LoadedModel, component: Component, widths: Mapping[Part, int]
    ) -> list[LayerReport]:
        reports, written = [], []
        keys = self.keys(model, component, {widths[component.part(x)] for x in component.layers})
        for number, layers in groupby(component.layers, key=lambda layer: layer.block):
            stored: dict[int, Mapping[str, QuantizedLayer]] = {}
            for layer in layers:
                bits = widths[component.part(layer)]
                if bits == UNQUANTIZED:
                    reports.append(_untouched(component.name, layer))
                    continue
                if bits not in stored:
                    stored[bits] = self._get(keys[number, bits])
                quantized = stored[bits][layer.name]
                model.write_(component.name, {layer.name: quantized.weight.dequantize()})
                reports.append(_report(component.name, layer, quantized))
                written.append([layer.name, keys[number, bits].name])
        if written:
            model.states[component.name] = digest(written)
        return reports

    def _get(self, key: ArtifactKey) -> Mapping[str, QuantizedLayer]:
        found = self.store.get(key)
        if found is None:
            raise NotStoredError(f"{key.name} is not in the store any more")
        return found

    def reports(self, model: LoadedModel, name: str, bits: int) -> list[LayerReport]:
        """What the store says of a component's layers at a width, after `fill`."""
        return [_report(name, *found) for found in self.layers(model, name, bits)]

    def layers(
        self, model: LoadedModel, name: str, bits: int
    ) -> Iterator[tuple[Layer, QuantizedLayer]]:
        """A component's layers at a width, after `fill`; one block at a time is read."""
        component = model.components[name]
        keys = self.keys(model, component, [bits])
        for number, layers in groupby(component.layers, key=lambda layer: layer.block):
            found = self.store.get(keys[number, bits]) or {}
            if not found:  # damaged since
                self.fill(model, name, [bits])
                found = dict(self._get(keys[number, bits]))
            yield from ((layer, found[layer.name]) for layer in layers)

    def seconds(self, model: LoadedModel, name: str, bits: int) -> float:
        """What computing a component at a width took, after `fill`.

        Widths that were computed together share the time of their block equally; nan where an
        artifact does not say.
        """
        keys = self.keys(model, model.components[name], [bits]).values()
        spent = [self.store.seconds(key) for key in keys]
        return sum(float("nan") if each is None else each for each in spent)

    def keys(
        self, model: LoadedModel, component: Component, widths: Iterable[int]
    ) -> dict[tuple[int, int], ArtifactKey]:
        """A key for every block that has layers, and every width."""
        calibration = None
        if self.quantizer.calibrated:
            assert self.calibration is not None
            upstream = []
            if self.behind_quantized:
                before = list(model.components)[: list(model.components).index(component.name)]
                upstream = [model.states[name] for name in before]
            calibration = digest([self.calibration.fingerprint(model.family), upstream])
        blocks = groupby(component.layers, key=lambda layer: layer.block)
        inside = {number: tuple(layer.name for layer in layers) for number, layers in blocks}
        return {
            (number, bits): ArtifactKey(
                model=model.fingerprint,
                component=component.name,
                quantizer=self.question.quantizer,
                quantizer_origin=self.question.quantizer_origin,
                options=tuple(sorted(self.question.quantizer_options.items())),
                bits=bits,
                block=number,
                layers=inside.get(number, ()),
                calibration=calibration,
            )
            for number in range(component.blocks)
            for bits in widths
        }

    def fill(self, model: LoadedModel, name: str, widths: Sequence[int]) -> None:
        """See that every block of a component is in the store at these widths.

        A killed process repeats at most the block it was at. Of several processes that want the
        same, one computes it and the others wait.
        """
        keys = self.keys(model, model.components[name], widths)
        if all(self.store.has(key) for key in keys.values()):
            return
        self._check_unquantized(model, name)
        with self.store.locked(f"{name}-{self.question.quantizer}"):
            if not all(self.store.has(key) for key in keys.values()):
                self._compute(model, name, widths, keys)

    def _compute(
        self,
        model: LoadedModel,
        name: str,
        widths: Sequence[int],
        keys: Mapping[tuple[int, int], ArtifactKey],
    ) -> None:
        component = model.components[name]
        parts = model.components.values()
        check_finite({f"{c.name}: {x.name}": x.module for c in parts for x in c.layers})
        text = f"quantize {name}: {', '.join(map(str, widths))} bits"
        with tqdm(
            total=component.blocks, desc=text, unit="block", leave=False, disable=self.quiet
        ) as bar:
            first = 0
            for blocks in component_blocks(model, component):
                own = {
                    (number - first, bits): key
                    for (number, bits), key in keys.items()
                    if first <= number < first + len(blocks)
                }
                self._fill_list(model, blocks, widths, own, bar)
                first += len(blocks)

    def _check_unquantized(self, model: LoadedModel, name: str) -> None:
        order = list(model.components)
        clean = order[order.index(name) :] if self.behind_quantized else order
        if any(model.states.get(other) != ORIGINAL for other in clean):
            raise ValueError("the model is quantized: restore_() it before it is quantized anew")

    def _fill_list(
        self,
        model: LoadedModel,
        blocks: Sequence[Block],
        widths: Sequence[int],
        keys: Mapping[tuple[int, int], ArtifactKey],
        bar: tqdm,
    ) -> None:
        if all(self.store.has(key) for key in keys.values()):
            bar.update(len(blocks))
            return
        if not isinstance(self.quantizer, CalibratedQuantizer):
            for number, block in enumerate(blocks):
                for bits in widths:
                    if not self.store.has(keys[number, bits]):
                        started = time.perf_counter()
                        layers = quantize_plainly(block, self.quantizer, bits)
                        spent = time.perf_counter() - started
                        self.store.put(keys[number, bits], layers, spent)
                trim()
                bar.update()
            return
        assert self.calibration is not None
        started = time.perf_counter()
        calls = capture(blocks, self.calibration.forwards(model))
        states: States = initial_states(calls, self.quantizer, widths)
        snapshot = Snapshot(home() / "calibration", digest([key.name for key in keys.values()]))
        missing = min(n for (n, _), key in keys.items() if not self.store.has(key))
        start = snapshot.resume_(states, missing)
        bar.update(start)
        for number in range(start, len(blocks)):

            def known(bits: int, number: int = number) -> Mapping[str, QuantizedLayer] | None:
                key = keys[number, bits]
                if self.behind_quantized:
                    return self.store.get(key)
                return {} if self.store.has(key) else None

            found = quantize_block(blocks[number], number, states, self.quantizer, widths, known)
            spent = time.perf_counter() - started
            share = spent / max(len(found), 1)
            for bits in list(found):  # none is held while the next block is solved
                self.store.put(keys[number, bits], found.pop(bits), share)
            trim()
            started = time.perf_counter()
            snapshot.keep(states, number + 1)
            bar.update()
        snapshot.remove()


def component_blocks(model: LoadedModel, component: Component) -> list[list[Block]]:
    """A component's lists of blocks, each with its linear layers by their names in the model."""
    lists = []
    for path in component.paths:
        blocks = []
        for index, module in enumerate(model.module.get_submodule(path).children()):
            start = f"{path}.{index}."
            inside = [layer for layer in component.layers if layer.name.startswith(start)]
            blocks.append(Block(module, {layer.name: layer.module for layer in inside}))
        lists.append(blocks)
    return lists


def _report(component: str, layer: Layer, quantized: QuantizedLayer) -> LayerReport:
    weight = quantized.weight
    return replace(
        _untouched(component, layer),
        bits=weight.bits,
        skipped=None,
        group_size=weight.group_size,
        stored_bits=weight.stored_bits,
        relative_error=quantized.relative_error,
        output_error=quantized.output_error,
        note=quantized.note,
    )


def _untouched(component: str, layer: Layer) -> LayerReport:
    return LayerReport(
        name=layer.name,
        component=component,
        block=layer.block,
        layer_type=layer.layer_type,
        shape=layer.shape,
        bits=UNQUANTIZED,
        skipped="its part of the model stays at 16 bits",
    )
