"""Quantized weights as ggml blocks: the smallest type that holds each exactly, and its bytes.

ggml's types keep one float16 scale per block of 32 weights, or one per super-block of 256 with
integer sub-scales. A weight `scale * (code - zero_point)` fits where its groups are whole blocks
and `code - zero_point` is in the type's range. The super-block types also keep a minimum, which
holds `scale * zero_point` exactly when both sub-scales are integers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from mmq.allocation.allocation import UNQUANTIZED
from mmq.contracts.target import WeightSpec
from mmq.errors import InputError
from mmq.tensors.quantized_weight import QuantizedWeight

Bytes = np.ndarray  # uint8 (blocks, bytes)
Packer = Callable[[np.ndarray, np.ndarray, np.ndarray], Bytes]
ROWS = 512  # packed at once: in 16 bits a large layer is large
SMALL, SUPER = 32, 256


def _half(scale: np.ndarray) -> Bytes:
    """(blocks,) -> float16 as bytes (blocks, 2)."""
    return np.ascontiguousarray(scale.astype(np.float16)[:, None]).view(np.uint8)


def _pairs(low: np.ndarray, high: np.ndarray) -> Bytes:
    return np.asarray(low & 15 | (high & 15) << 4, dtype=np.uint8)


def _quads(values: np.ndarray) -> Bytes:
    """Four 2-bit values per byte: (blocks, 256) -> (blocks, 64)."""
    v = values.reshape(-1, 2, 4, SMALL)
    packed: Bytes = v[:, :, 0] | v[:, :, 1] << 2 | v[:, :, 2] << 4 | v[:, :, 3] << 6
    return packed.reshape(-1, 64)


def _planes(bits: np.ndarray) -> Bytes:
    """One bit per value, those of eight rows of 32 in one byte: (blocks, 256) -> (blocks, 32)."""
    shifts = np.arange(8, dtype=np.uint8)[:, None]
    packed: Bytes = np.bitwise_or.reduce(bits.reshape(-1, 8, SMALL) << shifts, axis=1)
    return packed.astype(np.uint8)


def _q4_0(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> Bytes:
    u = (codes - zero[:, None] + 8).astype(np.uint8)
    return np.concatenate([_half(scale), _pairs(u[:, :16], u[:, 16:])], 1)


def _q5_0(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> Bytes:
    u = (codes - zero[:, None] + 16).astype(np.uint8)
    fifth = np.packbits(u >> 4, axis=1, bitorder="little")
    return np.concatenate([_half(scale), fifth, _pairs(u[:, :16], u[:, 16:])], 1)


def _q8_0(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> Bytes:
    return np.concatenate(
        [_half(scale), (codes - zero[:, None]).astype(np.int8).view(np.uint8)], 1
    )


def _tq2_0(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> Bytes:
    # it holds -1, 0, 1, 2 and we -2, -1, 0, 1: stored mirrored, with a negative scale
    return np.concatenate([_quads((3 - codes).astype(np.uint8)), _half(-scale)], 1)


def _q2_k(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> Bytes:
    sub = np.repeat((1 | zero << 4).astype(np.uint8)[:, None], 16, 1)
    return np.concatenate([sub, _quads(codes.astype(np.uint8)), _half(scale), _half(scale)], 1)


def _q3_k(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> Bytes:
    u = codes.astype(np.uint8)
    # sixteen 6-bit sub-scales of 33, which stands for 1
    sub = np.tile(np.array([0x11] * 8 + [0xAA] * 4, np.uint8), (len(u), 1))
    return np.concatenate([_planes(u >> 2 & 1), _quads(u & 3), sub, _half(scale)], 1)


def _sub_scales(zero: np.ndarray) -> Bytes:
    """Eight 6-bit sub-scales of 1 and minima of `zero`, as Q4_K and Q5_K mix them (blocks, 12)."""
    low, high = zero.astype(np.uint8) & 15, zero.astype(np.uint8) >> 4
    one = np.ones_like(low)
    parts = (one, zero.astype(np.uint8) & 63 | high << 6, one | low << 4)
    return np.concatenate([np.repeat(part[:, None], 4, 1) for part in parts], 1)


def _nibbles(u: np.ndarray) -> Bytes:
    v = u.reshape(-1, 4, 2, SMALL)
    return _pairs(v[:, :, 0], v[:, :, 1]).reshape(-1, 128)


def _q4_k(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> Bytes:
    u = codes.astype(np.uint8)
    return np.concatenate([_half(scale), _half(scale), _sub_scales(zero), _nibbles(u)], 1)


def _q5_k(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> Bytes:
    u = codes.astype(np.uint8)
    head = [_half(scale), _half(scale), _sub_scales(zero)]
    return np.concatenate([*head, _planes(u >> 4 & 1), _nibbles(u)], 1)


def _q6_k(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> Bytes:
    u = (codes - zero[:, None] + 32).astype(np.uint8)
    v = u.reshape(-1, 2, 2, 64)
    low = _pairs(v[:, :, 0], v[:, :, 1]).reshape(-1, 128)
    sub = np.ones((len(u), 16), np.uint8)
    return np.concatenate([low, _quads(u >> 4), sub, _half(scale)], 1)


@dataclass(frozen=True, slots=True)
class BlockType:
    """A ggml type, with what it holds.

    low, high: the range of `code - zero_point`. minimum: the most bits of codes that fit with any
    zero point, where it keeps one. only: the width of symmetric codes that it is made for.
    """

    name: str
    number: int  # in ggml's enumeration
    block: int
    size: int  # bytes per block
    pack: Packer
    low: int = 0
    high: int = 0
    minimum: int = 0
    only: int = 0

    @property
    def bits(self) -> float:
        """Bits per weight, scales included."""
        return self.size * 8 / self.block

    def holds(self, spec: WeightSpec) -> bool:
        """Whether every weight with this spec fits, whatever its codes."""
        if self.only:
            return spec.symmetric and spec.bits == self.only
        if self.minimum:
            return spec.bits <= self.minimum
        low, high = code_range(spec)
        return self.low <= low and high <= self.high


TYPES = (  # smallest first; of two as small, the one whose activations are rounded more finely
    BlockType("TQ2_0", 35, SUPER, 66, _tq2_0, only=2),
    BlockType("Q2_K", 10, SUPER, 84, _q2_k, minimum=2),
    BlockType("Q3_K", 11, SUPER, 110, _q3_k, only=3),
    BlockType("Q4_0", 2, SMALL, 18, _q4_0, -8, 7),
    BlockType("Q4_K", 12, SUPER, 144, _q4_k, minimum=4),
    BlockType("Q5_0", 6, SMALL, 22, _q5_0, -16, 15),
    BlockType("Q5_K", 13, SUPER, 176, _q5_k, minimum=5),
    BlockType("Q6_K", 14, SUPER, 210, _q6_k, -32, 31),
    BlockType("Q8_0", 8, SMALL, 34, _q8_0, -128, 127),
)


# for scales that float16 does not hold: only their products with the codes are exact
PRODUCTS = BlockType("F32", 0, 1, 4, _q8_0)


def code_range(spec: WeightSpec) -> tuple[int, int]:
    """The least and greatest `code - zero_point` that may occur."""
    most = 2**spec.bits - 1
    return (-((most + 1) // 2), most // 2) if spec.symmetric else (-most, most)


def smallest_type(spec: WeightSpec, columns: int) -> BlockType | None:
    """The smallest type that holds every such weight with this many inputs; None for none.

    Scales that need float32 turn up only when weights are quantized, too late to be refused.
    """
    group = spec.group_size or columns
    scaled = spec.input_scale and not spec.folds
    if scaled or spec.group_index or not spec.integer_zero_points:
        return None
    if spec.scale_dtype == "float32":
        return PRODUCTS
    for kind in TYPES:
        if not group % kind.block and not columns % kind.block and kind.holds(spec):
            return kind
    return None


def refusal(spec: WeightSpec, shape: tuple[int, int]) -> str:
    """Why no type holds such a weight, with the nearest options that do; "" where one does."""
    columns = shape[1]
    if spec.bits == UNQUANTIZED or smallest_type(spec, columns):
        return ""
    if spec.input_scale and not spec.folds:
        return "ggml has no scale per input, except awq's --foldable true"
    if spec.group_index:
        return "ggml's groups are neighbouring inputs, but those of act-order are not"
    if not spec.integer_zero_points:
        return "ggml has no real zero points, as uniform has; choose gptq or rtn"
    if columns % SMALL:
        return f"ggml's blocks have 32 weights, and rows of {columns} are not a multiple of that"
    if (spec.group_size or columns) % SMALL:
        return f"ggml's blocks have 32 weights, and groups of {spec.group_size} split them"
    return "8-bit codes with zero points need 9 bits, which no ggml type has"


def row_bytes(kind: BlockType, columns: int) -> int:
    """Bytes per row of a weight."""
    return columns // kind.block * kind.size


def pack(weight: QuantizedWeight, kind: BlockType, name: str = "weight") -> np.ndarray:
    """The weight's rows as blocks, uint8 (out, bytes per row), without its input scale.

    kind: one that holds the weight's spec. InputError for scales that float16 does not hold.
    """
    if kind is PRODUCTS:
        return replace(weight, input_scale=None).dequantize().numpy().view(np.uint8)
    rows, columns = weight.codes.shape
    scale = weight.scale.float()
    if not torch.equal(scale.half().float(), scale):
        raise InputError(
            f"target: {name}: some of its scales are not float16 numbers, which ggml needs; leave "
            f"its part at 16 bits"
        )
    zero = weight.zero_point
    zeros = torch.full_like(scale, 2 ** (weight.bits - 1)) if zero is None else zero
    out = np.empty((rows, row_bytes(kind, columns)), np.uint8)
    repeat = columns // scale.shape[1] // kind.block  # blocks per scale
    parts = (torch.split(t.expand(rows, -1), ROWS) for t in (weight.codes, scale, zeros))
    for start, (codes, s, z) in zip(range(0, rows, ROWS), zip(*parts, strict=True), strict=True):
        blocks = codes.numpy().reshape(-1, kind.block).astype(np.int16)
        per_block = (np.repeat(t.numpy(), repeat, 1).reshape(-1) for t in (s, z.to(torch.int16)))
        part = kind.pack(blocks, *per_block)
        out[start : start + len(codes)] = part.reshape(len(codes), -1)
    return out
