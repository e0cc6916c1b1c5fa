"""Time to rank the parts of a table on both scales, with the default bootstrap.

    python benchmarks/analysis.py [--table FILE --score cider] [--jobs 1 2]

The table is a CSV with one column `<part>_bits` per part; without one, 448 synthetic
configurations of three parts at 7 to 8 widths are used. `score` and `log-loss` are the seconds of
these rankings (100 forests for the intervals of each, 20 for held-out R²; the first includes
starting the processes), `pairs` the measured interactions.
"""

import argparse
import time
from itertools import product

import numpy as np
import pandas as pd

from mmq.analysis.importance import SCALES, Settings, rank
from mmq.analysis.interactions import pair_losses, summarize
from mmq.analysis.table import make_table


def made_up() -> pd.DataFrame:
    """Scores that break down at few bits, like those of a real grid."""
    widths = (2, 3, 4, 5, 6, 7, 8, 16)
    frame = pd.DataFrame(
        product(widths, widths, widths[1:]), columns=["vit_bits", "qformer_bits", "llm_bits"]
    )
    loss = 30 * np.exp2(-1.5 * frame.vit_bits) + 40 * np.exp2(-1.5 * frame.llm_bits)
    loss += 3 * np.exp2(-1.5 * frame.qformer_bits)
    noise = np.random.default_rng(0).normal(0, 0.01, len(frame))
    return frame.assign(score=1.3 * np.exp(-loss) + noise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", default="", help="CSV; synthetic if not given")
    parser.add_argument("--score", default="score", help="its column with the score")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--bootstrap", type=int, default=100)
    options = parser.parse_args()
    frame = pd.read_csv(options.table) if options.table else made_up()
    columns = [name for name in frame.columns if name.endswith("_bits")]
    print("| configurations | processes | score s | log-loss s | pairs s | all s |")
    print("|---|---|---|---|---|---|")
    for jobs in options.jobs:
        print(row(frame, columns, options.score, jobs, options.bootstrap), flush=True)


def row(frame: pd.DataFrame, columns: list[str], score: str, jobs: int, bootstrap: int) -> str:
    table = make_table(frame, {name.removesuffix("_bits"): name for name in columns}, score)
    settings = Settings(jobs=jobs, bootstrap=bootstrap, quiet=True)
    times = [time.perf_counter()]
    for scale in SCALES:
        rank(table, scale, settings)
        times.append(time.perf_counter())
    summarize(pair_losses(table))
    times.append(time.perf_counter())
    seconds = " | ".join(f"{s:.1f}" for s in [*np.diff(times), times[-1] - times[0]])
    return f"| {table.n} | {jobs} | {seconds} |"


if __name__ == "__main__":
    main()
