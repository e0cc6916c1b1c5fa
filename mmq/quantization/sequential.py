"""Blocks quantized one after another, every width in one pass over the calibration inputs.

Two orders. full_precision: every layer's inputs come from the unquantized model; they do not
depend on the width, so all widths share them, and what a quantizer derives from them. quantized,
the order of the original GPTQ: a layer's inputs come from the model quantized, at the same width,
up to that layer; layers that read the same tensors go together, in the order in which their block
calls them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import nn

from mmq.contracts.quantizer import CalibratedQuantizer, Quantizer, Solved
from mmq.errors import InputError
from mmq.quantization.blocks import Block, Call, Groups, advance_, read, reading_order
from mmq.quantization.folds import norms_before
from mmq.tensors.layer_inputs import merged, output_error, output_square
from mmq.tensors.quantized_weight import QuantizedLayer, relative_error

Layers = dict[str, QuantizedLayer]  # a block's, by name
Known = Callable[[int], Mapping[str, QuantizedLayer] | None]  # width -> a block's layers, if known
States = dict[int, list[Call]]  # by width; 0: of the unquantized model
UNREACHED = "calibration never reached it: rounded to nearest"
ALL_LOST = "all of its {} inputs were not finite: rounded to nearest"


def check_finite(layers: Mapping[str, nn.Linear]) -> None:
    """InputError for the first of these layers, by name, that has weights which are not finite."""
    for name, layer in layers.items():
        weight = layer.weight.detach()
        if bool(torch.isfinite(weight.sum(dtype=torch.float32))):
            continue  # a sum is cheap; one that overflows says nothing
        if broken := int((~torch.isfinite(weight)).sum()):
            are = "is not a finite number" if broken == 1 else "are not finite numbers"
            raise InputError(
                f"{name}: {broken} of its {weight.numel()} weights {are}; none can be quantized. "
                f"Mend the checkpoint, or load it in a dtype that its weights do not overflow"
            )


def initial_states(
    calls: list[Call], quantizer: CalibratedQuantizer, widths: Sequence[int]
) -> States:
    """The calls as they go into the first block, for every model that there will be."""
    if quantizer.calibration_inputs == "full_precision":
        return {0: calls}
    return {bits: [copy(call) for call in calls] for bits in widths}


def quantize_plainly(block: Block, quantizer: Quantizer, bits: int) -> Layers:
    """A block's layers by a quantizer that looks at nothing but the weights."""
    return {
        name: _measured(layer, Solved(quantizer.quantize(layer.weight.detach(), bits)))
        for name, layer in block.layers.items()
    }


def quantize_block(
    block: Block,
    number: int,
    states: States,
    quantizer: CalibratedQuantizer,
    widths: Sequence[int],
    known: Known,
) -> dict[int, Layers]:
    """A block's layers at those widths that are not known; the model stays as it is.

    The states, which hold what goes into this block, hold what goes into the next one then.
    """
    missing = [bits for bits in widths if known(bits) is None]
    if quantizer.calibration_inputs == "quantized":
        found = _behind_quantized(block, number, states, quantizer, missing)
        for bits in widths:
            layers = found[bits] if bits in found else known(bits)
            assert layers is not None
            with weights_kept(block):
                write_(block, layers)
                advance_(block, states[bits], number)
        return found
    if not missing:
        advance_(block, states[0], number)
        return {}
    folds = norms_before(block, states[0], number) if quantizer.folds else {}
    groups = read(block, states[0], number, quantizer.sampled_inputs, advance=True)
    return _solve_(block, groups, quantizer, missing, folds)


def _behind_quantized(
    block: Block,
    number: int,
    states: States,
    quantizer: CalibratedQuantizer,
    widths: Sequence[int],
) -> dict[int, Layers]:
    """Set after set of layers, each behind those before it at its width.

    Before the first set, and before the first block, the widths do not differ yet: they share.
    """
    if not widths:
        return {}
    found: dict[int, Layers] = {bits: {} for bits in widths}
    first = states[widths[0]]
    sets = reading_order(block, first, number)
    folds = norms_before(block, first, number) if quantizer.folds else {}
    shared = all(
        call.hidden is twin.hidden
        for b in widths
        for call, twin in zip(states[b], first, strict=True)
    )
    for place, names in enumerate(sets):
        together = shared and place == 0
        for some in [list(widths)] if together else [[bits] for bits in widths]:
            with weights_kept(block):
                write_(block, found[some[0]])
                groups = read(block, states[some[0]], number, quantizer.sampled_inputs, names)
            part = Block(block.module, {name: block.layers[name] for name in names})
            for bits, layers in _solve_(part, groups, quantizer, some, folds).items():
                found[bits] |= layers
    reached = frozenset().union(*sets)
    rest = Block(block.module, {n: m for n, m in block.layers.items() if n not in reached})
    for bits, layers in _solve_(rest, {}, quantizer, widths).items():
        found[bits] |= layers
    return found


