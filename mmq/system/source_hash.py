"""The code that a result depends on, as a hash."""

import hashlib
import inspect
from functools import cache
from importlib import import_module


@cache
def code_hash(module: str) -> str:
    """A hash of a loaded module's source, as it was when this process first asked for it.

    What is edited later is not what runs here.
    """
    return hashlib.sha256(inspect.getsource(import_module(module)).encode()).hexdigest()
