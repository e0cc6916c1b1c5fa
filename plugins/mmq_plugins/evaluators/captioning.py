"""Captioning scores by pycocoevalcap: CIDEr, METEOR, BLEU, ROUGE-L."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from mmq.asking import GeneratingEvaluator, one_line
from mmq.contracts import (
    CaptionSample,
    Evaluation,
    Metric,
    Prediction,
    Progress,
)
from mmq.stats import mean_metric
from mmq_plugins.evaluators.java import captured_stderr, require_java

if TYPE_CHECKING:
    from mmq.model import LoadedModel


@dataclass
class Captioning(GeneratingEvaluator):
    """Describe every picture; CIDEr is the score, its document frequencies are the whole set's."""

    task: ClassVar[str] = "captioning"
    _scorer: "CaptionScorer | None" = field(default=None, init=False, repr=False, compare=False)

    def check(self) -> None:
        """Java is there (METEOR and the tokenizer need it)."""
        require_java()

    def prepare(self, samples: Sequence[CaptionSample]) -> None:
        """Tokenize all references once."""
        self.close()
        self._scorer = CaptionScorer(samples)

    def evaluate(
        self, model: "LoadedModel", samples: Sequence[CaptionSample], progress: Progress
    ) -> Evaluation:
        """Caption and score; captioning/CIDEr is the score."""
        if self._scorer is None:
            self.prepare(samples)
        assert self._scorer is not None
        settings = self.settings(model)
        captions = self.ask(model, samples, [settings.prompt] * len(samples), settings, progress)
        return self._scorer.score(samples, captions)

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
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.meteor.meteor import Meteor
        from pycocoevalcap.rouge.rouge import Rouge

        keys = [sample.id for sample in samples]
        found = _tokenize({key: [text] for key, text in zip(keys, captions, strict=True)})
        references = {key: self._references[key] for key in keys}
        found = {key: found[key] for key in keys}
        self._meteor = self._meteor or Meteor()
        bleu, _ = Bleu(4).compute_score(references, found, verbose=0)
        meteor, meteor_each = self._meteor.compute_score(references, found)
        _, rouge_each = Rouge().compute_score(references, found)
        cider_each = self._cider(keys, found)
        images = [sample.image_id for sample in samples]
        n = len(samples)
        metrics = {
            "captioning/CIDEr": mean_metric(cider_each, images),
            "captioning/METEOR": Metric(float(meteor), n),  # a corpus score, no mean of samples
            "captioning/ROUGE_L": mean_metric(rouge_each, images),
        } | {f"captioning/BLEU_{k}": Metric(float(b), n) for k, b in enumerate(bleu, start=1)}
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
