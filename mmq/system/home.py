"""Where mmq keeps what it computed: studies, quantized weights, the embedded data."""

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

    A project that `mlflow run` has put into a temporary folder keeps it in the user's data folder,
    for each tracking server: the next run has another temporary folder.
    """
    if given := os.environ.get("MMQ_HOME"):
        return Path(given).absolute()
    here, uri = Path(FOLDER).absolute(), os.environ.get("MLFLOW_TRACKING_URI", "")
    if (beside := _folder_of(uri)) is not None:
        used = beside / FOLDER
    elif uri and _is_temporary_project():
        used = _of_user(uri) or here
    else:
        used = here
    if used.resolve() != here.resolve() and any((here / name).exists() for name in _WORK):
        _report_unused(here, used)
    return used


_WORK = ("studies.db", "studies", "records", "store")  # what shows that a folder was worked in


def _folder_of(uri: str) -> Path | None:
    """The folder of a local store (SQLite, or files); None where there is no such folder."""
    file = re.match(r"sqlite(?:\+\w+)?:///(?!:memory:)([^?]+)", uri)
    path = file[1] if file else unquote(urlsplit(uri).path) if uri.startswith("file:") else ""
    folder = Path(path).absolute().parent
    return folder if path and folder.is_dir() else None


def _is_temporary_project() -> bool:
    """Whether `mlflow run` has fetched this project: a clone, or what a zip file held."""
    temporary = Path(tempfile.gettempdir()).resolve()
    return bool(os.environ.get("MLFLOW_RUN_ID")) and temporary in Path.cwd().resolve().parents


def _of_user(uri: str) -> Path | None:
    """A folder of the user's for this tracking server; None where the user has no home."""
    given = os.environ.get("XDG_DATA_HOME", "")
    try:
        data = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "share"
    except RuntimeError:
        return None
    parts = urlsplit(uri)
    address = f"{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")  # without a password
    name = re.sub(r"[^\w.]+", "-", address).strip("-")
    return data / "mmq" / f"{name[:60]}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"


@functools.cache
def _report_unused(older: Path, used: Path) -> None:
    log.warning(
        "%s is not used: work is in %s now, beside the MLflow store. MMQ_HOME=%s uses the older "
        "folder.", older, used, older,
    )  # fmt: skip
