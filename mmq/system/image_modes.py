"""A decoded picture as a viewer shows it, in 8-bit RGB, whatever mode its file has."""

from functools import cache
from typing import Any

import numpy
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from mmq.errors import InputError

# raise it with every change that gives other pixels for a picture that is not `plain`
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
WHITE_IS_ZERO, BITS_PER_SAMPLE, PHOTOMETRIC = 0, 258, 262  # values and tags of TIFF
Gray = NDArray[Any]


def as_shown(image: Image.Image) -> tuple[Image.Image, bool]:
    """The first frame upright, without transparency, as RGB; and whether the file was plain.

    A file is plain if Pillow's own conversion gives the same pixels. InputError if the range of
    the pixels is unknown: numbers below 0, floats above 1, integers above 65535.
    """
    raw = _raw_mode(image)
    image.load()
    turn = TURNS.get(_orientation(image))
    transparent = image.has_transparency_data
    if image.mode in GRAY_16 or image.mode in ("I", "F"):
        rgb = _gray(image)
    elif image.mode == "LAB":
        rgb = _from_lab(image)
    elif transparent:
        rgb = _on_white(image, raw)
    else:
        rgb = image.convert("RGB")
    plain = image.mode in PLAIN_MODES and not transparent and turn is None
    return (rgb if turn is None else rgb.transpose(turn)), plain


def _raw_mode(image: Image.Image) -> str:
    """The file's pixel format, like "RGB;16B"; read it first: Pillow drops it on load."""
    tiles = getattr(image, "tile", None) or [(None, None, None, "")]
    mode = tiles[0][3]
    return str(mode[0] if isinstance(mode, tuple) and mode else mode)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1, upright, if there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises almost anything for damaged EXIF, which viewers ignore
        return 1


def _on_white(image: Image.Image, raw: str) -> Image.Image:
    transparency = image.info.get("transparency")
    if raw in SCALES and isinstance(transparency, int):
        image.info["transparency"] = transparency * SCALES[raw]
    if raw.startswith("RGB;16") and transparency is not None:
        raise InputError("a 16-bit transparent colour is not supported; use an alpha channel")
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    colours = image.convert("RGBA")
    white = Image.new("RGBA", colours.size, "white")
    return Image.alpha_composite(white, colours).convert("RGB")


def _gray(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit or float gray, scaled to 8 bits."""
    values = numpy.asarray(image)
    levels = _levels_of_floats(values) if image.mode == "F" else _levels(values, image)
    tags = getattr(image, "tag_v2", {})
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        levels = 255 - levels
    if isinstance(transparency := image.info.get("transparency"), int):
        levels = numpy.where(values == transparency, 255, levels)
    return Image.fromarray(levels.astype(numpy.uint8)).convert("RGB")


def _levels(values: Gray, image: Image.Image) -> Gray:
    low, high = int(values.min()), int(values.max())
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))
    if image.mode in GRAY_16 and bits == (12,):
        return numpy.right_shift(values, 4)
    if low < 0 or high > 65535:
        raise InputError(f"{_range(image, low, high)}; 0 to 65535 is supported")
    if image.mode == "I" and image.format not in FULL_SCALE_16 and 0 < high < 256:
        raise InputError(
            f"{_range(image, low, high)}: 8 or 16 bits deep? Save the image with 8 bits"
        )
    return numpy.right_shift(values, 8)


def _levels_of_floats(values: Gray) -> Gray:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN, too
        raise InputError(f"its floats range from {low:g} to {high:g}; 0 to 1 is supported")
    levels: Gray = numpy.rint(values * 255)
    return levels


def _range(image: Image.Image, low: int, high: int) -> str:
    return f"its mode {image.mode} integers range from {low} to {high}"


@cache
def _lab_to_rgb() -> Any:
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(*profiles, "LAB", "RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    rgb = ImageCms.applyTransform(image, _lab_to_rgb())
    assert rgb is not None  # not in place
    return rgb
