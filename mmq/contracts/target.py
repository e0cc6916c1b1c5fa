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
from mmq.tensors.stored_experts import StoredExperts

if TYPE_CHECKING:
    from mmq.allocation.allocation import BitAllocation
    from mmq.models.skeleton import Skeleton


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """How a weight is quantized: all that matters to a file format.

    group_size: inputs per scale; 0 is one group per row. per_tensor: one scale for all rows.
    """

    bits: int
    group_size: int = 0
    symmetric: bool = True
    per_tensor: bool = False
    integer_zero_points: bool = True
    input_scale: bool = False
    folds: bool = False  # input scales are powers of two that fold into what precedes the layer
    group_index: bool = False
    scale_dtype: str = "float16"  # represents every scale exactly

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
            else "one scale per row"
        )
        parts = [f"{self.bits} bits", grouping, "symmetric" if self.symmetric else "asymmetric"]
        if not self.integer_zero_points:
            parts[-1] = "real zero points"
        parts += [f"{'foldable ' * self.folds}input scales"] if self.input_scale else []
        parts += ["act-order"] if self.group_index else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class ExportedLayer:
    """A linear layer to export; a Tensor is an unquantized weight.

    folds_into: the norm or linear layer, by its name in transformers, that takes its input scale.
    output_scale: the input scale (out,) of the layers after it, which its rows can be divided by.
    """

    name: str  # name of the module in transformers
    component: str  # "" outside all components
    weight: QuantizedWeight | Tensor
    folds_into: str = ""
    output_scale: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ExportSource:
    """The checkpoint that is exported: its folder, and the model without weights.

    dtype: what the trial computed in. stored: the name in the checkpoint's files by parameter of
    the model as transformers has it. specs: how each quantized layer will be quantized. experts:
    where the files hold the experts of each of their parameters.
    """

    folder: Path
    skeleton: "Skeleton"
    dtype: str
    options: Mapping[str, str] = field(default_factory=dict)  # the target's own, such as `from`
    stored: Mapping[str, str] = field(default_factory=dict)
    specs: Mapping[str, WeightSpec] = field(default_factory=dict)
    experts: Mapping[str, StoredExperts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """An exported folder: bytes by file, how each layer is stored, and notes for its user.

    precision: the dtype that dequantized weights were rounded to; float32 where codes are stored.
    folded: layers whose input scales were folded into others, or which took such a scale; they are
    read back as they then are.
    unread: layers that are left out because nothing reads their outputs.
    """

    files: Mapping[str, int]
    stored_as: Mapping[str, str]  # description by layer
    notes: Sequence[str] = ()
    precision: str = "float32"
    folded: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()


class Target(ABC):
    """An engine's checkpoint format. Subclasses are frozen dataclasses; fields are options."""

    version: ClassVar[int] = 1  # raise it with every change that produces other files
    extra: ClassVar[str] = ""  # the extra of mmq that installs the packages; "" without any
    packages: ClassVar[tuple[str, ...]] = ()  # modules that are imported to write the files
    engine_packages: ClassVar[tuple[str, ...]] = ()  # and to run them
    experts: ClassVar[bool] = False  # True: it can hold experts that share one parameter
    folds: ClassVar[bool] = False  # True: it folds input scales into what precedes a layer
    # what the engine's own tools do: bits of the language model and of all else, by a name
    recipes: ClassVar[Mapping[str, tuple[int, int]]] = {}
    timed: ClassVar[bool] = False  # True: times of single answers are precise enough for searches

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
        """Raise InputError for combinations of layers, before anything is loaded.

        `refusal` has checked each layer.
        """

    def planned_bytes(self, source: ExportSource) -> int | None:
        """Bytes of all files; None: the sum of `stored_bits`, and all else as in the source."""
        return None

    @abstractmethod
    def export(
        self, source: ExportSource, layers: Iterable[ExportedLayer], folder: Path
    ) -> ExportReport:
        """Write the model into a folder, one layer in memory at a time.

        The folder is empty, or holds the files of a killed export of the same model.
        """

    def export_unquantized(self, source: ExportSource, folder: Path) -> None:
        """Write the unquantized model, for its cost in the same engine; source.specs is empty."""
        self.export(source, (), folder)

    @abstractmethod
    def read_back(self, folder: Path) -> Iterator[tuple[str, Tensor]]:
        """Layer names and dequantized weights, float32, read by an independent reader."""

    def unavailable(self) -> str:
        """Why the engine cannot run on this machine, and what to do; "" if it can.

        Weights and bytes are then verified, and outputs are not.
        """
        return ""

    @abstractmethod
    def open(self, folder: Path, device: str) -> AbstractContextManager[VisionLanguageModel]:
        """The exported model in its engine, closed at the end."""

    def engine_version(self) -> str:
        """Name and version of the installed engine, which measured times belong to."""
        return ""

    def commands(self, folder: Path) -> Sequence[str]:
        """Shell commands that run the exported model, for its model card."""
        return ()
