"""Blocks quantized one after another, every width in one pass over the calibration inputs.

Two orders. full_precision: every layer's inputs come from the unquantized model; they do not
depend on the width, so all widths share them, and what a quantizer derives from them. sequential,
the order of the original GPTQ: a layer's inputs come from the model quantized, at the same width,
up to that layer; layers that read the same tensors are solved together, in the order of their
calls.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace

import torch

from mmq.contracts.quantizer import CalibratedQuantizer, Quantizer, Solved
from mmq.errors import InputError
from mmq.quantization.block_inputs import Groups, read, reading_order
from mmq.quantization.blocks import Block, Call, ReplayedCall, advance_
from mmq.quantization.folds import Folds, find_folds
from mmq.system.available_memory import available_memory
from mmq.tensors.affine import FLOAT16_ONLY, SCALE_DTYPES
from mmq.tensors.layer_inputs import LayerInputs, merged, output_error, output_square
from mmq.tensors.matrices import Matrix
from mmq.tensors.quantized_weight import QuantizedLayer, QuantizedWeight, relative_error
from mmq.tensors.raised_scales import raise_scales

Layers = dict[str, QuantizedLayer]  # a block's layers by name
Cached = Callable[
    [int], Mapping[str, QuantizedLayer] | None
]  # width -> a block's layers, if cached
States = dict[int, list[Call]]  # calls by width; 0 is the unquantized model
UNREACHED = "calibration never reached it: rounded to nearest"
ALL_LOST = "all of its {} inputs were not finite: rounded to nearest"
FEW_TOKENS = "only {} calibration tokens were routed to it: rounded to nearest"
FEW = 4  # an expert needs a token per so many of its inputs: fewer fit themselves, not the layer
SUMS_BYTES = 4 * 2**30  # of the experts' Gram matrices in memory at once, at most
SUMS_SHARE = 0.25  # of the free memory


def check_finite(layers: Mapping[str, Matrix]) -> None:
    """InputError that names the first of these layers with weights that are not finite."""
    for name, layer in layers.items():
        weight = layer.weight
        if bool(torch.isfinite(weight.sum(dtype=torch.float32))):
            continue  # a sum is cheap; it may overflow, so failing is not yet an error
        if broken := int((~torch.isfinite(weight)).sum()):
            are = "is not a finite number" if broken == 1 else "are not finite numbers"
            raise InputError(
                f"{name}: {broken} of its {weight.numel()} weights {are}: it cannot be quantized. "
                f"Repair the checkpoint, or load it in a dtype that its weights do not overflow"
            )


def initial_states(
    calls: Sequence[Call],
    quantizer: CalibratedQuantizer,
    widths: Sequence[int],
    blocks: Sequence[Block],
) -> States:
    """The first block's calls, by width; one entry if all widths share them.

    InputError for the sequential order if the blocks cannot be run one after another.
    """
    if quantizer.calibration_inputs == "full_precision":
        return {0: list(calls)}
    if len(blocks) > 1 and any(isinstance(call, ReplayedCall) for call in calls):
        raise InputError(
            f"calibration_inputs: the {type(blocks[0].module).__name__} blocks of this model "
            f"cannot be run one after another, as sequential requires; use full_precision"
        )
    return {bits: [copy(call) for call in calls] for bits in widths}


def quantize_data_free(block: Block, quantizer: Quantizer, bits: int) -> Layers:
    """A block's layers, quantized from their weights alone."""
    return {
        name: _measured(layer, quantizer, Solved(quantizer.quantize(layer.weight, bits)))
        for name, layer in block.layers.items()
    }


