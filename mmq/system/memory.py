"""Memory that was freed goes back to the system."""

import ctypes
import functools
from collections.abc import Callable


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library than glibc
        return None
    return found


def trim() -> None:
    """Return what glibc keeps of freed tensors: gigabytes where caches of keys and values grew.

    Without it a model's peak while it is quantized is that of quantizing on top of what the
    evaluation before it left behind.
    """
    if (malloc_trim := _malloc_trim()) is not None:
        malloc_trim(0)
