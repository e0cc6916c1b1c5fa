"""The versions of mmq's own computations: raised by hand when their results change."""

from importlib import import_module

ROOMS = ("tensors", "quantization", "data", "models", "evaluation")  # that change codes or scores


def room_versions(*rooms: str) -> dict[str, int]:
    """`VERSION` of these rooms of mmq, of all that compute codes or scores if none is named.

    Whatever is stored under a key counts the versions of the rooms that it depends on. A test
    holds the source of these rooms against recorded hashes: see tests/test_identity.py.
    """
    return {room: import_module(f"mmq.{room}").VERSION for room in rooms or ROOMS}
