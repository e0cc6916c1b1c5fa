"""Recall at k from score matrices in both directions, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mmq.contracts import Metric
from mmq.evaluation.stats import corpus_metrics

RANKS = (1, 5, 10)
WAYS = ("image_to_text", "text_to_image")


def text_ranks(scores: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """How many other texts score at least as high as a picture's best own one, (pictures,).

    scores: (pictures, texts), -inf for non-candidates. owner: the picture of each text.
    """
    own = owner[None, :] == np.arange(len(scores))[:, None]
    best = np.where(own, scores, -np.inf).max(1, keepdims=True)
    ranks = ((scores >= best) & ~own).sum(1)
    worst = scores.shape[1]
    return np.asarray(np.where(np.isneginf(best[:, 0]), worst, ranks))


def image_ranks(scores: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """How many other pictures score at least as high as a text's own one, (texts,)."""
    texts = np.arange(scores.shape[1])
    own = scores[owner, texts]
    ranks = (scores >= own[None, :]).sum(0) - 1
    return np.asarray(np.where(np.isneginf(own), len(scores), ranks))


def foreign_candidates(owner: np.ndarray, pictures: int) -> tuple[int, int]:
    """Maximum number of wrong candidates per query, by direction: texts, pictures."""
    counts = np.bincount(owner, minlength=pictures)
    return int(len(owner) - counts.min()), pictures - 1


def undefined_recalls(owner: np.ndarray, pictures: int) -> dict[str, str]:
    """The recalls that are 100 for any ranking, by name, with the reason.

    With k - 1 wrong candidates or fewer, the correct one is always among the first k.
    """
    reasons = {}
    for way, foreign in zip(WAYS, foreign_candidates(owner, pictures), strict=True):
        for rank in RANKS:
            if foreign < rank:
                reasons[f"{way}_R{rank}"] = (
                    f"100 by construction, since a query has at most {foreign} wrong candidates; "
                    f"the means are without it"
                )
        if foreign < 1:
            reasons[f"contrastive_{way}_R1"] = reasons[f"{way}_R1"]
    return reasons


def recall_metrics(
    to_text: np.ndarray,
    to_image: np.ndarray,
    similar: np.ndarray,
    owner: np.ndarray,
    clusters: Sequence[str],
) -> tuple[Mapping[str, Metric], Mapping[str, list[float]]]:
    """Recalls in percent, with intervals, and the values of each picture.

    to_text, to_image: the ranking scores of each direction; similar: the contrastive ones, whose
    R@1 is reported too. All are (pictures, texts). A picture's text-to-image value is the
    mean over its texts; a metric's n counts the queries. `undefined_recalls` are omitted, also
    from the means.
    """
    pictures = len(to_text)
    undefined = undefined_recalls(owner, pictures)
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
    means = {f"{way}_mean": [f"{way}_R{rank}" for rank in RANKS] for way in WAYS}
    means["mean_recall"] = [name for parts in means.values() for name in parts]
    means = {
        name: [part for part in parts if part not in undefined] for name, parts in means.items()
    }
    places = {
        name: [names.index(part) for part in parts] for name, parts in means.items() if parts
    }
    defined = [k for k, name in enumerate(names) if name not in undefined]

    def recalls(sums: np.ndarray) -> np.ndarray:
        """Each row of column sums as recalls in percent, then their means."""
        estimates = 100 * sums[:, :-2] / np.tile(sums[:, -2:], len(names) // 2)
        averages = [estimates[:, parts].mean(1) for parts in places.values()]
        return np.column_stack([estimates[:, defined], *averages])

    order = [f"retrieval/{name}" for name in (*(names[k] for k in defined), *places)]
    estimates = corpus_metrics(
        table, clusters, lambda sums: np.asarray(recalls(sums[None])[0]), bounds=(0, 100)
    )
    metrics = {
        # a text-to-image recall is a share of the texts, the mean over both ways one of pictures
        name: replace(metric, n=len(owner)) if WAYS[1] in name else metric
        for name, metric in zip(order, estimates, strict=True)
    }
    per_picture = recalls(table)
    return metrics, {name: [float(v) for v in per_picture[:, k]] for k, name in enumerate(order)}
