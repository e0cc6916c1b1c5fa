"""A user's 16-bit GGUF files as a layout: each quantized layer is found in them by its values.

Converters permute rows (Llama's q and k), split layers (q, k and v) and rename everything, but
they keep rows whole. So a layer is found by its rows: a tensor with the same rows in any order, or
several that share them out. Equal candidates are told apart by the names that gguf expects.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmq.errors import InputError
from mmq_plugins.targets.gguf_checkpoint import PartTensors, part_name
from mmq_plugins.targets.gguf_copied import check_copied
from mmq_plugins.targets.gguf_file import gguf_package
from mmq_plugins.targets.gguf_layout import MMPROJ, MODEL, Layout, Place
from mmq_plugins.targets.gguf_llava import CLS_FAULT
from mmq_plugins.targets.gguf_plain import PLAIN, PlainTensor, row_hashes

REWRITTEN = "The files were made from 16-bit GGUF files: only the weights of layers changed."
VISION = "clip"  # llama.cpp's name for the architecture of every vision file
COPIED = "gguf:"  # a source that is a tensor of the user's files, by file and name
PREFIXES = {  # prefixes of a model's parts in gguf's table of names
    "llm": ("model.",),
    "vit": (
        "visual.",
        "vision_tower.vision_model.encoder.",
        "vision_model.encoder.",
        "model.visual.",
    ),
}


def layout_from_pair(checkpoint: PartTensors, layers: Iterable[str], pair: str) -> Layout:
    """A layout with every tensor of the user's files; `layers` are those to be quantized.

    InputError for files that are not a 16-bit pair, and for a layer that is not found in them.
    """
    paths = _paths(pair)
    stamps = tuple((str(path), path.stat().st_mtime_ns) for path in paths)
    return _layout(checkpoint.folder, checkpoint.dtype, tuple(layers), stamps)


@lru_cache(maxsize=1)  # planned once, then written: every weight was read for it
def _layout(
    folder: Path, dtype: torch.dtype, layers: tuple[str, ...], stamps: tuple[tuple[str, int], ...]
) -> Layout:
    gguf = gguf_package()
    checkpoint = PartTensors.open(folder, str(dtype).removeprefix("torch."))
    readers = {
        file: gguf.GGUFReader(path)
        for file, (path, _) in zip((MODEL, MMPROJ), stamps, strict=True)
    }
    tensors = [
        PlainTensor(file, data) for file, reader in readers.items() for data in reader.tensors
    ]
    for tensor in tensors:
        if tensor.data.tensor_type.name not in PLAIN:
            raise InputError(
                f"from: {tensor.name} of {tensor.file} is quantized "
                f"({tensor.data.tensor_type.name}); give the files that llama.cpp's converter "
                f"writes with --outtype f16 or bf16"
            )
    _check_order(readers)
    places: dict[tuple[str, str], Place] = {}
    for layer in layers:
        for place in _find(layer, checkpoint, tensors, readers):
            if (place.file, place.name) in places:
                raise InputError(f"from: {place.name} holds {layer} and another layer")
            places[place.file, place.name] = place
    check_copied([t for t in tensors if (t.file, t.name) not in places], checkpoint)
    for tensor in tensors:
        source = f"{COPIED}{tensor.file}:{tensor.name}"
        full = tensor.dtype == torch.float32
        copied = Place(tensor.file, tensor.name, source, tensor.shape, full=full)
        places.setdefault((tensor.file, tensor.name), copied)
    by_source = {f"{COPIED}{t.file}:{t.name}": t for t in tensors}
    return Layout(
        places=tuple(places.values()),
        keys={file: _copied_keys(reader) for file, reader in readers.items()},
        read=lambda source: by_source[source].values(),
        bits=lambda source: by_source[source].dtype.itemsize * 8,
        notes=(REWRITTEN, *_faults(readers[MMPROJ])),
    )


def _check_order(readers: Mapping[str, Any]) -> None:
    """InputError unless the second file, and it alone, is a vision file."""
    vision = [
        file for file, reader in readers.items()
        if reader.fields["general.architecture"].contents() == VISION
    ]  # fmt: skip
    if vision != [MMPROJ]:
        raise InputError(
            "from: give the language model's file first and the vision file second, e.g. "
            "model-f16.gguf,mmproj-f16.gguf"
        )


def _faults(reader: Any) -> tuple[str, ...]:
    """Notes on what llama.cpp computes differently with such a file."""
    kind = reader.fields.get("clip.projector_type")
    class_token = any(tensor.name == "v.class_embd" for tensor in reader.tensors)
    return (CLS_FAULT,) if class_token and kind and kind.contents() == "mlp" else ()


def _paths(pair: str) -> list[Path]:
    paths = [Path(part.strip()) for part in pair.split(",")]
    if len(paths) != 2:
        raise InputError(f"from: {pair!r} is not a pair; write it like model.gguf,mmproj.gguf")
    for path in paths:
        if not path.is_file():
            raise InputError(
                f"from: {path} is not a file; give the two 16-bit GGUF files of a model"
            )
    return paths


def _find(
    layer: str,
    checkpoint: PartTensors,
    tensors: list[PlainTensor],
    readers: Mapping[str, Any],
) -> Iterator[Place]:
    """The tensors that hold a layer's rows; InputError for none, or for several candidates."""
    source = f"{part_name(layer)}.weight"
    weight = checkpoint.read(source)
    matching = [t for t in tensors if len(t.shape) == 2 and t.shape[1] == weight.shape[1]]
    hashes = {dtype: row_hashes(weight.to(dtype)) for dtype in {t.dtype for t in matching}}
    whole = [t for t in matching if _same_rows(t, hashes[t.dtype])]
    if len(whole) > 1:
        expected = _expected_names(source, readers)
        whole = [t for t in whole if t.name in expected]
        if len(whole) != 1:
            raise InputError(
                f"from: several tensors have the values of {layer}, and their names do not "
                f"distinguish them; leave its part at 16 bits"
            )
    holders = whole or [
        t for t in matching
        if t.shape[0] < len(weight) and bool(np.isin(t.rows, hashes[t.dtype]).all())
    ]  # fmt: skip
    covered = np.concatenate(
        [_order(t.rows, hashes[t.dtype]) for t in holders] or [np.empty(0, int)]
    )
    if sorted(covered) != list(range(len(weight))):
        raise InputError(
            f"from: no tensor of the GGUF files has the values of {layer}; give 16-bit files of "
            f"the model in {checkpoint.folder}"
        )
    for tensor in holders:
        order = _order(tensor.rows, hashes[tensor.dtype])
        in_place = len(order) == len(weight) and bool((order == np.arange(len(order))).all())
        yield Place(
            tensor.file, tensor.name, source, tensor.shape, rows=None if in_place else order
        )


