"""Files that commands write if asked to: figures, which are kept with the run as well, reports."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmq.errors import InputError

if TYPE_CHECKING:
    from mmq.tracking import Run

FIGURE_HELP = "PNG file to write, beside the one in the MLflow run."


def path_to_write(option: str, text: str, suffix: str) -> Path | None:
    """The file that an option names, None for ""; InputError where it could not be written."""
    if not text:
        return None
    path = Path(text)
    if path.suffix != suffix or not path.absolute().parent.is_dir():
        raise InputError(f"{option}: {text!r} is not a {suffix} file in a folder that exists")
    return path


def save_figure(run: "Run", figure: Any, name: str, path: Path | None) -> None:
    """Keep a matplotlib figure with a run under this name, and in the file."""
    if path is not None:  # first: it was asked for
        figure.savefig(path)
    with tempfile.TemporaryDirectory() as folder:
        figure.savefig(Path(folder) / name)
        run.log_folder(Path(folder))
