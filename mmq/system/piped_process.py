"""A process that exchanges lines of text over pipes, with its messages in a file."""

import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO


@contextmanager
def piped_process(
    command: Sequence[str], env: Mapping[str, str]
) -> Iterator[tuple["subprocess.Popen[str]", IO[str]]]:
    """A process and the file with its standard error.

    The context closes its pipes and waits for its end, which the caller brings about.
    """
    with (
        tempfile.TemporaryFile("w+") as messages,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env=env,
        ) as process,
    ):
        yield process, messages
