"""The folder for studies, quantized weights and the embedded data."""

import functools
import hashlib
import logging
import os
import re
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

log = logging.getLogger(__name__)
FOLDER = ".mmq"


def home() -> Path:
    """$MMQ_HOME; else .mmq beside a local MLflow store; else .mmq in the current folder.

    A project that `mlflow run` cloned into a temporary folder uses the user's data folder, one per
    tracking server: the next run gets another temporary folder.
    """
    if configured := os.environ.get("MMQ_HOME"):
        return Path(configured).absolute()
    here, uri = Path(FOLDER).absolute(), os.environ.get("MLFLOW_TRACKING_URI", "")
    if (store_folder := _folder_of(uri)) is not None:
        folder = store_folder / FOLDER
    elif uri and _is_temporary_project():
        folder = _user_folder(uri) or here
    else:
        folder = here
    if folder.resolve() != here.resolve() and any((here / name).exists() for name in _WORK):
        _report_unused(here, folder)
    return folder


_WORK = ("studies.db", "studies", "records", "store")  # any of these means that a folder was used


def _folder_of(uri: str) -> Path | None:
    """The folder of a local store (SQLite, or files); None if there is no such folder."""
    file = re.match(r"sqlite(?:\+\w+)?:///(?!:memory:)([^?]+)", uri)
    path = file[1] if file else unquote(urlsplit(uri).path) if uri.startswith("file:") else ""
    folder = Path(path).absolute().parent
    return folder if path and folder.is_dir() else None


def _is_temporary_project() -> bool:
    """Whether `mlflow run` fetched this project, as a clone or a zip file."""
    temporary = Path(tempfile.gettempdir()).resolve()
    return bool(os.environ.get("MLFLOW_RUN_ID")) and temporary in Path.cwd().resolve().parents


def _user_folder(uri: str) -> Path | None:
    """The user's folder for this tracking server; None if the user has no home folder."""
    data_home = os.environ.get("XDG_DATA_HOME", "")
    try:
        data = (
            Path(data_home) if Path(data_home).is_absolute() else Path.home() / ".local" / "share"
        )
    except RuntimeError:
        return None
    parts = urlsplit(uri)
    address = f"{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")  # without a password
    name = re.sub(r"[^\w.]+", "-", address).strip("-")
    return data / "mmq" / f"{name[:60]}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"


@functools.cache
def _report_unused(unused: Path, folder: Path) -> None:
    log.warning(
        "%s is not used: results are now saved in %s, beside the MLflow store. Set MMQ_HOME=%s to "
        "use the older folder.", unused, folder, unused,
    )  # fmt: skip
