"""A hash of the running source code: logged as provenance, never compared."""

import hashlib
import inspect
from functools import cache
from importlib import import_module


@cache
def source_hash(module: str) -> str:
    """A hash of a loaded module's source, cached at the first call: later edits do not run."""
    return hashlib.sha256(inspect.getsource(import_module(module)).encode()).hexdigest()
