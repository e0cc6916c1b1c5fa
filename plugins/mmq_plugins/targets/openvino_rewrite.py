"""An IR that optimum-intel wrote, as graphs: each quantized layer is found in it by its values.

optimum-intel splits a model as it needs it and renames its parts, but a linear layer stays a
product with a constant of the checkpoint's values. Equal constants are told apart by their names.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from mmq.contracts.family import architecture_of
from mmq.contracts.target import ExportSource
from mmq.errors import InputError
from mmq.export.side_files import CONFIG, side_files
from mmq.export.source_checkpoint import SourceCheckpoint
from mmq.export.targets import need
from mmq.models.checkpoint import read_config
from mmq.models.components import Layer
from mmq.models.skeleton import Skeleton, skeleton
from mmq.system.versions import major_version
from mmq_plugins.targets.openvino_file import graph_files, values_of
from mmq_plugins.targets.openvino_graphs import GraphSet
from mmq_plugins.targets.openvino_tracing import EXTRA, Graph, stand_in

LANGUAGE_MODEL = "openvino_language_model"
DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
INTEGERS = ("u8", "i8", "u4", "i4")
SHIFTED = ("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration")
NESTED = ("If", "Loop", "TensorIterator")
HOW = "optimum-cli export openvino --task image-text-to-text --weight-format fp16"


@dataclass(frozen=True, eq=False)
class IrWeight:
    """A constant that is the weight (out, in) of products. readers: their inputs."""

    graph: Graph
    node: Any
    readers: list[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.node.get_output_shape(0))

    @property
    def dtype(self) -> torch.dtype:
        """Its dtype."""
        return DTYPES[self.node.get_element_type().get_type_name()]

    @cached_property
    def digest(self) -> bytes:
        """A hash of its values."""
        return blake2b(values_of(self.node), digest_size=16).digest()

    def likeness(self, layer: str) -> int:
        """How many words at the end of its name are those of a layer's name."""
        name = self.node.get_friendly_name().removesuffix("_compressed").removesuffix(".weight")
        pairs = zip(re.split(r"[./]", name)[::-1], layer.split(".")[::-1], strict=False)
        count = 0
        for one, other in pairs:
            if one != other:
                break
            count += 1
        return count


def rewritten(source: ExportSource, folder: Path, exact: bool) -> GraphSet:
    """The graphs of an IR, with stand-ins for the layers to be quantized.

    InputError for a folder without one, or with one that has other weights. exact: see `check`.
    """
    check(source, folder, exact)
    graphs, layers = _matched(source.folder, folder, tuple(source.specs), _stamps(folder))
    return GraphSet(
        graphs=[graph.copy() for graph in graphs],
        shapes={name: layer.shape for name, layer in layers.items()},
        stored={},
        read=_unread,
        files=_beside(source.folder, folder),
    )


def check(source: ExportSource, folder: Path, exact: bool = False) -> None:
    """InputError for a folder without an IR, and for a model that needs none.

    exact: also for an IR that is known to compute otherwise than the scored model.
    """
    family = source.skeleton.family
    architecture = architecture_of(read_config(str(source.folder)))
    if family.stages:
        raise InputError(f"from: mmq writes {architecture} itself; export without --from")
    if not (folder / f"{LANGUAGE_MODEL}.xml").is_file():
        raise InputError(
            f"from: {folder} has no {LANGUAGE_MODEL}.xml; give the folder that "
            f"`{HOW} -m MODEL FOLDER` wrote"
        )
    written = _written_with(folder)
    is_shifted = written.startswith("4.") and major_version("transformers") >= 5
    if exact and architecture in SHIFTED and is_shifted:
        raise InputError(
            f"from: the IR was written with transformers {written}, which reads some patches of "
            f"{architecture} at a neighbour's position, and the model was scored with "
            f"{transformers.__version__}: their outputs differ. Give --precision fast to compare "
            f"scores instead of outputs, or score and export with transformers 4"
        )


def _written_with(folder: Path) -> str:
    """The version of transformers that an IR was written with; "" if unknown."""
    try:
        facts = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return ""
    return str(facts.get("transformers_version", "")) if isinstance(facts, dict) else ""


def all_files(source: ExportSource, folder: Path) -> Mapping[str, Path]:
    """The files of an IR, and what the checkpoint has in addition, by name."""
    check(source, folder)
    graphs = {path.name: path for path in sorted(folder.glob("openvino_*")) if path.is_file()}
    return {**_beside(source.folder, folder), **graphs}


def _stamps(folder: Path) -> tuple[tuple[str, int], ...]:
    return tuple((path.name, path.stat().st_mtime_ns) for path in sorted(folder.iterdir()))


def _unread(path: str) -> Tensor:
    raise RuntimeError(f"{path} is a constant of the IR")


def _beside(checkpoint: Path, folder: Path) -> Mapping[str, Path]:
    """The files beside the graphs: those of the IR, and what the checkpoint has in addition."""
    graphs = {f"{path.stem}{end}" for path in graph_files(folder) for end in (".xml", ".bin")}
    own = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    files = {name: path for name, path in own.items() if name not in graphs}
    return {CONFIG: checkpoint / CONFIG} | dict(side_files(checkpoint)) | files


@lru_cache(maxsize=1)  # planned once, then written: every weight was read for it
def _matched(
    checkpoint: Path, folder: Path, quantized: tuple[str, ...], stamps: object
) -> tuple[list[Graph], dict[str, Layer]]:
    """The graphs with stand-ins, and the layers that these stand for, by name."""
    model = skeleton(str(checkpoint))
    search = _Search(model, SourceCheckpoint.open(checkpoint, model), folder)
    search.match()
    return search.graphs, search.replaced(quantized)


