"""Time of trials scored by lmms-eval's code, beside mmq's own evaluator with the same requests.

    python benchmarks/lmms_overhead.py [--samples 64] [--trials 4]

Both evaluators read one parquet file in the layout of ChartQA, made of bundled scenes, and send
the same prompts with the same decoding. Their trials take turns on one loaded model, without a
stage cache, so that every trial opens its pictures. Prints CPU seconds per trial after the first
(wall time depends on what else runs), and the overhead of lmms-eval: the median of the paired
ratios, less one.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.data.source import find_source
from mmq.prepare import Prepared, prepare
from mmq.record import TrialSpec
from mmq.trial import run_trial

WORDS = "\nAnswer the question with a single word."  # ChartQA's prompt in lmms-eval
DECODING = {"max_new_tokens": "16", "num_beams": "1"}
WIDTHS = (8, 6, 5, 4, 3, 2)


def write_scenes(folder: Path, count: int) -> Path:
    samples = find_source("vqa", "scenes").samples()[:count]
    rows = [
        {
            "type": "human_test", "question": s.question, "answer": s.answers[0],
            "image": {"bytes": s.image.path.read_bytes(), "path": None},
        }
        for s in samples
    ]  # fmt: skip
    path = folder / "data" / "test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return folder


def prepared(task: str, data: Path, **options: str) -> Prepared:
    allocation = BitAllocation.parse("llm=4")
    return prepare(
        EvalOptions(task=task, data=str(data)), DECODING | options, lambda _: [allocation]
    )


def seconds(case: Prepared, model, store: Store, bits: int) -> float:
    model.stage_cache = None
    started = time.process_time()
    spec = TrialSpec(case.eval_spec, BitAllocation.parse(f"llm={bits}"))
    run_trial(spec, model, case.artifacts(store, quiet=True), case.task, quiet=True)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--trials", type=int, default=4, help="after the first")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        data = write_scenes(Path(name) / "chartqa", arguments.samples)
        own = prepared("short-answer", data, prompt="Question: {}" + WORDS + " Answer:")
        lmms = prepared("lmms:chartqa", data)
        store, model = Store(Path(name) / "store"), own.load()
        ratios, times = [], []
        with own.task, lmms.task:
            for turn in range(arguments.trials + 1):
                bits = WIDTHS[turn % len(WIDTHS)]
                cases = (own, lmms) if turn % 2 else (lmms, own)
                pair = [seconds(case, model, store, bits) for case in cases]
                pair = pair if turn % 2 else pair[::-1]
                if turn:
                    times.append(pair)
                    ratios.append(pair[1] / pair[0])
    print("| evaluator | CPU s/trial | overhead |\n|---|---|---|")
    plain, through = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"| short-answer | {plain:.2f} | |")
    print(f"| lmms:chartqa | {through:.2f} | {100 * (statistics.median(ratios) - 1):.1f}% |")


if __name__ == "__main__":
    main()
