"""Return freed memory to the system."""

import ctypes
import functools
from collections.abc import Callable


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        function: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library than glibc
        return None
    return function


def trim() -> None:
    """Return freed tensors that glibc holds on to: gigabytes after large key-value caches.

    Without it, the peak of quantizing comes on top of memory left over from the last evaluation.
    """
    if (malloc_trim := _malloc_trim()) is not None:
        malloc_trim(0)
