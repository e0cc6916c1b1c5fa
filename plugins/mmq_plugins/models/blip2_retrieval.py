"""BLIP-2 image-text retrieval models: ViT and a Q-Former that also reads text."""

from typing import ClassVar

from mmq.contracts import ComponentSpec
from mmq.families import TransformersFamily


class Blip2Retrieval(TransformersFamily):
    """`Blip2ForImageTextRetrieval`, e.g. Salesforce/blip2-itm-vit-g-coco: sizes only so far.

    It has no generation protocol, so every evaluator there is refuses it before it is loaded.
    """

    model_class: ClassVar[str] = "Blip2ForImageTextRetrieval"
    processor_class: ClassVar[str] = "Blip2Processor"
    architectures: ClassVar[tuple[str, ...]] = ("Blip2ForImageTextRetrieval",)
    components: ClassVar[tuple[ComponentSpec, ...]] = (
        ComponentSpec("vit", ("vision_model.encoder.layers",)),
        ComponentSpec("qformer", ("qformer.encoder.layer",)),
    )
