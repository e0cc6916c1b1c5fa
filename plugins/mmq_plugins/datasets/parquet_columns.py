"""The columns of a parquet file: which of its leaves are read, and what their cells are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmq.data.parquet_images import open_parquet
from mmq.data.text_images import is_encoded

NESTED = 3  # levels of objects in objects that are columns


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is read.

    top: the file's own column. leaf: the dotted name of what is read, "" for nothing. kind:
    "text", "picture" or "pictures". content: the leaf with the pictures' bytes. keys: of a value
    inside the objects of `top`.
    """

    name: str
    top: str
    leaf: str
    kind: str
    content: str = ""
    keys: tuple[str, ...] = ()


def columns_of(path: Path) -> tuple[str, ...]:
    """The names of a file's columns; only its footer is read."""
    return tuple(open_parquet(path).schema_arrow.names)


def inner_columns_of(path: Path) -> tuple[str, ...]:
    """The names of a file's columns; of one with objects, its keys behind a dot."""
    schema = open_parquet(path).schema_arrow
    return tuple(leaf for field in schema for leaf in _leaves(field.name, field.type))


def _leaves(name: str, kind: Any, depth: int = NESTED) -> Iterator[str]:
    from pyarrow import types

    element = _element(kind)
    names = _keys(element)
    # VQAv2's answers are objects with more than the answer
    is_whole = "bytes" in names or (element is not kind and "answer" in names)
    if not types.is_struct(element) or is_whole or not depth:
        yield name
        return
    for key in names:
        yield from _leaves(f"{name}.{key}", element.field(key).type, depth - 1)


def column_of(file: Any, name: str, encoded: bool) -> Column:
    """How a column is read, by its type. encoded: its texts may be pictures."""
    from pyarrow import types

    if name not in file.schema_arrow.names:
        return _inner_column(file, name)
    kind = file.schema_arrow.field(name).type
    element = _element(kind)
    is_list = element is not kind
    if types.is_struct(element):
        return _struct_column(file, name, element, is_list)
    if _is_binary(element):
        return Column(
            name, name, name if is_list else "", "pictures" if is_list else "picture", name
        )
    if encoded and _is_text(kind):
        first = _first(file, name)
        if isinstance(first, str) and is_encoded(first):
            return Column(name, name, "", "picture", name)
    return Column(name, name, name, "text")


def _inner_column(file: Any, name: str) -> Column:
    """The column of a value inside objects, or in lists of them."""
    own = file.schema_arrow.names
    top = next(text for k in _dots(name) if (text := name[:k]) in own)
    keys = tuple(name[len(top) + 1 :].split("."))
    leaf, kind = top, file.schema_arrow.field(top).type
    for key in keys:
        if _element(kind) is not kind:
            break  # names of the levels of a list depend on what wrote the file
        leaf, kind = f"{leaf}.{key}", kind.field(key).type
    return Column(name, top, leaf, "text", keys=keys)


def _dots(name: str) -> Iterator[int]:
    return (k for k, character in enumerate(name) if character == ".")


def _struct_column(file: Any, name: str, element: Any, is_list: bool) -> Column:
    from pyarrow import types

    leaves = [
        path
        for k in range(len(file.schema))
        if (path := file.schema.column(k).path) == name or path.startswith(f"{name}.")
    ]
    ends = {path.rpartition(".")[2]: path for path in leaves}
    names = _keys(element)
    if "bytes" in names:
        # a column of nothing but null has no leaf that can be read alone
        paths = "path" in names and not types.is_null(element.field("path").type)
        leaf = ends["path"] if paths else (ends["bytes"] if is_list else "")
        return Column(name, name, leaf, "pictures" if is_list else "picture", name)
    if is_list and "answer" in names:
        return Column(name, name, ends["answer"], "text")
    return Column(name, name, name, "text")


def _first(file: Any, name: str) -> Any:
    """The first value of a column."""
    for batch in file.iter_batches(batch_size=1, columns=[name], use_threads=False):
        return batch.column(0)[0].as_py()
    return None


def _element(kind: Any) -> Any:
    """The type of a list's elements; of anything else, the type itself."""
    from pyarrow import types

    lists = (
        types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view,
        types.is_large_list_view,
    )  # fmt: skip
    return kind.value_type if any(is_kind(kind) for is_kind in lists) else kind


def _keys(kind: Any) -> list[str]:
    from pyarrow import types

    return [kind.field(k).name for k in range(kind.num_fields)] if types.is_struct(kind) else []


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def inner_value(value: Any, keys: Sequence[str]) -> Any:
    """The value at these keys; of a list of objects, one per object.

    >>> inner_value([{"raw": "a cat"}, {"raw": "a dog"}], ["raw"])
    ['a cat', 'a dog']
    """
    if not keys:
        return value
    if isinstance(value, list):
        return [inner_value(item, keys) for item in value]
    return inner_value(value.get(keys[0]), keys[1:]) if isinstance(value, dict) else None


def plain_values(cells: Any) -> list[Any]:
    """The cells as Python values; 0.1 in 32 bits is 0.1."""
    values: list[Any] = cells.to_pylist()
    shorten = _shortening(cells.type)
    return values if shorten is None else [shorten(value) for value in values]


def _shortening(kind: Any) -> Callable[[Any], Any] | None:
    """Replaces floats by the shortest that are stored the same in fewer bits; None without any."""
    from pyarrow import types

    if types.is_float32(kind) or types.is_float16(kind):
        precision = np.float32 if types.is_float32(kind) else np.float16
        return lambda value: None if value is None else float(str(precision(value)))
    if (element := _element(kind)) is not kind and (inner := _shortening(element)) is not None:
        return lambda value: None if value is None else [inner(item) for item in value]
    by_key = {key: own for key in _keys(kind) if (own := _shortening(kind.field(key).type))}
    if not by_key:
        return None

    def shorten(value: Any) -> Any:
        return None if value is None else value | {k: own(value[k]) for k, own in by_key.items()}

    return shorten
