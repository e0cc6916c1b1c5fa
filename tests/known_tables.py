"""Grids whose importances are known."""

from itertools import product

import pandas as pd

from mmq.analysis.importance import Settings
from mmq.analysis.table import make_table

WIDTHS = (2, 3, 4, 8, 16)
QUICK = Settings(trees=16, bootstrap=10, repeats=10, jobs=1, quiet=True)


def grid(score, parts=("vit", "qformer", "llm"), widths=WIDTHS, **columns):
    """A frame of the full grid; score: a function of the bits of all parts."""
    rows = list(product(widths, repeat=len(parts)))
    frame = pd.DataFrame(rows, columns=list(parts))
    return frame.assign(score=[float(score(*row)) for row in rows], **columns)


def table(frame, parts=("vit", "qformer", "llm"), **options):
    return make_table(frame, {part: part for part in parts}, **options)


def additive(vit, qformer, llm):
    """Losses of which llm's is twice vit's; qformer does not matter."""
    return 100 - 80 / llm - 40 / vit
