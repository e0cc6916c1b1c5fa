"""How a quantized weight is stored in OpenVINO's format: its constants, their types and bytes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mmq.allocation.allocation import UNQUANTIZED
from mmq.contracts.target import WeightSpec
from mmq.tensors.quantized_weight import QuantizedWeight

BITS = {"u2": 2, "u4": 4, "u8": 8, "i32": 32, "f16": 16, "bf16": 16, "f32": 32}
FLOATS = {"float16": "f16", "bfloat16": "bf16", "float32": "f32"}
STORED = {"F16": "f16", "BF16": "bf16", "F32": "f32"}  # safetensors' names
ALIGNED = 64  # bytes: constants are mapped into memory, and kernels read whole cache lines


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant of a graph: its part of the weight, OpenVINO's name of its type, its shape."""

    part: str
    type: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes of its values, packed."""
        return math.ceil(math.prod(self.shape) * BITS[self.type] / 8)


def padded(size: int) -> int:
    """Bytes that a constant takes in a file."""
    return size + -size % ALIGNED


def code_type(bits: int) -> str:
    """The narrowest type with a kernel that holds codes; u3 and u6 exist and have none.

    >>> [code_type(bits) for bits in (2, 3, 4, 5, 8)]
    ['u2', 'u4', 'u4', 'u8', 'u8']
    """
    return "u2" if bits == 2 else "u4" if bits <= 4 else "u8"


def constants(spec: WeightSpec, shape: tuple[int, int]) -> tuple[Constant, ...]:
    """The constants of a weight (out, in)."""
    rows, columns = shape
    groups = columns // spec.group_size if spec.group_size else 1
    grouped = (rows, groups, columns // groups) if groups > 1 else (rows, columns)
    scales = (1 if spec.per_tensor else rows, *((groups, 1) if groups > 1 else (1,)))
    codes = code_type(spec.bits)
    parts = [
        Constant("codes", codes, grouped),
        Constant("scale", FLOATS[spec.scale_dtype], scales),
    ]
    if not spec.symmetric:
        zero = codes if spec.integer_zero_points else "f32"
        parts.append(Constant("zero_point", zero, scales))
    if spec.input_scale:
        parts.append(Constant("input_scale", "f32", (columns,)))
    if spec.group_index:
        parts.append(Constant("order", "i32", (columns,)))
    return tuple(parts)


def stored_bits(shape: tuple[int, int], spec: WeightSpec) -> float:
    """Bits of a weight (out, in), padding included."""
    if spec.bits == UNQUANTIZED:
        return float(shape[0] * shape[1] * UNQUANTIZED)
    return 8.0 * sum(padded(constant.bytes) for constant in constants(spec, shape))


def refusal(spec: WeightSpec, shape: tuple[int, int]) -> str:
    """Why a weight cannot be held; "" if it can."""
    if spec.group_index and not spec.group_size:
        return "an order of inputs needs groups"
    return ""


def values(weight: QuantizedWeight) -> Mapping[str, Tensor]:
    """The values of a weight's constants by part, each as a contiguous tensor, unpacked."""
    codes, order = weight.codes, None
    if weight.group_index is not None:  # inputs of a group side by side; the input is reordered
        order = torch.argsort(weight.group_index.long(), stable=True)
        codes = codes[:, order]
    parts = {"codes": codes, "scale": weight.scale}
    if weight.zero_point is not None:
        zero = weight.zero_point
        parts["zero_point"] = zero.float() if zero.is_floating_point() else zero.to(torch.uint8)
    if weight.input_scale is not None:
        parts["input_scale"] = weight.input_scale.float()
    if order is not None:
        parts["order"] = order.to(torch.int32)
    return {part: tensor.contiguous() for part, tensor in parts.items()}


def packed(constant: Constant, tensor: Tensor) -> bytes:
    """The bytes of a constant's values: low bits first where several share a byte."""
    flat = tensor.detach().cpu().reshape(-1)
    bits = BITS[constant.type]
    if bits < 8:
        per_byte = 8 // bits
        padding = -len(flat) % per_byte
        rows = torch.nn.functional.pad(flat, (0, padding)).reshape(-1, per_byte)
        flat = rows[:, 0].clone()
        for k in range(1, per_byte):
            flat |= rows[:, k] << (bits * k)
    data = flat.view(torch.uint8).numpy().tobytes()
    if len(data) != constant.bytes:
        raise RuntimeError(f"{constant}: {len(data)} bytes instead of {constant.bytes}")
    return data
