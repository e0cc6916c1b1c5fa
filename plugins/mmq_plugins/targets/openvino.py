"""OpenVINO's format: graphs of a model whose weights are dequantized where they are used."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from torch import Tensor

from mmq.contracts.target import ExportedLayer, ExportReport, ExportSource, Target, WeightSpec
from mmq.contracts.vlm import VisionLanguageModel
from mmq.errors import InputError
from mmq.export.facts import file_sizes
from mmq.export.side_files import CONFIG, copy_side_files, side_files
from mmq.tensors.quantized_weight import QuantizedWeight
from mmq_plugins.targets import openvino_storage as storage
from mmq_plugins.targets.openvino_binding import bind, constant_name, unbound
from mmq_plugins.targets.openvino_engine import opened, weights_of
from mmq_plugins.targets.openvino_file import IrFile, Places
from mmq_plugins.targets.openvino_graphs import check_family, traced
from mmq_plugins.targets.openvino_outline import Outline
from mmq_plugins.targets.openvino_tracing import Graph


@dataclass(frozen=True)
class OpenVino(Target):
    """OpenVINO's IR, every weight as its codes, with real zero points and input scales.

    precision: exact computes in float32, as the simulation does; fast is the engine's own choice
    for the processor. threads: of the engine, 0 for PyTorch's.
    """

    recipes: ClassVar[Mapping[str, tuple[int, int]]] = {
        "Optimum Intel: language model at int4, all else at int8": (4, 8)
    }
    extra: ClassVar[str] = "openvino"
    packages: ClassVar[tuple[str, ...]] = ("openvino",)

    precision: Literal["exact", "fast"] = "exact"
    threads: int = 0

    @property
    def exact(self) -> bool:
        """In float32 the engine gives the simulation's outputs."""
        return self.precision == "exact"

    def refusal(self, spec: WeightSpec, shape: tuple[int, int], component: str) -> str:
        """Every quantized weight can be held."""
        return storage.refusal(spec, shape)

    def stored_bits(self, shape: tuple[int, int], spec: WeightSpec) -> float:
        """Bits of a weight (out, in) as constants."""
        return storage.stored_bits(shape, spec)

    def planned_bytes(self, source: ExportSource) -> int:
        """Bytes of all files; InputError for a model that cannot be written."""
        self._check(source)
        outline, graphs = traced(source.folder)
        shapes, stored = outline.shapes, outline.stored_types
        total = (source.folder / CONFIG).stat().st_size
        total += sum(path.stat().st_size for _, path in side_files(source.folder))
        for graph in graphs:
            places = Places()
            for path in _in_order(graph, source.specs):
                spec = source.specs.get(path)
                for constant in unbound(path, spec, shapes[path], stored[path]):
                    places.add(constant_name(path, constant.part), constant.bytes)
            bind(graph, source.specs, shapes, stored)
            xml, _ = places.finish(graph.model)
            total += places.end + len(xml.encode())
        return total

    def _check(self, source: ExportSource) -> None:
        check_family(source)
        if self.exact and source.dtype != "float32":
            raise InputError(
                f"precision: exact computes in float32, and the trial computed in "
                f"{source.dtype}, so that outputs may differ; give --precision fast, or run the "
                f"trial with --dtype float32"
            )

    def export(
        self, source: ExportSource, layers: Iterable[ExportedLayer], folder: Path
    ) -> ExportReport:
        """Write the graphs, one layer in memory at a time."""
        self._check(source)
        outline, graphs = traced(source.folder)
        shapes, stored = outline.shapes, outline.stored_types
        specs: dict[str, WeightSpec] = {}
        with ExitStack() as stack:
            files = {g.stem: stack.enter_context(IrFile(folder, g.stem)) for g in graphs}
            stems = {path: graph.stem for graph in graphs for path in graph.weights}
            for layer in layers:
                if not isinstance(layer.weight, QuantizedWeight):
                    continue
                specs[layer.name] = spec = WeightSpec.of(layer.weight)
                if layer.name in stems:
                    values = storage.values(layer.weight)
                    for constant in storage.constants(spec, shapes[layer.name]):
                        data = storage.packed(constant, values[constant.part])
                        files[stems[layer.name]].add(
                            constant_name(layer.name, constant.part), data
                        )
            for graph in graphs:
                _add_plain(files[graph.stem], graph, specs, outline, stored)
                bind(graph, specs, shapes, stored)
                files[graph.stem].finish(graph.model)
        copy_side_files(source.folder, folder)
        (folder / CONFIG).write_bytes((source.folder / CONFIG).read_bytes())
        used = {path: spec for path, spec in specs.items() if path in stems}
        unread = frozenset(specs.keys() - used.keys())
        stored_as = {path: storage.code_type(spec.bits) for path, spec in used.items()}
        return ExportReport(file_sizes(folder), stored_as, _notes(unread), unread=unread)

    def read_back(self, folder: Path) -> Iterator[tuple[str, Tensor]]:
        """Layer names and weights that OpenVINO dequantized, float32."""
        return weights_of(folder)

    def open(self, folder: Path, device: str) -> AbstractContextManager[VisionLanguageModel]:
        """The model in OpenVINO, on the processor."""
        return opened(folder, self.exact, self.threads)

    def commands(self, folder: Path) -> Sequence[str]:
        """How to ask the model in OpenVINO."""
        exact = "" if self.exact else " --fast"
        return (f"python -m mmq_plugins.targets.openvino_ask {folder} --image PICTURE.png{exact}",)


def _in_order(graph: Graph, specs: Mapping[str, WeightSpec]) -> list[str]:
    """Modules of a graph as their weights are written: quantized layers first."""
    quantized = [path for path in specs if path in graph.weights]
    return [*quantized, *(path for path in graph.weights if path not in specs)]


def _add_plain(
    file: IrFile,
    graph: Graph,
    specs: Mapping[str, WeightSpec],
    outline: Outline,
    stored: Mapping[str, str],
) -> None:
    for path in graph.weights:
        if path not in specs:
            tensor = outline.checkpoint.tensor(outline.large[path])
            shape = (tensor.shape[0], tensor.shape[1])
            (constant,) = unbound(path, None, shape, stored[path])
            file.add(constant_name(path, constant.part), storage.packed(constant, tensor))


def _notes(unread: frozenset[str]) -> tuple[str, ...]:
    if not unread:
        return ()
    return (
        f"{len(unread)} layers are not in the files, because the model does not read their "
        f"outputs ({sorted(unread)[0]}, ...).",
    )
