"""Calibration pairs, and the model's forward passes on them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import groupby
from typing import TYPE_CHECKING, Any

from mmq.allocation.allocation import UNQUANTIZED
from mmq.contracts.family import with_answer
from mmq.contracts.samples import Sample, TextSample
from mmq.contracts.vlm import DEFAULT_INPUTS, InputOptions, Request
from mmq.errors import InputError
from mmq.system.hashing import digest
from mmq.system.versions import room_versions

if TYPE_CHECKING:
    from torch import Tensor

    from mmq.contracts.family import ModelFamily
    from mmq.models.loading import LoadedModel

BATCH = 16
READ_TEXTS = ("llm", "embed", "head")  # components that a text without pictures runs through


def check_texts(
    samples: Sequence[Sample], family: "ModelFamily", widths: Mapping[str, Iterable[int]]
) -> None:
    """InputError, before loading, for texts without pictures that cannot calibrate this model.

    widths: those to try, by component; only the language model reads texts.
    """
    if not any(isinstance(sample, TextSample) for sample in samples):
        return
    if family.needs_pictures:
        raise InputError(
            f"calibration_data: {type(family).__name__} models cannot be calibrated on texts "
            f"without pictures: {family.needs_pictures}; name data with pictures"
        )
    unread = [
        name for name, own in widths.items() if {*own} - {UNQUANTIZED} and name not in READ_TEXTS
    ]
    if unread and all(isinstance(sample, TextSample) for sample in samples):
        raise InputError(
            f"calibration_data: texts without pictures cannot calibrate {', '.join(unread)}; add "
            f"data with pictures (e.g. photos.csv:0.5,wiki.txt:0.5), leave {', '.join(unread)} "
            f"at 16 bits, or choose rtn"
        )


@dataclass(frozen=True, slots=True)
class Calibration:
    """A request and a correct answer ("" for none) per calibration sample."""

    pairs: tuple[tuple[Request, str], ...]
    inputs: InputOptions = DEFAULT_INPUTS

    def with_pictures(self) -> "Calibration":
        """The pairs without texts alone, which say nothing about vision components."""
        return replace(self, pairs=tuple(pair for pair in self.pairs if pair[0].images))

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
        may have different numbers of tokens. Texts without pictures come last, as they are: no
        chat template is applied to them.
        """
        texts = [
            (model.render(request) if request.images else request.prompt, answer)
            for request, answer in self.pairs
        ]
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

        order = sorted(range(len(lengths)), key=lambda k: (not counts[k], counts[k], lengths[k]))
        for _, group in groupby(order, key=kind):
            same = list(group)
            for start in range(0, len(same), size):
                yield same[start : start + size]
