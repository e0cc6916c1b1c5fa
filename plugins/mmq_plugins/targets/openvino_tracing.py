"""Traces modules of PyTorch into OpenVINO's graphs, with stand-ins for their large weights."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmq.export.targets import need
from mmq.models.transformers_loading import quietly

EXTRA = "openvino"
WEIGHT = "/weight"  # ends the name of a large weight in a graph


@dataclass(frozen=True, slots=True)
class Graph:
    """A traced graph, for files of this stem. model: an openvino.Model."""

    stem: str
    model: Any

    @property
    def weights(self) -> dict[str, Any]:
        """The nodes that stand for large weights, by path of their modules."""
        constants = {
            node.get_friendly_name().removesuffix(WEIGHT): node
            for node in self.model.get_ordered_ops()
            if node.get_type_name() == "Constant" and node.get_friendly_name().endswith(WEIGHT)
        }
        return {
            path: next(iter(node.output(0).get_target_inputs())).get_node()
            for path, node in constants.items()
        }

    def copy(self) -> "Graph":
        """The same graph, to be changed."""
        return Graph(self.stem, self.model.clone())


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a graph: an example, and its shape with -1 for any length.

    The example has two rows or more: a length of one would become a constant.
    """

    name: str
    example: Tensor
    shape: tuple[int, ...]


class Called(nn.Module):
    """A function of tensors as a module. modules: what it calls, so that it can be replaced."""

    def __init__(self, function: Callable[..., Any], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.called = function, nn.ModuleList(modules)

    def forward(self, *values: Tensor) -> Any:
        """Call it."""
        return self.function(*values)


def trace(
    stem: str,
    called: Called,
    inputs: Sequence[Input],
    outputs: Sequence[str],
    large: Mapping[str, nn.Module],
) -> Graph:
    """The graph of a function. large: modules by path whose weights are not in memory."""
    places: dict[str, Any] = {}
    extensions = [
        _extensions(number, path, layer, places)
        for number, (path, layer) in enumerate(large.items(), start=1)
    ]
    with quietly(), _without_warnings(), torch.no_grad():
        model = _converted(called, inputs, extensions)
    for port, one in zip(model.inputs, inputs, strict=True):
        port.get_tensor().set_names({one.name})
        port.get_node().set_friendly_name(one.name)
    for port, name in zip(model.outputs, outputs, strict=True):
        port.get_tensor().set_names({name})
    return Graph(stem, model)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """The tracer warns of every length that a model compares; tests compare the outputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _converted(
    module: nn.Module, inputs: Sequence[Input], extensions: Sequence[tuple[Any, Any]]
) -> Any:
    """Trace and convert a module. `ov.convert_model` would also start a process for telemetry."""
    ov = need("openvino", EXTRA)
    from openvino._offline_transformations import apply_moc_transformations
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    frontend = FrontEndManager().load_by_framework("pytorch")
    for _, conversion in extensions:
        frontend.add_extension(conversion)
    decoder = TorchScriptPythonDecoder(
        module,
        example_input=tuple(one.example for one in inputs),
        module_extensions={extension.module: extension for extension, _ in extensions},
        trace_kwargs={"check_trace": False},  # it would trace twice
    )
    traced = frontend.load(decoder)
    for index, one in enumerate(inputs):
        place = traced.get_place_by_input_index(index)
        traced.set_partial_shape(place, ov.PartialShape(list(one.shape)))
    model = frontend.convert(traced)
    apply_moc_transformations(model, cf=False)
    return model


def _extensions(number: int, path: str, layer: Any, places: dict[str, Any]) -> tuple[Any, Any]:
    """Extensions that trace a layer as one operation, and convert it with a stand-in.

    number: of the operation, the same in every graph, because layers stay patched.
    """
    from openvino.frontend.pytorch import ConversionExtension, ModuleExtension

    def call(layer: Any, operation: Callable[..., Any], *values: Any, **options: Any) -> Any:
        return operation(*values)

    def convert(context: Any) -> list[Any]:
        if path not in places:
            places[path] = stand_in(path, tuple(layer.weight.shape), number)
        return [_applied(layer, context.get_input(0), places[path]).output(0)]

    operation = f"mmq::{number}"
    return (
        ModuleExtension(layer, operation, _zeros, call),
        ConversionExtension(operation, convert),
    )


def _zeros(layer: Any, values: Tensor) -> Tensor:
    """An output of the right shape: what is traced does not depend on values."""
    if isinstance(layer, nn.Embedding):
        return torch.zeros(*values.shape, layer.embedding_dim)
    return values.new_zeros(*values.shape[:-1], layer.out_features)


def stand_in(path: str, shape: tuple[int, ...], number: int) -> Any:
    """A stand-in for a weight: memory that is not touched, in a type that is not folded.

    Its first bytes are unique: equal constants would be merged.
    """
    import openvino as ov
    from openvino import opset13 as op

    tensor = ov.Tensor(ov.Type.f16, ov.Shape(list(shape)))
    tensor.data.reshape(-1)[:4] = np.frombuffer(np.int64(number).tobytes(), np.float16)
    constant = ov.op.Constant(tensor, True)
    constant.set_friendly_name(f"{path}{WEIGHT}")
    return op.convert(constant, ov.Type.f32)


def _applied(layer: Any, values: Any, weight: Any) -> Any:
    from openvino import opset13 as op

    if isinstance(layer, nn.Embedding):
        return op.gather(weight, values, op.constant(np.int64(0)))
    product = op.matmul(values, weight, False, True)
    if layer.bias is None:
        return product
    return op.add(product, op.constant(layer.bias.detach().numpy()))


def joined(stem: str, graphs: Sequence[Graph]) -> Graph:
    """One graph of several, with weights and inputs of the same names shared."""
    import openvino as ov

    inputs: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for graph in graphs:
        parameters = {node.get_friendly_name(): node for node in graph.model.get_parameters()}
        for own, shared in ((parameters, inputs), (graph.weights, weights)):
            for name, node in own.items():
                first = shared.setdefault(name, node)
                if first is not node:
                    for reader in node.output(0).get_target_inputs():
                        reader.replace_source_output(first.output(0))
    results = [result for graph in graphs for result in graph.model.get_results()]
    return Graph(stem, ov.Model(results, list(inputs.values()), stem))
