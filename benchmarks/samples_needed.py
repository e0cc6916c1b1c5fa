"""How many samples tell a loss of 1%: tables from mmq's own intervals and tests.

    python benchmarks/samples_needed.py

Prints the two tables of docs/samples.md: the 95% interval of one score, and the pictures that a
paired comparison with the unquantized model needs.
"""

import numpy as np

from mmq.analysis.evidence import about, pictures_to_detect
from mmq.evaluation.stats import mean_metric

COUNTS = (100, 300, 1000, 3000, 10000)
SCORES = (50, 80, 95)
CHANGED = (1, 2, 5, 10, 20)  # percent of the answers that are right in one model only
LOSSES = (0.5, 1, 2)  # percent of the unquantized score
POOL = 1_000_000  # answers that define the shares above


def interval_table() -> str:
    """Half the width of a score's 95% interval, in points, by score and number of samples."""
    lines = ["| samples | " + " | ".join(f"score {score}" for score in SCORES) + " |"]
    lines += ["|---:|" + "---:|" * len(SCORES)]
    for count in COUNTS:
        cells = []
        for score in SCORES:
            values = np.zeros(count)
            values[: round(count * score / 100)] = 1
            metric = mean_metric(values, [str(k) for k in range(count)], scale=100)
            assert metric.low is not None
            assert metric.high is not None
            cells.append(f"± {(metric.high - metric.low) / 2:.1f}")
        lines.append(f"| {count:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pictures(score: float, changed: float, loss: float) -> str:
    """Pictures that show this loss in a paired test; "-" where fewer answers change than that."""
    net = score * loss / 100  # points lost
    if changed < net:
        return "-"
    old, new = np.zeros(POOL), np.zeros(POOL)
    worse, better = (round(POOL * (changed + sign * net) / 200) for sign in (1, -1))
    right = round(POOL * score / 100)
    old[:right] = 1
    new[worse : right + better] = 1  # the first answers became wrong, the last ones right
    return about(pictures_to_detect(new, old, loss / 100))


def paired_table(score: float = 80) -> str:
    """Pictures for a paired comparison, by the share of answers that change, and the loss."""
    lines = ["| answers that change | " + " | ".join(f"loss of {each}%" for each in LOSSES) + " |"]
    lines += ["|---:|" + "---:|" * len(LOSSES)]
    for changed in CHANGED:
        cells = [pictures(score, changed, loss) for loss in LOSSES]
        lines.append(f"| {changed}% | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(interval_table(), paired_table(), sep="\n\n")
