"""Asking a model in batches: what the generating evaluators share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmq.contracts import Evaluator, Generation, ModelFamily, Progress, Sample
from mmq.errors import InputError
from mmq.images import open_image

if TYPE_CHECKING:
    from mmq.model import LoadedModel


@dataclass
class GeneratingEvaluator(Evaluator):
    """An evaluator that reads generated text; unset options follow the model family's protocol."""

    batch_size: int = 64
    num_beams: int | None = None
    max_new_tokens: int | None = None
    prompt: str | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_beams", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value} is not at least 1")

    def check(self, family: ModelFamily) -> None:
        """The family knows how to be asked on this task."""
        if self.task not in family.generation:
            tasks = ", ".join(sorted(family.generation)) or "none yet"
            raise InputError(
                f"{type(family).__name__} models cannot be scored on {self.task!r}; tasks they "
                f"can be scored on: {tasks}"
            )

    def settings(self, model: "LoadedModel") -> Generation:
        """The family's protocol for this task with this evaluator's options on top."""
        overrides = {
            name: value
            for name in ("num_beams", "max_new_tokens", "prompt")
            if (value := getattr(self, name)) is not None
        }
        return replace(model.family.generation[self.task], **overrides)

    def ask(
        self,
        model: "LoadedModel",
        samples: Sequence[Sample],
        texts: Sequence[str],
        settings: Generation,
        progress: Progress,
    ) -> list[str]:
        """The model's answer to every sample, in order."""
        answers: list[str] = []
        for start in progress(range(0, len(samples), self.batch_size), self.task):
            part = slice(start, start + self.batch_size)
            images = [open_image(sample.image) for sample in samples[part]]
            answers += model.family.generate(model, images, texts[part], settings)
        # one line of printable words: a collapsed model emits anything
        return [" ".join(answer.split()) for answer in answers]
