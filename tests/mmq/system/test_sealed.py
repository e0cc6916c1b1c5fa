"""Damaged files are never used: a reader gets the complete content or an error."""

import os
import random
import shutil

import pytest
import torch

from mmq.system import sealed
from mmq.system.sealed import Damaged, NotReadable, Unusable

FACTS = {"score": 95.0, "per_sample": [0.1, 1.0], "text": 'a "quoted" é', "seal": "not one"}
TENSORS = {"codes": torch.arange(64, dtype=torch.uint8), "scale": torch.ones(4).half()}
ABOUT, BESIDE = {"key": "a key"}, {"seconds": "1.5"}


def write_json(path):
    sealed.write_json(path, FACTS)


def write_tensors(path):
    sealed.write_tensors(path, TENSORS, path.stem, ABOUT, BESIDE)


def read_tensors(path):
    tensors, texts = sealed.read_tensors(path, path.stem)
    return {name: tensor.tolist() for name, tensor in tensors.items()}, texts["seconds"]


KINDS = [(write_json, sealed.verified_json), (write_tensors, read_tensors)]


@pytest.fixture(params=KINDS, ids=["json", "tensors"])
def sealed_file(request, tmp_path):
    """A file, its writer and its reader."""
    write, read = request.param
    write(path := tmp_path / "folder" / "a.sealed")
    return path, write, read


def test_written_tensors_are_read_back(sealed_file):
    path, _, read = sealed_file
    if read is read_tensors:
        expected = {name: tensor.tolist() for name, tensor in TENSORS.items()}, "1.5"
        assert read(path) == expected
        assert sealed.read_texts(path)["key"] == "a key"
    else:
        assert read(path) == FACTS | {"seal": "not one"}


def test_an_empty_mapping_is_json_too(tmp_path):
    sealed.write_json(tmp_path / "a", {})
    assert sealed.read_json(tmp_path / "a") == {}


def test_every_changed_bit_is_detected(sealed_file):
    path, _, read = sealed_file
    content, expected = path.read_bytes(), read(path)
    wrong = []
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        try:
            if read(path) != expected:
                wrong.append(place)
        except Unusable:
            continue
    assert wrong == []


def test_every_changed_digit_is_detected(tmp_path):
    sealed.write_json(path := tmp_path / "a", FACTS)
    path.write_text(path.read_text().replace("95.0", "25.0"))
    with pytest.raises(Damaged, match="not those that were stored"):
        sealed.verified_json(path)


def test_every_truncation_is_detected(sealed_file):
    path, _, read = sealed_file
    content = path.read_bytes()
    for length in (0, 1, 8, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(Damaged):
            read(path)


def test_random_bytes_are_refused(sealed_file):
    path, _, read = sealed_file
    generator = random.Random(0)
    for length in (3, 70, 5000):
        path.write_bytes(generator.randbytes(length))
        with pytest.raises(Damaged):
            read(path)


def test_a_file_in_the_place_of_another_is_refused(sealed_file):
    path, write, read = sealed_file
    write(other := path.with_name("b.sealed"))
    shutil.copy(other, path)
    with pytest.raises(Damaged):
        read(path)
    if read is sealed.verified_json:  # nor one of the same name in another folder
        write(elsewhere := path.parent.parent / "other" / "a.sealed")
        shutil.copy(elsewhere, path)
        with pytest.raises(Damaged):
            read(path)


def pipe(path):
    os.mkfifo(path)


def loop(path):
    path.symlink_to(path)


@pytest.mark.parametrize("make", [pipe, loop, os.mkdir])
def test_non_files_are_neither_opened_nor_an_obstacle(sealed_file, make):
    path, write, read = sealed_file
    expected = read(path)
    path.unlink()
    make(path)
    with pytest.raises(Damaged):
        read(path)
    write(path)
    assert read(path) == expected


@pytest.mark.parametrize("target", ["nowhere", "a-file/below"])
def test_a_broken_link_is_not_a_file(sealed_file, target):
    path, _, read = sealed_file
    path.unlink()
    (path.parent / "a-file").touch()
    path.symlink_to(target)
    with pytest.raises(FileNotFoundError):
        read(path)


def test_a_link_to_the_file_is_accepted(sealed_file):
    path, _, read = sealed_file
    expected = read(path)
    path.rename(moved := path.parent.parent / "moved")
    path.symlink_to(moved)
    assert read(path) == expected


def test_files_without_read_permission_are_not_called_damaged(sealed_file, monkeypatch):
    path, _, read = sealed_file

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)  # root may read everything
    monkeypatch.setattr(sealed, "safe_open", refuse)
    with pytest.raises(NotReadable, match="Permission denied"):
        read(path)


def test_bytes_are_sealed_with_their_name():
    data = sealed.seal_bytes(b"content", "a")
    assert sealed.unseal_bytes(data, "a") == b"content"
    for changed, name in ((data, "b"), (data[:-1], "a"), (b"", "a"), (b"content", "a")):
        with pytest.raises(Damaged):
            sealed.unseal_bytes(changed, name)


def test_deep_json_is_refused_before_it_is_read(tmp_path):
    (path := tmp_path / "a").write_text("[" * 1_000_000)
    with pytest.raises(Damaged):
        sealed.verified_json(path)
