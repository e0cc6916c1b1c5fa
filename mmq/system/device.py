"""The device and dtype that a command computes with."""

import re
from typing import Any

import torch

from mmq.errors import InputError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def resolve_device(device: str) -> str:
    """Resolve "auto"; InputError for a device that is not available."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if re.fullmatch(r"cuda(:\d+)?", device):
        # only count them: creating a tensor would take GPU memory from the workers
        count = torch.cuda.device_count()
        if int(device.partition(":")[2] or 0) >= count:
            raise InputError(f"device: {device!r} was given, but torch sees {count} GPUs")
    elif device != "cpu":
        check_device(device)
    return device


def check_dtype(dtype: str) -> None:
    """InputError for an unknown dtype."""
    if dtype not in ("auto", *DTYPES):
        raise InputError(f"dtype: {dtype!r} is not one of {['auto', *DTYPES]}")


def resolve_dtype(dtype: str, device: str, config: Any) -> str:
    """Resolve "auto" by a checkpoint's configuration.

    On a CPU, float16 becomes float32, which holds all of its values and is faster there. A
    configuration without a dtype: float32 on a CPU, else float16.
    """
    if dtype != "auto":
        return dtype
    on_cpu = device.startswith("cpu")
    stored = stored_dtype(config) or ("float32" if on_cpu else "float16")
    return "float32" if on_cpu and stored == "float16" else stored


def stored_dtype(config: Any) -> str:
    """The dtype that a configuration names, or that of its language model; "" if none is known."""
    for part in (config, getattr(config, "text_config", None)):
        for key in ("dtype", "torch_dtype"):
            name = str(getattr(part, key, None)).removeprefix("torch.")
            if name in DTYPES:
                return name
    return ""


def check_device(device: str) -> None:
    """InputError for a device that torch does not recognize or cannot use here."""
    import torch

    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise InputError(
            f"device: {device!r} is not a device; choose e.g. auto, cpu, cuda, cuda:1, mps or xpu"
        ) from error
    try:
        torch.ones(1, device=target).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"device: torch cannot compute on {device!r} here ({reason})") from error
