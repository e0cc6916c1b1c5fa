"""A hash of the source that runs: provenance, which is logged and decides nothing."""

import hashlib
import inspect
from functools import cache
from importlib import import_module


@cache
def source_hash(module: str) -> str:
    """A hash of a loaded module's source, as it was when this process first asked for it.

    What is edited later is not what runs here.
    """
    return hashlib.sha256(inspect.getsource(import_module(module)).encode()).hexdigest()
