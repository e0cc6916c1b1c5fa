"""The device and the number format that a command computes with."""

import re

import torch

from mmq.errors import InputError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def resolve_device(device: str, dtype: str) -> tuple[str, str]:
    """The device and dtype that auto stands for here; InputError for one that is not there."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if re.fullmatch(r"cuda(:\d+)?", device):
        # only counted: a tensor there would take its share of the GPU from the workers
        count = torch.cuda.device_count()
        if int(device.partition(":")[2] or 0) >= count:
            raise InputError(f"device: {device!r} was given, but torch sees {count} GPUs")
    elif device != "cpu":
        check_device(device)
    if dtype == "auto":
        dtype = "float32" if device.startswith("cpu") else "float16"
    if dtype not in DTYPES:
        raise InputError(f"dtype: {dtype!r} is not one of {['auto', *DTYPES]}")
    return device, dtype


def check_device(device: str) -> None:
    """InputError for a device that torch does not know, or cannot compute on here."""
    import torch

    try:
        known = torch.device(device)
    except RuntimeError as error:
        raise InputError(
            f"device: {device!r} is not one of auto, cpu, cuda, cuda:1, mps, xpu and so on"
        ) from error
    try:
        torch.ones(1, device=known).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"device: torch cannot compute on {device!r} here ({reason})") from error
