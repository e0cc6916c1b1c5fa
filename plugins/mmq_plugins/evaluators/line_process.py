"""A child process that answers lines with lines; every wait has a timeout."""

import os
import selectors
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

LONGEST_REPORT = 400  # characters of a child's stderr in an error
GRACE = 5  # seconds to wait for the exit code of a child that closed its output


class ChildError(RuntimeError):
    """A child process exited, timed out or gave an invalid answer."""


class LineProcess:
    """A child that is sent a line and answers with one; it never outlives this object.

    Not thread-safe. An error or a signal during an exchange ends the child: a partial answer
    would be read as the next one.
    """

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the child)
        self._rest = b""
        self._process = subprocess.Popen(
            command, cwd=folder, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # mmq handles a terminal's Ctrl-C
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._end = weakref.finalize(self, _end, self._process, self._errors)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child accepts a line."""
        return self._end.alive and self._process.poll() is None

    def ask(self, line: str, timeout: float, answers: int = 1) -> list[str]:
        """Send a line and read `answers` lines; ChildError if they do not arrive in time."""
        if "\n" in line or "\r" in line:
            raise ValueError(f"{line!r} is not one line")
        try:
            return self._exchange(line.encode("utf-8") + b"\n", answers, timeout)
        except BaseException:
            self.close()
            raise

    def _exchange(self, data: bytes, answers: int, timeout: float) -> list[str]:
        until = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            selector.register(self._in, selectors.EVENT_WRITE)
            while self._rest.count(b"\n") < answers:
                left = until - time.monotonic()
                if left <= 0:
                    raise ChildError(f"it did not answer within {timeout:g} s{self._report()}")
                for key, _ in selector.select(left):
                    if key.fd == self._in:
                        data = self._write(data)
                        if not data:
                            selector.unregister(self._in)
                    else:
                        self._read()
        *lines, self._rest = self._rest.split(b"\n", answers)
        return [line.decode("utf-8", errors="replace") for line in lines]

    def _write(self, data: bytes) -> bytes:
        """Write what fits; returns the rest."""
        try:
            return data[os.write(self._in, data[:65536]) :]
        except BrokenPipeError as error:
            raise ChildError(self._how_it_ended()) from error

    def _read(self) -> None:
        data = os.read(self._out, 65536)
        if not data:
            raise ChildError(self._how_it_ended())
        self._rest += data

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return f"it closed its output{self._report()}"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"it ended with {how}{self._report()}"

    def _report(self) -> str:
        """The beginning of the child's stderr."""
        self._errors.seek(0)
        words = self._errors.read(100_000).decode("utf-8", errors="replace").split()
        return f": {' '.join(words)[:LONGEST_REPORT]}" if words else ""

    def close(self) -> None:
        """End the child; a second call does nothing."""
        self._end()


def _end(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait()
    errors.close()
