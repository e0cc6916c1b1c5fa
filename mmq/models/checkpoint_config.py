"""Reject a config.json with absurd sizes, unknown dtypes or quantized weights."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from mmq.errors import InputError

COUNTS = re.compile(r"(?!.*(feature|select|skip)).*(layers|depths?|blocks|experts|stages|heads"
                    r"|num_labels|(?<![a-z])n_layer|(?<![a-z])n_head)")  # fmt: skip
SIZES = re.compile(r".*(size|dim|width|channels|rank)")
POSITIVE = re.compile(r".*(hidden|intermediate|vocab|head|patch|image|embed|proj|num_|n_).*|depth")
MOST = 10_000  # maximum of any count
MOST_LAYERS = 1_000
MOST_EXPERTS = 100_000  # maximum experts of all layers together
LARGEST = 2**31
LARGEST_SIDE = 16_384  # pixels of a picture's side
SUBCONFIGS = ("text_config", "vision_config", "qformer_config", "llm_config")
QUANTIZED = ("quantization_config", "compression_config", "quantization", "quantize_config",
             "quant_config")  # fmt: skip
SIDE_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json",
              "quantization_config.json", "quanto_qmap.json", "qmodel.pt")  # fmt: skip
WIDTHS = (
    "bits",
    "w_bit",
    "wbits",
    "nbits",
    "num_bits",
    "weight_bits",
    "w_bits",
    "weight_num_bits",
)
METHODS = {"quant_method", "quant_algo", "quantization_method", "format"}
FULL_PRECISION = "give the full-precision checkpoint that it was made from"


def check_facts(path: Path, facts: Any) -> None:
    """InputError for a configuration that is quantized or describes no reasonable model."""
    if not isinstance(facts, dict):
        kind = type(facts).__name__
        raise InputError(f"model: {path} is a JSON {kind}, not an object")
    check_settings(path, facts)
    method = quantization_in(facts)
    if method:
        raise InputError(f"model: the checkpoint is quantized already ({method}, by {path}); "
                         f"{FULL_PRECISION}")  # fmt: skip
    largest: dict[str, int] = {}
    for place, key, value in entries(facts):
        where = f"model: {path}: {place}"
        if key in ("torch_dtype", "dtype") and not _is_dtype(value):
            raise InputError(f"{where}: {value!r} is not a dtype; write e.g. float32 or bfloat16")
        if key in SUBCONFIGS and not isinstance(value, dict | None):
            raise InputError(f"{where}: {value!r} is not an object")
        if COUNTS.fullmatch(key):
            _check_count(where, value, MOST_LAYERS if "layer" in key else MOST)
            if isinstance(value, int):
                kind = "experts" if "experts" in key else "layers" if "layers" in key else ""
                largest[kind] = max(largest.get(kind, 0), value)
        elif SIZES.fullmatch(key) and type(value) is int:
            _check_size(where, value, 0 if POSITIVE.fullmatch(key) else -LARGEST)
    if "transformers_weights" in facts:
        raise InputError(
            f"model: {path}: transformers_weights makes transformers load a file other than "
            f"model.safetensors; rename that file and remove the entry"
        )
    if largest.get("experts", 0) * largest.get("layers", 0) > MOST_EXPERTS:
        raise InputError(f"model: {path}: {largest['layers']} layers of {largest['experts']} "
                         f"experts are more than {MOST_EXPERTS} experts")  # fmt: skip


def check_filled(path: Path, facts: Mapping[str, Any], config: Any) -> None:
    """InputError for a null instead of a part that transformers replaced by its default.

    Models without a vision tower have one (Gemma 4 Unified).
    """
    for name in SUBCONFIGS:
        if facts.get(name, {}) is None and getattr(config, name, None) is not None:
            raise InputError(f"model: {path}: {name}: None is not an object")


def check_settings(path: Path, facts: Mapping[str, Any]) -> None:
    """InputError for a setting that would fail, or exhaust memory, at the first sample.

    facts: the content of any *config.json in a model's folder.
    """
    for place, key, value in entries(facts):
        where = f"model: {path}: {place}"
        if key in ("height", "width") and type(value) is int and not 0 < value <= LARGEST_SIDE:
            raise InputError(f"{where}: {value} is not from 1 to {LARGEST_SIDE} pixels")
        if key.endswith("_token_id") and value is not None:
            ids = value if isinstance(value, list) else [value]
            if not all(type(number) is int for number in ids):
                raise InputError(f"{where}: {value!r} is not a token id")
        if key.endswith("_eps") and not _is_number(value):
            raise InputError(f"{where}: {value!r} is not a finite number")
        if key in ("image_mean", "image_std") and value is not None:
            numbers = value if isinstance(value, list) else [value]
            spread = key == "image_mean" or 0 not in numbers
            if not spread or len(numbers) not in (1, 3) or not all(map(_is_number, numbers)):
                raise InputError(f"{where}: {value!r} is not one valid number per color channel")
        if key == "vision_feature_layer" and value is not None:
            layers = value if isinstance(value, list) else [value]
            if not layers or not all(type(layer) is int for layer in layers):
                raise InputError(f"{where}: {value!r} is not a layer number")
        if key == "architectures" and value is not None:
            names = value if isinstance(value, list) else [None]
            if not all(isinstance(name, str) for name in names):
                raise InputError(f"{where}: {value!r} is not a list of names")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _check_count(where: str, value: Any, most: int) -> None:
    if isinstance(value, str | float):
        raise InputError(f"{where}: {value!r} is not a whole number")
    numbers = value if isinstance(value, list) else [value]
    if len(numbers) > most:
        raise InputError(f"{where}: {len(numbers)} entries are more than {most}")
    for number in numbers:  # in a list they may be indices from the end
        least = 0 if number is value else -most
        if type(number) is int and not least <= number <= most:
            raise InputError(f"{where}: {number} is not a number from {least} to {most}")


def _check_size(where: str, value: int, least: int) -> None:
    if not least <= value < LARGEST:
        raise InputError(f"{where}: {value} is not a size from 0 to {LARGEST - 1}")


def _is_dtype(value: Any) -> bool:
    if value is None or value == "auto":
        return True
    return isinstance(value, str) and isinstance(getattr(torch, value, None), torch.dtype)


def entries(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Every entry of nested objects: its path like "text_config.bits", its key and its value."""
    waiting: list[tuple[str, Any]] = [("", facts)]
    while waiting:  # not recursive: a file may nest thousands of objects
        prefix, value = waiting.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                yield f"{prefix}{key}", key, inner
                waiting.append((f"{prefix}{key}.", inner))
        elif isinstance(value, list):
            waiting += [(prefix, inner) for inner in value if isinstance(inner, dict | list)]


