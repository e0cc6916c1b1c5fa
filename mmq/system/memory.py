"""Return freed memory to the system, and explain when there is not enough."""

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


def shortage(error: BaseException) -> str | None:
    """What to do about an error of too little memory; None for an error of another kind."""
    name, text = type(error).__name__, str(error)
    if not isinstance(error, MemoryError) and not (
        name == "OutOfMemoryError" or "can't allocate memory" in text  # torch's, GPU and CPU
    ):
        return None
    first = text.partition("\n")[0].rstrip(".") or name
    return (
        f"memory: there is not enough ({first}). Start fewer --workers on this machine, or load "
        f"the model with another --dtype or --device-map. Completed work is saved; the same "
        f"command resumes."
    )
