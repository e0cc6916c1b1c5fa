"""AWQ by the package autoawq: its own searches, applied to our weights and inputs.

This runs autoawq's `_compute_best_scale`, `_compute_best_clip` and `pseudo_quantize_tensor`, in
float32 except for the last, which takes float16 as autoawq's own last step does. They run on the
weight's device, a CPU or a GPU; autoawq's CUDA kernels, models and file formats are not used. Two
things differ from its `quantize`: each layer is scaled alone, with its scale stored instead of
folded into the previous layer; and on a CPU its scale search overwrites the weights (its backup is
the tensor that it scales), so the layer passed to it returns a copy of its state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from mmq.contracts.quantizer import CalibratedQuantizer, Solved
from mmq.errors import InputError
from mmq.tensors.affine import MappingType, grouped
from mmq.tensors.quantized_weight import QuantizedWeight, compact, planned_bits, round_to_nearest
from mmq_plugins.quantizers.legacy import check_installed, load_solver

if TYPE_CHECKING:
    from mmq.tensors.layer_inputs import LayerInputs

ROWS = 64  # the clip search needs a multiple of this many outputs
CHUNK = 2**30  # bytes of a layer's outputs compared at once, autoawq's default


@dataclass(frozen=True)
class AutoAwq(CalibratedQuantizer):
    """AWQ as computed by autoawq 0.2.9, one layer at a time, from 512 sampled inputs.

    group_size: 0 is one range per row. symmetric_no_clipping: autoawq's zero_point=False, see
    `MappingType`. duo_scaling: the scale search also divides by the weights' magnitude. clip:
    search a limit for every group. The mean of |x| is over all inputs.
    """

    version: ClassVar[int] = 1
    sampled_inputs: ClassVar[int] = 512  # its clip search uses no more

    group_size: int = 128
    symmetric_no_clipping: bool = False
    duo_scaling: bool = True
    clip: bool = True

    def check(self, name: str, shape: tuple[int, int]) -> None:
        """InputError without the package, or for a layer that its searches do not support."""
        check_installed("awq")
        super().check(name, shape)
        if self.clip and shape[0] % ROWS:
            raise InputError(
                f"clip: autoawq's clip search needs a multiple of {ROWS} outputs, but {name} has "
                f"{shape[0]}; use --clip false, or the quantizer awq"
            )

    @property
    def scales_inputs(self) -> bool:
        """AWQ scales inputs wherever that rounds better."""
        return True

    @property
    def mapping(self) -> MappingType:
        """How ranges are mapped onto codes."""
        no_clipping = MappingType.SYMMETRIC_NO_CLIPPING
        return no_clipping if self.symmetric_no_clipping else MappingType.ASYMMETRIC

    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes of the nearest weights, for a layer that no calibration input reached."""
        return round_to_nearest(weight, bits, self.group_size, self.mapping)

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Codes, zero points, float16 scales and float16 input scales.

        A layer that is rounded to nearest takes less.
        """
        own = planned_bits(shape, bits, self.group_size, self.mapping, torch.float16)
        return own + 16 * shape[1]

    @torch.no_grad()
    def solve(
        self, weights: Sequence[Tensor], inputs: "LayerInputs", widths: Sequence[int]
    ) -> list[dict[int, Solved]]:
        """Codes of autoawq: its searches run once per weight and width."""
        kind = load_solver("awq.quantize.quantizer").AwqQuantizer
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            raise ValueError("weight: some values are not finite numbers")
        return [
            {bits: self._solve(kind, weight.float(), inputs, bits) for bits in widths}
            for weight in weights
        ]

    def _solve(self, kind: Any, weight: Tensor, inputs: "LayerInputs", bits: int) -> Solved:
        if not bool(inputs.rows.any()):
            why = "the sampled inputs are all zero: rounded to nearest"
            return Solved(self.quantize(weight, bits), why)
        if not bool(torch.isfinite((inputs.rows @ weight.T).square().sum() * 4)):
            why = "the squares of the layer's outputs overflow float32: rounded to nearest"
            return Solved(self.quantize(weight, bits), why)
        search = object.__new__(kind)  # its constructor loads calibration data from the hub
        search.w_bit, search.group_size = bits, self.group_size or weight.shape[1]
        search.zero_point, search.duo_scaling = not self.symmetric_no_clipping, self.duo_scaling
        search.max_chunk_memory, search.n_parallel_calib_samples = CHUNK, None
        scale = self._scale(search, weight, inputs)
        scaled = weight * scale
        if self.clip:
            limit = search._compute_best_clip(scaled, inputs.rows / scale)  # (out, n_groups, 1)
            groups = grouped(scaled, search.group_size)
            scaled = torch.clamp(groups, -limit, limit).reshape(weight.shape)
        scaled = scaled.half()
        if not bool(torch.isfinite(scaled).all()):
            why = "autoawq's scaled weights overflow float16: rounded to nearest"
            return Solved(self.quantize(weight, bits), why)
        rounded, step, zero_point = search.pseudo_quantize_tensor(scaled)
        note = "" if weight.device.type != "cpu" else "scale search given copies of the weights"
        return Solved(self._codes(rounded, step, zero_point, scale, search), note)

    def _scale(self, search: Any, weight: Tensor, inputs: "LayerInputs") -> Tensor:
        """The scale per input (in,) with the least error, rounded to float16, as float32."""
        layer: Any = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
        layer.state_dict = lambda: {
            "weight": weight
        }  # a copy: the search scales the layer's own tensor
        # as prepared by autoawq's _search_best_scale
        groups = grouped(weight.abs(), search.group_size)
        relative = (groups / (groups.amax(-1, keepdim=True) + 1e-6)).reshape(weight.shape)
        best: Tensor = search._compute_best_scale(
            inputs.rows,
            relative.mean(0),
            inputs.magnitude,
            layer,
            [layer],
            layer(inputs.rows),
        )
        half = torch.finfo(torch.float16)
        return best.to(weight.device).clamp(half.tiny, half.max).half().float()

    def _codes(
        self,
        rounded: Tensor,
        step: Tensor,
        zero_point: Tensor | None,
        input_scale: Tensor,
        search: Any,
    ) -> QuantizedWeight:
        """The codes of a dequantized float16 weight with these steps (out, n_groups)."""
        scale = step.float()
        zero = torch.full_like(scale, 2 ** (search.w_bit - 1))
        zero = zero if zero_point is None else zero_point.float()
        whole = torch.round(grouped(rounded.float(), search.group_size) / scale[..., None])
        codes = (whole + zero[..., None]).to(torch.uint8).reshape(rounded.shape)
        group_size, bits = search.group_size, search.w_bit
        stored = input_scale.half()
        mapping, dtype = self.mapping, torch.float16
        return compact(codes, scale, zero, group_size, bits, mapping, dtype, stored)
