"""Image-text retrieval: contrastive candidates, re-ranked by the matching head."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from mmq.contracts import (
    AnswerProtocol,
    CaptionSample,
    Evaluation,
    ImageTextMatcher,
    Prediction,
    Progress,
    RankingEvaluator,
    Request,
)
from mmq.contracts.images import ImageRef
from mmq.errors import InputError
from mmq_plugins.evaluators.recall import RANKS, recall_metrics, undefined_recalls

CANDIDATES = 128  # re-ranked by the matching head (Li et al. 2023, section 4.4)
MAX_WORDS = 50


def normalize_caption(text: str, max_words: int = MAX_WORDS) -> str:
    """A caption in BLIP-2's retrieval format: lower case, no .!"()*#:;~, its first words."""
    text = re.sub(r"[.!\"()*#:;~]", " ", text.lower())
    return " ".join(text.split()[:max_words])


@dataclass(frozen=True)
class Retrieval(RankingEvaluator):
    """Recall at 1, 5 and 10 in both directions; their mean is the score.

    Every caption is a query for its picture, every picture for any of its captions. The pool is
    the evaluated set, so a subset is an easier task. Ties count against the model.
    """

    version: ClassVar[int] = 1
    task: ClassVar[str] = "retrieval"
    bounds: ClassVar[tuple[float, float] | None] = (0, 100)

    batch_size: int = 64
    k: int | None = None  # candidates; 128 unless the model's protocol sets it
    max_words: int = MAX_WORDS  # words of a caption; the model family limits the tokens

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_words"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not at least 1")
        if self.k is not None and self.k < max(RANKS):
            raise ValueError(
                f"k: {self.k} is less than {max(RANKS)}, the largest rank of a metric"
            )

    @property
    def candidates(self) -> int:
        """Number of candidates per query that the matching head re-ranks."""
        return CANDIDATES if self.k is None else self.k

    def effective_options(self, protocol: AnswerProtocol | None) -> dict[str, Any]:
        """All options by name, with the effective number of candidates."""
        return super().effective_options(protocol) | {"k": self.candidates}

    def check_samples(
        self, samples: Sequence[CaptionSample], everything: Sequence[CaptionSample]
    ) -> None:
        """InputError if every ranking is correct (one picture), or for captions without a word."""
        super().check_samples(samples, everything)
        if len(samples) == 1:
            raise InputError(
                "retrieval/mean_recall is undefined: with one picture, every ranking is correct. "
                "Score several pictures; published results have a pool of 1,000 or more."
            )
        without = [
            s.id
            for s in samples
            if not all(normalize_caption(t, self.max_words) for t in s.references)
            or not s.references
        ]
        if without:
            raise InputError(
                f"{len(without)} of {len(samples)} pictures have a caption without a word "
                f"(first: {without[0]!r}), which cannot be retrieved. Remove it from the data."
            )

    def calibration(self, samples: Sequence[CaptionSample]) -> list[tuple[Request, str]]:
        """Each picture with its first caption, normalized."""
        return [
            (Request((s.image,), normalize_caption(s.references[0], self.max_words), s.id), "")
            for s in samples
        ]

    def rank(
        self, matcher: ImageTextMatcher, samples: Sequence[CaptionSample], progress: Progress
    ) -> Evaluation:
        """Rank all captions for every picture, and all pictures for every caption."""
        self.check_samples(samples, samples)
        texts = [normalize_caption(text, self.max_words) for s in samples for text in s.references]
        owner = np.repeat(np.arange(len(samples)), [len(s.references) for s in samples])
        images = [sample.image for sample in samples]
        similar = self._similarities(matcher, images, texts, progress)
        to_text, to_image = self._rank_again(matcher, images, texts, similar, progress)
        metrics, per_sample = recall_metrics(
            to_text, to_image, similar, owner, [s.image_id for s in samples]
        )
        undefined = {
            f"retrieval/{name}": why
            for name, why in undefined_recalls(owner, len(samples)).items()
        }
        best = to_text.argmax(1)
        return Evaluation(
            primary="retrieval/mean_recall",
            metrics=metrics,
            per_sample=per_sample,
            predictions=[
                Prediction(s.id, s.images, "", texts[best[k]], s.references[0], score)
                for k, (s, score) in enumerate(
                    zip(samples, per_sample["retrieval/mean_recall"], strict=True)
                )
            ],
            undefined=undefined,
        )

    def _similarities(
        self,
        matcher: ImageTextMatcher,
        images: Sequence[ImageRef],
        texts: Sequence[str],
        progress: Progress,
    ) -> np.ndarray:
        """Cosine of every picture's best query with every text, (pictures, texts)."""
        size = self.batch_size
        queries = matcher.embed_images(images, size, progress)  # (pictures, queries, width)
        embedded = matcher.embed_texts(texts, size, progress).float()
        rows = [
            torch.einsum("iqd,td->itq", queries[k : k + size].float(), embedded).amax(-1).cpu()
            for k in range(0, len(images), size)
        ]
        return _finite(torch.cat(rows).double().numpy())

    def _rank_again(
        self,
        matcher: ImageTextMatcher,
        images: Sequence[ImageRef],
        texts: Sequence[str],
        similar: np.ndarray,
        progress: Progress,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Similarity plus matching logit for each direction's candidates, -inf for the others.

        Both are (pictures, texts). A pair that is a candidate in both directions is matched once.
        """
        by_image = candidates(similar, self.candidates)
        by_text = candidates(similar.T, self.candidates).T
        pairs = np.argwhere(by_image | by_text)
        matched = np.full(similar.shape, -np.inf)
        logits = matcher.match(images, texts, pairs, self.batch_size, progress)
        matched[pairs[:, 0], pairs[:, 1]] = _finite(np.asarray(logits, dtype=float))
        total = matched + similar
        return np.where(by_image, total, -np.inf), np.where(by_text, total, -np.inf)


def candidates(similar: np.ndarray, k: int) -> np.ndarray:
    """Which entries are among the k largest of their row, as a mask."""
    k = min(k, similar.shape[1])
    top = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    mask = np.zeros(similar.shape, dtype=bool)
    np.put_along_axis(mask, top, True, axis=1)
    return mask


def _finite(scores: np.ndarray) -> np.ndarray:
    """Scores with NaN and infinities (of a collapsed model) ranked last."""
    return np.where(np.isfinite(scores), scores, -1e9)
