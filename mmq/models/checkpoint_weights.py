"""The tensors in a folder's weight files, from their headers: names, dtypes and shapes."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mmq.errors import InputError
from mmq.models.checkpoint_config import FULL_PRECISION
from mmq.models.checkpoint_files import INDEX, INERT_FILES, SINGLE, shard_names, weight_map
from mmq.system.regular_file import MIB, open_regular
from mmq.system.strict_json import parse_json

FLOATS = {"F64", "F32", "F16", "BF16"}  # dtypes of unquantized weights
LARGEST_HEADER = 100 * MIB  # as for safetensors
# names of packed or scaled weights in auto-gptq, autoawq, bitsandbytes and so on
PACKED = re.compile(
    r"(.*\.)?(qweight|qzeros|g_idx|weight_packed|weight_scale(_inv)?|weight_zero_point|SCB|absmax"
    r"|nested_absmax|quant_map|nested_quant_map|weight_format|W_q|codebooks|weight_blocks"
    r"|quant_state\..*|bitsandbytes__.*|_data|_scale|oweight|input_scale|weight_global_scale"
    r"|.*_proj_(blocks|scales))"
)
# buffers of older versions of transformers, which current ones compute themselves
HARMLESS = re.compile(
    r"(.*\.)?(inv_freq|original_inv_freq|position_ids|token_type_ids|masked_bias"
    r"|relative_position_index|num_batches_tracked)"
)
UNREAD = "--allow-unread-weights"
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file: the file's name, the dtype as safetensors writes it, and the shape."""

    file: str
    dtype: str
    shape: tuple[int, ...]


def first_names(names: Iterable[str]) -> str:
    """The first few of these names, sorted.

    >>> first_names(["a", "b", "c", "d"])
    'a, b, c, ...'
    """
    ordered = sorted(names)
    return ", ".join(ordered[:SHOWN]) + (", ..." if len(ordered) > SHOWN else "")


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors in a safetensors file; InputError if it is truncated or damaged."""
    broken = f"Model {str(path.parent)!r} cannot be loaded: {path.name}"
    with open_regular(path, "model") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LARGEST_HEADER):
            raise InputError(f"{broken} is truncated or not a safetensors file ({size} bytes)")
        text = file.read(length)
    try:
        facts = parse_json(text.decode().strip(), path, "model")
        facts.pop("__metadata__", None)
        tensors = {k: Stored(path.name, v["dtype"], tuple(v["shape"])) for k, v in facts.items()}
        end = max((int(v["data_offsets"][1]) for v in facts.values()), default=0)
        sizes = [math.prod(stored.shape) for stored in tensors.values()]
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise InputError(f"{broken} has a damaged header") from error
    if size < 8 + length + end:
        raise InputError(
            f"{broken} is truncated: it has {size} of {8 + length + end} bytes; download it again"
        )
    if any(count < 0 for count in sizes):
        raise InputError(f"{broken} has a damaged header")
    return tensors


def stored_weights(folder: Path) -> dict[str, Stored] | None:
    """All tensors that transformers reads from a folder's safetensors; None if it has none.

    InputError if an index and its shards contradict each other.
    """
    if (folder / SINGLE).exists():
        return read_header(folder / SINGLE)
    places = weight_map(folder)
    if not places:
        return None
    tensors: dict[str, Stored] = {}
    for name in shard_names(folder):
        # use the name in the index, which may lead to another folder
        header = {k: replace(s, file=name) for k, s in read_header(folder / name).items()}
        if repeated := tensors.keys() & header.keys():
            key = min(repeated)
            raise InputError(
                f"model: {folder}: {len(repeated)} tensors are in two shards, such as {key} in "
                f"{tensors[key].file} and {name}; remove one of each"
            )
        if missing := [k for k, file in places.items() if file == name and k not in header]:
            raise InputError(
                f"Model {str(folder)!r} cannot be loaded: {INDEX} lists {len(missing)} "
                f"tensors in {name} that it does not have, such as {first_names(missing)}; copy "
                f"or download that shard again"
            )
        tensors |= header
    return tensors


def check_stored(folder: Path, stored: Mapping[str, Stored], expected: Mapping[str, bool]) -> None:
    """InputError for weights that are stored as integers, float8 or packed codes.

    expected: the model's tensors, and whether each has a float dtype.
    """
    codes = {}
    for name, tensor in stored.items():
        not_float = tensor.dtype not in FLOATS
        weight = not_float and (expected.get(name, False) or name.endswith((".weight", ".bias")))
        mask = tensor.dtype in ("BOOL", "U8", "I64") and HARMLESS.fullmatch(name)
        causal = tensor.dtype in ("BOOL", "U8") and len(tensor.shape) == 4  # GPT-2's attn.bias
        low_precision = tensor.dtype.startswith(("F8_", "F4", "F6_"))
        packed = name not in expected and PACKED.fullmatch(name)
        if (weight or low_precision or packed) and not mask and not causal:
            codes[name] = tensor.dtype
    if codes:
        kinds = ", ".join(
            f"{count} as {dtype}" for dtype, count in Counter(codes.values()).items()
        )
        raise InputError(
            f"model: the checkpoint in {folder} is quantized already: it stores {kinds}, such as "
            f"{first_names(codes)}; {FULL_PRECISION}"
        )


def unread_files(folder: Path) -> list[str]:
    """Safetensors files that transformers does not read, and folders with adapters."""
    read = {SINGLE} if (folder / SINGLE).exists() else set(shard_names(folder))
    unread = [
        path.name
        for path in folder.glob("*.safetensors")
        if path.name not in read and not INERT_FILES.fullmatch(path.name)
    ]
    adapters = [
        f"{path.parent.name}/"
        for path in folder.glob("*/adapter_config.json")
        if not path.parent.name.startswith((".", "checkpoint-"))  # old checkpoints of a Trainer
    ]
    return sorted([*unread, *adapters])


def harmless(name: str, stored: Mapping[str, Stored]) -> bool:
    """Whether an unread tensor is a mask or table that models compute themselves."""
    return bool(HARMLESS.fullmatch(name)) or (name in stored and stored[name].dtype == "BOOL")
