"""Figures of studies: logged with the run and, if a path is given, written to a file."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmq.errors import InputError

if TYPE_CHECKING:
    from mmq.tracking import Run


def path_to_write(option: str, text: str, suffix: str) -> Path | None:
    """The file that an option names, None for ""; InputError if it could not be written."""
    if not text:
        return None
    path = Path(text)
    if path.suffix != suffix or not path.absolute().parent.is_dir():
        raise InputError(f"{option}: {text!r} is not a {suffix} file in an existing folder")
    return path


def save_figure(run: "Run", figure: Any, name: str, path: Path | None) -> None:
    """Write a matplotlib figure to the path, and log it with a run under this name."""
    if path is not None:  # first: the user named it
        figure.savefig(path)
    with tempfile.TemporaryDirectory() as folder:
        figure.savefig(Path(folder) / name)
        run.log_folder(Path(folder))
