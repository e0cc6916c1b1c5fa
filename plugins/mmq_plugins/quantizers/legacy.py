"""The solvers of auto_gptq and autoawq, imported without the rest of their packages.

Both packages are unmaintained: importing them runs `__init__` files that need parts of
transformers that version 5 no longer has. The solvers need none of these. Their modules are
imported from their installed location, with empty packages in place of the `__init__` files.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from threading import RLock
from typing import Any

from mmq.errors import InputError

_lock = RLock()  # sys.modules belongs to the process
INSTALL = "pip install 'mmq[legacy]'"


def check_installed(package: str) -> None:
    """InputError, with the extra that installs it, if a package is missing."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"The package {package} is not installed. Install it with: {INSTALL}")


@cache
def load_solver(module: str) -> Any:
    """A module of a package without its `__init__`; InputError if the import fails.

    module: its full name, such as auto_gptq.quantization.gptq.
    """
    package = module.partition(".")[0]
    check_installed(package)
    spec = find_spec(package)
    assert spec is not None
    with _lock, _hidden(package):
        bare = module_from_spec(spec)  # has its path; its __init__ does not run
        sys.modules[package] = bare
        try:
            return import_module(module)
        except Exception as error:  # a third-party module can raise anything
            raise InputError(
                f"{module} cannot be imported here ({type(error).__name__}: {error}). It works "
                f"with the versions of constraints.txt: {INSTALL} --constraint constraints.txt"
            ) from error


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Hide the imported modules of a package, and restore them at the end."""

    def imported() -> list[str]:
        return [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]

    before = {name: sys.modules.pop(name) for name in imported()}
    try:
        yield
    finally:
        for name in imported():
            del sys.modules[name]
        sys.modules.update(before)
