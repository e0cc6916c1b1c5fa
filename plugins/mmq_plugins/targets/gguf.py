"""llama.cpp's format: a GGUF file of the language model, and one of the vision tower."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from mmq.allocation.allocation import UNQUANTIZED
from mmq.contracts.target import ExportedLayer, ExportReport, ExportSource, Target, WeightSpec
from mmq.contracts.vlm import VisionLanguageModel
from mmq.errors import InputError
from mmq.export.facts import file_sizes
from mmq.export.folding import Folding
from mmq.tensors.quantized_weight import QuantizedWeight
from mmq_plugins.targets import gguf_blocks
from mmq_plugins.targets.gguf_checkpoint import part_name
from mmq_plugins.targets.gguf_engine import engine_version, running
from mmq_plugins.targets.gguf_families import layout_of
from mmq_plugins.targets.gguf_file import GgufFile, as_floats, planned_size
from mmq_plugins.targets.gguf_layers import LayerPlaces
from mmq_plugins.targets.gguf_layout import MMPROJ, MODEL, Layout, Place
from mmq_plugins.targets.gguf_server import CONTEXT


@dataclass(frozen=True)
class Gguf(Target):
    """Two GGUF files for llama.cpp, each weight in the smallest ggml type that holds it exactly.

    from_: a model's 16-bit files, as "model-f16.gguf,mmproj-f16.gguf", which are rewritten; needed
    for families whose files mmq does not write itself. threads: of the engine, 0 for PyTorch's.
    context: tokens that the engine reserves memory for.
    """

    recipes: ClassVar[Mapping[str, tuple[int, int]]] = {
        "llama.cpp: language model at Q4_0, vision file at Q8_0": (4, 8)
    }
    extra: ClassVar[str] = "gguf"
    folds: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("gguf",)
    engine_packages: ClassVar[tuple[str, ...]] = ("xllamacpp",)
    timed: ClassVar[bool] = True

    from_: str = ""
    threads: int = 0
    context: int = CONTEXT

    def refusal(self, spec: WeightSpec, shape: tuple[int, int], component: str) -> str:
        """Why no ggml type holds such a weight; "" if one does."""
        return gguf_blocks.refusal(spec, shape)

    def stored_bits(self, shape: tuple[int, int], spec: WeightSpec) -> float:
        """Bits of a weight (out, in) as ggml blocks; InputError for one that no type holds."""
        if spec.bits == UNQUANTIZED:
            return float(shape[0] * shape[1] * UNQUANTIZED)
        return shape[0] * shape[1] * _type_of(spec, shape).bits

    def planned_bytes(self, source: ExportSource) -> int:
        """Bytes of all files; InputError for a model that cannot be written."""
        layout = self.layout(source)
        sidecar = LayerPlaces.of(layout, source.specs)
        specs = {f"{part_name(name)}.weight": spec for name, spec in source.specs.items()}
        total = len(sidecar.to_json())
        with tempfile.TemporaryDirectory() as scratch:
            for file, keys in layout.keys.items():
                tensors = {
                    place.name: (place.shape, self._bits(place, specs, layout))
                    for place in layout.places
                    if place.file == file
                }
                total += planned_size(keys, Path(scratch) / file, tensors)
        return total

    def _bits(self, place: Place, specs: Mapping[str, WeightSpec], layout: Layout) -> float:
        if (spec := specs.get(place.source)) is not None:
            # whether an input scale folds was decided when the layer was accepted
            return _type_of(replace(spec, folds=True), (place.shape[0], place.shape[1])).bits
        return 32 if place.full else layout.bits(place.source)

    def layout(self, source: ExportSource) -> Layout:
        """Where each tensor goes; InputError for a model that cannot be written."""
        if self.from_ and any(spec.input_scale for spec in source.specs.values()):
            raise InputError(
                "from: input scales fold into norms, which mmq does not locate in GGUF files; "
                "export without --from, or quantize without awq's --foldable"
            )
        layout = layout_of(source, self.from_)
        sources = {place.source for place in layout.places}
        for name in source.specs:
            if f"{part_name(name)}.weight" not in sources:
                raise InputError(f"target: {name} has no place in the GGUF files of this model")
        return layout

    def export(
        self, source: ExportSource, layers: Iterable[ExportedLayer], folder: Path
    ) -> ExportReport:
        """Write model.gguf and mmproj.gguf, one layer in memory at a time."""
        layout, folding = self.layout(source), Folding(source.stored)
        places: dict[str, list[Place]] = {}
        for place in layout.places:
            places.setdefault(place.source, []).append(place)
        stored_as: dict[str, str] = {}
        with ExitStack() as stack:
            files = {
                name: stack.enter_context(GgufFile(folder / name, keys, layout.shapes(name)))
                for name, keys in layout.keys.items()
            }
            for layer in folding.collecting(layers):
                if isinstance(layer.weight, QuantizedWeight):
                    spec = replace(WeightSpec.of(layer.weight), folds=True)
                    kind = _type_of(spec, _shape(layer.weight), layer.name)
                    rows = gguf_blocks.pack(layer.weight, kind, layer.name)
                    for place in places.pop(f"{part_name(layer.name)}.weight"):
                        data = rows if place.rows is None else rows[place.rows]
                        files[place.file].add(place.name, data, kind.number)
                    stored_as[layer.name] = kind.name
            for key, rest in places.items():
                tensor = folding.change(layout.stored.get(key, ""), layout.read(key))
                for place in rest:
                    files[place.file].add(place.name, *as_floats(place.cut(tensor), place.full))
        LayerPlaces.of(layout, stored_as).write(folder)
        notes = (*layout.notes, *_wide(stored_as), *([folding.note] if folding.note else []))
        return ExportReport(file_sizes(folder), stored_as, notes, folded=folding.layers)

    def read_back(self, folder: Path) -> Iterator[tuple[str, Tensor]]:
        """Layer names and dequantized weights, float32, by gguf's reader and its dequantizer."""
        return LayerPlaces.read(folder).weights(folder)

    def open(self, folder: Path, device: str) -> AbstractContextManager[VisionLanguageModel]:
        """The model in llama.cpp, in a process of its own that ends with the context."""
        return running(folder, device, self.threads, self.context)

    def engine_version(self) -> str:
        """The version of llama.cpp's Python package; InputError if it is not installed."""
        return engine_version()

    def commands(self, folder: Path) -> Sequence[str]:
        """Commands that ask the model in llama.cpp and serve it."""
        files = f"-m {folder / MODEL} --mmproj {folder / MMPROJ} --jinja --temp 0"
        ask = "'What is in the picture?'"
        return (
            f"llama-mtmd-cli {files} --image picture.png -p {ask}",
            f"llama-server {files} --port 8080",
            f"python -m mmq_plugins.targets.gguf_server {folder} --image picture.png --ask {ask}",
        )


def _wide(stored_as: Mapping[str, str]) -> tuple[str, ...]:
    """A note about layers that no type with scales holds."""
    count = sum(kind == gguf_blocks.PRODUCTS.name for kind in stored_as.values())
    if not count:
        return ()
    return (
        f"{count} of {len(stored_as)} layers are stored as F32: some of their scales are too "
        f"small for float16. --scale-dtype float16-only raises these; larger groups avoid them.",
    )


def _shape(weight: QuantizedWeight) -> tuple[int, int]:
    rows, columns = weight.codes.shape
    return rows, columns


def _type_of(
    spec: WeightSpec, shape: tuple[int, int], name: str = "weight"
) -> gguf_blocks.BlockType:
    kind = gguf_blocks.smallest_type(spec, shape[1])
    if kind is None:
        raise InputError(f"target: {name}: {gguf_blocks.refusal(spec, shape)}")
    return kind
