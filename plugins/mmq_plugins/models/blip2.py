"""BLIP-2 generation models: ViT, Q-Former and a language model (OPT)."""

from collections.abc import Mapping
from typing import ClassVar

from mmq.contracts import ComponentSpec, Generation
from mmq.families import TransformersFamily


class Blip2(TransformersFamily):
    """`Blip2ForConditionalGeneration`, e.g. Salesforce/blip2-opt-2.7b."""

    model_class: ClassVar[str] = "Blip2ForConditionalGeneration"
    processor_class: ClassVar[str] = "Blip2Processor"
    decoder: ClassVar[str] = "language_model"
    architectures: ClassVar[tuple[str, ...]] = ("Blip2ForConditionalGeneration", "blip-2")
    components: ClassVar[tuple[ComponentSpec, ...]] = (
        ComponentSpec("vit", ("vision_model.encoder.layers",)),
        ComponentSpec("qformer", ("qformer.encoder.layer",)),
        ComponentSpec("llm", ("language_model.model.decoder.layers",)),
    )
    generation: ClassVar[Mapping[str, Generation]] = {
        "captioning": Generation(prompt="", max_new_tokens=30, num_beams=5),
        "vqa": Generation(
            prompt="Question: {} Short answer:",
            max_new_tokens=10,
            num_beams=5,
            min_new_tokens=1,
            length_penalty=0.0,
        ),
    }
