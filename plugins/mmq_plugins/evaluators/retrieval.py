"""Image-text retrieval: contrast finds candidates, the matching head ranks them again."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmq.contracts import CaptionSample, Evaluation, Prediction
from mmq.contracts.evaluator import Evaluator, Progress
from mmq.contracts.family import ModelFamily
from mmq.errors import InputError
from mmq.evaluation.generating import check_task
from mmq.models.stages import Rows, encode
from mmq_plugins.evaluators.recall import RANKS, recall_metrics, undefined_recalls

if TYPE_CHECKING:
    from mmq.models.loading import LoadedModel

CANDIDATES = 128  # that the matching head ranks again (Li et al. 2023, section 4.4)
MAX_WORDS = 50


def normalize_caption(text: str, max_words: int = MAX_WORDS) -> str:
    """A caption as BLIP-2's retrieval reads it: lower case, no .!"()*#:;~, its first words."""
    text = re.sub(r"[.!\"()*#:;~]", " ", text.lower())
    return " ".join(text.split()[:max_words])


@dataclass
class Retrieval(Evaluator):
    """Recall at 1, 5 and 10 in both directions; their mean is the score.

    Every caption is a query for its picture, every picture one for any of its captions. The pool
    is the evaluated set: a part of it is an easier task than the whole. Ties count against the
    model.
    """

    task: ClassVar[str] = "retrieval"
    pooled: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float] | None] = (0, 100)

    batch_size: int = 64
    k: int | None = None  # candidates; 128 unless the model's own protocol says otherwise
    max_words: int = MAX_WORDS  # of a caption; the tokens are limited by the model's family

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_words"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not at least 1")
        if self.k is not None and self.k < max(RANKS):
            raise ValueError(f"k: {self.k} is less than {max(RANKS)}, the last rank that counts")

    def resolve(self, family: ModelFamily) -> None:
        """128 candidates if nothing else is set; InputError for a model that cannot match."""
        check_task(family, self.task)
        self.k = self.k or CANDIDATES

    def check_samples(
        self, samples: Sequence[CaptionSample], everything: Sequence[CaptionSample]
    ) -> None:
        """InputError where every ranking is right: one picture, or captions without a word."""
        super().check_samples(samples, everything)
        if len(samples) == 1:
            raise InputError(
                "retrieval/mean_recall is undefined: with one picture every ranking is right. "
                "Score several pictures; the pool of a published result has 1,000 or more."
            )
        without = [
            s.id
            for s in samples
            if not all(normalize_caption(t, self.max_words) for t in s.references)
            or not s.references
        ]
        if without:
            raise InputError(
                f"{len(without)} of {len(samples)} pictures have a caption without a word in it "
                f"(first: {without[0]!r}): it cannot be found. Remove it from the data."
            )

    def calibration_texts(self, samples: Sequence[CaptionSample]) -> list[tuple[str, str]]:
        """Each picture's first caption, as the model reads it; there is nothing to answer."""
        return [(normalize_caption(s.references[0], self.max_words), "") for s in samples]

    def evaluate(
        self, model: "LoadedModel", samples: Sequence[CaptionSample], progress: Progress
    ) -> Evaluation:
        """Rank all captions for every picture, and all pictures for every caption."""
        self.resolve(model.family)
        self.check_samples(samples, samples)
        texts = [normalize_caption(text, self.max_words) for s in samples for text in s.references]
        owner = np.repeat(np.arange(len(samples)), [len(s.references) for s in samples])
        similar = self._similarities(model, samples, texts, progress)
        to_text, to_image = self._rank_again(model, samples, texts, similar, progress)
        metrics, each = recall_metrics(
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
            per_sample=each,
            predictions=[
                Prediction(s.id, s.images, "", texts[best[k]], s.references[0], score)
                for k, (s, score) in enumerate(
                    zip(samples, each["retrieval/mean_recall"], strict=True)
                )
            ],
            undefined=undefined,
        )

    def _similarities(
        self,
        model: "LoadedModel",
        samples: Sequence[CaptionSample],
        texts: Sequence[str],
        progress: Progress,
    ) -> np.ndarray:
        """Cosine of every picture's best query with every text, (pictures, texts)."""
        family: Any = model.family
        size = self.batch_size
        paths = [sample.image for sample in samples]
        images = encode(model, paths, "connector", size, progress)
        by_length = sorted(range(len(texts)), key=lambda k: len(texts[k]))  # little padding
        parts = [by_length[k : k + size] for k in range(0, len(texts), size)]
        vectors: dict[int, Tensor] = {}
        for part in progress(parts, "texts"):
            vectors.update(
                zip(part, family.embed_texts(model, [texts[k] for k in part]), strict=True)
            )
        embedded = torch.stack([vectors[k] for k in range(len(texts))]).float()
        rows = []
        for start in range(0, len(paths), size):
            queries = images(paths[start : start + size]).float()  # (b, queries, width)
            rows.append(torch.einsum("iqd,td->itq", queries, embedded).amax(-1).cpu())
        return _finite(torch.cat(rows))

    def _rank_again(
        self,
        model: "LoadedModel",
        samples: Sequence[CaptionSample],
        texts: Sequence[str],
        similar: np.ndarray,
        progress: Progress,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Similarity plus matching logit for each direction's candidates, -inf for the others.

        Both are (pictures, texts). A pair that is a candidate in both directions is matched once.
        """
        assert self.k is not None
        chosen = [candidates(similar, self.k), candidates(similar.T, self.k).T]
        pairs = np.argwhere(chosen[0] | chosen[1])
        # texts of like length together: little padding; pictures in order: few are opened at once
        lengths = np.array([len(text.split()) for text in texts])
        pairs = pairs[np.lexsort((pairs[:, 0], lengths[pairs[:, 1]]))]
        paths = [sample.image for sample in samples]
        vision: Rows = encode(model, paths, "vision", self.batch_size, progress)
        matched = np.full(similar.shape, -np.inf)
        family: Any = model.family
        parts = [pairs[k : k + self.batch_size] for k in range(0, len(pairs), self.batch_size)]
        for part in progress(parts, "match"):
            logits = family.match(
                model, vision([paths[i] for i, _ in part]), [texts[t] for _, t in part]
            )
            matched[part[:, 0], part[:, 1]] = _finite(logits.cpu())
        total = matched + similar
        return np.where(chosen[0], total, -np.inf), np.where(chosen[1], total, -np.inf)


def candidates(similar: np.ndarray, k: int) -> np.ndarray:
    """Which entries are among the k largest of their row, as a mask."""
    k = min(k, similar.shape[1])
    top = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    mask = np.zeros(similar.shape, dtype=bool)
    np.put_along_axis(mask, top, True, axis=1)
    return mask


def _finite(scores: Tensor) -> np.ndarray:
    """Scores as float64; what a collapsed model made no number of ranks last."""
    array: np.ndarray = scores.double().numpy()
    return np.where(np.isfinite(array), array, -1e9)