def quantize_block(
    block: Block,
    number: int,
    states: States,
    quantizer: CalibratedQuantizer,
    widths: Sequence[int],
    cached: Cached,
) -> dict[int, Layers]:
    """A block's layers at those widths that are not cached; the model is left unchanged.

    states: the inputs of this block; afterwards, those of the next one.
    """
    missing = [bits for bits in widths if cached(bits) is None]
    if quantizer.calibration_inputs == "sequential":
        solved = _solve_sequential(block, number, states, quantizer, missing)
        for bits in widths:
            layers = solved[bits] if bits in solved else cached(bits)
            assert layers is not None
            with weights_restored(block):
                write_(block, layers)
                advance_(block, states[bits], number)
        return solved
    if not missing:
        advance_(block, states[0], number)
        return {}
    folds = find_folds(block, states[0], number) if quantizer.folds else {}
    result: dict[int, Layers] = {bits: {} for bits in missing}
    several = parts(block)
    for part in several:
        only, is_last = frozenset(part.layers), part is several[-1]
        groups = read(block, states[0], number, quantizer.sampled_inputs, only, advance=is_last)
        own = Folds(folds, block, result)
        for bits, layers in _solve_(part, groups, quantizer, missing, own).items():
            result[bits] |= layers
    return result


def experts_limit() -> int:
    """Bytes of the experts' Gram matrices in memory at once; codes do not depend on it."""
    return int(min(SUMS_BYTES, SUMS_SHARE * available_memory()))


def parts(block: Block) -> list[Block]:
    """The block, or several with some of its layers each if it has many experts.

    The inputs of each expert have a Gram matrix of their own, so that those of all experts of a
    large model do not fit into memory together.
    """
    layers: list[dict[str, Matrix]] = [{}]
    used, limit = 0, experts_limit()
    for name, matrix in block.layers.items():
        size = 0 if matrix.expert is None else 4 * matrix.shape[1] ** 2
        if used + size > limit and layers[-1]:
            layers.append({})
            used = 0
        layers[-1][name] = matrix
        used += size
    return [replace(block, layers=part) for part in layers]


def _solve_sequential(
    block: Block,
    number: int,
    states: States,
    quantizer: CalibratedQuantizer,
    widths: Sequence[int],
) -> dict[int, Layers]:
    """One set of layers after another; each reads the outputs of the quantized layers before it.

    The first set of the first block has the same inputs at every width, so it is solved once.
    """
    if not widths:
        return {}
    solved: dict[int, Layers] = {bits: {} for bits in widths}
    first = states[widths[0]]
    sets = reading_order(block, first, number)
    folds = find_folds(block, first, number) if quantizer.folds else {}
    shared = all(
        call.hidden is twin.hidden
        for b in widths
        for call, twin in zip(states[b], first, strict=True)
    )
    for place, names in enumerate(sets):
        is_shared = shared and place == 0
        for batch in [list(widths)] if is_shared else [[bits] for bits in widths]:
            for part in parts(replace(block, layers={n: block.layers[n] for n in names})):
                only = frozenset(part.layers)
                with weights_restored(block):
                    write_(block, solved[batch[0]])
                    groups = read(block, states[batch[0]], number, quantizer.sampled_inputs, only)
                own = Folds(folds, block, solved)
                for bits, layers in _solve_(part, groups, quantizer, batch, own).items():
                    solved[bits] |= layers
    reached = frozenset().union(*sets)
    rest = {n: m for n, m in block.layers.items() if n not in reached}
    unreached = replace(block, layers=rest)
    for bits, layers in _solve_(unreached, {}, quantizer, widths).items():
        solved[bits] |= layers
    return solved


