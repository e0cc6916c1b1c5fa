"""Versions: of mmq's own computations, raised by hand when results change, and of packages."""

from importlib import import_module
from importlib.metadata import version

ROOMS = ("tensors", "quantization", "data", "models", "evaluation")  # change codes or scores


def room_versions(*rooms: str) -> dict[str, int]:
    """`VERSION` of these rooms of mmq; by default, of all that compute codes or scores.

    The keys of stored results include the versions of the rooms that they depend on. A test
    compares the source of these rooms with recorded hashes: see tests/test_identity.py.
    """
    return {room: import_module(f"mmq.{room}").VERSION for room in rooms or ROOMS}


def major_version(package: str) -> int:
    """The first number of an installed package's version."""
    return int(version(package).partition(".")[0])
