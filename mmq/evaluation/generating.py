"""Generate and score outputs: the same for every evaluator and model."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, Self, cast

from mmq.contracts.evaluation import Evaluation
from mmq.contracts.evaluator import Evaluator, GeneratingEvaluator, RankingEvaluator, Scorer
from mmq.contracts.family import ModelFamily
from mmq.contracts.samples import TextSample
from mmq.contracts.vlm import (
    AnswerProtocol,
    ImageTextMatcher,
    Progress,
    Request,
    VisionLanguageModel,
)
from mmq.errors import InputError

if TYPE_CHECKING:
    from mmq.evaluation.saved_outputs import SavedOutputs

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Task:
    """An evaluator with the samples to score. Open it before scoring, close it at the end.

    everything: the whole evaluation set, for document frequencies and the like.
    """

    evaluator: Evaluator
    samples: Sequence[Any]
    everything: Sequence[Any]
    _scorer: Scorer | None = None

    def open(self) -> None:
        """Start the scorer (for captions, a Java process); InputError if it fails."""
        if self._scorer is None and isinstance(self.evaluator, GeneratingEvaluator):
            self._scorer = self.evaluator.scorer(self.everything).__enter__()

    @property
    def scorer(self) -> Scorer:
        """The scorer of an open task with a generating evaluator."""
        if self._scorer is None:
            raise RuntimeError(f"the task {self.evaluator.task!r} is not open")
        return self._scorer

    def close(self) -> None:
        """Stop the scorer."""
        scorer, self._scorer = self._scorer, None
        if scorer is not None:
            scorer.__exit__(None, None, None)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def protocol_for(
    evaluator: Evaluator, model: VisionLanguageModel | ModelFamily
) -> AnswerProtocol | None:
    """The evaluator's protocol for this model, None if it ranks; InputError if unsupported."""
    if isinstance(evaluator, GeneratingEvaluator):
        return evaluator.protocol(model.protocol(evaluator.answer_format))
    if isinstance(model, ModelFamily) and not model.matches:
        raise InputError(
            f"{type(model).__name__} models cannot rank pictures and texts, as "
            f"{evaluator.task!r} needs; use a model with a matching head, e.g. "
            f"Salesforce/blip2-itm-vit-g-coco"
        )
    return None


def calibration_pairs(
    evaluator: Evaluator, samples: Sequence[Any], protocol: AnswerProtocol | None
) -> list[tuple[Request, str]]:
    """A request per sample, with a correct answer or ""; a text without pictures as it is."""
    texts = [sample for sample in samples if isinstance(sample, TextSample)]
    pictured = [sample for sample in samples if not isinstance(sample, TextSample)]
    pairs: list[tuple[Request, str]] = []
    if pictured and isinstance(evaluator, GeneratingEvaluator):
        assert protocol is not None
        pairs = evaluator.calibration(pictured, protocol)
    elif pictured:
        pairs = cast(RankingEvaluator, evaluator).calibration(pictured)
    return pairs + [(Request((), sample.text, sample.id), "") for sample in texts]


def generate_outputs(
    evaluator: GeneratingEvaluator,
    model: VisionLanguageModel,
    samples: Sequence[Any],
    progress: Progress,
    saved: "SavedOutputs | None" = None,
) -> list[str]:
    """The model's output for each sample as the evaluator reads it; saved before it is scored.

    saved: outputs of the same trial, which are not generated again.
    """
    if saved is not None and (outputs := saved.get(samples)) is not None:
        log.info("Reusing %d saved outputs of an evaluation that was not scored", len(outputs))
        _observations(model).update(saved.counts(samples))
        return outputs
    protocol = evaluator.protocol(model.protocol(evaluator.answer_format))
    requests = evaluator.requests(samples, protocol)
    counts = check_requests_per_sample(evaluator, samples, requests)
    before = Counter(_observations(model))
    lines = [
        evaluator.read_output(text) for text in model.generate(requests, protocol.config, progress)
    ]
    if len(lines) != len(requests):
        raise ValueError(
            f"{type(model).__name__}.generate: {len(lines)} outputs for {len(requests)} requests"
        )
    of_sample = iter(lines)
    outputs = ["\n".join(islice(of_sample, count)) for count in counts]
    if saved is not None:
        saved.add(samples, outputs, Counter(_observations(model)) - before)
    return outputs


def _observations(model: VisionLanguageModel) -> Counter[str]:
    """A model's counts while it generates; an unused counter if it counts nothing."""
    observations = getattr(model, "observations", None)
    return observations if isinstance(observations, Counter) else Counter()


def check_requests_per_sample(
    evaluator: GeneratingEvaluator, samples: Sequence[Any], requests: Sequence[Request]
) -> list[int]:
    """The number of requests of each sample; ValueError if the requests are not these."""
    counts = [evaluator.requests_per_sample(sample) for sample in samples]
    starts = accumulate(counts, initial=0)
    single = [
        (sample.id, start)
        for sample, count, start in zip(samples, counts, starts, strict=False)
        if count == 1
    ]
    if sum(counts) != len(requests) or any(requests[k].sample_id != key for key, k in single):
        raise ValueError(
            f"{type(evaluator).__name__}.requests: not one request per sample, or as many as "
            f"requests_per_sample"
        )
    return counts


def evaluate(
    task: Task,
    model: VisionLanguageModel | ImageTextMatcher,
    progress: Progress,
    saved: "SavedOutputs | None" = None,
) -> Evaluation:
    """Score a model on all samples of a task."""
    evaluator = task.evaluator
    if isinstance(evaluator, RankingEvaluator):
        return evaluator.rank(cast(ImageTextMatcher, model), task.samples, progress)
    vlm = cast(VisionLanguageModel, model)
    generating = cast(GeneratingEvaluator, evaluator)
    outputs = generate_outputs(generating, vlm, task.samples, progress, saved)
    return task.scorer.score(task.samples, outputs)
