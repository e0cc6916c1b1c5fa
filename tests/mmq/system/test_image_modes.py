"""Pictures are opened as a viewer shows them, and refused by name if that is undefined."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from mmq.contracts import FileImage
from mmq.errors import InputError

RAMP = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
DEEP = RAMP.astype(np.uint16) * 256 + 77  # 16 bits whose high byte is the ramp


def pixels(path):
    image = FileImage(path).open()
    assert image.mode == "RGB"
    return np.asarray(image)


def gray(levels):
    return np.repeat(np.asarray(levels)[..., None], 3, axis=2)


def save(path, values, **options):
    Image.fromarray(values).save(path, **options)
    return path


def png(path, width, height, bits, kind, rows, chunks=()):
    """A PNG written by hand: of depths that Pillow reads but does not write."""

    def chunk(name, content):
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = [chunk(b"IHDR", head), *(chunk(*each) for each in chunks), chunk(b"IDAT", data)]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body) + chunk(b"IEND", b""))
    return path


# --- depth ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a.png", DEEP),
        ("a.tif", DEEP),
        ("a.pgm", DEEP),
        ("big-endian.tif", DEEP.astype(">u2")),
        ("int32.tif", DEEP.astype(np.int32)),
        ("float.tif", (RAMP / np.float32(255)).astype(np.float32)),
        ("eight.png", RAMP),
    ],
)
def test_gray_of_any_depth_is_scaled_to_eight_bits(tmp_path, name, values):
    path = save(tmp_path / name, values)
    assert np.array_equal(pixels(path), gray(RAMP))


def test_gray_of_16_bits_where_white_is_zero_is_inverted(tmp_path):
    path = save(tmp_path / "a.tif", DEEP, tiffinfo={262: 0})
    assert np.array_equal(pixels(path), gray(255 - RAMP))


def test_colours_of_16_bits_keep_their_high_bytes(tmp_path):
    colours = np.stack([DEEP, DEEP[::-1], DEEP.T], axis=2)
    rows = [row.astype(">u2").tobytes() for row in colours]
    path = png(tmp_path / "a.png", 8, 8, 16, 2, rows)
    assert np.array_equal(pixels(path), colours >> 8)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("a.tif", DEEP.astype(np.int32) - 300, "mode I integers range from -223 to 64[0-9]+"),
        ("a.tif", DEEP.astype(np.int32) * 4, "mode I integers .* 0 to 65535 is supported"),
        ("a.tif", RAMP.astype(np.int32), "from 0 to 252: 8 or 16 bits deep"),
        ("a.tif", RAMP.astype(np.float32), "its floats range from 0 to 252; 0 to 1 is supported"),
        ("a.tif", np.full((4, 4), np.nan, np.float32), "its floats range from nan to nan"),
        ("a.tif", np.full((4, 4), -0.1, np.float32), "its floats range from -0.1"),
    ],
)
def test_numbers_of_unknown_range_are_refused(tmp_path, name, values, message):
    path = save(tmp_path / name, values)
    with pytest.raises(InputError, match=f"a.tif cannot be read .*{message}"):
        FileImage(path).open()


# --- transparency --------------------------------------------------------------------------------
def test_transparency_is_put_on_white(tmp_path):
    half = np.dstack([gray(RAMP), np.full((8, 8), 128, np.uint8)])
    expected = np.rint(255 - (255 - gray(RAMP).astype(float)) * 128 / 255)
    for name, values in {"rgba.png": half, "la.png": half[..., [0, 3]], "a.tif": half}.items():
        path = save(tmp_path / name, values)
        assert np.abs(pixels(path) - expected).max() <= 1
    clear = half.copy()
    clear[..., 3] = 0
    assert (pixels(save(tmp_path / "clear.webp", clear, lossless=True)) == 255).all()
    clear[..., 3] = 255
    assert np.array_equal(pixels(save(tmp_path / "opaque.png", clear)), gray(RAMP))


def test_16_bit_colours_with_transparency_are_put_on_white(tmp_path):
    alpha = np.full((8, 8), 0, np.uint16)
    alpha[:4] = 65535
    rows = [r.astype(">u2").tobytes() for r in np.stack([DEEP, DEEP, DEEP, alpha], axis=2)]
    path = png(tmp_path / "a.png", 8, 8, 16, 6, rows)
    expected = RAMP.copy()
    expected[4:] = 255
    assert np.array_equal(pixels(path), gray(expected))


def test_a_transparent_palette_entry_or_level_is_white(tmp_path):
    palette = Image.fromarray(RAMP // 64, mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    for name in ("a.png", "a.gif"):
        palette.save(tmp_path / name, transparency=0)
        result = pixels(tmp_path / name)
        assert (result[0] == 255).all()
        assert (result[-1] == [0, 0, 255]).all()
    save(tmp_path / "gray.png", RAMP, transparency=4)
    assert pixels(tmp_path / "gray.png")[0, :3, 0].tolist() == [0, 255, 8]
    save(tmp_path / "deep.png", DEEP, transparency=int(DEEP[0, 1]))
    assert pixels(tmp_path / "deep.png")[0, :3, 0].tolist() == [0, 255, 8]
    transparent = [(b"tRNS", struct.pack(">H", 2))]
    path = png(tmp_path / "four.png", 4, 1, 4, 0, [bytes([0x01, 0x23])], transparent)
    assert pixels(path)[0, :, 0].tolist() == [0, 17, 255, 51]
    transparent = [(b"tRNS", struct.pack(">HHH", 1, 2, 3))]
    path = png(tmp_path / "a16.png", 1, 1, 16, 2, [bytes(6)], transparent)
    with pytest.raises(InputError, match="a 16-bit transparent colour is not supported"):
        FileImage(path).open()


# --- orientation, frames, colours ----------------------------------------------------------------
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg", "a.tif"])
@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda v: v),
        (2, lambda v: v[:, ::-1]),
        (3, lambda v: v[::-1, ::-1]),
        (4, lambda v: v[::-1]),
        (5, lambda v: v.swapaxes(0, 1)),
        (6, lambda v: np.rot90(v, -1)),
        (7, lambda v: np.rot90(v, 2).swapaxes(0, 1)),
        (8, np.rot90),
        (9, lambda v: v),
    ],
)
def test_pictures_are_rotated_by_their_exif_orientation(tmp_path, name, orientation, turned):
    values = gray(np.kron(np.arange(0, 240, 40, dtype=np.uint8).reshape(2, 3), np.ones((8, 8))))
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if name == "a.webp" else {}
    path = save(tmp_path / name, values.astype(np.uint8), exif=exif, **options)
    result, expected = pixels(path), turned(values)
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() <= (3 if name == "a.jpg" else 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_rotates_nothing(tmp_path):
    path = save(tmp_path / "a.jpg", gray(RAMP), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    assert pixels(path).shape == (8, 8, 3)


def test_the_first_of_several_frames_counts(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.png", "a.tif"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert (pixels(tmp_path / name) == [255, 0, 0]).all()


def test_other_colour_spaces_are_converted(tmp_path):
    colours = {"CMYK": (0, 255, 255, 0), "YCbCr": (76, 85, 255), "1": 255}
    for mode, colour in colours.items():
        name = tmp_path / f"{mode}.{'png' if mode == '1' else 'tif'}"
        Image.new(mode, (4, 4), colour).save(name)
        assert np.abs(pixels(name)[0, 0] - ([255] * 3 if mode == "1" else [255, 0, 0])).max() <= 2
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")  # inverted, as by Adobe
    assert np.abs(pixels(tmp_path / "a.jpg")[0, 0] - [255, 0, 0]).max() <= 3
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(*profiles, "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.new("RGB", (4, 4), (200, 60, 30)), transform)
    lab.save(tmp_path / "lab.tif")
    assert np.abs(pixels(tmp_path / "lab.tif")[0, 0] - [200.0, 60, 30]).max() <= 3


# --- damage --------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["pipe", "loop", "folder", "postscript", "no pixels", "bomb"])
def test_values_that_are_not_pictures_are_refused_at_once(tmp_path, kind):
    path = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "folder":
        path.mkdir()
    elif kind == "postscript":  # for which Pillow starts Ghostscript
        Image.new("RGB", (4, 4)).save(path, "EPS")
    else:
        size = 0 if kind == "no pixels" else 60_000
        png(path, size, size, 8, 0, [])
    with pytest.raises(InputError, match="image: .*a.png (is a named pipe|is a folder|cannot be)"):
        FileImage(path).digest()


@pytest.mark.filterwarnings("ignore")  # of Pillow, about each damage
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.tif", "a.webp", "a.bmp", "a.ppm"])
def test_damaged_pictures_are_input_errors_only(tmp_path, name):
    """Every error of Pillow becomes an InputError."""
    path = save(tmp_path / name, gray(RAMP))
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(60):
        damaged = bytearray(
            content[: rng.integers(len(content))] if rng.random() < 0.3 else content
        )
        for place in rng.integers(max(1, len(damaged)), size=3):
            damaged[place : place + 1] = bytes([rng.integers(256)])
        path.write_bytes(damaged)
        try:
            FileImage(path).open()
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 5
    assert all(f"image: {path} cannot be read (" in message for message in messages)