@torch.no_grad()
def _solve_(
    block: Block,
    groups: Groups,
    quantizer: CalibratedQuantizer,
    widths: Sequence[int],
    folds: Mapping[str, str] = MappingProxyType({}),
) -> dict[int, Layers]:
    """Layers that read the same are solved together; those that read nothing are rounded.

    The groups are dropped as soon as no layer that is left read them. folds: by layer, the norm
    that an input scale can be folded into.
    """
    found: dict[int, Layers] = {bits: {} for bits in widths}
    together: dict[tuple[frozenset[str], ...], list[str]] = {}
    for name in block.layers:
        together.setdefault(tuple(g for g in groups if name in g), []).append(name)
    unsolved = set(block.layers)
    for part, names in together.items():
        layers = [block.layers[name] for name in names]
        inputs = merged([groups[group] for group in part]) if part else None
        if inputs is None or not inputs.count:
            note = ALL_LOST.format(inputs.dropped) if inputs and inputs.dropped else UNREACHED
            for bits in widths:
                for name, layer in zip(names, layers, strict=True):
                    plain = Solved(quantizer.quantize(layer.weight.detach(), bits), note)
                    found[bits][name] = _measured(layer, plain)
            continue
        lost = f"{inputs.dropped} inputs were not finite and left out" if inputs.dropped else ""
        norm = folds.get(names[0], "")
        inputs.foldable = bool(norm) and set(names) == {n for n in folds if folds[n] == norm}
        solved = quantizer.solve([layer.weight.detach() for layer in layers], inputs, widths)
        for name, layer, by_width in zip(names, layers, solved, strict=True):
            whole = output_square(layer.weight.detach(), inputs.gram)
            for bits in widths:
                measured = _measured(layer, by_width[bits], inputs.gram, whole, lost)
                scaled = inputs.foldable and measured.weight.input_scale is not None
                found[bits][name] = replace(measured, folds_into=norm) if scaled else measured
        unsolved -= set(names)
        for group in [group for group in groups if not group & unsolved]:
            del groups[group]
    return found


def _measured(
    layer: nn.Linear,
    solved: Solved,
    gram: torch.Tensor | None = None,
    whole: float | None = None,
    lost: str = "",
) -> QuantizedLayer:
    weight, plain = layer.weight.detach(), solved.weight.dequantize().to(layer.weight.device)
    return QuantizedLayer(
        weight=solved.weight,
        relative_error=relative_error(weight, plain),
        output_error=None if gram is None else output_error(weight, plain, gram, whole),
        note="; ".join(part for part in (solved.note, lost, _zeroed(weight, plain, gram)) if part),
    )


def _zeroed(weight: torch.Tensor, plain: torch.Tensor, gram: torch.Tensor | None) -> str:
    """A note on inputs that calibration always saw zero, if their weights became zero."""
    if gram is None or not bool((dead := gram.diagonal() == 0).any()):
        return ""
    gone = int((weight[:, dead].any(0) & ~plain[:, dead].any(0)).sum())
    return f"weights of {gone} inputs that were always zero became zero" if gone else ""


@torch.no_grad()
def write_(block: Block, layers: Mapping[str, QuantizedLayer]) -> None:
    """Write quantized weights into a block."""
    for name, layer in layers.items():
        block.layers[name].weight.copy_(layer.weight.dequantize())


@contextmanager
def weights_kept(block: Block) -> Iterator[None]:
    """Put a block's weights back at the end."""
    weights = {name: layer.weight.detach().clone() for name, layer in block.layers.items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                block.layers[name].weight.copy_(weight)
