"""Quantizers on any `nn.Module` with linear layers: no component, no store, no VLM.

    widths = quantize_module(model, forwards, Gptq(group_size=128), [4, 3, 2], "model.layers")
    write_(model, widths[4])

docs/quantizers.md shows it on a language model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from mmq.block_quantization import (
    check_finite,
    initial_states,
    quantize_block,
    quantize_plainly,
)
from mmq.blocks import Block, Call, capture
from mmq.contracts import CalibratedQuantizer, Quantizer
from mmq.errors import InputError
from mmq.quantized import QuantizedLayer

Forward = Callable[[], object]


@dataclass(slots=True)
class WholeCall(Call):
    """A call of a module that is one block by itself."""

    forward: Forward

    def through(self, block: Block, number: int) -> torch.Tensor:
        """Run the forward; nothing reads what comes out of it."""
        self.forward()
        return self.hidden


def quantize_module(
    module: nn.Module,
    forwards: Sequence[Forward],
    quantizer: Quantizer,
    widths: Sequence[int],
    blocks: str = "",
    quiet: bool = False,
) -> dict[int, dict[str, QuantizedLayer]]:
    """The linear layers of a module at every width, by name; the module stays as it is.

    forwards: functions that run the module on calibration inputs; each is called once or, without
    `blocks`, once a set of layers. blocks: path of the `nn.ModuleList` of transformer blocks whose
    linears are quantized, one block's inputs in memory at a time; "" quantizes every linear, with
    the sums of all of them in memory. InputError for a path that is none, and for weights that are
    not finite.
    """
    parts = _blocks(module, blocks)
    for part in parts:
        for name, layer in part.layers.items():
            quantizer.check(name, (layer.out_features, layer.in_features))
        check_finite(part.layers)
    found: dict[int, dict[str, QuantizedLayer]] = {bits: {} for bits in widths}
    bar = tqdm(parts, desc="quantize", unit="block", leave=False, disable=quiet)
    if not isinstance(quantizer, CalibratedQuantizer):
        for part in bar:
            for bits in widths:
                found[bits] |= quantize_plainly(part, quantizer, bits)
        return found
    none = torch.zeros(0)
    calls: list[Any] = (
        capture(parts, forwards) if blocks else [WholeCall(none, [((), {})], f) for f in forwards]
    )
    states = initial_states(calls, quantizer, widths)
    for number, part in enumerate(bar):
        solved = quantize_block(part, number, states, quantizer, widths, lambda bits: None)
        for bits, layers in solved.items():
            found[bits] |= layers
    return found


def _blocks(module: nn.Module, path: str) -> list[Block]:
    try:
        inside = module.get_submodule(path)
    except AttributeError as error:
        raise InputError(f"blocks: {type(module).__name__} has no {path!r}") from error
    if path and not isinstance(inside, nn.ModuleList):
        raise InputError(f"blocks: {path!r} is a {type(inside).__name__}, not an nn.ModuleList")
    prefix = f"{path}." if path else ""
    members = (
        [(f"{prefix}{k}.", m) for k, m in inside.named_children()] if path else [("", inside)]
    )
    blocks = [
        Block(part, {start + n: m for n, m in part.named_modules() if isinstance(m, nn.Linear)})
        for start, part in members
    ]
    if not any(block.layers for block in blocks):
        raise InputError(f"blocks: no linear layer in {path or type(module).__name__!r}")
    return blocks


@torch.no_grad()
def write_(module: nn.Module, layers: Mapping[str, QuantizedLayer]) -> None:
    """Write quantized weights into a module's linear layers."""
    for name, layer in layers.items():
        linear: Any = module.get_submodule(name)
        linear.weight.copy_(layer.weight.dequantize())
