"""OpenVINO's format: graphs of a model whose weights are dequantized where they are used."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from torch import Tensor

from mmq.allocation.parts import OPTIONAL
from mmq.contracts.target import ExportedLayer, ExportReport, ExportSource, Target, WeightSpec
from mmq.contracts.vlm import VisionLanguageModel
from mmq.errors import InputError
from mmq.export.facts import file_sizes
from mmq.export.side_files import copy_files, link_files
from mmq.tensors.quantized_weight import QuantizedWeight
from mmq_plugins.targets import openvino_storage as storage
from mmq_plugins.targets.openvino_binding import bind, constant_name, unbound
from mmq_plugins.targets.openvino_engine import engine_settings, opened, weights_of
from mmq_plugins.targets.openvino_file import IrFile, Places
from mmq_plugins.targets.openvino_graphs import GraphSet, check_family, traced
from mmq_plugins.targets.openvino_rewrite import all_files, rewritten
from mmq_plugins.targets.openvino_tracing import Graph
from mmq_plugins.targets.optimum_engine import (
    ENVIRONMENT,
    PACKAGE,
    PYTHON,
    opened_in_optimum,
    optimum_command,
    optimum_python,
)

REWRITTEN = "The files were made from an IR of optimum-intel: only the weights of layers changed."


@dataclass(frozen=True)
class OpenVino(Target):
    """OpenVINO's IR, every weight as its codes, with real zero points and input scales.

    from_: a folder with an IR that optimum-intel wrote with 16-bit weights, which is rewritten;
    needed for families whose graphs mmq does not trace itself.
    precision: exact computes in float32, as the simulation does; fast is the engine's own choice
    for the processor. threads: of the engine, 0 for PyTorch's.
    """

    recipes: ClassVar[Mapping[str, tuple[int, int]]] = {
        "Optimum Intel: language model at int4, all else at int8": (4, 8)
    }
    version: ClassVar[int] = 3
    extra: ClassVar[str] = "openvino"
    packages: ClassVar[tuple[str, ...]] = ("openvino",)

    from_: str = ""
    precision: Literal["exact", "fast"] = "exact"
    threads: int = 0

    @property
    def exact(self) -> bool:
        """In float32 the engine gives the simulation's outputs."""
        return self.precision == "exact"

    def refusal(self, spec: WeightSpec, shape: tuple[int, int], component: str) -> str:
        """Why a weight cannot be stored: in an IR of optimum-intel, only layers are found."""
        if self.from_ and component in OPTIONAL:
            return f"mmq does not look for {component} in an IR that it did not write"
        return storage.refusal(spec, shape)

    def stored_bits(self, shape: tuple[int, int], spec: WeightSpec) -> float:
        """Bits of a weight (out, in) as constants."""
        return storage.stored_bits(shape, spec)

    def planned_bytes(self, source: ExportSource) -> int:
        """Bytes of all files; InputError for a model that cannot be written."""
        model = self._graphs(source)
        specs = {twin: spec for p, spec in source.specs.items() for twin in model.with_twins(p)}
        total = sum(path.stat().st_size for path in model.files.values())
        for graph in model.graphs:
            places = Places()
            for path in _in_order(graph, specs):
                spec = specs.get(path)
                for constant in unbound(
                    path, spec, model.shapes[path], model.stored.get(path, "")
                ):
                    places.add(constant_name(path, constant.part), constant.bytes)
            bind(graph, specs, model.shapes, model.stored)
            xml, _ = places.finish(graph.model)
            total += places.end + len(xml.encode())
        return total

    def _graphs(self, source: ExportSource) -> GraphSet:
        if self.exact and source.dtype != "float32":
            raise InputError(
                f"precision: exact computes in float32, and the trial computed in "
                f"{source.dtype}, so that outputs may differ; give --precision fast, or run the "
                f"trial with --dtype float32"
            )
        if self.from_:
            return rewritten(source, Path(self.from_).absolute(), self.exact)
        check_family(source)
        return traced(source.folder, source.specs)

    def export(
        self, source: ExportSource, layers: Iterable[ExportedLayer], folder: Path
    ) -> ExportReport:
        """Write the graphs, one layer in memory at a time."""
        model = self._graphs(source)
        specs: dict[str, WeightSpec] = {}
        with ExitStack() as stack:
            files = {g.stem: stack.enter_context(IrFile(folder, g.stem)) for g in model.graphs}
            stems = {path: graph.stem for graph in model.graphs for path in graph.weights}
            for layer in layers:
                if not isinstance(layer.weight, QuantizedWeight):
                    continue
                written = model.with_twins(layer.name)
                specs |= dict.fromkeys(written, WeightSpec.of(layer.weight))
                for path in (path for path in written if path in stems):
                    _add_codes(files[stems[path]], path, layer.weight, model.shapes[path])
            for graph in model.graphs:
                _add_plain(files[graph.stem], graph, specs, model)
                bind(graph, specs, model.shapes, model.stored)
                files[graph.stem].finish(graph.model)
        copy_files(model.files.items(), folder)
        used = {path: specs[path] for path in source.specs if path in stems}
        unread = frozenset(source.specs.keys() - used.keys())
        stored_as = {path: storage.code_type(spec.bits) for path, spec in used.items()}
        notes = (*_notes(unread), *([REWRITTEN] if self.from_ else []))
        return ExportReport(file_sizes(folder), stored_as, notes, unread=unread)

    def export_unquantized(self, source: ExportSource, folder: Path) -> None:
        """The traced graphs with 16-bit weights, or links to the files of the user's IR."""
        if self.from_:
            link_files(all_files(source, Path(self.from_)).items(), folder)
        else:
            super().export_unquantized(source, folder)

    def read_back(self, folder: Path) -> Iterator[tuple[str, Tensor]]:
        """Layer names and weights that OpenVINO dequantized, float32."""
        return weights_of(folder)

    def unavailable(self) -> str:
        """Why a rewritten IR cannot answer: optimum-intel, which runs it, is not installed."""
        if not self.from_ or optimum_python():
            return ""
        return (
            f"{PACKAGE}, which runs this IR, is not installed for this Python, or the one that "
            f"{PYTHON} names; install it (make {ENVIRONMENT}/installed), set {PYTHON}="
            f"{ENVIRONMENT}/bin/python, and export again"
        )

    def open(self, folder: Path, device: str) -> AbstractContextManager[VisionLanguageModel]:
        """The model in OpenVINO, on the processor."""
        if reason := self.unavailable():
            raise InputError(f"target: {reason}")
        if self.from_:
            return opened_in_optimum(folder, engine_settings(self.exact, self.threads))
        return opened(folder, self.exact, self.threads)

    def commands(self, folder: Path) -> Sequence[str]:
        """How to ask the model in OpenVINO."""
        if self.from_:
            return (optimum_command(folder),)
        exact = "" if self.exact else " --fast"
        return (f"python -m mmq_plugins.targets.openvino_ask {folder} --image PICTURE.png{exact}",)


def _in_order(graph: Graph, specs: Mapping[str, WeightSpec]) -> list[str]:
    """Modules of a graph as their weights are written: quantized layers first."""
    weights = graph.weights
    quantized = [path for path in specs if path in weights]
    return [*quantized, *(path for path in weights if path not in specs)]


def _add_codes(file: IrFile, path: str, weight: QuantizedWeight, shape: tuple[int, int]) -> None:
    values = storage.values(weight)
    for constant in storage.constants(WeightSpec.of(weight), shape):
        file.add(
            constant_name(path, constant.part), storage.packed(constant, values[constant.part])
        )


def _add_plain(
    file: IrFile, graph: Graph, specs: Mapping[str, WeightSpec], model: GraphSet
) -> None:
    for path in graph.weights:
        if path not in specs:
            tensor = model.read(path)
            shape = (tensor.shape[0], tensor.shape[1])
            (constant,) = unbound(path, None, shape, model.stored[path])
            file.add(constant_name(path, constant.part), storage.packed(constant, tensor))


def _notes(unread: frozenset[str]) -> tuple[str, ...]:
    if not unread:
        return ()
    return (
        f"{len(unread)} layers are not in the files, because the model does not read their "
        f"outputs ({sorted(unread)[0]}, ...).",
    )
