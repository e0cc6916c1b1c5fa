"""Decode image bytes to 8-bit RGB, in formats that Pillow decodes without other programs."""

import hashlib
import io
from dataclasses import dataclass
from functools import cache

from PIL import Image, UnidentifiedImageError

from mmq.errors import InputError
from mmq.system.image_modes import RULE, as_shown

FORMATS = (
    "JPEG", "MPO", "PNG", "GIF", "TIFF", "WEBP", "AVIF", "BMP", "DIB", "PPM", "JPEG2000", "TGA",
    "ICO", "PCX", "SGI", "PSD",
)  # fmt: skip

POINTER = b"version https://git-lfs"  # the start of a file that stands for one in Git LFS


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """A hash of a picture's content, and its (width, height) in pixels as it is shown."""

    digest: str
    size: tuple[int, int]


_facts: dict[str, ImageFacts] = {}  # by the sha256 of the content


def decode_image(name: str, content: bytes) -> Image.Image:
    """The picture as a viewer shows it, in RGB; InputError with its name if it cannot be read.

    Upright by its EXIF orientation, the first of several frames, transparency on white, gray of
    16 bits scaled to 8. Colour profiles are not applied.
    """
    return _decode(name, content)[0]


def image_facts(name: str, content: bytes) -> ImageFacts:
    """Digest and size; the content is decoded once per process.

    The digest is the sha256 of the content and, if a rule of `image_modes` changes the pixels, of
    the rule's version. InputError with the picture's name if it cannot be read.
    """
    hashed = hashlib.sha256(content)
    key = hashed.hexdigest()
    if key not in _facts:
        image, plain = _decode(name, content)
        if not plain:
            hashed.update(f"shown by rule {RULE}".encode())
        _facts[key] = ImageFacts(hashed.hexdigest(), image.size)
    return _facts[key]


def _decode(name: str, content: bytes) -> tuple[Image.Image, bool]:
    """The picture, and whether it is plain: no rule of `image_modes` changed it."""
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            if min(image.size) < 1:
                raise InputError("it has no pixels")
            return as_shown(image)
    except UnidentifiedImageError as error:
        if content.startswith(POINTER):
            raise InputError(
                f"image: {name} is a pointer of Git LFS; run `git lfs pull` in its folder"
            ) from error
        supported = ", ".join(_formats())
        raise InputError(
            f"image: {name} cannot be read (it is empty, damaged or not one of {supported})"
        ) from error
    except Exception as error:  # Pillow raises almost anything for a damaged file
        reason = str(error) or type(error).__name__
        raise InputError(f"image: {name} cannot be read ({reason})") from error


@cache
def _formats() -> list[str]:
    """The supported formats, without those for which Pillow starts another program."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]
