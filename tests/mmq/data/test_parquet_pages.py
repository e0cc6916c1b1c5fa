"""Cells that are read alone equal those that pyarrow reads, whatever wrote the file."""

import itertools
import random

import hub_files as hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmq.data import page_bytes, parquet_images, parquet_pages

ROWS = 30


@pytest.fixture(autouse=True)
def forget():
    """Places of pages that another test cached."""
    for cached in (
        parquet_pages._chunk, parquet_pages._pages_in_memory, parquet_pages._pages_on_disk,
    ):  # fmt: skip
        cached.cache_clear()


@pytest.fixture
def few_bytes_in_memory(monkeypatch):
    for module in (page_bytes, parquet_pages):
        monkeypatch.setattr(module, "IN_MEMORY", 1000)


def contents(rng, longest, distinct=ROWS, empty=0.2):
    different = [rng.randbytes(rng.randint(1, longest)) for _ in range(distinct)]
    return [None if rng.random() < empty else different[k % distinct] for k in range(ROWS)]


def column(rows, kind):
    if kind == "struct":
        cells = [None if row is None else {"bytes": row, "path": None} for row in rows]
        return pa.array(cells, hub.PICTURE)
    return pa.array(rows, pa.large_binary() if kind == "large" else pa.binary())


def chunks(path):
    file = parquet_images.open_parquet(path)
    return [
        (file.metadata.row_group(k).num_rows, parquet_pages.chunk_of(path, file, k, "image"))
        for k in range(file.num_row_groups)
    ]


def cells(path, rng):
    """All cells, each read alone, in a random order."""
    result = []
    for count, chunk in chunks(path):
        order = list(range(count))
        rng.shuffle(order)
        read = {row: chunk.cell(row) for row in order}
        result += [read[row] for row in range(count)]
    return result


VARIANTS = list(itertools.product(
    ["snappy", "zstd", "gzip", "brotli", "none"], [True, False], ["1.0", "2.0"], [512, 2**20],
))  # fmt: skip


def test_cells_equal_those_that_were_written_in_every_form(tmp_path):
    rng = random.Random(0)
    for k, (codec, dictionary, version, page) in enumerate(VARIANTS):
        kind = ("struct", "binary", "large")[k % 3]
        rows = contents(rng, rng.choice([20, 3000]), rng.choice([5, ROWS]), 0.2 * (k % 2))
        path = tmp_path / f"{k}.parquet"
        pq.write_table(
            pa.table({"x": range(ROWS), "image": column(rows, kind)}), path, compression=codec,
            use_dictionary=dictionary, data_page_version=version, data_page_size=page,
            row_group_size=rng.choice([7, ROWS]), write_batch_size=rng.choice([4, 1024]),
        )  # fmt: skip
        assert cells(path, rng) == rows, VARIANTS[k]


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("codec", ["snappy", "none"])
def test_of_a_large_page_only_the_cell_is_read(
    codec, dictionary, tmp_path, few_bytes_in_memory, monkeypatch
):
    rng = random.Random(1)
    rows = contents(rng, 150_000)
    path = tmp_path / "a.parquet"
    table = pa.table({"image": column(rows, "struct")})
    pq.write_table(table, path, compression=codec, use_dictionary=dictionary)
    assert cells(path, rng) == rows
    ((_, chunk),) = chunks(path)
    sizes = []
    read = page_bytes.Part.read
    monkeypatch.setattr(
        page_bytes.Part, "read", lambda part, start, n: sizes.append(n) or read(part, start, n)
    )
    last = max(k for k, row in enumerate(rows) if row)
    assert chunk.cell(last) == rows[last]
    assert sum(sizes) <= len(rows[last]) + 2**19  # the page with the rows' indices is read, too


@pytest.mark.parametrize("reason", ["lists", "a codec", "strong compression", "numbers"])
def test_what_cannot_be_read_alone_is_left_to_pyarrow(reason, tmp_path, few_bytes_in_memory):
    picture = {"bytes": b"ab" * 300_000, "path": None}
    values = {"lists": [[picture]], "numbers": [7]}.get(reason, [picture])
    codec = "lz4" if reason == "a codec" else "snappy"
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": values}), path, compression=codec)
    ((_, chunk),) = chunks(path)
    if chunk is not None:
        with pytest.raises(parquet_pages.FALLBACK):
            chunk.cell(0)
    assert parquet_images._cell(path, 0, 0, "image") == values[0]


@pytest.mark.parametrize("dictionary", [True, False])
def test_of_a_file_with_any_damaged_byte_a_cell_is_read_or_left_to_pyarrow(dictionary, tmp_path):
    path = tmp_path / "a.parquet"
    rows = [b"abc", None, b"defg"] * 10
    pq.write_table(pa.table({"image": column(rows, "binary")}), path, use_dictionary=dictionary)
    content = path.read_bytes()
    size = pq.ParquetFile(path).metadata.row_group(0).column(0).total_compressed_size
    left = 0
    for position in range(4, 4 + size):
        for byte in (0, 0x11, 0xFF):
            path.write_bytes(content[:position] + bytes([byte]) + content[position + 1 :])
            try:
                chunk = parquet_pages.Chunk(path, pq.ParquetFile(path), 0, 0)
                chunk.cell(0)
            except parquet_pages.FALLBACK:
                left += 1
    assert left > size


def test_a_damaged_page_is_reported_by_pyarrow(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": column([b"abc"] * ROWS, "binary")}), path)
    data = bytearray(path.read_bytes())
    data[4:40] = b"\xff" * 36
    path.write_bytes(data)
    ((_, chunk),) = chunks(path)
    assert chunk is None
    with pytest.raises((OSError, ValueError)):
        parquet_images._cell(path, 0, 0, "image")
