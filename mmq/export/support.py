"""The widths that a target supports for each component, and the quantizer options for each.

Formats differ by width: llama.cpp stores symmetric 4-bit codes in groups of 32 at 4.5 bits per
weight, and 3-bit codes below that only in groups of 256. Options that the user gives are fixed;
the others are selected, for each width, by stored bits and rounding error.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import torch

from mmq.allocation.allocation import TABLE_RULE, UNQUANTIZED, BitAllocation, allowed_bits
from mmq.contracts.quantizer import Quantizer
from mmq.contracts.target import Target, WeightSpec
from mmq.errors import InputError
from mmq.export.plan import GROUP_SIZES, OFFERED, elsewhere, nearest_options, refusal_of
from mmq.export.weight_specs import planned_spec
from mmq.models.components import Component
from mmq.models.row_quantizer import quantizer_for
from mmq.models.skeleton import Skeleton
from mmq.quantization.by_width import WIDTHS, by_width
from mmq.tensors.quantized_weight import relative_error

ROWS = 16  # rows of the random weight whose rounding error is compared
COLUMNS = 4096  # maximum columns of that weight
VISIBLE = 0.01  # relative rounding error below which options are equally good
SMALLER = 0.995  # largest share of the next width's bytes at which a width is worth searching


@dataclass(frozen=True, slots=True)
class Support:
    """The widths that a target supports, with the quantizer's best options for each.

    widths: by component, ascending, of those requested. dropped: why the others are not there, by
    component and width.
    """

    quantizer: Quantizer
    widths: Mapping[str, tuple[int, ...]]
    dropped: Mapping[tuple[str, int], str]

    def allocations(self) -> list[BitAllocation]:
        """Allocations that together have every component at every supported width."""
        widths = sorted({bits for own in self.widths.values() for bits in own})
        return [
            BitAllocation.of({name: bits for name, own in self.widths.items() if bits in own})
            for bits in widths
        ]

    def report(self, target_name: str) -> str:
        """One line about the widths that are not searched; "" if all are."""
        by_reason: dict[str, dict[str, list[str]]] = {}
        for (component, bits), reason in self.dropped.items():
            by_reason.setdefault(reason, {}).setdefault(component, []).append(str(bits))
        text = "; ".join(
            " ".join(f"{name}={','.join(bits)}" for name, bits in names.items()) + f" ({reason})"
            for reason, names in by_reason.items()
        )
        return f"Not searched for the target {target_name}: {text}" if text else ""


def supported_widths(
    target_name: str,
    target: Target,
    quantizer: Quantizer,
    explicit: Collection[str],
    skeleton: Skeleton,
    bits: Sequence[int],
) -> Support:
    """The requested widths that a target supports, each with the best options for it.

    explicit: names of the quantizer's options that the user set; they are not changed. InputError,
    with what the target supports, if no component can be quantized.
    """
    ladder = _Ladder(target, quantizer, explicit, skeleton.components)
    for width in reversed(WIDTHS):  # the widest first: a narrower one must save bytes
        ladder.add(width)
    requested = [b for b in bits if b != UNQUANTIZED]
    widths = {
        name: tuple(b for b in bits if b == UNQUANTIZED or b in ladder.widths[name])
        for name in skeleton.components
    }
    dropped = {
        (name, b): ladder.reasons[name, b]
        for name in skeleton.components
        for b in requested
        if b not in widths[name]
    }
    if not any(set(w) - {UNQUANTIZED} for w in widths.values()):
        raise InputError(_nothing(target_name, ladder, requested))
    for name, own in widths.items():
        if not own:  # 16 bits were not requested, and nothing narrower is possible
            widths[name] = (UNQUANTIZED,)
    return Support(by_width(quantizer, ladder.options), widths, dropped)


class _Ladder:
    """The widths of a target so far, from the widest to the narrowest."""

    def __init__(
        self,
        target: Target,
        quantizer: Quantizer,
        explicit: Collection[str],
        components: Mapping[str, Component],
    ) -> None:
        self.target, self.quantizer, self.explicit = target, quantizer, explicit
        self.components = components
        self.options: dict[int, Quantizer] = {}
        self.widths: dict[str, list[int]] = {name: [] for name in components}
        self.reasons: dict[tuple[str, int], str] = {}
        self._first: dict[tuple[Quantizer, int], int] = {}
        self._stored = {n: float(UNQUANTIZED * c.weights) for n, c in components.items()}

    def add(self, bits: int) -> None:
        """Select the options of a width: useful for the most weights, then the best for its bits.

        A component uses a width if it saves bytes against the next wider one.
        """
        best: tuple[tuple[float, ...], Quantizer, dict[str, float]] | None = None
        reasons: dict[str, str] = {}
        for candidate in candidates(self.quantizer.at(bits), self.explicit, self.target):
            stored: dict[str, float] = {}
            for name, component in self.components.items():
                reason, size = self._stored_bits(name, component, candidate, bits)
                if not reason and size > SMALLER * self._stored[name]:
                    wider = self.widths[name][0] if self.widths[name] else UNQUANTIZED
                    reason = f"as many bytes as {wider} bits"
                if reason:
                    # that a supported width saves nothing is the more useful reason
                    if name not in reasons or reason.startswith("as many bytes"):
                        reasons[name] = reason
                else:
                    stored[name] = size
            if not stored:
                continue
            order = (-self._weights(stored), *self._cost(candidate, bits, stored))
            if best is None or order < best[0]:
                best = order, candidate, stored
        used = {} if best is None else best[2]
        if best is not None:
            self.options[bits] = best[1]
        for name in self.components:
            if name in used:
                self.widths[name].insert(0, bits)
                self._stored[name] = used[name]
            else:
                self.reasons[name, bits] = reasons.get(name, "other components need its options")

    def _stored_bits(
        self, name: str, component: Component, candidate: Quantizer, bits: int
    ) -> tuple[str, float]:
        """Why the target does not support a component like this, or "", and its stored bits."""
        if bits not in allowed_bits(name):
            return TABLE_RULE, 0.0
        own = quantizer_for(component, candidate)
        probed: dict[tuple[tuple[int, int], bool], float] = {}
        kinds = [(layer.shape, layer.matrix.expert is None) for layer in component.layers]
        for layer, kind in zip(component.layers, kinds, strict=True):
            if kind not in probed:
                try:
                    own.check(layer.name, layer.shape)
                except ValueError as error:
                    return str(error), 0.0
                spec = self._spec(own, layer.shape[1], bits)
                if reason := refusal_of(self.target, layer, spec, name):
                    return reason, 0.0
                probed[kind] = self.target.stored_bits(layer.shape, spec)
        return "", sum(probed[kind] for kind in kinds)

    def _spec(self, candidate: Quantizer, inputs: int, bits: int) -> WeightSpec:
        """A layer's spec; all but the bits is the same at every width, and slow to probe."""
        first = self._first.setdefault((candidate, inputs), bits)
        return replace(planned_spec(candidate, inputs, first), bits=bits)

    def _weights(self, names: Collection[str]) -> int:
        return sum(self.components[name].weights for name in names)

    def _cost(
        self, candidate: Quantizer, bits: int, stored: Mapping[str, float]
    ) -> tuple[float, float]:
        """Stored bits per weight plus the log of the error; then the smallest group, negative.

        By rate-distortion theory, one more bit halves the error. Errors that are not visible are
        equal; then larger groups are better, because float16 represents their scales.
        """
        inputs = max(c.layers[0].shape[1] for n, c in self.components.items() if n in stored)
        error = max(rounding_error(candidate, inputs, bits), VISIBLE)
        per_weight = sum(stored.values()) / self._weights(stored)
        group = getattr(candidate, "group_size", 0) or inputs
        return round(per_weight + math.log2(error), 3), -group


