"""Recall at k from score matrices, both ways, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mmq.contracts import Metric
from mmq.stats import corpus_metrics

RANKS = (1, 5, 10)
WAYS = ("image_to_text", "text_to_image")


def text_ranks(scores: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """How many foreign texts score as high as a picture's best own one, (pictures,).

    scores: (pictures, texts), -inf for what is out of question; owner: the picture of each text.
    """
    own = owner[None, :] == np.arange(len(scores))[:, None]
    best = np.where(own, scores, -np.inf).max(1, keepdims=True)
    ranks = ((scores >= best) & ~own).sum(1)
    worst = scores.shape[1]
    return np.asarray(np.where(np.isneginf(best[:, 0]), worst, ranks))


def image_ranks(scores: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """How many foreign pictures score as high as a text's own one, (texts,)."""
    texts = np.arange(scores.shape[1])
    own = scores[owner, texts]
    ranks = (scores >= own[None, :]).sum(0) - 1
    return np.asarray(np.where(np.isneginf(own), len(scores), ranks))


def recall_metrics(
    to_text: np.ndarray,
    to_image: np.ndarray,
    similar: np.ndarray,
    owner: np.ndarray,
    clusters: Sequence[str],
) -> tuple[Mapping[str, Metric], Mapping[str, list[float]]]:
    """Recalls in percent, with intervals, and the values of each picture.

    to_text, to_image: the ranking scores of each direction; similar: the contrastive ones, whose
    R@1 is reported beside them. All are (pictures, texts). A picture's text-to-image value is the
    mean over its texts; a metric's n counts the queries.
    """
    pictures = len(to_text)
    ranks = [
        (text_ranks(to_text, owner), image_ranks(to_image, owner), RANKS, ""),
        (text_ranks(similar, owner), image_ranks(similar, owner), RANKS[:1], "contrastive_"),
    ]
    names: list[str] = []
    columns: list[np.ndarray] = []
    counts = np.bincount(owner, minlength=pictures).astype(float)
    for of_pictures, of_texts, wanted, prefix in ranks:
        for rank in wanted:
            hits = np.bincount(owner, weights=of_texts < rank, minlength=pictures)
            columns += [(of_pictures < rank).astype(float), hits]
            names += [f"{prefix}{way}_R{rank}" for way in WAYS]
    table = np.stack([*columns, np.ones(pictures), counts], axis=1)
    means = [f"{way}_mean" for way in WAYS] + ["mean_recall"]

    def statistic(sums: np.ndarray) -> np.ndarray:
        return np.asarray(_recalls(sums[None])[0])

    order = [f"retrieval/{name}" for name in (*names, *means)]
    metrics = {
        # a text-to-image recall is a share of the texts, the mean over both ways one of pictures
        name: replace(metric, n=len(owner)) if WAYS[1] in name else metric
        for name, metric in zip(order, corpus_metrics(table, clusters, statistic), strict=True)
    }
    each = _recalls(table)
    return (
        metrics,
        {name: [float(v) for v in each[:, k]] for k, name in enumerate(order)},
    )


def _recalls(sums: np.ndarray) -> np.ndarray:
    """Recalls of each row of column sums, then the mean of each way and of both, in percent."""
    hits, totals = sums[:, :-2], sums[:, -2:]
    recalls = 100 * hits / np.tile(totals, hits.shape[1] // 2)
    ranked = recalls[:, : 2 * len(RANKS)]
    means = [ranked[:, way::2].mean(1) for way in range(2)]
    return np.column_stack([recalls, *means, ranked.mean(1)])
