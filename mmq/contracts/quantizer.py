"""The interface of quantizers: weights become codes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from mmq.errors import InputError
from mmq.tensors.affine import SCALE_DTYPES
from mmq.tensors.quantized_weight import QuantizedWeight

if TYPE_CHECKING:
    from mmq.tensors.layer_inputs import LayerInputs


PROBED = 64  # rows of a random weight that is quantized to measure what is stored
ScaleDtype = Literal["float16", "float16-only", "bfloat16", "float32"]


@dataclass(frozen=True)
class Quantizer(ABC):
    """Quantizes a weight to codes. Subclasses are frozen dataclasses; fields are options.

    Codes are reused for the same quantizer, version and options: raise `version` with every
    change that produces other codes. An option named `group_size` or `scale_dtype` is checked
    here; `symmetric` means `MappingType.SYMMETRIC` in every quantizer.
    """

    version: ClassVar[int] = 1
    calibrated: ClassVar[bool] = False  # True: reads calibration pairs

    def __post_init__(self) -> None:
        group_size = getattr(self, "group_size", 0)
        if group_size < 0:
            raise ValueError(f"group_size: {group_size} is negative; 0 is one group per row")
        scale_dtype = getattr(self, "scale_dtype", "float16")
        if scale_dtype not in SCALE_DTYPES:
            raise ValueError(
                f"scale_dtype: {scale_dtype!r} is not valid; choose from {', '.join(SCALE_DTYPES)}"
            )

    def check(self, name: str, shape: tuple[int, int]) -> None:
        """Raise InputError, before any model is loaded, for a layer that cannot be quantized."""
        group_size = getattr(self, "group_size", 0)
        if group_size > 0 and shape[1] % group_size:
            raise InputError(
                f"group_size: {group_size} does not divide the {shape[1]} inputs of {name}; "
                f"choose a divisor, or 0 for one group per row"
            )

    @abstractmethod
    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes with `bits` bits (2-8) of a weight (out, in) of any float dtype."""

    def at(self, bits: int) -> "Quantizer":
        """The quantizer with the options of this width; itself if all widths share them."""
        return self

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Bits that a weight (out, in) will take, including scales, from its shape alone.

        Budgets use it. Override it if there is a formula: the default quantizes two
        small random weights and extrapolates, as the size is linear in the rows. If the size
        depends on the weights, plan for ordinary ones.
        """
        generator = torch.Generator().manual_seed(0)
        small, large = (
            self.quantize(torch.randn(n, shape[1], generator=generator), bits).stored_bits
            for n in (PROBED, 2 * PROBED)
        )
        return small + (shape[0] - PROBED) * (large - small) // PROBED


@dataclass(frozen=True, slots=True)
class Solved:
    """A weight's codes, with a note on anything unusual ("" for nothing)."""

    weight: QuantizedWeight
    note: str = ""


@dataclass(frozen=True)
class CalibratedQuantizer(Quantizer):
    """A quantizer that uses a layer's inputs; `quantize` is for layers without any.

    calibration_inputs: with full_precision every layer's inputs come from the unquantized model;
    with sequential they come from a model that is quantized, at the same width, up to that layer.
    """

    calibrated: ClassVar[bool] = True
    sampled_inputs: ClassVar[int] = 0  # number of inputs that `solve` needs besides their sums

    calibration_inputs: Literal["full_precision", "sequential"] = "full_precision"

    @property
    def scales_inputs(self) -> bool:
        """Whether `solve` may scale the inputs of a layer, which not every format can store."""
        return False

    @property
    def folds(self) -> bool:
        """Whether `solve` reads `inputs.foldable`, which is set by trying every norm and layer."""
        return False

    @abstractmethod
    def solve(
        self, weights: Sequence[Tensor], inputs: "LayerInputs", widths: Sequence[int]
    ) -> list[dict[int, Solved]]:
        """Codes for every width, one dict per weight (out, in); all weights read these inputs.

        ValueError for weights that are not finite. Uninformative inputs (all zero, or with squares
        that overflow) are handled, with a note.
        """
