"""Pictures of an evaluation set: opened one way, checked before any model work."""

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from mmq.errors import InputError


def open_image(path: Path) -> Image.Image:
    """The picture as RGB; InputError naming the file if it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise InputError(f"image: {path} does not exist") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"image: {path} cannot be read ({error})") from error


def inside(folder: Path, name: str) -> Path:
    """folder/name; InputError if that leads out of the folder."""
    if "\0" in name:
        raise InputError(f"image: {name!r} is no file name; correct the annotation file")
    path = folder / name
    # by the name alone: a link in the folder (of a download cache, say) may lead where it likes
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"image: {name!r} leads out of {folder}; correct the annotation file")
    return path


def check_images(paths: Iterable[Path], quiet: bool = False) -> dict[Path, str]:
    """Read every picture once; InputError for the first that is missing or unreadable.

    Returns a hash of every picture's bytes.
    """
    hashes = {}
    for path in tqdm(sorted(set(paths)), desc="check images", leave=False, disable=quiet):
        open_image(path)
        hashes[path] = content_hash(path)
    return hashes


def content_hash(path: Path) -> str:
    """A hash of a picture's bytes; read once, as long as the file stays as it is."""
    found = path.stat()
    return _hash(path, found.st_mtime_ns, found.st_size)


@cache
def _hash(path: Path, modified: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
