"""Captioning scores by pycocoevalcap: CIDEr, METEOR, BLEU, ROUGE-L."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar, Self

import numpy as np

from mmq.contracts import (
    AnswerFormat,
    AnswerProtocol,
    CaptionSample,
    Evaluation,
    GeneratingEvaluator,
    Metric,
    Prediction,
    Request,
    Scorer,
)
from mmq.errors import InputError
from mmq.evaluation.stats import corpus_metrics, mean_metric
from mmq_plugins.evaluators.caption_text import tokenize
from mmq_plugins.evaluators.java import require_java
from mmq_plugins.evaluators.line_process import ChildError
from mmq_plugins.evaluators.meteor import MeteorProcess

log = logging.getLogger(__name__)

CIDER_MOST = 10.0  # CIDEr of a caption that equals all of its references


@dataclass(frozen=True)
class Captioning(GeneratingEvaluator):
    """Caption every picture; the score is CIDEr, with document frequencies of the whole set."""

    version: ClassVar[int] = 1
    task: ClassVar[str] = "captioning"
    answer_format: ClassVar[AnswerFormat] = AnswerFormat.CAPTION
    bounds: ClassVar[tuple[float, float] | None] = (0, CIDER_MOST)

    def check(self) -> None:
        """InputError without Java."""
        require_java()

    def check_samples(
        self, samples: Sequence[CaptionSample], everything: Sequence[CaptionSample]
    ) -> None:
        """InputError if no caption can score: CIDEr needs references that differ."""
        super().check_samples(samples, everything)
        CaptionScorer(everything).check(samples)

    def requests(
        self, samples: Sequence[CaptionSample], protocol: AnswerProtocol
    ) -> list[Request]:
        """One request per picture, all with the same prompt."""
        return [Request(s.images, protocol.template, s.id) for s in samples]

    def scorer(self, samples: Sequence[CaptionSample]) -> "CaptionScorer":
        """All four scores; METEOR's Java process runs until the scorer is closed."""
        return CaptionScorer(samples)

    def calibration(
        self, samples: Sequence[CaptionSample], protocol: AnswerProtocol
    ) -> list[tuple[Request, str]]:
        """Each picture with its first caption."""
        captions = [sample.references[0] for sample in samples]
        return list(zip(self.requests(samples, protocol), captions, strict=True))


@lru_cache(maxsize=2)  # the samples of a study are checked, then scored
def _tokenized(references: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, list[str]]:
    return tokenize({key: list(texts) for key, texts in references})


class CaptionScorer(Scorer):
    """The four scores over one evaluation set; one METEOR process for all calls."""

    def __init__(
        self, samples: Sequence[CaptionSample], meteor: MeteorProcess | None = None
    ) -> None:
        from pycocoevalcap.cider.cider_scorer import cook_refs

        tokenized = _tokenized(tuple((s.id, s.references) for s in samples))
        self._references = {key: [r for r in refs if r] for key, refs in tokenized.items()}
        self._empty = {k: len(tokenized[k]) - len(refs) for k, refs in self._references.items()}
        self._cooked = {key: cook_refs(refs) for key, refs in self._references.items()}
        self._meteor = meteor or MeteorProcess()

    def __enter__(self) -> Self:
        """InputError if METEOR does not run, or scores a reference caption incorrectly."""
        self._meteor.check()
        return self

    def check(self, samples: Sequence[CaptionSample]) -> None:
        """InputError for samples on which no caption can score, a warning for doubtful ones."""
        self._refuse(samples)
        weightless = [s.id for s in samples if s.id in self._weightless]
        if len(weightless) == len(samples):
            raise InputError(_no_cider("the references of these pictures"))
        if weightless:
            log.warning(
                "CIDEr of %d of %d pictures is 0 for any caption, because all n-grams of their "
                "references occur in the references of every picture (first: %r)",
                len(weightless), len(samples), weightless[0],
            )  # fmt: skip
        if empty := sum(self._empty[s.id] for s in samples):
            log.warning("%d references without a word are omitted", empty)

    def _refuse(self, samples: Sequence[CaptionSample]) -> None:
        without = [s.id for s in samples if not self._references[s.id]]
        if without:
            raise InputError(
                f"{len(without)} of {len(samples)} pictures have no reference with a word "
                f"(first: {without[0]!r}), so their captions cannot be scored. Remove them from "
                f"the data, or add references."
            )
        if len(self._cooked) == 1:
            raise InputError(_no_cider("the references of the only picture"))
        if len(self._weightless) == len(self._cooked):
            raise InputError(_no_cider(f"the references of all {len(self._cooked)} pictures"))

    @cached_property
    def _weightless(self) -> set[str]:
        """Samples whose n-grams occur in every picture's references: their CIDEr weight is 0."""
        pictures = [refs for refs in self._cooked.values() if refs]
        everywhere = {gram for ref in pictures[0] for gram in ref} if pictures else set()
        for refs in pictures[1:]:
            everywhere = {gram for gram in everywhere if any(gram in ref for ref in refs)}
        return {
            key
            for key, refs in self._cooked.items()
            if all(gram in everywhere for ref in refs for gram in ref)
        }

    def score(self, samples: Sequence[CaptionSample], outputs: Sequence[str]) -> Evaluation:
        """Scores of one caption per sample; the samples may be a subset of the set."""
        from pycocoevalcap.rouge.rouge import Rouge

        self._refuse(samples)
        keys = [sample.id for sample in samples]
        captions = tokenize({key: [text] for key, text in zip(keys, outputs, strict=True)})
        references = {key: self._references[key] for key in keys}
        images = [sample.image_id for sample in samples]
        pairs = [(captions[key][0], references[key]) for key in keys]
        cider = self._cider(keys, captions)
        metrics = {"captioning/CIDEr": mean_metric(cider, images, bounds=(0, CIDER_MOST))}
        per_sample = {"captioning/CIDEr": cider}
        undefined: dict[str, str] = {}
        self._add_meteor(pairs, images, metrics, per_sample, undefined)
        _, rouge = Rouge().compute_score(references, captions)
        per_sample["captioning/ROUGE_L"] = [float(x) for x in rouge]
        metrics["captioning/ROUGE_L"] = mean_metric(per_sample["captioning/ROUGE_L"], images)
        _add_bleu(pairs, images, metrics, undefined)
        return Evaluation(
            primary="captioning/CIDEr",
            metrics=metrics,
            per_sample=per_sample,
            predictions=[
                Prediction(s.id, s.images, "", text, s.references[0], value)
                for s, text, value in zip(samples, outputs, cider, strict=True)
            ],
            undefined=undefined,
        )

    def _add_meteor(
        self,
        pairs: Sequence[tuple[str, list[str]]],
        images: Sequence[str],
        metrics: dict[str, Metric],
        per_sample: dict[str, list[float]],
        undefined: dict[str, str],
    ) -> None:
        """Add METEOR, or the reason why it is undefined; other scores do not depend on it."""
        name = "captioning/METEOR"
        try:
            values, corpus = self._meteor.score(*zip(*pairs, strict=True))
        except ChildError as error:
            undefined[name] = f"METEOR's Java process failed twice: {error}"
            return
        metrics[name] = _meteor_metric(corpus, values, images)
        per_sample[name] = values

    def values(self, samples: Sequence[CaptionSample], outputs: Sequence[str]) -> list[float]:
        """CIDEr of each caption; needs no Java process but the tokenizer."""
        keys = [sample.id for sample in samples]
        captions = tokenize({key: [text] for key, text in zip(keys, outputs, strict=True)})
        return self._cider(keys, captions)

    def _cider(self, keys: list[str], captions: dict[str, list[str]]) -> list[float]:
        """CIDEr of each caption with the document frequencies of the whole set."""
        from pycocoevalcap.cider.cider_scorer import CiderScorer, cook_test

        scorer = CiderScorer()
        scored = set(keys)
        rest = [refs for key, refs in self._cooked.items() if key not in scored]
        # the scorer pairs captions with the first references and counts frequencies over all
        scorer.crefs = [self._cooked[key] for key in keys] + rest
        scorer.ctest = [cook_test(captions[key][0]) for key in keys]
        scorer.compute_doc_freq()
        return [float(value) for value in scorer.compute_cider()]

    def close(self) -> None:
        """Stop METEOR's Java process."""
        self._meteor.close()


