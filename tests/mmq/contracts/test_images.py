"""References to pictures: files, bytes, and classes of plugins."""

import hashlib
import io
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from mmq.contracts import BytesImage, FileImage, ImageRef
from mmq.errors import InputError

RAMP = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)


def save(path, values, **options):
    Image.fromarray(values).save(path, **options)
    return path


def test_bytes_open_like_the_file_that_holds_them(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    deep = RAMP[:4].astype(np.uint16) * 257
    for name, options in {"a.png": {}, "b.png": {"exif": exif}}.items():
        path = save(tmp_path / name, deep, **options)
        file, cell = FileImage(path), BytesImage("row 7", path.read_bytes())
        assert file.open().mode == cell.open().mode == "RGB"
        assert np.array_equal(np.asarray(file.open()), np.asarray(cell.open()))
        assert file.digest() == cell.digest()
        assert file.size() == cell.size() == file.open().size
    assert cell.size() == (4, 8)  # turned


def test_only_pictures_that_a_rule_changes_have_another_hash_than_their_file(tmp_path):
    """Features and studies of plain pictures outlive a new version of the rules."""
    exif = Image.Exif()
    exif[274] = 6
    plain = [save(tmp_path / name, RAMP) for name in ("a.jpg", "a.png", "a.gif")]
    others = [
        save(tmp_path / "b.jpg", RAMP, exif=exif),
        save(tmp_path / "b.png", RAMP.astype(np.uint16) * 257),
        save(tmp_path / "c.png", RAMP, transparency=4),
        save(tmp_path / "d.png", np.dstack([RAMP, RAMP, RAMP, RAMP])),
    ]
    for path in plain + others:
        same = FileImage(path).digest() == hashlib.sha256(path.read_bytes()).hexdigest()
        assert same == (path in plain)


def test_a_file_that_changes_has_another_digest(tmp_path):
    image = FileImage(save(tmp_path / "a.png", RAMP))
    first = image.digest()
    save(tmp_path / "a.png", np.kron(RAMP, np.ones((2, 2), np.uint8)))
    assert image.digest() != first
    assert image.size() == (16, 16)


def test_references_are_keys_and_can_be_pickled(tmp_path):
    path = save(tmp_path / "a.png", RAMP)
    for image, twin in (
        (FileImage(path), FileImage(path)),
        (BytesImage("a", path.read_bytes()), BytesImage("a", path.read_bytes())),
    ):
        assert pickle.loads(pickle.dumps(image)) == twin
        assert {image: 1}[twin] == 1
    assert FileImage(path).name == str(path)
    assert FileImage(path) != FileImage(tmp_path / "b.png")
    assert "PNG" not in repr(BytesImage("a", path.read_bytes()))


def test_unreadable_pictures_are_named(tmp_path):
    for image, name in (
        (BytesImage("row 7 of cells.parquet", b"text"), "row 7 of cells.parquet"),
        (FileImage(tmp_path / "gone.png"), "gone.png"),
    ):
        for read in (image.open, image.digest, image.size):
            with pytest.raises(InputError, match=f"image: .*{name} cannot be read"):
                read()


def test_a_plugin_brings_pictures_of_its_own():
    @dataclass(frozen=True)
    class Drawn(ImageRef):
        name: str
        width: int

        def open(self):
            return Image.new("RGB", (self.width, 4))

        def digest(self):
            return hashlib.sha256(self.open().tobytes()).hexdigest()

    assert Drawn("a", 3).size() == (3, 4)
    assert {Drawn("a", 3), Drawn("a", 3)} == {Drawn("a", 3)}
    assert Drawn("a", 3).digest() != Drawn("a", 4).digest()
    buffer = io.BytesIO()
    Drawn("a", 3).open().save(buffer, "PNG")
    assert BytesImage("a", buffer.getvalue()).size() == (3, 4)
