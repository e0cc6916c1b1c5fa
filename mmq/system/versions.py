"""Versions of mmq's own computations, raised by hand when their results change."""

from importlib import import_module

ROOMS = ("tensors", "quantization", "data", "models", "evaluation")  # change codes or scores


def room_versions(*rooms: str) -> dict[str, int]:
    """`VERSION` of these rooms of mmq; by default, of all that compute codes or scores.

    The keys of stored results include the versions of the rooms that they depend on. A test
    compares the source of these rooms with recorded hashes: see tests/test_identity.py.
    """
    return {room: import_module(f"mmq.{room}").VERSION for room in rooms or ROOMS}
