"""Parts of compressed bytes are read alone."""

import random

import pyarrow as pa
import pytest

from mmq.data import page_bytes
from mmq.data.page_bytes import BLOCK, Part, SnappyBlocks, UnsupportedPageError


def part(tmp_path, content):
    path = tmp_path / "data"
    path.write_bytes(b"before" + content)
    return Part(path, 6, len(content))


@pytest.mark.parametrize("window", [*range(205, 216), page_bytes.WINDOW])
def test_any_range_of_snappys_blocks_equals_the_bytes(window, tmp_path, monkeypatch):
    monkeypatch.setattr(page_bytes, "WINDOW", window)
    rng = random.Random(0)
    data = rng.randbytes(3 * BLOCK + 100)
    for start in range(1000, BLOCK, 300):  # copies, between which are literals of 200 bytes
        data = data[:start] + data[:100] + data[start + 100 :]
    blocks = SnappyBlocks.of(part(tmp_path, pa.compress(data, "snappy", asbytes=True)), len(data))
    for _ in range(200):
        start = rng.randrange(len(data))
        size = rng.randrange(len(data) - start + 1)
        assert blocks.read(start, size) == data[start : start + size]
    with pytest.raises(UnsupportedPageError):
        blocks.read(len(data) - 1, 2)


def test_a_stream_of_another_length_is_not_read(tmp_path):
    compressed = pa.compress(random.Random(0).randbytes(BLOCK), "snappy", asbytes=True)
    for content in (compressed[:-1], compressed + b"\0", b"\x05" + compressed[1:]):
        with pytest.raises(UnsupportedPageError):
            SnappyBlocks.of(part(tmp_path, content), BLOCK)


def test_a_part_ends_where_its_file_does(tmp_path):
    own = part(tmp_path, b"12345")
    assert own.read(1, 2) == b"23"
    for start, size in ((4, 2), (-1, 1), (0, 6)):
        with pytest.raises(UnsupportedPageError):
            own.read(start, size)
    with pytest.raises(UnsupportedPageError):
        Part(own.path, 6, 100).read(0, 50)
