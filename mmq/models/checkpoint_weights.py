"""What the weight files of a folder hold, from their headers: names, types, shapes, no values."""

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

FLOATS = {"F64", "F32", "F16", "BF16"}  # what weights are computed from
LARGEST_HEADER = 100 * MIB  # as for safetensors
# names that only packed or scaled weights have, in auto-gptq, autoawq, bitsandbytes and so on
PACKED = re.compile(
    r"(.*\.)?(qweight|qzeros|g_idx|weight_packed|weight_scale(_inv)?|weight_zero_point|SCB|absmax"
    r"|nested_absmax|quant_map|nested_quant_map|weight_format|W_q|codebooks|weight_blocks"
    r"|quant_state\..*|bitsandbytes__.*|_data|_scale|oweight|input_scale|weight_global_scale"
    r"|.*_proj_(blocks|scales))"
)
# buffers of older versions of transformers, made anew by those of today
HARMLESS = re.compile(
    r"(.*\.)?(inv_freq|original_inv_freq|position_ids|token_type_ids|masked_bias"
    r"|relative_position_index|num_batches_tracked)"
)
UNREAD = "--allow-unread-weights"
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file: the file's name, its dtype as safetensors writes it, its shape."""

    file: str
    dtype: str
    shape: tuple[int, ...]


def named(names: Iterable[str]) -> str:
    """The first few of these names.

    >>> named(["a", "b", "c", "d"])
    'a, b, c, ...'
    """
    found = sorted(names)
    return ", ".join(found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors that a safetensors file names; InputError for a file that is cut or damaged."""
    broken = f"Model {str(path.parent)!r} cannot be loaded: {path.name}"
    with open_regular(path, "model") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LARGEST_HEADER):
            raise InputError(f"{broken} is cut or no safetensors file ({size} bytes)")
        text = file.read(length)
    try:
        facts = parse_json(text.decode().strip(), path, "model")
        facts.pop("__metadata__", None)
        found = {k: Stored(path.name, v["dtype"], tuple(v["shape"])) for k, v in facts.items()}
        end = max((int(v["data_offsets"][1]) for v in facts.values()), default=0)
        sizes = [math.prod(stored.shape) for stored in found.values()]
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise InputError(f"{broken} has a damaged header") from error
    if size < 8 + length + end:
        raise InputError(
            f"{broken} is cut: it has {size} of {8 + length + end} bytes; download it again"
        )
    if any(count < 0 for count in sizes):
        raise InputError(f"{broken} has a damaged header")
    return found


def stored_weights(folder: Path) -> dict[str, Stored] | None:
    """All tensors that transformers reads from a folder's safetensors; None where it has none.

    InputError for an index and shards that contradict each other.
    """
    if (folder / SINGLE).exists():
        return read_header(folder / SINGLE)
    places = weight_map(folder)
    if not places:
        return None
    found: dict[str, Stored] = {}
    for name in shard_names(folder):
        # by the name that the index has, which may lead to another folder
        header = {k: replace(s, file=name) for k, s in read_header(folder / name).items()}
        if twice := found.keys() & header.keys():
            key = min(twice)
            raise InputError(
                f"model: {folder}: {len(twice)} tensors are in two shards, such as {key} in "
                f"{found[key].file} and {name}; remove one of each"
            )
        if lacking := [k for k, file in places.items() if file == name and k not in header]:
            raise InputError(
                f"Model {str(folder)!r} cannot be loaded: {INDEX} says that {name} holds "
                f"{len(lacking)} tensors which it lacks, such as {named(lacking)}; copy or "
                f"download that shard again"
            )
        found |= header
    return found


def check_stored(folder: Path, stored: Mapping[str, Stored], expected: Mapping[str, bool]) -> None:
    """InputError for weights that are stored as integers, float8 or packed codes.

    expected: the model's own tensors, each with whether it is a floating one.
    """
    codes = {}
    for name, tensor in stored.items():
        low = tensor.dtype not in FLOATS
        weight = low and (expected.get(name, False) or name.endswith((".weight", ".bias")))
        mask = tensor.dtype in ("BOOL", "U8", "I64") and HARMLESS.fullmatch(name)
        causal = tensor.dtype in ("BOOL", "U8") and len(tensor.shape) == 4  # GPT-2's attn.bias
        eight = tensor.dtype.startswith(("F8_", "F4", "F6_"))
        packed = name not in expected and PACKED.fullmatch(name)
        if (weight or eight or packed) and not mask and not causal:
            codes[name] = tensor.dtype
    if codes:
        kinds = ", ".join(
            f"{count} as {dtype}" for dtype, count in Counter(codes.values()).items()
        )
        raise InputError(
            f"model: the checkpoint in {folder} is quantized already: it stores {kinds}, such as "
            f"{named(codes)}; {FULL_PRECISION}"
        )


def unread_files(folder: Path) -> list[str]:
    """Safetensors files that transformers does not read, and adapters in folders inside."""
    read = {SINGLE} if (folder / SINGLE).exists() else set(shard_names(folder))
    beside = [
        path.name
        for path in folder.glob("*.safetensors")
        if path.name not in read and not INERT_FILES.fullmatch(path.name)
    ]
    adapters = [
        f"{path.parent.name}/"
        for path in folder.glob("*/adapter_config.json")
        if not path.parent.name.startswith((".", "checkpoint-"))  # those of a Trainer are old
    ]
    return sorted([*beside, *adapters])


def harmless(name: str, stored: Mapping[str, Stored]) -> bool:
    """Whether a tensor that nothing reads is a mask or a table that models compute themselves."""
    return bool(HARMLESS.fullmatch(name)) or (name in stored and stored[name].dtype == "BOOL")
