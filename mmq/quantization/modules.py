"""Quantizers on any `nn.Module` with linear layers: no component, no store, no VLM.

    widths = quantize_module(model, forwards, Gptq(group_size=128), [4, 3, 2], "model.layers")
    write_(model, widths[4])

docs/quantizers.md shows it on a language model.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mmq.contracts.quantizer import CalibratedQuantizer, Quantizer
from mmq.errors import InputError
from mmq.quantization.blocks import Block, Forward
from mmq.quantization.capture import capture, replay
from mmq.quantization.sequential import (
    check_finite,
    initial_states,
    quantize_block,
    quantize_data_free,
)
from mmq.quantization.unquantized_weights import (
    UnquantizedWeight,
    list_by_reason,
    quantizable_matrices,
    shared_with,
)
from mmq.system.progress import progress_bar
from mmq.tensors.matrices import Matrix, matrices
from mmq.tensors.quantized_weight import QuantizedLayer

log = logging.getLogger(__name__)


def quantize_module(
    module: nn.Module,
    forwards: Sequence[Forward],
    quantizer: Quantizer,
    widths: Sequence[int],
    blocks: str = "",
    quiet: bool = False,
) -> dict[int, dict[str, QuantizedLayer]]:
    """The linear layers of a module at every width, by name; the module is left unchanged.

    forwards: functions that run the module on calibration inputs; each is called once or, without
    `blocks`, once per set of layers. blocks: path of the `nn.ModuleList` of transformer blocks;
    only their linears are quantized, with the inputs of one block in memory at a time. ""
    quantizes every linear, with the sums over all inputs in memory. Other weights are left alone,
    with a warning that names them; `unquantized_weights` lists them. InputError for an invalid
    path, if nothing can be quantized, and for weights that are not finite.
    """
    parts, left_out = _blocks(module, blocks)
    if left_out:
        log.warning("Left at full precision: %s", list_by_reason(left_out))
    for part in parts:
        for name, layer in part.layers.items():
            quantizer.check(name, layer.shape)
        check_finite(part.layers)
    solved: dict[int, dict[str, QuantizedLayer]] = {bits: {} for bits in widths}
    bar = progress_bar(parts, desc="quantize", unit="block", leave=False, quiet=quiet)
    if not isinstance(quantizer, CalibratedQuantizer):
        for part in bar:
            for bits in widths:
                solved[bits] |= quantize_data_free(part, quantizer, bits)
        return solved
    calls = capture(parts, lambda: forwards) if blocks else replay(lambda: forwards)
    states = initial_states(calls, quantizer, widths, parts)
    for number, part in enumerate(bar):
        by_width = quantize_block(part, number, states, quantizer, widths, lambda bits: None)
        for bits, layers in by_width.items():
            solved[bits] |= layers
    return solved


def unquantized_weights(module: nn.Module, blocks: str = "") -> tuple[UnquantizedWeight, ...]:
    """The weights in a module, or in its list of blocks, that `quantize_module` does not quantize.

    These are weights of other classes than `nn.Linear` (Conv1D, embeddings) that are not experts
    either, linear layers with their own forward, routers of experts, and weights tied to a module
    that is not quantized. Biases, norms and other vectors are not quantized either, and not
    listed.
    """
    return _split(module, blocks)[1]


def _split(
    module: nn.Module, path: str
) -> tuple[list[tuple[str, nn.Module]], tuple[UnquantizedWeight, ...], dict[str, Matrix]]:
    """The parts to quantize in order, the weights left out, and the linear layers by name."""
    try:
        submodule = module.get_submodule(path)
    except AttributeError as error:
        raise InputError(f"blocks: {type(module).__name__} has no {path!r}") from error
    if path and not isinstance(submodule, nn.ModuleList):
        raise InputError(f"blocks: {path!r} is a {type(submodule).__name__}, not an nn.ModuleList")
    members = (
        [(f"{path}.{k}", m) for k, m in submodule.named_children()] if path else [("", submodule)]
    )
    layers, left_out = quantizable_matrices(module, members)
    return members, left_out, layers


def _blocks(module: nn.Module, path: str) -> tuple[list[Block], tuple[UnquantizedWeight, ...]]:
    members, left_out, layers = _split(module, path)
    if not layers:
        what = path or type(module).__name__
        raise InputError(
            f"blocks: no linear layer in {what!r} can be quantized"
            + (f". Left at full precision: {list_by_reason(left_out)}" if left_out else "")
        )
    blocks = []
    for start, part in members:
        prefix = f"{start}." if start else ""
        in_part = {name: layer for name, layer in layers.items() if name.startswith(prefix)}
        blocks.append(Block(part, in_part))
    return blocks, left_out


@torch.no_grad()
def write_(module: nn.Module, layers: Mapping[str, QuantizedLayer]) -> None:
    """Write quantized weights into a module's linear layers and experts.

    InputError, before anything is written, for a layer that shares its weight with a module of
    another class, which would change too. Linear layers may share a weight.
    """
    experts = {name: matrix for name, matrix in matrices(module) if matrix.expert is not None}
    for name in layers.keys() - experts.keys():
        linear: Any = module.get_submodule(name)
        if "weight" not in linear._parameters:
            raise InputError(f"write_: the weight of {name} is computed from other parameters")
        for other, owner in shared_with(module, name):
            if not isinstance(owner, nn.Linear):
                raise InputError(
                    f"write_: {name} shares its weight with {other} ({type(owner).__name__}), "
                    f"which would change too; untie them first, or leave {name} out"
                )
            if other not in layers:
                log.warning("%s shares the weight of %s and changes with it", other, name)
    for name, layer in layers.items():
        matrix = experts[name] if name in experts else Matrix(module.get_submodule(name))
        matrix.copy_(layer.weight.dequantize())