def _same_rows(tensor: PlainTensor, hashes: np.ndarray) -> bool:
    if len(tensor.rows) != len(hashes) or tensor.rows.sum() != hashes.sum():  # quick
        return False
    return bool((np.sort(tensor.rows) == np.sort(hashes)).all())


def _order(rows: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """For each of these rows, the row of the layer that it is; equal ones in their order."""
    by_hash = np.argsort(hashes, kind="stable")
    first = np.searchsorted(hashes[by_hash], rows)
    order = np.argsort(rows, kind="stable")
    ranks = np.empty(len(rows), int)
    starts = np.searchsorted(rows[order], rows[order])
    ranks[order] = np.arange(len(rows)) - starts  # position among equal rows
    return np.asarray(by_hash[np.minimum(first + ranks, len(hashes) - 1)])


def _expected_names(source: str, readers: Mapping[str, Any]) -> set[str]:
    """What gguf calls a tensor, by its own tables of names of the files' architectures."""
    part, _, rest = source.partition(".")
    names = set()
    for file, reader in readers.items():
        kind = reader.fields["general.architecture"].contents()
        count = "clip.vision.block_count" if file == MMPROJ else f"{kind}.block_count"
        blocks = reader.fields[count].contents() if count in reader.fields else 0
        table = _table_of_names(kind, blocks)
        for prefix in PREFIXES.get(part, ()):
            if table is not None:
                names.add(table.get_name(prefix + rest, try_suffixes=(".weight",)))
    return names - {None}


@cache
def _table_of_names(architecture: str, blocks: int) -> Any:
    """The names that gguf expects, by those of transformers; None for an unknown architecture."""
    gguf = gguf_package()
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in kinds:
        return None
    return gguf.get_tensor_name_map(kinds[architecture], blocks)


def _copied_keys(reader: Any) -> Any:
    """A GGUFWriter with a file's metadata, but for what describes the types of its tensors."""
    gguf = gguf_package()
    keys = gguf.GGUFWriter(None, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        keys.add_key_value(name, field.contents(), field.types[0], sub_type=sub_type)
    return keys
