"""Finding the files and picture folders of a data set where archives put them."""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from mmq.contracts import FileImage
from mmq.data.image_checks import inside
from mmq.system.regular_file import is_folder, other_kind

log = logging.getLogger(__name__)
Pictures = Callable[[str], tuple[FileImage]]
_warned: set[Path] = set()
# where archives unpack to, besides the folder itself
ANNOTATION_FOLDERS = ("", "annotations", "Annotations", "questions", "Questions", "questions1.2")
PICTURE_FOLDERS = ("", "images", "Images", "Images/mscoco", "coco", "coco/images")
SHARED_PICTURES = 4096  # cached references, which consecutive questions share


def find_file(root: Path, *names: str) -> Path | None:
    """The first of these annotation files that is in the folder, or where archives put it."""
    places = (root / folder / name for name in names for folder in ANNOTATION_FOLDERS)
    return next((place for place in places if _is_file(place)), None)


def find_folder(root: Path, *names: str) -> Path | None:
    """The first of these picture folders that is in the folder, or where archives put it."""
    places = (root / folder / name for name in names for folder in PICTURE_FOLDERS)
    return next((place for place in places if is_folder(place)), None)


def has_files(folder: Path | None) -> bool:
    """Whether there is anything in a folder that may be read."""
    return folder is not None and not _reason_for_no_files(folder)


def pictures_in(folder: Path, file_name: Callable[[str], str] = str) -> Pictures:
    """A function from an image id to its picture in the folder, shared by its questions."""

    @lru_cache(maxsize=SHARED_PICTURES)
    def pictures(image_id: str) -> tuple[FileImage]:
        return (FileImage(inside(folder, file_name(image_id))),)

    return pictures


def lacking(root: Path, files: Iterable[Sequence[str]], folders: Sequence[str]) -> list[str]:
    """What of a split is missing: files that may each have several names, and a folder of
    several possible names with anything in it.
    """
    absent = [names[0] for names in files if not find_file(root, *names)]
    folder = find_folder(root, *folders)
    reason = "nothing" if folder is None else _reason_for_no_files(folder)
    if reason:
        absent.append(f"{folders[0]}/*.jpg" + (f" ({reason})" if reason != "nothing" else ""))
    return absent


def _reason_for_no_files(folder: Path) -> str:
    """Why there are none to read: "nothing" is there, or the system's words; "" if there are."""
    try:
        return "" if any(folder.iterdir()) else "nothing"
    except OSError as error:
        return str(error.strerror)


def _is_file(path: Path) -> bool:
    """Whether a regular file is there; a warning if something else has its name."""
    try:
        kind = other_kind(path)
    except (FileNotFoundError, NotADirectoryError):
        if not path.is_symlink():
            return False
        kind = "a broken link"
    except OSError as error:
        kind = f"not readable ({error.strerror})"
    if kind and path not in _warned:
        _warned.add(path)
        log.warning("annotations: %s is skipped: it is %s, not a regular file", path, kind)
    return not kind
