"""BLIP-2 image-text retrieval models: ViT and a Q-Former that also reads text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mmq.contracts import ComponentSpec, Generation, ModelFamily
from mmq.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn

    from mmq.model import LoadedModel


class Blip2Retrieval(ModelFamily):
    """`Blip2ForImageTextRetrieval`, e.g. Salesforce/blip2-itm-vit-g-coco: sizes only so far."""

    architectures: ClassVar[tuple[str, ...]] = ("Blip2ForImageTextRetrieval",)
    components: ClassVar[tuple[ComponentSpec, ...]] = (
        ComponentSpec("vit", ("vision_model.encoder.layers",)),
        ComponentSpec("qformer", ("qformer.encoder.layer",)),
    )

    def skeleton(self, config: Any) -> "nn.Module":
        """The model without weights."""
        from transformers import Blip2ForImageTextRetrieval

        model: nn.Module = Blip2ForImageTextRetrieval(config)
        return model

    def load(self, source: str, dtype: Any, device: str) -> tuple["nn.Module", Any]:
        """Not possible yet."""
        raise InputError(f"{source}: retrieval models can be sized (mmq size) but not scored yet")

    def generate(
        self,
        model: "LoadedModel",
        images: "Sequence[Image]",
        texts: Sequence[str],
        settings: Generation,
    ) -> list[str]:
        """Retrieval models do not generate."""
        raise InputError("retrieval models generate no text")
