"""Time and memory to read pictures from parquet, compared with the same pictures as files.

    python benchmarks/data_reading.py [--rows N] [--limit N] [--kib N] [--pictures N] [--forms ...]

Writes a table of questions in three forms into a temporary folder: a CSV file beside JPEG files,
and parquet with row groups of 100 rows (as the hub's) and of 1,000. Each form is then read in a
process of its own: all texts are listed, a seeded subset is drawn, and its pictures are checked
and opened once more, as a trial does. Prints seconds, milliseconds per sample and peak memory.

The start of a large set, with 1.6 GB of pictures on disk:

    python benchmarks/data_reading.py --rows 200000 --pictures 1000 --kib 8 --limit 500 \\
        --forms files hub
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

MIB = 2**20
FORMS = {"files": "table.csv", "hub": "hub.parquet", "large": "large.parquet"}
GROUPS = {"hub": 100, "large": 1000}  # rows per row group


def picture(rng: np.random.Generator, kib: int) -> bytes:
    """A JPEG of a small picture, padded to a size in KiB: reading is measured, not decoding."""
    data = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(data, "JPEG")
    return data.getvalue() + rng.bytes(max(0, kib * 1024 - data.tell()))


def write(root: Path, rows: int, kib: int, count: int, forms: Collection[str]) -> None:
    """The table in these forms, a thousand rows at a time. count: of different pictures."""
    rng = np.random.default_rng(0)
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", cell), ("question", pa.string()), ("answer", pa.string())])
    (root / "files").mkdir()
    pictures: list[bytes] = []
    with ExitStack() as stack:
        table = stack.enter_context((root / FORMS["files"]).open("w"))
        table.write("image,question,answer\n")
        writers = {
            name: stack.enter_context(
                pq.ParquetWriter(
                    root / FORMS[name], schema, use_dictionary=False, compression="none"
                )
            )
            for name in GROUPS
            if name in forms
        }
        for start in range(0, rows, 1000):
            numbers = range(start, min(rows, start + 1000))
            for k in range(len(pictures), min(count, numbers.stop)):
                pictures.append(picture(rng, kib))
                if "files" in forms:
                    (root / "files" / f"{k}.jpg").write_bytes(pictures[k])
            for k in numbers:
                table.write(f"files/{k % count}.jpg,How many are in picture {k}?,{k}\n")
            part = pa.table(
                {
                    "image": [{"bytes": pictures[k % count], "path": f"{k}.jpg"} for k in numbers],
                    "question": [f"How many are in picture {k}?" for k in numbers],
                    "answer": [str(k) for k in numbers],
                },
                schema=schema,
            )
            for name, writer in writers.items():
                writer.write_table(part, row_group_size=GROUPS[name])


def read(path: str, limit: int) -> dict[str, float]:
    """Seconds of each step, and the memory that they add."""
    from mmq.data.image_checks import check_images
    from mmq.data.source import find_source
    from mmq.data.subsets import subset

    before = psutil.Process().memory_info().rss
    start, busy = time.perf_counter(), time.process_time()
    samples = find_source("vqa", path).samples()
    listed, busy = time.perf_counter(), time.process_time() - busy
    drawn = subset(samples, limit, 0)
    check_images(drawn, quiet=True)
    checked = time.perf_counter()
    for sample in drawn:
        sample.image.open()
    opened = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "list": listed - start, "processor": busy, "check": checked - listed,
        "open": opened - checked, "count": len(drawn), "mib": (peak - before) / MIB,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--kib", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=0, help="different ones; 0: one per row")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--read", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read, options.limit)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root, options.rows, options.kib, options.pictures or options.rows, options.forms)
        print(f"{options.rows} rows with {options.kib} KiB each, {options.limit or 'all'} drawn")
        print(
            "| form | list s | processor s | check s | open s | ms per sample | over files "
            "| peak extra MiB |"
        )
        print("|---|---|---|---|---|---|---|---|")
        files = 0.0
        for name in options.forms:
            command = [sys.executable, __file__, "--read", str(root / FORMS[name])]
            output = subprocess.check_output([*command, "--limit", str(options.limit)], text=True)
            row = json.loads(output.splitlines()[-1])
            each = 1000 * (row["check"] + row["open"]) / row["count"] / 2  # two reads
            files = files or each
            print(
                f"| {name} | {row['list']:.2f} | {row['processor']:.2f} | {row['check']:.2f} | "
                f"{row['open']:.2f} | {each:.2f} | {each - files:+.2f} | {row['mib']:.0f} |"
            )


if __name__ == "__main__":
    main()