@dataclass(slots=True)
class _Search:
    """The layers of a checkpoint in the graphs of an IR."""

    model: Skeleton
    checkpoint: SourceCheckpoint
    folder: Path
    graphs: list[Graph] = field(init=False)
    weights: list[IrWeight] = field(init=False)
    places: dict[str, list[IrWeight]] = field(default_factory=dict)  # candidates by layer

    def __post_init__(self) -> None:
        core = need("openvino", EXTRA).Core()
        self.graphs = [
            Graph(path.stem, core.read_model(path)) for path in graph_files(self.folder)
        ]
        self.weights = [weight for graph in self.graphs for weight in _weights(graph)]

    def layers(self) -> Iterator[Layer]:
        """All linear layers of the components."""
        for component in self.model.components.values():
            yield from component.layers

    def match(self) -> None:
        """Find the constants with the values of each layer."""
        by_shape: dict[tuple[int, ...], list[IrWeight]] = {}
        for weight in self.weights:
            by_shape.setdefault(weight.shape, []).append(weight)
        for layer in self.layers():
            tensor = self.checkpoint.weight(layer)
            candidates = by_shape.get(layer.shape, [])
            digests = {dtype: _digest(tensor, dtype) for dtype in {w.dtype for w in candidates}}
            equal = [w for w in candidates if w.digest == digests[w.dtype]]
            best = max((w.likeness(layer.name) for w in equal), default=0)
            self.places[layer.name] = [w for w in equal if w.likeness(layer.name) == best]

    def replaced(self, names: Iterable[str]) -> dict[str, Layer]:
        """Put stand-ins in the place of layers; InputError for one without a place of its own.

        Layers that are only copied must have a place, too: the IR may be of another model.
        """
        by_name = {layer.name: layer for layer in self.layers()}
        for name, layer in by_name.items():
            if not self.places[name]:
                self._check_unread(layer)
        owners: dict[IrWeight, str] = {}
        result: dict[str, Layer] = {}
        for number, name in enumerate(names, start=1):
            if not (places := self.places[name]):
                continue
            if len(places) > 1 or (other := owners.get(places[0])) is not None:
                raise InputError(
                    f"from: no name tells the constants of {name} and "
                    f"{'others' if len(places) > 1 else other} apart, whose values are equal; "
                    f"leave its part at 16 bits"
                )
            (place,) = places
            owners[place] = name
            result[name] = by_name[name]
            weight = stand_in(name, place.shape, number)
            for reader in place.readers:
                reader.replace_source_output(weight.output(0))
        return result

    def _check_unread(self, layer: Layer) -> None:
        """InputError unless the IR leaves out the whole block of a layer, as nothing reads it."""
        component = next(c for c in self.model.components.values() if layer in c.layers)
        block = [other for other in component.layers if other.block == layer.block]
        matched = {weight for places in self.places.values() for weight in places}
        others = [w for w in self.weights if w not in matched and w.shape == layer.shape]
        if not others and not any(self.places[other.name] for other in block):
            return
        kinds = {_kind(node) for graph in self.graphs for node in graph.model.get_ordered_ops()}
        if stored := [kind for kind in INTEGERS if kind in kinds]:
            raise InputError(
                f"from: the IR in {self.folder} is quantized ({', '.join(stored)}); write it with "
                f"`{HOW}`"
            )
        raise InputError(
            f"from: no constant of the IR in {self.folder} has the values of {layer.name}; is it "
            f"of the model in {self.checkpoint.folder}, with 16-bit weights?"
        )


def _digest(tensor: Tensor, dtype: torch.dtype) -> bytes:
    data = tensor.to(dtype).contiguous().reshape(-1).view(torch.uint8).numpy().data
    return blake2b(data, digest_size=16).digest()


def _kind(node: Any) -> str:
    """The type of a constant's matrix; "" for any other node."""
    if node.get_type_name() != "Constant" or len(node.get_output_shape(0)) < 2:
        return ""
    return str(node.get_element_type().get_type_name())


def _weights(graph: Graph) -> Iterator[IrWeight]:
    """The constants that only products read; InputError for a graph with others inside."""
    for node in graph.model.get_ordered_ops():
        if node.get_type_name() in NESTED:
            raise InputError(
                f"from: {graph.stem} has a graph inside it ({node.get_type_name()}), which mmq "
                f"cannot rewrite; use --target compressed-tensors, or --target gguf"
            )
        if _kind(node) in DTYPES and len(node.get_output_shape(0)) == 2:
            readers = list(_readers(node))
            if readers and all(_multiplies(reader) for reader in readers):
                yield IrWeight(graph, node, readers)


def _readers(node: Any) -> Iterator[Any]:
    """The inputs that read a node, by way of conversions to float32."""
    for reader in node.output(0).get_target_inputs():
        owner = reader.get_node()
        if owner.get_type_name() == "Convert":
            yield from owner.output(0).get_target_inputs()
        else:
            yield reader


def _multiplies(reader: Any) -> bool:
    """Whether it is the weight (out, in) of a product in float32."""
    owner = reader.get_node()
    return (
        owner.get_type_name() == "MatMul"
        and reader.get_index() == 1
        and bool(owner.get_attributes()["transpose_b"])
        and owner.get_element_type().get_type_name() == "f32"
    )
