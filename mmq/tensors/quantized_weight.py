"""A quantized weight: codes and parameters, packed losslessly, and the bits they take."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mmq.allocation.allocation import UNQUANTIZED, check_bits
from mmq.tensors import affine
from mmq.tensors.affine import MappingType

OPTIONAL = ("zero_point", "input_scale", "group_index")
_CHUNK = 1 << 20  # codes packed at once: a multiple of 8, so that every chunk ends on a byte


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Codes as a bit stream, uint8 (ceil(n * bits / 8),): `bits` bits per code, high bit first.

    Eight codes make one whole number of 8 * bits bits, which is cut into `bits` bytes.
    """
    if int(codes.max()) >= 2**bits:
        raise ValueError(f"codes: {int(codes.max())} does not fit in {bits} bits")
    flat = codes.reshape(-1)
    parts = []
    for chunk in torch.split(flat, _CHUNK):
        eights = F.pad(chunk, (0, -len(chunk) % 8)).reshape(-1, 8)
        number = torch.zeros(len(eights), dtype=torch.int64, device=codes.device)
        for k in range(8):
            number.bitwise_left_shift_(bits).bitwise_or_(eights[:, k])
        shifts = torch.arange(bits - 1, -1, -1, device=codes.device) * 8
        parts.append(((number[:, None] >> shifts) & 255).to(torch.uint8).reshape(-1))
    return torch.cat(parts)[: (len(flat) * bits + 7) // 8]


def unpack_codes(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `pack_codes`: uint8 codes of a shape."""
    n = math.prod(shape)
    parts = []
    for chunk in torch.split(packed, _CHUNK // 8 * bits):
        eights = F.pad(chunk, (0, -len(chunk) % bits)).reshape(-1, bits)
        number = torch.zeros(len(eights), dtype=torch.int64, device=packed.device)
        for k in range(bits):
            number.bitwise_left_shift_(8).bitwise_or_(eights[:, k])
        shifts = torch.arange(7, -1, -1, device=packed.device) * bits
        parts.append(((number[:, None] >> shifts) & (2**bits - 1)).to(torch.uint8).reshape(-1))
    return torch.cat(parts)[:n].reshape(shape)


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedWeight:
    """A weight (out, in) as codes with `bits` bits each.

    scale: (out, n_groups), (out, 1) or (1, 1), float. zero_point: same shape, or None if it is
    the middle code 2^(bits-1). input_scale: (in,) or None; the layer's input is divided by it,
    so the weight that a plain linear layer needs is the dequantized one divided by it.
    group_index: (in,) or None; the group of every input if groups are not contiguous.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None
    group_size: int
    bits: int
    input_scale: Tensor | None = None
    group_index: Tensor | None = None

    def __post_init__(self) -> None:
        if check_bits(self.bits) == UNQUANTIZED:
            raise ValueError("bits: a weight with 16 bits is not quantized; choose 2 to 8")
        if self.codes.dtype != torch.uint8 or self.codes.ndim != 2:
            raise ValueError(f"codes: expected uint8 (out, in), got {self.codes.dtype}")
        if int(self.codes.max()) >= 2**self.bits:
            raise ValueError(f"codes: {int(self.codes.max())} does not fit in {self.bits} bits")
        rows, columns = self.codes.shape
        if self.group_size < 1 or columns % self.group_size:
            raise ValueError(f"group_size: {self.group_size} does not divide {columns} inputs")
        allowed = {(rows, columns // self.group_size), (rows, 1), (1, 1)}
        if tuple(self.scale.shape) not in allowed:
            raise ValueError(f"scale: shape {tuple(self.scale.shape)} is not in {allowed}")
        if not bool((torch.isfinite(self.scale) & (self.scale > 0)).all()):
            raise ValueError("scale: some scales are zero, negative or not finite")
        if self.zero_point is not None and self.zero_point.shape != self.scale.shape:
            raise ValueError("zero_point: its shape differs from the scale's")
        if self.group_index is not None and self.group_index.shape != (columns,):
            raise ValueError(f"group_index: expected ({columns},), got {self.group_index.shape}")

    def dequantize(self) -> Tensor:
        """The weight to write into a plain linear layer, float32 (out, in)."""
        middle = torch.full_like(self.scale, 2 ** (self.bits - 1), dtype=torch.float32)
        zero_point = middle if self.zero_point is None else self.zero_point.float()
        scale = self.scale.float()
        if self.group_index is not None:
            index = self.group_index.long()
            scale, zero_point = scale[:, index], zero_point[:, index]  # (out, in)
        weight = affine.dequantize(self.codes, scale, zero_point)
        return weight if self.input_scale is None else weight / self.input_scale.float()

    @property
    def stored_bits(self) -> int:
        """Bits that this weight takes: codes, scales, zero points and input scales.

        Integer zero points (uint8) are codes of `bits` bits each; other tensors take those of
        their dtype.
        """
        total = self.codes.numel() * self.bits + _dtype_bits(self.scale)
        if self.zero_point is not None:
            is_code = self.zero_point.dtype == torch.uint8
            total += (
                self.zero_point.numel() * self.bits if is_code else _dtype_bits(self.zero_point)
            )
        return total + sum(
            _dtype_bits(tensor)
            for tensor in (self.input_scale, self.group_index)
            if tensor is not None
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """Packed tensors to store, with what `from_tensors` needs to read them."""
        tensors = {
            "codes": pack_codes(self.codes, self.bits),
            "scale": self.scale,
            "meta": torch.tensor([self.bits, self.group_size, *self.codes.shape]),
        }
        for name in OPTIONAL:
            if (tensor := getattr(self, name)) is not None:
                tensors[name] = tensor
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "QuantizedWeight":
        """The inverse of `to_tensors`."""
        bits, group_size, rows, columns = tensors["meta"].tolist()
        fields: dict[str, Any] = {
            "codes": unpack_codes(tensors["codes"], bits, (rows, columns)),
            "scale": tensors["scale"],
        } | {name: tensors.get(name) for name in OPTIONAL}
        return cls(group_size=group_size, bits=bits, **fields)


def _dtype_bits(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size() * 8


def planned_bits(
    shape: tuple[int, int],
    bits: int,
    group_size: int,
    mapping: MappingType,
    scale_dtype: torch.dtype,
) -> int:
    """`stored_bits` of a weight (out, in) with one scale per group, or per row if that is 0.

    Zero points are integers; symmetric mappings store none.
    """
    rows, columns = shape
    groups = rows * (columns // (group_size or columns))
    per_group = 8 * scale_dtype.itemsize + (0 if mapping.is_symmetric else bits)
    return rows * columns * bits + groups * per_group


def compact(
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    group_size: int,
    bits: int,
    mapping: MappingType,
    scale_dtype: torch.dtype,
    input_scale: Tensor | None = None,
    group_index: Tensor | None = None,
) -> QuantizedWeight:
    """A QuantizedWeight as it is stored: rounded scales, integer zero points if there are any.

    scale: rounded to scale_dtype by `affine.choose_qparams`. If that dtype cannot hold one of
    them, all scales of the layer are stored in float32, and `stored_bits` counts that.
    """
    return QuantizedWeight(
        codes=codes,
        scale=affine.stored_scale(scale, scale_dtype),
        zero_point=None if mapping.is_symmetric else zero_point.to(torch.uint8),
        group_size=group_size,
        bits=bits,
        input_scale=input_scale,
        group_index=group_index,
    )


def round_to_nearest(
    weight: Tensor,
    bits: int,
    group_size: int = 0,
    mapping: MappingType = MappingType.ASYMMETRIC,
    scale_dtype: torch.dtype = torch.float16,
) -> QuantizedWeight:
    """Codes of a weight (out, in), one range per group of inputs, or per row if that is 0."""
    size = group_size or weight.shape[1]
    low, high = affine.value_range(affine.grouped(weight, size))
    scale, zero_point = affine.choose_qparams(
        low.float(), high.float(), bits, mapping, scale_dtype
    )
    codes = affine.quantize(weight, scale, zero_point, bits)
    return compact(codes, scale, zero_point, size, bits, mapping, scale_dtype)


@dataclass(frozen=True, slots=True)
class QuantizedLayer:
    """A layer's quantized weight and how far it is from the weight.

    relative_error: |W - Q|_F / |W|_F. output_error: |X (W - Q)^T|_F / |X W^T|_F over the
    calibration inputs X, None if there are none. note: anything unusual. folds_into: the norm or
    linear layer in its block that the input scale can be folded into, "" for none.
    """

    weight: QuantizedWeight
    relative_error: float
    output_error: float | None = None
    note: str = ""
    folds_into: str = ""


def relative_error(weight: Tensor, approximation: Tensor) -> float:
    """|W - Q(W)|_F / |W|_F, computed some rows at a time."""
    error = total = 0.0
    parts = zip(*(torch.split(w, affine.ROWS) for w in (weight, approximation)), strict=True)
    for rows, near in parts:
        original = rows.float()
        total += float(original.square().sum(dtype=torch.float64))
        error += float((original - near.to(original.device)).square().sum(dtype=torch.float64))
    return math.sqrt(error / max(total, 1e-24))
