"""The samples of an evaluation set."""

from dataclasses import dataclass

from mmq.contracts.images import ImageRef
from mmq.errors import InputError


@dataclass(frozen=True, slots=True)
class Sample:
    """One item of an evaluation set: an id and its pictures.

    `image_id` identifies the pictures: samples with the same pictures share it, and confidence
    intervals resample them together.
    """

    id: str
    image_id: str
    images: tuple[ImageRef, ...]

    def __post_init__(self) -> None:
        if not (isinstance(self.images, tuple) and self.images):
            raise ValueError(
                f"images: {self.images!r} of the sample {self.id} is not a tuple of pictures; "
                f"write (FileImage(path),)"
            )

    @property
    def image(self) -> ImageRef:
        """The sample's only picture; InputError if it has several."""
        if len(self.images) > 1:
            raise InputError(
                f"data: the sample {self.id} has {len(self.images)} pictures, but only one is "
                f"supported here; choose an evaluator and a model that read several"
            )
        return self.images[0]


@dataclass(frozen=True, slots=True)
class TextSample(Sample):
    """A text without pictures, to calibrate a language model on; it is never scored."""

    text: str

    def __post_init__(self) -> None:
        if self.images or not self.text:
            raise ValueError(f"the sample {self.id} is not a text without pictures")


@dataclass(frozen=True, slots=True)
class CaptionSample(Sample):
    """A picture with its reference captions (COCO: five)."""

    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QuestionSample(Sample):
    """A question about a picture with its annotators' answers (VQAv2: ten, GQA: one).

    `types` are the kinds of the question as (name, value), e.g. GQA's ("structural", "verify").
    """

    question: str
    answers: tuple[str, ...]
    answer_type: str
    types: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ShortAnswerSample(QuestionSample):
    """A question whose data set's authors score answers by a `metric`, e.g. "anls"."""

    metric: str = ""


@dataclass(frozen=True, slots=True)
class ChoiceSample(QuestionSample):
    """A question with options; `answers` has the letter of the right one.

    listed: the question's text already contains the options. rule: how the data set's authors
    read an output, e.g. "mmmu". A question without options is open; `answers` has its answers.
    """

    options: tuple[str, ...] = ()
    listed: bool = False
    rule: str = ""

    @property
    def letters(self) -> tuple[str, ...]:
        """The letter of each option: A, B, ..."""
        return tuple(chr(ord("A") + k) for k in range(len(self.options)))
