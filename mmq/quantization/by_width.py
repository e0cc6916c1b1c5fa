"""Quantizers whose options depend on the width, such as `--group-size 3=256,4=32`.

Export formats need it: 4-bit codes fit llama.cpp's blocks in groups of 32, 3-bit codes in groups
of 256. All of mmq sees one quantizer; `Quantizer.at(bits)` is the plain one of a width.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from mmq.allocation.allocation import ALLOWED_BITS
from mmq.contracts import options as plugin_options
from mmq.contracts.quantizer import CalibratedQuantizer, Quantizer, Solved
from mmq.errors import InputError
from mmq.tensors.layer_inputs import LayerInputs
from mmq.tensors.quantized_weight import QuantizedWeight

WIDTHS = ALLOWED_BITS[:-1]  # the last is unquantized
LISTED = re.compile(r"(\d+)=([^=,]+)")
ByWidth = Mapping[int, Quantizer]
T = TypeVar("T", bound=Quantizer)


@dataclass(frozen=True)
class DataFreeByWidth(Quantizer):
    """A quantizer for each width; `common` for widths without one of their own."""

    common: Quantizer
    own: ByWidth = field(hash=False)

    def at(self, bits: int) -> Quantizer:
        """The quantizer of a width."""
        return self.own.get(bits, self.common)

    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes by the quantizer of this width."""
        return self.at(bits).quantize(weight, bits)

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Bits that the quantizer of this width takes."""
        return self.at(bits).stored_bits(shape, bits)


@dataclass(frozen=True)
class CalibratedByWidth(CalibratedQuantizer):
    """The same for calibrated quantizers: one pass over the inputs serves all of them."""

    common: CalibratedQuantizer = field(kw_only=True)
    own: Mapping[int, CalibratedQuantizer] = field(kw_only=True, hash=False)

    @property
    def sampled_inputs(self) -> int:  # type: ignore[override]
        """Number of inputs that the most demanding quantizer needs."""
        return max(quantizer.sampled_inputs for quantizer in (self.common, *self.own.values()))

    @property
    def folds(self) -> bool:
        """Whether the quantizer of any width folds input scales."""
        return any(quantizer.folds for quantizer in (self.common, *self.own.values()))

    def at(self, bits: int) -> CalibratedQuantizer:
        """The quantizer of a width."""
        return self.own.get(bits, self.common)

    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes by the quantizer of this width."""
        return self.at(bits).quantize(weight, bits)

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Bits that the quantizer of this width takes."""
        return self.at(bits).stored_bits(shape, bits)

    def solve(
        self, weights: Sequence[Tensor], inputs: LayerInputs, widths: Sequence[int]
    ) -> list[dict[int, Solved]]:
        """Codes for every width; widths that share their options are solved together."""
        alike: dict[CalibratedQuantizer, list[int]] = {}
        for bits in widths:
            alike.setdefault(self.at(bits), []).append(bits)
        solved: list[dict[int, Solved]] = [{} for _ in weights]
        for quantizer, some in alike.items():
            for all_widths, results in zip(
                solved, quantizer.solve(weights, inputs, some), strict=True
            ):
                all_widths |= results
        return solved


def by_width(common: Quantizer, own: ByWidth) -> Quantizer:
    """One quantizer that is `own[bits]` at these widths, and `common` at all others."""
    own = {bits: quantizer for bits, quantizer in own.items() if quantizer != common}
    if not own:
        return common
    if not isinstance(common, CalibratedQuantizer):
        return DataFreeByWidth(common, own)
    calibrated = {
        b: quantizer for b, quantizer in own.items() if isinstance(quantizer, CalibratedQuantizer)
    }
    inputs = {quantizer.calibration_inputs for quantizer in (common, *calibrated.values())}
    if len(inputs) > 1:
        raise InputError("calibration_inputs: give one value, which all widths share")
    return CalibratedByWidth(inputs.pop(), common=common, own=calibrated)


def common(quantizer: Quantizer) -> Quantizer:
    """The plugin of a quantizer: itself, or the one that its widths vary."""
    if isinstance(quantizer, DataFreeByWidth | CalibratedByWidth):
        return quantizer.common
    return quantizer


def option_values(quantizer: Quantizer) -> dict[str, Any]:
    """The options of a quantizer; those that depend on the width as text, like "3=256,4=32".

    `build` makes the same quantizer from them.
    """
    shared = plugin_options.values(common(quantizer))
    if quantizer is common(quantizer):
        return shared
    at = {bits: plugin_options.values(quantizer.at(bits)) for bits in WIDTHS}
    return {
        name: value
        if all(options[name] == value for options in at.values())
        else ",".join(
            [_text(value), *(f"{b}={_text(at[b][name])}" for b in at if at[b][name] != value)]
        )
        for name, value in shared.items()
    }


def build(plugin: type[T], options: Mapping[str, Any]) -> Quantizer:
    """A quantizer from options, any of which may list a value by width.

    "32,3=256" is 256 at 3 bits and 32 at all others; without a first value, the default is.
    """
    shared: dict[str, Any] = {}
    listed: dict[int, dict[str, str]] = {}
    for name, value in options.items():
        if not isinstance(value, str) or not LISTED.search(value):
            shared[name] = value
            continue
        first, *rest = value.split(",")
        if not LISTED.fullmatch(first.strip()):
            shared[name] = first.strip()
        else:
            rest = [first, *rest]
        for item in rest:
            bits, text = _listed(name, item.strip())
            listed.setdefault(bits, {})[name] = text
    plain = plugin_options.build(plugin, shared)
    own = {bits: plugin_options.build(plugin, shared | extra) for bits, extra in listed.items()}
    return by_width(plain, own)


def _listed(name: str, item: str) -> tuple[int, str]:
    match = LISTED.fullmatch(item)
    if match is None or int(match[1]) not in WIDTHS:
        raise InputError(
            f"{name}: {item!r} is not WIDTH=VALUE with a width of {', '.join(map(str, WIDTHS))}; "
            f"write it like 3=256,4=32"
        )
    return int(match[1]), match[2]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
