"""Calibration pairs, and the model's forward passes on them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from typing import TYPE_CHECKING, Any

from mmq.contracts.family import with_answer
from mmq.contracts.vlm import DEFAULT_INPUTS, InputOptions, Request
from mmq.system.hashing import digest
from mmq.system.versions import room_versions

if TYPE_CHECKING:
    from torch import Tensor

    from mmq.contracts.family import ModelFamily
    from mmq.models.loading import LoadedModel

BATCH = 16


@dataclass(frozen=True, slots=True)
class Calibration:
    """A request and a correct answer ("" for none) per calibration sample."""

    pairs: tuple[tuple[Request, str], ...]
    inputs: InputOptions = DEFAULT_INPUTS

    def fingerprint(self, family: "ModelFamily") -> str:
        """A hash of the pairs and of the versions of the code that processes them."""
        rooms = room_versions("data", "models", "quantization", "tensors")
        packages = [version(name) for name in ("torch", "transformers")]
        pictures = [[image.digest() for image in r.images] for r, _ in self.pairs]
        texts = [[request.prompt, answer] for request, answer in self.pairs]
        facts: list[Any] = [pictures, texts, packages, family.identity(), rooms]
        if changes := self.inputs.changes():
            facts.append(changes)
        return digest(facts)

    def forwards(
        self, model: "LoadedModel", padded: bool = False
    ) -> Iterator["Callable[[], Tensor | None]"]:
        """The model's forward passes on all pairs, each to be called once.

        Unless `padded`, texts of one batch have the same length: padding would count as
        calibration data. A family without stages processes one pair at a time, since its pictures
        may have different numbers of tokens.
        """
        texts = [(model.render(request), answer) for request, answer in self.pairs]
        for part in self._batches(model, texts, padded):
            pictures = [[image.open() for image in self.pairs[k][0].images] for k in part]
            prompts, answers = zip(*(texts[k] for k in part), strict=True)
            yield from model.family.calibration_forwards(model, pictures, prompts, answers)

    def _batches(
        self, model: "LoadedModel", texts: Sequence[tuple[str, str]], padded: bool
    ) -> Iterator[Sequence[int]]:
        """Indices of pairs with the same number of pictures and, unless padded, text length."""
        tokenizer = model.processor.tokenizer
        lengths = [len(tokenizer(with_answer(*pair))["input_ids"]) for pair in texts]
        counts = [len(request.images) for request, _ in self.pairs]
        size = BATCH if model.family.stages else 1

        def kind(k: int) -> tuple[int, int]:
            return counts[k], 0 if padded else lengths[k]

        order = sorted(range(len(lengths)), key=lambda k: (counts[k], lengths[k]))
        for _, group in groupby(order, key=kind):
            same = list(group)
            for start in range(0, len(same), size):
                yield same[start : start + size]
