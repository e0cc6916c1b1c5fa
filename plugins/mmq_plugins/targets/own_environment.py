"""Engines in environments of their own, whose packages clash with mmq's, and processes in them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import IO, Any

from mmq.errors import InputError
from mmq.system.piped_process import piped_process
from mmq.system.variables import variables

TIMEOUT = 300  # seconds, for an import on a busy machine
VERSION = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
SHOWN = 600  # characters of an engine's log in an error


def find_python(variable: str, package: str, example: str) -> str:
    """The Python that has a package; "" if none has.

    It is the one that an environment variable names, else this one. InputError if that is not
    there. example: of its value.
    """
    python = os.environ.get(variable, "")
    if not python:
        return sys.executable if _has(package) else ""
    if not os.access(python, os.X_OK):
        raise InputError(
            f"{variable}: {python} is not an executable; give the Python that {package} is "
            f"installed for, e.g. {example}"
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


@dataclass(slots=True)
class EngineProcess:
    """A process with an engine: one line of JSON in, one out. name: of the engine, in errors."""

    name: str
    process: subprocess.Popen[str]
    log: IO[str]

    def ask(self, body: Any) -> dict[str, Any]:
        """The reply to a request; InputError with the engine's reason if there is none."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(body) + "\n")
            self.process.stdin.flush()
            answer = self.read()
        except (OSError, EOFError) as error:
            raise InputError(f"{self.name} ended: {tail(self.log)}") from error
        if "error" in answer:
            raise InputError(f"{self.name} cannot answer: {answer['error'][:SHOWN]}")
        return answer

    def read(self) -> dict[str, Any]:
        """The next line; EOFError if the process ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise EOFError
        answer: dict[str, Any] = json.loads(line)
        return answer


def tail(log: IO[str]) -> str:
    """The last errors in an engine's log, or else its last lines."""
    log.seek(0)
    lines = [line.strip() for line in log.read().splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return "; ".join(errors[-3:])[-SHOWN:] or "\n".join(lines)[-SHOWN:] or "it wrote nothing"


@contextmanager
def engine_process(name: str, command: Sequence[str], what: str) -> Iterator[EngineProcess]:
    """A process that has opened a model and said so in its first line; it ends with the context.

    InputError, with the engine's reason, if it does not load `what`.
    """
    with piped_process(command, clean_variables()) as (process, log):
        try:
            engine = EngineProcess(name, process, log)
            try:
                engine.read()
            except EOFError as error:
                raise InputError(f"{name} cannot load {what}: {tail(log)}") from error
            yield engine
        finally:
            process.kill()