def _no_cider(whose: str) -> str:
    return (
        f"captioning/CIDEr is undefined: {whose} do not distinguish pictures. CIDEr weights an "
        f"n-gram by how few pictures have it in their references; here all weights and scores "
        f"are 0. Score several pictures with different captions."
    )


def _meteor_metric(corpus: float, segments: Sequence[float], images: Sequence[str]) -> Metric:
    """METEOR's corpus score with the interval of the mean segment score, shifted to it.

    The corpus score is a function of counts that the scorer does not return; it is close to the
    mean segment score and varies with it.
    """
    mean = mean_metric(segments, images)
    if mean.low is None or mean.high is None:
        return Metric(corpus, mean.n)
    shift = corpus - mean.value
    low, high = max(0.0, mean.low + shift), min(1.0, mean.high + shift)
    return Metric(corpus, mean.n, min(low, corpus), max(high, corpus))


def _add_bleu(
    pairs: Sequence[tuple[str, list[str]]],
    images: Sequence[str],
    metrics: dict[str, Metric],
    undefined: dict[str, str],
) -> None:
    """Add corpus BLEU-1 to 4, or the reason why one is undefined: references are too short."""
    longest = max(len(r.split()) for _, references in pairs for r in references)
    scores = corpus_metrics(_bleu_columns(pairs), images, _bleu, bounds=(0, 1))
    for k, metric in enumerate(scores, start=1):
        if k <= longest:
            metrics[f"captioning/BLEU_{k}"] = metric
        else:
            undefined[f"captioning/BLEU_{k}"] = f"no reference has {k} words"


def _bleu_columns(pairs: Sequence[tuple[str, list[str]]]) -> np.ndarray:
    """The terms of corpus BLEU's sums, (n, 10): lengths, guessed and matched n-grams."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=4)
    for text, references in pairs:
        scorer += (text, references)
    closest = [min((abs(r - c["testlen"]), r) for r in c["reflen"])[1] for c in scorer.ctest]
    rows = [
        [c["testlen"], length, *c["guess"], *c["correct"]]
        for c, length in zip(scorer.ctest, closest, strict=True)
    ]
    return np.asarray(rows, dtype=float)


def _bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU-1 to BLEU-4 from the column sums, with pycocoevalcap's guards against zero."""
    small, tiny = 1e-9, 1e-15
    length, reference, guessed, matched = sums[0], sums[1], sums[2:6], sums[6:10]
    scores = np.cumprod((matched + tiny) / (guessed + small)) ** (1 / np.arange(1, 5))
    ratio = (length + tiny) / (reference + small)
    return np.asarray(scores * math.exp(1 - 1 / ratio) if ratio < 1 else scores)
