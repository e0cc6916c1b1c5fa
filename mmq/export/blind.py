"""A model that sees gray pictures only: its score can be reached without the pictures."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from mmq.contracts.images import BytesImage, ImageRef
from mmq.contracts.vlm import (
    AnswerFormat,
    AnswerProtocol,
    GenerationConfig,
    Progress,
    Request,
    VisionLanguageModel,
)

GRAY = (128, 128, 128)


@cache
def gray(size: tuple[int, int]) -> ImageRef:
    """A gray picture, (width, height)."""
    file = io.BytesIO()
    Image.new("RGB", size, GRAY).save(file, "PNG")
    return BytesImage(f"gray {size[0]}x{size[1]}", file.getvalue())


@dataclass(slots=True)
class Blind(VisionLanguageModel):
    """A model whose pictures are replaced with gray ones of the same size."""

    model: Any

    def protocol(self, answer_format: AnswerFormat) -> AnswerProtocol:
        """The wrapped model's protocol."""
        protocol: AnswerProtocol = self.model.protocol(answer_format)
        return protocol

    def generate(
        self, requests: Sequence[Request], config: GenerationConfig, progress: Progress
    ) -> list[str]:
        """The model's answers to gray pictures."""
        blind = [replace(r, images=tuple(gray(i.size()) for i in r.images)) for r in requests]
        outputs: list[str] = self.model.generate(blind, config, progress)
        return outputs

    def render(self, request: Request) -> str:
        """The prompt with the model's chat template applied."""
        text: str = self.model.render(request)
        return text

    def embed_images(self, images: Sequence[ImageRef], batch_size: int, progress: Progress) -> Any:
        """Vectors of gray pictures."""
        return self.model.embed_images([gray(i.size()) for i in images], batch_size, progress)

    def embed_texts(self, texts: Sequence[str], batch_size: int, progress: Progress) -> Any:
        """Vectors of the texts."""
        return self.model.embed_texts(texts, batch_size, progress)

    def match(
        self,
        images: Sequence[ImageRef],
        texts: Sequence[str],
        pairs: np.ndarray,
        batch_size: int,
        progress: Progress,
    ) -> np.ndarray:
        """Logits of gray pictures and texts."""
        blind = [gray(image.size()) for image in images]
        logits: np.ndarray = self.model.match(blind, texts, pairs, batch_size, progress)
        return logits
