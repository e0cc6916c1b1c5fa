"""The pictures that the cells of a table name, wherever they lie near it."""

import logging
import ntpath
import os
import unicodedata
from pathlib import Path
from typing import Any

from mmq.contracts import FileImage, ImageRef
from mmq.errors import InputError
from mmq_plugins.datasets.records import shown

log = logging.getLogger(__name__)
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
DEPTH = 3  # levels of subfolders in which pictures are searched
MOST_FILES = 500_000  # maximum files to list while searching
_reported: set[tuple[Path, str]] = set()


class PictureFolder:
    """Finds pictures by the names that a table in this folder gives them.

    A name is a path relative to the folder, or an absolute one. If nothing is there, it may lack
    its ending, differ in case, be a path of another computer, or lie in a subfolder, as long as
    only one picture fits; all such names are reported together.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[str, set[str]] = {}
        self._by_name: dict[str, list[Path]] | None = None
        self._pictures: dict[str, FileImage] = {}  # that several rows share
        self.elsewhere: list[tuple[str, Path]] = []

    def __contains__(self, value: Any) -> bool:
        """Whether a cell names a picture that is there."""
        if isinstance(value, ImageRef):
            return True
        if not isinstance(value, str) or not value.strip():
            return False
        return self._there(value) is not None or len(self._similar(value)) == 1

    def picture(self, value: str) -> FileImage | None:
        """The picture with this name; None if there is none. InputError if several fit."""
        if (picture := self._pictures.get(value)) is None:
            picture = self._located(value)
            if picture is not None:
                self._pictures[value] = picture
        return picture

    def _located(self, value: str) -> FileImage | None:
        if "\0" in value:
            raise InputError(f"image: {value!r:.60} is not a file name")
        if value.lower().startswith(("http://", "https://", "s3://", "gs://")):
            raise InputError(
                f"image: {shown(value)} is an address, and mmq downloads nothing; download the "
                f"pictures and write their file names in the table"
            )
        if (path := self._there(value)) is not None:
            return FileImage(path)
        similar = self._similar(value)
        if len(similar) > 1:
            raise InputError(
                f"image: {value!r} may be {similar[0]} or {similar[1]}; write the path of one of "
                f"them relative to {self.folder}"
            )
        if not similar:
            return None
        self.elsewhere.append((value, similar[0]))
        return FileImage(similar[0])

    def report(self) -> None:
        """Warn once about all pictures that have another name than the table gives them."""
        if self.elsewhere:
            value, path = self.elsewhere[0]
            key = (self.folder, value)
            if key not in _reported:
                _reported.add(key)
                log.warning(
                    "data: %d pictures are not at the paths in the table; files of the same name "
                    "are used, e.g. %s for %r", len(self.elsewhere), path, value,
                )  # fmt: skip
            self.elsewhere.clear()

    def _there(self, value: str) -> Path | None:
        texts = (value, value.replace("\\", "/")) if "\\" in value else (value,)
        for text in texts:
            path = os.path.join(self.folder, text)
            if self._is_listed(path) or (".." in text and os.path.exists(path)):
                return Path(path)
        return None

    def _is_listed(self, path: str) -> bool:
        """Whether a file or folder is there: each folder is listed once, which is quick."""
        parent, name = os.path.split(path)
        if parent not in self._listed:
            try:
                self._listed[parent] = set(os.listdir(parent or "."))
            except (OSError, ValueError):
                self._listed[parent] = set()
        return name in self._listed[parent]

    def _similar(self, value: str) -> list[Path]:
        """Files in or below the folder with the same name, except for case, folder and suffix."""
        if self._by_name is None:
            self._by_name = self._list_all()
        name = _folded(ntpath.basename(value.strip()))
        matches = self._by_name.get(name, [])
        return matches or [
            path for ending in ENDINGS for path in self._by_name.get(name + ending, [])
        ]

    def _list_all(self) -> dict[str, list[Path]]:
        by_name: dict[str, list[Path]] = {}
        count = 0
        for parent, folders, files in os.walk(self.folder):
            level = len(Path(parent).relative_to(self.folder).parts)
            folders[:] = sorted(name for name in folders if name[:1] != "." and level < DEPTH)
            for name in files:
                if name.lower().endswith(ENDINGS):
                    by_name.setdefault(_folded(name), []).append(Path(parent, name))
                    count += 1
            if count > MOST_FILES:
                break
        return by_name


def _folded(name: str) -> str:
    """A file name without case, and with letters and accents composed: macOS keeps them apart."""
    return unicodedata.normalize("NFC", name).lower()
