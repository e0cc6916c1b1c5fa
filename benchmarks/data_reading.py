"""Time and memory to read pictures from parquet, compared with the same pictures as files.

    python benchmarks/data_reading.py [--rows N] [--limit N] [--kib N]

Writes a table of questions in three forms into a temporary folder: a CSV file beside JPEG files,
and parquet with row groups of 100 rows (as the hub's) and of 1,000. Each form is then read in a
process of its own: all texts are listed, a seeded subset is drawn, and its pictures are checked
and opened once more, as a trial does. Prints seconds, milliseconds per sample and peak memory.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

MIB = 2**20
FORMS = {"files": "table.csv", "groups of 100": "hub.parquet", "groups of 1000": "large.parquet"}


def picture(rng: np.random.Generator, kib: int) -> bytes:
    """A JPEG of a small picture, padded to a size in KiB: reading is measured, not decoding."""
    data = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(data, "JPEG")
    return data.getvalue() + rng.bytes(max(0, kib * 1024 - data.tell()))


def write(root: Path, rows: int, kib: int) -> None:
    """The table in its three forms, a thousand rows at a time."""
    rng = np.random.default_rng(0)
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", cell), ("question", pa.string()), ("answer", pa.string())])
    (root / "files").mkdir()
    with (
        (root / "table.csv").open("w") as table,
        pq.ParquetWriter(root / "hub.parquet", schema) as small,
        pq.ParquetWriter(root / "large.parquet", schema) as large,
    ):
        table.write("image,question,answer\n")
        for start in range(0, rows, 1000):
            numbers = range(start, min(rows, start + 1000))
            pictures = [picture(rng, kib) for _ in numbers]
            for k, content in zip(numbers, pictures, strict=True):
                (root / "files" / f"{k}.jpg").write_bytes(content)
                table.write(f"files/{k}.jpg,How many are in picture {k}?,{k}\n")
            part = pa.table(
                {
                    "image": [{"bytes": b, "path": f"{k}.jpg"}
                              for k, b in zip(numbers, pictures, strict=True)],
                    "question": [f"How many are in picture {k}?" for k in numbers],
                    "answer": [str(k) for k in numbers],
                },
                schema=schema,
            )  # fmt: skip
            small.write_table(part, row_group_size=100)
            large.write_table(part, row_group_size=1000)


def read(path: str, limit: int) -> dict[str, float]:
    """Seconds of each step, and the memory that they add."""
    from mmq.data.image_checks import check_images
    from mmq.data.source import find_source
    from mmq.data.subsets import subset

    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    samples = find_source("vqa", path).samples()
    listed = time.perf_counter()
    drawn = subset(samples, limit, 0)
    check_images(drawn, quiet=True)
    checked = time.perf_counter()
    for sample in drawn:
        sample.image.open()
    opened = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "list": listed - start, "check": checked - listed, "open": opened - checked,
        "count": len(drawn), "mib": (peak - before) / MIB,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--kib", type=int, default=100)
    parser.add_argument("--read", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read, options.limit)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root, options.rows, options.kib)
        print(f"{options.rows} rows with {options.kib} KiB each, {options.limit or 'all'} drawn")
        print("| form | list s | check s | open s | ms per sample | over files | peak extra MiB |")
        print("|---|---|---|---|---|---|---|")
        files = 0.0
        for name, file in FORMS.items():
            command = [sys.executable, __file__, "--read", str(root / file)]
            output = subprocess.check_output([*command, "--limit", str(options.limit)], text=True)
            row = json.loads(output.splitlines()[-1])
            each = 1000 * (row["check"] + row["open"]) / row["count"] / 2  # two reads
            files = files or each
            print(
                f"| {name} | {row['list']:.2f} | {row['check']:.2f} | {row['open']:.2f} | "
                f"{each:.2f} | {each - files:+.2f} | {row['mib']:.0f} |"
            )


if __name__ == "__main__":
    main()
