"""The interface of export targets: write, read and run an engine's checkpoint format."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from mmq.contracts.quantizer import Quantizer
from mmq.contracts.vlm import VisionLanguageModel
from mmq.tensors.quantized_weight import QuantizedWeight

if TYPE_CHECKING:
    from mmq.allocation.allocation import BitAllocation
    from mmq.models.skeleton import Skeleton


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """How a weight is quantized, as far as it matters to a file format.

    group_size: inputs per scale; 0 is one group per row. per_tensor: one scale for all rows.
    """

    bits: int
    group_size: int = 0
    symmetric: bool = True
    per_tensor: bool = False
    integer_zero_points: bool = True
    input_scale: bool = False
    folds: bool = False  # input scales are powers of two that fold into norms
    group_index: bool = False
    scale_dtype: str = "float16"  # what every scale is exact in

    @classmethod
    def of(cls, weight: QuantizedWeight) -> "WeightSpec":
        """The spec of a quantized weight."""
        columns = weight.codes.shape[1]
        zero = weight.zero_point
        return cls(
            bits=weight.bits,
            group_size=0 if weight.group_size == columns else weight.group_size,
            symmetric=zero is None,
            per_tensor=tuple(weight.scale.shape) == (1, 1) and weight.codes.shape[0] > 1,
            integer_zero_points=zero is None or not zero.is_floating_point(),
            input_scale=weight.input_scale is not None,
            group_index=weight.group_index is not None,
            scale_dtype=str(weight.scale.dtype).removeprefix("torch."),
        )

    def __str__(self) -> str:
        grouping = (
            "one scale"
            if self.per_tensor
            else f"groups of {self.group_size}"
            if self.group_size
            else "a scale per row"
        )
        parts = [f"{self.bits} bits", grouping, "symmetric" if self.symmetric else "asymmetric"]
        if not self.integer_zero_points:
            parts[-1] = "real zero points"
        parts += [f"input scales{' that fold' * self.folds}"] if self.input_scale else []
        parts += ["an order of inputs"] if self.group_index else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class ExportedLayer:
    """A linear layer to export; a Tensor is an unquantized weight."""

    name: str  # of the module in transformers
    component: str  # "" outside all components
    weight: QuantizedWeight | Tensor
    folds_into: str = ""  # the norm, as named in transformers, that its input scale folds into


@dataclass(frozen=True, slots=True)
class ExportSource:
    """The checkpoint that is exported: its folder, and the model without weights.

    dtype: what the trial computed in. stored: the name in the checkpoint's files by parameter of
    the model as transformers has it. specs: how each quantized layer will be quantized.
    """

    folder: Path
    skeleton: "Skeleton"
    dtype: str
    options: Mapping[str, str] = field(default_factory=dict)  # the target's own, such as `from`
    stored: Mapping[str, str] = field(default_factory=dict)
    specs: Mapping[str, WeightSpec] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written: bytes by file, how each layer is stored, and what a reader must know.

    precision: the dtype that dequantized weights were rounded to; float32 where codes are stored.
    folded: layers whose input scales were folded into norms; they are read back without them.
    unread: layers that are left out because nothing reads their outputs.
    """

    files: Mapping[str, int]
    stored_as: Mapping[str, str]  # by layer
    notes: Sequence[str] = ()
    precision: str = "float32"
    folded: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()


class Target(ABC):
    """An engine's checkpoint format. Subclasses are frozen dataclasses; fields are options."""

    version: ClassVar[int] = 1  # raise it with every change that gives other files
    extra: ClassVar[str] = ""  # the extra of mmq that installs the engine; "" if none is needed

    @property
    def exact(self) -> bool:
        """Whether the engine computes as the simulation does: all outputs must be equal."""
        return False

    @abstractmethod
    def refusal(self, spec: WeightSpec, shape: tuple[int, int], component: str) -> str:
        """Why the format or the installed engine does not support a weight; "" if it does."""

    @abstractmethod
    def stored_bits(self, shape: tuple[int, int], spec: WeightSpec) -> float:
        """Bits of a weight (out, in) in the format, scales and padding included."""

    def check(  # noqa: B027  (`refusal` says enough for most formats)
        self, allocation: "BitAllocation", quantizer: Quantizer, skeleton: "Skeleton"
    ) -> None:
        """Raise InputError for what concerns more than one layer, before anything is loaded.

        `refusal` has checked each layer.
        """

    def planned_bytes(self, source: ExportSource) -> int | None:
        """Bytes of all files; None to add them up by `stored_bits`, all else as in the source."""
        return None

    @abstractmethod
    def export(
        self, source: ExportSource, layers: Iterable[ExportedLayer], folder: Path
    ) -> ExportReport:
        """Write the model into a folder, one layer in memory at a time.

        The folder is empty, or holds what a killed export of the same model left in it.
        """

    @abstractmethod
    def read_back(self, folder: Path) -> Iterator[tuple[str, Tensor]]:
        """Layer names and dequantized weights, float32, read by an independent reader."""

    @abstractmethod
    def open(self, folder: Path, device: str) -> AbstractContextManager[VisionLanguageModel]:
        """The exported model in its engine, closed at the end."""

    def commands(self, folder: Path) -> Sequence[str]:
        """Shell commands that run the exported model, for its model card."""
        return ()
