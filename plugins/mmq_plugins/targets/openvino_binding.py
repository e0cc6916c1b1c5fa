"""Weights of a traced graph: constants and the operations that dequantize them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmq.contracts.target import WeightSpec
from mmq_plugins.targets.openvino_storage import Constant, code_type, constants
from mmq_plugins.targets.openvino_tracing import WEIGHT, Graph

DIVIDED = "/divided"  # ends the name of what divides a layer's input by its input scale
ORDERED = "/ordered"  # ends the name of what reorders it
MIDDLE = "middle"  # the zero point of symmetric codes


def constant_name(path: str, part: str) -> str:
    """The name of a constant in a graph."""
    return f"{path}/{part}"


def bind(
    graph: Graph,
    specs: Mapping[str, WeightSpec],
    shapes: Mapping[str, tuple[int, int]],
    stored: Mapping[str, str],
) -> None:
    """Replace the stand-ins in a graph by constants without values, which are written later.

    specs: of quantized weights, by module. stored: the type of all others.
    """
    for path, stand_in in graph.weights.items():
        readers = stand_in.output(0).get_target_inputs()
        if (spec := specs.get(path)) is None:
            node = _plain(path, shapes[path], stored[path])
        else:
            node = _dequantized(path, spec, shapes[path])
            _change_inputs(path, spec, shapes[path], [r.get_node() for r in readers])
        node.set_friendly_name(f"{path}{WEIGHT}")
        for reader in readers:
            reader.replace_source_output(node.output(0))
    graph.model.validate_nodes_and_infer_types()


def unbound(
    path: str, spec: WeightSpec | None, shape: tuple[int, int], stored: str
) -> tuple[Constant, ...]:
    """The constants of a weight, in the order in which they are written."""
    return (Constant("plain", stored, shape),) if spec is None else constants(spec, shape)


def _without_values(path: str, constant: Constant) -> Any:
    import openvino as ov

    kind, shape = getattr(ov.Type, constant.type), ov.Shape(list(constant.shape))
    node = ov.op.Constant(ov.Tensor(kind, shape), True)
    node.set_friendly_name(constant_name(path, constant.part))
    return node


def _float32(node: Any) -> Any:
    import openvino as ov
    from openvino import opset13 as op

    return node if node.get_element_type() == ov.Type.f32 else op.convert(node, ov.Type.f32)


def _plain(path: str, shape: tuple[int, int], stored: str) -> Any:
    return _float32(_without_values(path, Constant("plain", stored, shape)))


def _dequantized(path: str, spec: WeightSpec, shape: tuple[int, int]) -> Any:
    """(codes - zero point) * scale in float32, as OpenVINO's kernels recognize it."""
    import openvino as ov
    from openvino import opset13 as op

    nodes = {c.part: _without_values(path, c) for c in constants(spec, shape)}
    if spec.symmetric:
        kind = getattr(ov.Type, code_type(spec.bits))
        middle = ov.op.Constant(kind, ov.Shape([]), [2 ** (spec.bits - 1)])
        middle.set_friendly_name(constant_name(path, MIDDLE))
        nodes["zero_point"] = middle
    centered = op.subtract(_float32(nodes["codes"]), _float32(nodes["zero_point"]))
    weight = op.multiply(centered, _float32(nodes["scale"]))
    if len(weight.get_output_partial_shape(0)) == 2:
        return weight
    return op.reshape(weight, np.array(shape, np.int64), False)


def _change_inputs(
    path: str, spec: WeightSpec, shape: tuple[int, int], products: Sequence[Any]
) -> None:
    """A layer's input, divided by its input scale and in the order of its groups."""
    from openvino import opset13 as op

    parts = {c.part: c for c in constants(spec, shape)}
    scale, order = (
        _without_values(path, parts[part]) if part in parts else None
        for part in ("input_scale", "order")
    )
    for number, product in enumerate(products):
        values = product.input_value(0)
        if scale is not None:
            values = op.divide(values, scale).output(0)
            values.get_node().set_friendly_name(f"{path}{DIVIDED}{number or ''}")
        if order is not None:
            values = op.gather(values, order, op.constant(np.int64(-1))).output(0)
            values.get_node().set_friendly_name(f"{path}{ORDERED}{number or ''}")
        product.input(0).replace_source_output(values)


def dequantizing(model: Any) -> Iterator[tuple[str, Any]]:
    """Layer names and graphs that give their dequantized weights, from a model that was read.

    The weight is (out, in), with inputs in the layer's own order and the input scale included.
    """
    import openvino as ov
    from openvino import opset13 as op

    nodes = {node.get_friendly_name(): node for node in model.get_ops()}
    for name, node in nodes.items():
        path = name.removesuffix(WEIGHT)
        if path == name or constant_name(path, "codes") not in nodes:
            continue
        weight = node
        if (ordered := nodes.get(f"{path}{ORDERED}")) is not None:
            order = np.argsort(ordered.input_value(1).get_node().data)
            weight = op.gather(weight, op.constant(order), op.constant(np.int64(1)))
        if (divided := nodes.get(f"{path}{DIVIDED}")) is not None:
            weight = op.divide(weight, divided.input_value(1).get_node())
        yield path, ov.Model([op.result(weight)], [], path)