def quantization_in(facts: Mapping[str, Any]) -> str:
    """Method and bits of any quantization in a configuration; "" if there is none."""
    for _, key, value in entries(facts):
        if key in QUANTIZED and value is not None and value is not False:
            return describe(value)
        if key in ("load_in_4bit", "load_in_8bit") and value:
            return f"bitsandbytes, {key[8]} bits"
        if key == "quant_method" and value:
            return str(value)
    return ""


def describe(value: Any) -> str:
    """The method and bits of a quantization config, like "awq, 4 bits".

    >>> describe({"quant_method": "gptq", "bits": 4})
    'gptq, 4 bits'
    """
    if not isinstance(value, dict):
        return str(value)[:40]
    if value.get("load_in_4bit") or value.get("load_in_8bit"):
        return f"bitsandbytes, {4 if value.get('load_in_4bit') else 8} bits"
    methods = [v for _, k, v in entries(value) if k in METHODS and v]
    widths = {v for _, k, v in entries(value) if k in WIDTHS and type(v) in (int, float)}
    method = str(value.get("quant_method") or next(iter(methods), "unknown method"))
    if not widths:
        texts = [method, str(value.get("weights", "")), *map(str, methods)]
        widths = {
            int(n) for text in texts for n in re.findall(r"(?:fp|int|uint|float|nf)(\d+)", text)
        }
    bits = " and ".join(f"{width:g}" for width in sorted(widths))
    return f"{method}, {bits} bits" if bits else method


def check_side_files(folder: Path) -> None:
    """InputError for a folder with files of a quantized checkpoint or an adapter."""
    for name in SIDE_FILES:
        if (folder / name).exists():
            raise InputError(
                f"model: the checkpoint is quantized already (it has {folder / name}); "
                f"{FULL_PRECISION}"
            )
    if (folder / "adapter_config.json").exists():
        raise InputError(
            f"model: {folder / 'adapter_config.json'} marks an adapter (e.g. LoRA): the loaded "
            f"weights would depend on the peft package. Merge it into its base model with "
            f"merge_and_unload(), save it with save_pretrained(), and give that folder"
        )
