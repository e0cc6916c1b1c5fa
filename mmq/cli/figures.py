"""Figures of commands: kept with the run and, if asked for, in a file."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmq.errors import InputError

if TYPE_CHECKING:
    from mmq.tracking import Run

FIGURE_HELP = "PNG file to write, beside the one in the MLflow run."


def figure_path(text: str) -> Path | None:
    """The file that a --figure option names; InputError where it could not be written."""
    if not text:
        return None
    path = Path(text)
    if path.suffix != ".png" or not path.absolute().parent.is_dir():
        raise InputError(f"figure: {text!r} is not a .png file in a folder that exists")
    return path


def save_figure(run: "Run", figure: Any, name: str, path: Path | None) -> None:
    """Keep a matplotlib figure with a run under this name, and in the file."""
    with tempfile.TemporaryDirectory() as folder:
        figure.savefig(Path(folder) / name)
        run.log_folder(Path(folder))
    if path is not None:
        figure.savefig(path)
