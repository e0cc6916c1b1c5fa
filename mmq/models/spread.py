"""A model that fits on no device, spread over GPUs, CPU memory and disk by accelerate."""

import atexit
import re
import shutil
import tempfile
from importlib.util import find_spec
from typing import Any

from mmq.errors import InputError
from mmq.system.home import home

INSTALL = "pip install 'mmq[device-map]'"
UNITS = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
Memory = dict[int | str, int]  # bytes by GPU number, or by "cpu"


class Spread(str):
    """The device that a spread model reads its inputs on; families pass it on as a device.

    max_memory: bytes per device; what exceeds them goes to the next device, and last to disk.
    """

    __slots__ = ("max_memory",)
    max_memory: Memory | None

    @classmethod
    def of(cls, device: str, max_memory: Memory | None) -> "Spread":
        """A spread with the memory that each device may use."""
        self = cls(device)
        self.max_memory = max_memory
        return self

    def loading_options(self) -> dict[str, Any]:
        """The arguments of transformers' `from_pretrained`."""
        folder = tempfile.mkdtemp(prefix="offload-", dir=_offload_home())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        memory = {} if self.max_memory is None else {"max_memory": dict(self.max_memory)}
        return {"device_map": "auto", "offload_folder": folder, **memory}


def _offload_home() -> str:
    folder = home() / "offload"
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def resolve_placement(device_map: str, max_memory: str, device: str) -> str:
    """The device, or a spread over all of them; InputError for invalid options.

    device_map: "" for a single device, or auto. max_memory: like "0=20GiB,cpu=12GiB".
    """
    if device_map not in ("", "auto"):
        raise InputError(f"device_map: {device_map!r} is not valid; give auto, or nothing")
    if max_memory and not device_map:
        raise InputError("max_memory: only with --device-map auto, which decides where weights go")
    if not device_map:
        return device
    if find_spec("accelerate") is None:
        raise InputError(f"device_map: the package accelerate is not installed: {INSTALL}")
    return Spread.of(device, parse_memory(max_memory))


def parse_memory(text: str) -> Memory | None:
    """Bytes by device from "0=20GiB,cpu=12GiB"; None from "".

    >>> parse_memory("0=20GB,cpu=512MiB")
    {0: 20000000000, 'cpu': 536870912}
    """
    memory: Memory = {}
    for part in text.replace(",", " ").split():
        match = re.fullmatch(r"(cpu|\d+)=(\d+(?:\.\d+)?)([KMG]i?B)", part, re.IGNORECASE)
        if match is None:
            raise InputError(
                f"max_memory: {part!r} is not DEVICE=SIZE; write it like 0=20GiB,cpu=12GiB"
            )
        name, size, unit = match.groups()
        device = "cpu" if name.lower() == "cpu" else int(name)
        memory[device] = int(float(size) * UNITS[unit.upper()])
    return memory or None
