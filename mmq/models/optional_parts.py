"""Parts outside transformer blocks that are quantized on request: `embed`, `projector`, `head`.

Token embeddings and output heads are tables, with a range per row. Linear layers that connect the
vision tower to the language model are quantized like those in blocks.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from mmq.allocation.parts import OPTIONAL
from mmq.errors import InputError, unknown
from mmq.models.components import Component, Layer
from mmq.tensors.matrices import Identity, Matrix, holders, matrices, with_twins

CONNECTING = {"connector", "resampler", "perceiver", "qformer", "projector", "abstractor",
              "merger", "projection", "aligner", "adapter"}  # fmt: skip
LEAST_ROWS = 0.5  # share of the input table's rows; smaller tables hold positions or token types


def parse_parts(text: str) -> tuple[str, ...]:
    """Parts from "embed,head"; InputError for an unknown one.

    >>> parse_parts("head, embed")
    ('embed', 'head')
    """
    names = text.replace(",", " ").split()
    for name in names:
        if name not in OPTIONAL:
            raise unknown("part", name, OPTIONAL)
    return tuple(name for name in OPTIONAL if name in names)


def named_parts(allocation: str) -> tuple[str, ...]:
    """The optional parts that an allocation names: naming one is requesting it.

    >>> named_parts("vit=4,embed=8")
    ('embed',)
    """
    words = re.split(r"[\s,=.]+", allocation)
    return tuple(name for name in OPTIONAL if name in words)


def with_parts(
    root: nn.Module, components: Mapping[str, Component], parts: Iterable[str]
) -> dict[str, Component]:
    """The components with the requested parts among them, in the order in which a model runs.

    InputError for a part that the model does not have.
    """
    parts = tuple(parts)
    identities = {layer.matrix.identity for c in components.values() for layer in c.layers}
    available = {"embed": _tables(root), "head": _head(root)}
    tables = {matrix.identity for matrix in available["embed"].values()}
    if any(matrix.identity in tables for matrix in available["head"].values()):
        if "head" in parts and "embed" not in parts:
            raise InputError(
                "parts: the output head shares its weights with the token embeddings; name "
                "embed, which includes both"
            )
        parts = tuple(name for name in parts if name != "head")
    own = {matrix.identity for layers in available.values() for matrix in layers.values()}
    available["projector"] = {
        name: matrix
        for name, matrix in _connecting(root, components).items()
        if matrix.identity not in own
    }
    owners = holders(root)
    extra = {
        name: {
            path: with_twins(m, owners) for path, m in _new(available[name], identities).items()
        }
        for name in parts
    }
    for name, layers in extra.items():
        if not layers:
            raise InputError(
                f"parts: {type(root).__name__} has no {name} to quantize; leave it out"
            )
    return _in_order(
        components, {name: _component(name, layers) for name, layers in extra.items()}
    )


def _connecting(root: nn.Module, components: Mapping[str, Component]) -> dict[str, Matrix]:
    """The linear layers outside blocks whose path names a connector, by name."""
    inside = tuple(f"{path}." for c in components.values() for path in c.paths)
    return {
        name: matrix
        for name, matrix in matrices(root)
        if not name.startswith(inside) and CONNECTING & set(re.split(r"[._]", name))
    }


def _in_order(
    components: Mapping[str, Component], extra: Mapping[str, Component]
) -> dict[str, Component]:
    names = [*components]
    place = names.index("llm") if "llm" in names else len(names)
    order = ["embed", *names[:place], "projector", *names[place:], "head"]
    together = {**components, **extra}
    return {name: together[name] for name in order if name in together}


def _component(name: str, by_path: Mapping[str, Matrix]) -> Component:
    """A component whose blocks are single modules."""
    layers = [Layer(path, k, "ff", matrix) for k, (path, matrix) in enumerate(by_path.items())]
    return Component(name, len(layers), tuple(layers), tuple(by_path), name != "projector")


def _new(available: Mapping[str, Matrix], identities: set[Identity]) -> dict[str, Matrix]:
    """The matrices whose weights are in no other layer; adds them to `identities`."""
    new: dict[str, Matrix] = {}
    for name, matrix in available.items():
        if matrix.identity not in identities:
            identities.add(matrix.identity)
            new[name] = matrix
    return new


def _tables(root: nn.Module) -> dict[str, Matrix]:
    """The token embeddings, those of single layers included, by name."""
    tables = {n: m for n, m in root.named_modules() if isinstance(m, nn.Embedding)}
    own = _ask(root, "get_input_embeddings")
    if not isinstance(own, nn.Embedding):
        own = max(tables.values(), key=lambda table: table.num_embeddings, default=None)
    if own is None:
        return {}
    least = own.num_embeddings * LEAST_ROWS
    return {n: Matrix(table) for n, table in tables.items() if table.num_embeddings >= least}


def _head(root: nn.Module) -> dict[str, Matrix]:
    """The layer that gives the logits of the next token, by name."""
    head = _ask(root, "get_output_embeddings")
    return {
        name: Matrix(module)
        for name, module in root.named_modules()
        if module is head and isinstance(module, nn.Linear)
    }


def _ask(root: Any, method: str) -> Any:
    """The result of a method of transformers' models; None where it is not implemented."""
    try:
        return getattr(root, method)()
    except (AttributeError, NotImplementedError):
        return None
