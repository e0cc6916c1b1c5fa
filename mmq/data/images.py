"""Pictures of an evaluation set: opened one way, checked before any model work."""

import hashlib
import io
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from mmq.data.image_modes import RULE, as_shown
from mmq.errors import InputError
from mmq.system.regular_file import MIB, read_regular

FILE_LIMIT = 512 * MIB
FORMATS = (
    "JPEG", "MPO", "PNG", "GIF", "TIFF", "WEBP", "AVIF", "BMP", "DIB", "PPM", "JPEG2000", "TGA",
    "ICO", "PCX", "SGI", "PSD",
)  # fmt: skip


def open_image(path: Path) -> Image.Image:
    """The picture as a viewer shows it, as RGB; InputError naming a file that cannot be read.

    Upright by its EXIF orientation, the first of several frames, transparency on white, gray of
    16 bits scaled to 8. Colour profiles are not applied.
    """
    return _shown(path, read_regular(path, "image", FILE_LIMIT))[0]


def _shown(path: Path, content: bytes) -> tuple[Image.Image, bool]:
    """The picture, and whether it is plain."""
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            if min(image.size) < 1:
                raise InputError("it has no pixels")
            return as_shown(image)
    except UnidentifiedImageError as error:
        known = ", ".join(_formats())
        raise InputError(
            f"image: {path} cannot be read (it is empty, damaged or not one of {known})"
        ) from error
    except Exception as error:  # Pillow raises whatever a damaged file leads its readers to
        reason = str(error) or type(error).__name__
        raise InputError(f"image: {path} cannot be read ({reason})") from error


@cache
def _formats() -> list[str]:
    """The formats that are read here: not those for which Pillow starts other programs."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def inside(folder: Path, name: str) -> Path:
    """folder/name; InputError if that leads out of the folder."""
    if "\0" in name:
        raise InputError(f"image: {name!r} is no file name; correct the annotation file")
    path = folder / name
    # by the name alone: a link in the folder (of a download cache, say) may lead where it likes
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"image: {name!r} leads out of {folder}; correct the annotation file")
    return path


def check_images(
    paths: Iterable[Path], quiet: bool = False, samples: Mapping[Path, str] | None = None
) -> dict[Path, str]:
    """Read every picture once; InputError for the first that is missing or unreadable.

    samples: a sample of each picture, named in the error. Returns a hash of every picture.
    """
    hashes = {}
    for path in tqdm(sorted(set(paths)), desc="check images", leave=False, disable=quiet):
        try:
            hashes[path] = content_hash(path)
        except InputError as error:
            if samples and path in samples:
                raise InputError(f"{error}; the sample {samples[path]} is about it") from error
            raise
    return hashes


def content_hash(path: Path) -> str:
    """A hash of a picture's bytes, and of the rule by which it is opened where that matters.

    Read once, as long as the file stays as it is; InputError where it cannot be opened.
    """
    try:
        found = path.stat()
    except (OSError, ValueError):
        return _hash(path, 0, 0)  # which says what is wrong
    return _hash(path, found.st_mtime_ns, found.st_size)


@cache
def _hash(path: Path, modified: int, size: int) -> str:
    content = read_regular(path, "image", FILE_LIMIT)
    hashed = hashlib.sha256(content)
    if not _shown(path, content)[1]:
        hashed.update(f"shown by rule {RULE}".encode())
    return hashed.hexdigest()
