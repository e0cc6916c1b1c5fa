"""The memory that this process can still allocate."""

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
FILES = (  # of control groups, version 2 and 1: limit, use, and the cached part of that
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory() -> int:
    """Bytes that this process can still allocate.

    Limited by the machine, by its control groups (containers, SLURM), and by `ulimit`.
    """
    of_machine: int = psutil.virtual_memory().available
    return max(0, min([of_machine, *_left_in_groups(), *_left_by_ulimit()]))


def _left_by_ulimit() -> Iterator[int]:
    used = psutil.Process().memory_info()
    data: int = getattr(used, "data", used.rss)  # of Linux alone
    for kind, size in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, data)):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            yield soft - size


def _left_in_groups() -> Iterator[int]:
    """What the control groups around this process have left; nothing where there are none."""
    for root, path in _groups():
        for folder in (root / path.lstrip("/"), *(root / path.lstrip("/")).parents):
            if not folder.is_relative_to(root):
                break
            for limit, usage, cache in FILES:
                with suppress(OSError, ValueError):  # "max", and files of the other version
                    size = int((folder / limit).read_text())
                    lines = (folder / "memory.stat").read_text().splitlines()
                    cached = dict(line.split() for line in lines).get(cache, 0)
                    yield size - int((folder / usage).read_text()) + int(cached)


def _groups() -> Iterator[tuple[Path, str]]:
    """The root of a hierarchy of control groups, and the path of this process in it."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield CGROUPS, path
            elif "memory" in controllers.split(","):
                yield CGROUPS / "memory", path
