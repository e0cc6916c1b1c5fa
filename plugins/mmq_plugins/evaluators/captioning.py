"""Captioning scores by pycocoevalcap: CIDEr, METEOR, BLEU, ROUGE-L."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mmq.asking import GeneratingEvaluator, InParts, one_line
from mmq.contracts import (
    CaptionSample,
    Evaluation,
    Metric,
    Prediction,
    Progress,
)
from mmq.stats import corpus_metrics, mean_metric
from mmq_plugins.evaluators.java import captured_stderr, require_java

if TYPE_CHECKING:
    from mmq.model import LoadedModel


@dataclass
class Captioning(InParts, GeneratingEvaluator):
    """Describe every picture; CIDEr is the score, its document frequencies are the whole set's."""

    task: ClassVar[str] = "captioning"
    bounds: ClassVar[tuple[float, float] | None] = (0, 10)
    _scorer: "CaptionScorer | None" = field(default=None, init=False, repr=False, compare=False)

    def check(self) -> None:
        """Java is there (METEOR and the tokenizer need it)."""
        require_java()

    def prepare(self, samples: Sequence[CaptionSample]) -> None:
        """Tokenize all references once."""
        self.close()
        self._scorer = CaptionScorer(samples)

    def example(self, sample: CaptionSample) -> tuple[str, str]:
        """No question, and the first caption."""
        return "", sample.references[0]

    def predict(
        self, model: "LoadedModel", samples: Sequence[CaptionSample], progress: Progress
    ) -> list[str]:
        """A caption of every picture."""
        settings = self.settings(model)
        return self.ask(model, samples, [settings.prompt] * len(samples), settings, progress)

    def score(self, samples: Sequence[CaptionSample], answers: Sequence[str]) -> Evaluation:
        """Scores of given captions; captioning/CIDEr is the score."""
        if self._scorer is None:
            self.prepare(samples)
        assert self._scorer is not None
        return self._scorer.score(samples, answers)

    def values(self, samples: Sequence[CaptionSample], answers: Sequence[str]) -> list[float]:
        """CIDEr of every caption; `prepare` has seen the whole set."""
        assert self._scorer is not None, "captions of a part are scored after prepare"
        return self._scorer.cider(samples, answers)

    def close(self) -> None:
        """End METEOR's Java process."""
        if self._scorer is not None:
            self._scorer.close()
        self._scorer = None


class CaptionScorer:
    """pycocoevalcap's scorers over one evaluation set; one METEOR process for all calls."""

    def __init__(self, samples: Sequence[CaptionSample]) -> None:
        from pycocoevalcap.cider.cider_scorer import cook_refs

        require_java()
        self._references = _tokenize({s.id: list(s.references) for s in samples})
        self._cooked = {key: cook_refs(refs) for key, refs in self._references.items()}
        self._meteor: Any = None

    def score(self, samples: Sequence[CaptionSample], captions: Sequence[str]) -> Evaluation:
        """Scores of given captions for all or some of the prepared samples."""
        from pycocoevalcap.meteor.meteor import Meteor
        from pycocoevalcap.rouge.rouge import Rouge

        keys = [sample.id for sample in samples]
        found = _tokenize({key: [text] for key, text in zip(keys, captions, strict=True)})
        references = {key: self._references[key] for key in keys}
        found = {key: found[key] for key in keys}
        self._meteor = self._meteor or Meteor()
        meteor, meteor_each = self._meteor.compute_score(references, found)
        _, rouge_each = Rouge().compute_score(references, found)
        cider_each = self._cider(keys, found)
        images = [sample.image_id for sample in samples]
        metrics = {
            "captioning/CIDEr": mean_metric(cider_each, images),
            "captioning/METEOR": _meteor_metric(meteor, meteor_each, images),
            "captioning/ROUGE_L": mean_metric(rouge_each, images),
        }
        columns = _bleu_columns([(found[key][0], references[key]) for key in keys])
        for k, metric in enumerate(corpus_metrics(columns, images, _bleu), start=1):
            metrics[f"captioning/BLEU_{k}"] = metric
        return Evaluation(
            primary="captioning/CIDEr",
            metrics=metrics,
            per_sample={
                "captioning/CIDEr": [float(x) for x in cider_each],
                "captioning/METEOR": [float(x) for x in meteor_each],
                "captioning/ROUGE_L": [float(x) for x in rouge_each],
            },
            predictions=[
                Prediction(s.id, s.image, "", text, s.references[0], float(value))
                for s, text, value in zip(samples, captions, cider_each, strict=True)
            ],
        )

    def cider(self, samples: Sequence[CaptionSample], captions: Sequence[str]) -> list[float]:
        """CIDEr of each caption alone: no Java but the tokenizer's."""
        keys = [sample.id for sample in samples]
        found = _tokenize({key: [text] for key, text in zip(keys, captions, strict=True)})
        return self._cider(keys, found)

    def _cider(self, keys: list[str], found: dict[str, list[str]]) -> list[float]:
        """CIDEr of each caption with the document frequencies of the whole prepared set."""
        from pycocoevalcap.cider.cider_scorer import CiderScorer, cook_test

        scorer = CiderScorer()
        chosen = set(keys)
        rest = [refs for key, refs in self._cooked.items() if key not in chosen]
        # the scorer pairs captions with the first references and counts frequencies over all
        scorer.crefs = [self._cooked[key] for key in keys] + rest
        scorer.ctest = [cook_test(found[key][0]) for key in keys]
        scorer.compute_doc_freq()
        return [float(value) for value in scorer.compute_cider()]

    def close(self) -> None:
        """End the Java process."""
        self._meteor = None


def _meteor_metric(corpus: float, each: Sequence[float], images: Sequence[str]) -> Metric:
    """METEOR's corpus score with the interval of the mean segment score, moved to it.

    The corpus score is a function of counts that the scorer keeps to itself; it lies close to the
    mean of the segments' and varies with it.
    """
    mean = mean_metric(each, images)
    if mean.low is None or mean.high is None:
        return Metric(corpus, mean.n)
    shift = corpus - mean.value
    return Metric(corpus, mean.n, mean.low + shift, mean.high + shift)


def _bleu_columns(pairs: Sequence[tuple[str, list[str]]]) -> np.ndarray:
    """What corpus BLEU sums over captions, (n, 10): lengths, guessed and matched n-grams."""
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


def _tokenize(texts: dict[str, list[str]]) -> dict[str, list[str]]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # the tokenizer works by lines: a line break of any kind inside a text would shift all others
    wrapped = {key: [{"caption": one_line(t)} for t in values] for key, values in texts.items()}
    with captured_stderr() as said:  # it reports its speed there, once a trial
        tokenized: dict[str, list[str]] = PTBTokenizer().tokenize(wrapped)
        counts = {key: len(values) for key, values in tokenized.items()}
        if counts != {key: len(values) for key, values in texts.items()}:
            raise RuntimeError(f"PTBTokenizer lost captions; it said: {said()}")
    return tokenized
