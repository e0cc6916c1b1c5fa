"""Quantized blocks of an eval spec: read from the store, or computed and stored."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.allocation.parts import Part
from mmq.artifacts.component_blocks import component_blocks
from mmq.artifacts.layer_reports import layer_report, unquantized_report
from mmq.artifacts.shares import BlockShare, WholeShare
from mmq.artifacts.snapshot import Snapshot
from mmq.artifacts.store import CODE_ROOMS, ArtifactKey, Store
from mmq.contracts import LayerReport
from mmq.contracts.quantizer import CalibratedQuantizer, Quantizer
from mmq.data.calibration import Calibration
from mmq.eval_spec import EvalSpec
from mmq.models.components import Component, Layer
from mmq.models.loaded import ORIGINAL
from mmq.models.loading import LoadedModel
from mmq.models.row_quantizer import quantizer_for
from mmq.quantization import by_width
from mmq.quantization.blocks import Block
from mmq.quantization.capture import capture
from mmq.quantization.sequential import (
    States,
    check_finite,
    initial_states,
    quantize_block,
    quantize_data_free,
)
from mmq.system.hashing import digest
from mmq.system.home import home
from mmq.system.memory import trim
from mmq.system.progress import progress_bar
from mmq.system.versions import room_versions
from mmq.tensors.quantized_weight import QuantizedLayer

log = logging.getLogger(__name__)


class NotStoredError(RuntimeError):
    """A block that was in the store a moment ago is gone or damaged."""


@dataclass(slots=True)
class Artifacts:
    """The quantized blocks that the trials of an eval spec are assembled from.

    widths: those that trials may use, by component. If the calibration inputs do not depend on the
    width, all of them are computed together. locks: keep other processes of this machine from
    computing the same blocks; off where a work list assigns them.
    """

    eval_spec: EvalSpec
    quantizer: Quantizer
    store: Store
    calibration: Calibration | None = None
    widths: Mapping[str, Iterable[int]] = field(default_factory=dict)
    quiet: bool = False
    locks: bool = True

    @property
    def behind_quantized(self) -> bool:
        """Whether a component's codes depend on how the components before it are quantized."""
        return (
            isinstance(self.quantizer, CalibratedQuantizer)
            and self.quantizer.calibration_inputs == "sequential"
        )

    def write_(self, model: LoadedModel, allocation: BitAllocation) -> list[LayerReport]:
        """Write an allocation's weights into an unquantized model; returns a report per layer.

        Weights are dequantized one block at a time, so that a large component is never in memory
        twice. A block that is damaged or removed meanwhile is computed again, once.
        """
        try:
            return self._write_(model, allocation)
        except NotStoredError as error:
            log.warning("%s: writing the allocation again", error)
            model.restore_()
            return self._write_(model, allocation)

    def _write_(self, model: LoadedModel, allocation: BitAllocation) -> list[LayerReport]:
        widths = allocation.widths(model.components)
        quantized_widths = {
            name: sorted(
                {bits for part, bits in widths.items() if part[0] == name} - {UNQUANTIZED}
            )
            for name in model.components
        }
        if not self.behind_quantized:
            # fill every component before the model is changed
            for name, some_widths in quantized_widths.items():
                self.fill(model, name, self._with(name, some_widths))
        reports: list[LayerReport] = []
        for name, component in model.components.items():
            if self.behind_quantized:
                self.fill(model, name, quantized_widths[name])
            reports += self._write_component_(model, component, widths)
        return reports

    def _with(self, name: str, widths: Sequence[int]) -> Sequence[int]:
        """The widths to compute together with these."""
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
                    reports.append(unquantized_report(component.name, layer))
                    continue
                if bits not in stored:
                    stored[bits] = self._get(keys[number, bits])
                quantized = stored[bits][layer.name]
                model.write_(component.name, {layer.name: quantized.weight.dequantize()})
                reports.append(layer_report(component.name, layer, quantized))
                written.append([layer.name, keys[number, bits].name])
        if written:
            model.states[component.name] = digest(written)
        return reports

    def _get(self, key: ArtifactKey) -> Mapping[str, QuantizedLayer]:
        layers = self.store.get(key)
        if layers is None:
            raise NotStoredError(f"{key.name} is no longer in the store")
        return layers

    def reports(self, model: LoadedModel, name: str, bits: int) -> list[LayerReport]:
        """Reports of a component's stored layers at a width, after `fill`."""
        return [layer_report(name, *pair) for pair in self.layers(model, name, bits)]

    def layers(
        self, model: LoadedModel, name: str, bits: int
    ) -> Iterator[tuple[Layer, QuantizedLayer]]:
        """A component's layers at a width, after `fill`, read one block at a time."""
        component = model.components[name]
        keys = self.keys(model, component, [bits])
        for number, layers in groupby(component.layers, key=lambda layer: layer.block):
            stored = self.store.get(keys[number, bits]) or {}
            if not stored:  # damaged since `fill`
                self.fill(model, name, [bits])
                stored = dict(self._get(keys[number, bits]))
            yield from ((layer, stored[layer.name]) for layer in layers)

    def seconds(self, model: LoadedModel, name: str, bits: int) -> float:
        """Seconds spent computing a component at a width, after `fill`.

        Widths that were computed together share the time of their block equally; nan if an
        artifact has no time.
        """
        keys = self.keys(model, model.components[name], [bits]).values()
        spent = [self.store.seconds(key) for key in keys]
        return sum(float("nan") if s is None else s for s in spent)

    def keys(
        self, model: LoadedModel, component: Component, widths: Iterable[int]
    ) -> dict[tuple[int, int], ArtifactKey]:
        """One key per block and width."""
        calibration = None
        if self.quantizer.calibrated and not component.per_row:
            assert self.calibration is not None
            upstream = []
            if self.behind_quantized:
                order = list(model.components)
                upstream = [model.states[name] for name in order[: order.index(component.name)]]
            calibration = digest([self.calibration.fingerprint(model.family), upstream])
        blocks = groupby(component.layers, key=lambda layer: layer.block)
        layers_of = {number: tuple(layer.name for layer in layers) for number, layers in blocks}
        return {
            (number, bits): ArtifactKey(
                model=model.fingerprint,
                component=component.name,
                quantizer=self.eval_spec.quantizer,
                quantizer_distribution=self.eval_spec.quantizer_distribution,
                quantizer_version=self.eval_spec.quantizer_version,
                versions=tuple(room_versions(*CODE_ROOMS).items()),
                options=tuple(sorted(by_width.option_values(self.quantizer.at(bits)).items())),
                bits=bits,
                block=number,
                layers=layers_of.get(number, ()),
                calibration=calibration,
            )
            for number in range(component.blocks)
            for bits in widths
        }

    def fill(
        self,
        model: LoadedModel,
        name: str,
        widths: Sequence[int],
        share: BlockShare | None = None,
    ) -> None:
        """Compute the blocks of a component that the store lacks at these widths.

        A killed process repeats at most one block. If several processes need the same blocks, one
        computes them and the others wait. share: which blocks to compute here; other processes
        compute the others.
        """
        keys = self.keys(model, model.components[name], widths)
        if all(self.store.has(key) for key in keys.values()):
            return
        self._check_unquantized(model, name)
        lock = self.store.locked(f"{name}-{self.eval_spec.quantizer}")
        with lock if self.locks else nullcontext():
            if not all(self.store.has(key) for key in keys.values()):
                self._compute(model, name, widths, keys, share or WholeShare())

    def _compute(
        self,
        model: LoadedModel,
        name: str,
        widths: Sequence[int],
        keys: Mapping[tuple[int, int], ArtifactKey],
        share: BlockShare,
    ) -> None:
        component = model.components[name]
        parts = model.components.values()
        check_finite({f"{c.name}: {x.name}": x.matrix for c in parts for x in c.layers})
        text = f"quantize {name}: {', '.join(map(str, widths))} bits"
        with progress_bar(
            total=component.blocks, desc=text, unit="block", leave=False, quiet=self.quiet
        ) as bar:
            first = 0
            for blocks in component_blocks(model, component):
                keys_of_list = {
                    (number - first, bits): key
                    for (number, bits), key in keys.items()
                    if first <= number < first + len(blocks)
                }
                quantizer = quantizer_for(component, self.quantizer)
                own = share.after(first)
                self._fill_list(model, blocks, quantizer, widths, keys_of_list, bar, own)
                first += len(blocks)

    def _check_unquantized(self, model: LoadedModel, name: str) -> None:
        order = list(model.components)
        clean = order[order.index(name) :] if self.behind_quantized else order
        if any(model.states.get(other) != ORIGINAL for other in clean):
            raise ValueError(
                "the model is already quantized: call restore_() before quantizing it"
            )

    def _fill_list(
        self,
        model: LoadedModel,
        blocks: Sequence[Block],
        quantizer: Quantizer,
        widths: Sequence[int],
        keys: Mapping[tuple[int, int], ArtifactKey],
        bar: Any,  # of blocks
        share: BlockShare,
    ) -> None:
        if all(self.store.has(key) for key in keys.values()):
            bar.update(len(blocks))
            return
        if not isinstance(quantizer, CalibratedQuantizer):
            for number, block in enumerate(blocks):
                if share.claim(number):
                    keys_of_block = {bits: keys[number, bits] for bits in widths}
                    self._fill_data_free(block, quantizer, keys_of_block)
                    share.complete(number)
                bar.update()
            return
        assert self.calibration is not None
        started = time.perf_counter()
        calls = capture(blocks, partial(self.calibration.forwards, model))
        states: States = initial_states(calls, quantizer, widths, blocks)
        snapshot = Snapshot(home() / "calibration", digest([key.name for key in keys.values()]))
        missing = min(n for (n, _), key in keys.items() if not self.store.has(key))
        start = snapshot.resume_(states, missing)
        bar.update(start)
        for number in range(start, len(blocks)):
            is_claimed = share.claim(number)

            def cached(
                bits: int, number: int = number, is_claimed: bool = is_claimed
            ) -> Mapping[str, QuantizedLayer] | None:
                key = keys[number, bits]
                if self.behind_quantized:
                    return self.store.get(key)
                return {} if not is_claimed or self.store.has(key) else None

            solved = quantize_block(blocks[number], number, states, quantizer, widths, cached)
            spent = time.perf_counter() - started
            part = spent / max(len(solved), 1)
            for bits in list(solved):  # release each before the next block is solved
                self.store.put(keys[number, bits], solved.pop(bits), part)
            if is_claimed:
                share.complete(number)
            trim()
            started = time.perf_counter()
            snapshot.save(states, number + 1)
            bar.update()
        snapshot.remove()

    def _fill_data_free(
        self, block: Block, quantizer: Quantizer, keys: Mapping[int, ArtifactKey]
    ) -> None:
        """Compute the widths of one block that the store lacks."""
        for bits, key in keys.items():
            if not self.store.has(key):
                started = time.perf_counter()
                layers = quantize_data_free(block, quantizer, bits)
                self.store.put(key, layers, time.perf_counter() - started)
        trim()
