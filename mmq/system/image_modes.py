"""What a viewer shows of a decoded picture, whatever its file stores, as 8-bit RGB."""

from functools import cache
from typing import Any

import numpy
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from mmq.errors import InputError

# Raise it whenever a picture that is not `plain` becomes other pixels than before
RULE = "1"
PLAIN_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
GRAY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
FULL_SCALE_16 = ("PNG", "PPM")  # formats whose integers of mode I are 16 bits deep
SCALES = {"L;2": 85, "L;4": 17}  # of gray levels that PNG stores in 2 or 4 bits
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
WHITE_IS_ZERO, BITS_PER_SAMPLE, PHOTOMETRIC = 0, 258, 262  # of TIFF
Gray = NDArray[Any]


def as_shown(image: Image.Image) -> tuple[Image.Image, bool]:
    """The first frame upright, without transparency, as RGB; and whether the file was plain.

    Of a plain file all pixels are those of Pillow's own conversion. InputError for pixels whose
    range is unknown: numbers below 0, floats beyond 1, integers beyond 65535.
    """
    raw = _raw_mode(image)
    image.load()
    turn = TURNS.get(_orientation(image))
    transparent = image.has_transparency_data
    if image.mode in GRAY_16 or image.mode in ("I", "F"):
        shown = _gray(image)
    elif image.mode == "LAB":
        shown = _from_lab(image)
    elif transparent:
        shown = _on_white(image, raw)
    else:
        shown = image.convert("RGB")
    plain = image.mode in PLAIN_MODES and not transparent and turn is None
    return (shown if turn is None else shown.transpose(turn)), plain


def _raw_mode(image: Image.Image) -> str:
    """How the file stores its pixels, like "RGB;16B"; known only until they are loaded."""
    tiles = getattr(image, "tile", None) or [(None, None, None, "")]
    found = tiles[0][3]
    return str(found[0] if isinstance(found, tuple) and found else found)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1, upright, where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises whatever damaged EXIF leads to; viewers ignore that, too
        return 1


def _on_white(image: Image.Image, raw: str) -> Image.Image:
    given = image.info.get("transparency")
    if raw in SCALES and isinstance(given, int):
        image.info["transparency"] = given * SCALES[raw]
    if raw.startswith("RGB;16") and given is not None:
        raise InputError(
            "one transparent colour of 16 bits is not supported; use an alpha channel"
        )
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    colours = image.convert("RGBA")
    white = Image.new("RGBA", colours.size, "white")
    return Image.alpha_composite(white, colours).convert("RGB")


def _gray(image: Image.Image) -> Image.Image:
    """Gray of 16 or 32 bits or floats, scaled to 8 bits."""
    values = numpy.asarray(image)
    levels = _levels_of_floats(values) if image.mode == "F" else _levels(values, image)
    tags = getattr(image, "tag_v2", {})
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        levels = 255 - levels
    if isinstance(given := image.info.get("transparency"), int):
        levels = numpy.where(values == given, 255, levels)
    return Image.fromarray(levels.astype(numpy.uint8)).convert("RGB")


def _levels(values: Gray, image: Image.Image) -> Gray:
    low, high = int(values.min()), int(values.max())
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))
    if image.mode in GRAY_16 and bits == (12,):
        return numpy.right_shift(values, 4)
    if low < 0 or high > 65535:
        raise InputError(f"{_range(image, low, high)}; 0 to 65535 are supported")
    if image.mode == "I" and image.format not in FULL_SCALE_16 and 0 < high < 256:
        raise InputError(
            f"{_range(image, low, high)}: are these 8 bits or 16? Save it with 8 bits"
        )
    return numpy.right_shift(values, 8)


def _levels_of_floats(values: Gray) -> Gray:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN, too
        raise InputError(f"its floats are from {low:g} to {high:g}; 0 to 1 are supported")
    levels: Gray = numpy.rint(values * 255)
    return levels


def _range(image: Image.Image, low: int, high: int) -> str:
    return f"its integers of mode {image.mode} are from {low} to {high}"


@cache
def _lab_to_rgb() -> Any:
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(*profiles, "LAB", "RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    found = ImageCms.applyTransform(image, _lab_to_rgb())
    assert found is not None  # not in place
    return found