@torch.no_grad()
def _solve_(
    block: Block,
    groups: Groups,
    quantizer: CalibratedQuantizer,
    widths: Sequence[int],
    folds: Folds | None = None,
) -> dict[int, Layers]:
    """Layers that read the same inputs are solved together; those that read none are rounded.

    Groups are dropped as soon as no remaining layer needs them.
    """
    solved: dict[int, Layers] = {bits: {} for bits in widths}
    together: dict[tuple[frozenset[str], ...], list[str]] = {}
    for name in block.layers:
        together.setdefault(tuple(g for g in groups if name in g), []).append(name)
    unsolved = set(block.layers)
    for part, names in together.items():
        layers = [block.layers[name] for name in names]
        inputs = merged([groups[group] for group in part]) if part else None
        if note := _too_few(inputs, layers[0]):
            for bits in widths:
                for name, layer in zip(names, layers, strict=True):
                    plain = Solved(quantizer.quantize(layer.weight, bits), note)
                    gram = inputs.gram if inputs is not None and inputs.count else None
                    solved[bits][name] = _measured(layer, quantizer, plain, gram)
            continue
        assert inputs is not None
        dropped = f"{inputs.dropped} inputs were not finite and left out" if inputs.dropped else ""
        source = folds.prepare_(inputs, names, solved) if folds else ""
        device = inputs.gram.device  # an offloaded weight is elsewhere
        weights = [layer.weight.to(device) for layer in layers]
        by_layer = quantizer.solve(weights, inputs, widths)
        for name, layer, weight, by_width in zip(names, layers, weights, by_layer, strict=True):
            square = output_square(weight, inputs.gram)
            for bits in widths:
                measured = _measured(
                    layer, quantizer, by_width[bits], inputs.gram, square, dropped
                )
                scaled = inputs.foldable and measured.weight.input_scale is not None
                solved[bits][name] = replace(measured, folds_into=source) if scaled else measured
        unsolved -= set(names)
        for group in [group for group in groups if not group & unsolved]:
            del groups[group]
    return solved


def _too_few(inputs: LayerInputs | None, matrix: Matrix) -> str:
    """Why a layer is rounded to nearest instead of solved; "" if it has enough inputs."""
    if inputs is None:
        return UNREACHED
    if not inputs.count:
        return ALL_LOST.format(inputs.dropped) if inputs.dropped else UNREACHED
    if matrix.expert is not None and inputs.count < matrix.shape[1] // FEW:
        return FEW_TOKENS.format(inputs.count)
    return ""


def _measured(
    layer: Matrix,
    quantizer: Quantizer,
    solved: Solved,
    gram: torch.Tensor | None = None,
    square: float | None = None,
    note: str = "",
) -> QuantizedLayer:
    weight = layer.weight if gram is None else layer.weight.to(gram.device)
    quantized = solved.weight
    if getattr(quantizer.at(quantized.bits), "scale_dtype", "") == FLOAT16_ONLY:
        quantized = raise_scales(quantized, weight)
    plain = quantized.dequantize().to(weight.device)
    notes = (solved.note, note, _zeroed(weight, plain, gram), _widened(quantizer, quantized))
    return QuantizedLayer(
        weight=quantized,
        relative_error=relative_error(weight, plain),
        output_error=None if gram is None else output_error(weight, plain, gram, square),
        note="; ".join(filter(None, notes)),
    )


def _zeroed(weight: torch.Tensor, plain: torch.Tensor, gram: torch.Tensor | None) -> str:
    """A note on inputs that were always zero in calibration, if their weights became zero."""
    if gram is None or not bool((dead := gram.diagonal() == 0).any()):
        return ""
    zeroed = int((weight[:, dead].any(0) & ~plain[:, dead].any(0)).sum())
    return f"weights of {zeroed} inputs that were always zero became zero" if zeroed else ""


def _widened(quantizer: Quantizer, weight: QuantizedWeight) -> str:
    """A note on scales that do not fit the dtype that the quantizer stores them in."""
    expected = getattr(quantizer.at(weight.bits), "scale_dtype", None)
    if expected is None or weight.scale.dtype == SCALE_DTYPES[expected]:
        return ""
    return f"some scales do not fit {expected}: all are stored in float32"


@torch.no_grad()
def write_(block: Block, layers: Mapping[str, QuantizedLayer]) -> None:
    """Write quantized weights into a block."""
    for name, layer in layers.items():
        block.layers[name].copy_(layer.weight.dequantize())


@contextmanager
def weights_restored(block: Block) -> Iterator[None]:
    """Restore a block's weights at the end."""
    weights = {name: layer.weight.clone() for name, layer in block.layers.items()}
    try:
        yield
    finally:
        for name, weight in weights.items():
            block.layers[name].copy_(weight)
