"""What an evaluation set is made of."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sample:
    """One item of an evaluation set. `image_id` groups the samples of one picture."""

    id: str
    image_id: str
    image: Path


@dataclass(frozen=True, slots=True)
class CaptionSample(Sample):
    """A picture with its reference captions (COCO: five)."""

    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QuestionSample(Sample):
    """A question about a picture with its annotators' answers (VQAv2: ten, GQA: one).

    `types` says what kind of question it is, as (name, value): GQA's ("structural", "verify").
    """

    question: str
    answers: tuple[str, ...]
    answer_type: str
    types: tuple[tuple[str, str], ...] = ()
