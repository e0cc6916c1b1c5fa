"""Calibration pairs, run through the model's own forwards."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from typing import TYPE_CHECKING

from mmq.contracts.family import with_answer
from mmq.contracts.images import ImageRef
from mmq.system.hashing import digest
from mmq.system.source_hash import code_hash

if TYPE_CHECKING:
    from torch import Tensor

    from mmq.contracts.family import ModelFamily
    from mmq.models.loading import LoadedModel

BATCH = 16
CODE = (  # what runs the pairs
    __name__,
    "mmq.quantization.blocks",
    "mmq.tensors.layer_inputs",
    "mmq.quantization.sequential",
)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Pictures and, for each, a text of the task and its right answer ("" if it has none)."""

    images: tuple[ImageRef, ...]
    texts: tuple[tuple[str, str], ...]

    def fingerprint(self, family: "ModelFamily") -> str:
        """A hash of the pairs and of the code that runs them."""
        code = [code_hash(name) for name in (type(family).__module__, *CODE)]
        packages = [version(name) for name in ("torch", "transformers")]
        pictures = [image.digest() for image in self.images]
        return digest([pictures, self.texts, packages, code])

    def forwards(
        self, model: "LoadedModel", padded: bool = False
    ) -> Iterator["Callable[[], Tensor | None]"]:
        """The model's forwards on all pairs, each to be called once.

        Unless `padded`, texts of one batch are equally long: padding would be calibrated on like
        any other input. A family without stages takes a pair at a time, since its pictures may
        take more or fewer tokens.
        """
        for part in self._batches(model, padded):
            pictures = [self.images[k].open() for k in part]
            texts, answers = zip(*(self.texts[k] for k in part), strict=True)
            yield from model.family.forwards(model, pictures, texts, answers)

    def _batches(self, model: "LoadedModel", padded: bool) -> Iterator[Sequence[int]]:
        tokenizer = model.processor.tokenizer
        lengths = [len(tokenizer(with_answer(*pair))["input_ids"]) for pair in self.texts]
        size = BATCH if model.family.stages else 1
        by_length = sorted(range(len(lengths)), key=lambda k: lengths[k])
        for _, group in groupby(by_length, key=lambda k: 0 if padded else lengths[k]):
            same = list(group)
            for start in range(0, len(same), size):
                yield same[start : start + size]
