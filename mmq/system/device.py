"""The device and dtype that a command computes with."""

import re

import torch

from mmq.errors import InputError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def resolve_device(device: str, dtype: str) -> tuple[str, str]:
    """Resolve "auto"; InputError for a device or dtype that is not available."""
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
    if dtype == "auto":
        dtype = "float32" if device.startswith("cpu") else "float16"
    if dtype not in DTYPES:
        raise InputError(f"dtype: {dtype!r} is not one of {['auto', *DTYPES]}")
    return device, dtype


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