def candidates(
    quantizer: Quantizer, explicit: Collection[str], target: Target
) -> Iterator[Quantizer]:
    """The quantizer in all variants that a format may require; options in `explicit` are fixed."""
    names = {field.name for field in fields(quantizer)} - set(explicit)
    values: dict[str, tuple[Any, ...]] = {"group_size": GROUP_SIZES, "symmetric": (False, True)}
    free = {
        name: dict.fromkeys((getattr(quantizer, name), *options))
        for name, options in values.items()
        if name in names
    }
    if "foldable" in names and _needs_folding(target):
        free["foldable"] = {True: None}
    for combination in product(*free.values()):
        try:
            yield replace(quantizer, **dict(zip(free, combination, strict=True)))
        except ValueError:  # options that exclude each other
            continue


def _needs_folding(target: Target) -> bool:
    """Whether a format has no input scales of its own, but takes those that fold into norms."""
    spec = WeightSpec(bits=4, group_size=32, input_scale=True)
    shape = 1024, 1024
    folded = replace(spec, folds=True)
    return bool(target.refusal(spec, shape, "")) and not target.refusal(folded, shape, "")


def rounding_error(quantizer: Quantizer, inputs: int, bits: int) -> float:
    """|W - Q| / |W| of a normal random weight, rounded to nearest; of at most 4,096 inputs."""
    group = getattr(quantizer, "group_size", 0)
    columns = inputs if inputs <= COLUMNS else COLUMNS - COLUMNS % (group or 1)
    weight = 0.05 * torch.randn(ROWS, columns, generator=torch.Generator().manual_seed(0))
    quantized = quantizer.quantize(weight, bits)
    return relative_error(weight, quantized.dequantize())


def _nothing(target_name: str, ladder: _Ladder, requested: Sequence[int]) -> str:
    """Why no component can be quantized, and what can be done about it."""
    widths = {
        name: ",".join(map(str, supported))
        for name, supported in ladder.widths.items()
        if supported
    }
    requested_text = ", ".join(map(str, requested)) or "no width below 16"
    if widths:
        can = "; ".join(f"{name}: {supported}" for name, supported in widths.items())
        reasons = dict.fromkeys(ladder.reasons[n, b] for n in ladder.widths for b in requested)
        because = f" ({'; '.join(reasons)})" if reasons else ""
        return (
            f"bits: {target_name} cannot use {requested_text} for any component{because}. "
            f"Choose from the widths that it can use: {can}"
        )
    name, component = next(iter(ladder.components.items()))
    layer = component.layers[0]
    bits = next(iter(requested), 4)
    reason = ladder.reasons[name, bits]
    if reason.startswith("as many bytes"):
        return (
            f"target: {target_name} writes files of the same size at every width; choose a target "
            f"that stores codes, such as gguf, or search without a target"
        )
    spec = planned_spec(ladder.quantizer, layer.shape[1], bits)
    own = ladder.quantizer.at(bits)
    options = nearest_options(ladder.target, own, component, layer, spec)[:OFFERED]
    nearest = "; ".join(options) or elsewhere(ladder.target, component, layer, spec)
    return (
        f"target: {target_name} supports no component of this model at any width: "
        f"{reason}. Nearest that it supports: "
        f"{nearest}"
    )
