"""BLIP-2 generation models: ViT, Q-Former and a language model (OPT)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mmq.contracts import ComponentSpec, Generation, ModelFamily
from mmq.model import load_weights

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn

    from mmq.model import LoadedModel

VISION = ComponentSpec("vit", ("vision_model.encoder.layers",))
QFORMER = ComponentSpec("qformer", ("qformer.encoder.layer",))
LANGUAGE = ComponentSpec(
    "llm", ("language_model.model.decoder.layers", "language_model.decoder.layers")
)
SHORT_ANSWER = Generation(
    prompt="Question: {} Short answer:",
    max_new_tokens=10,
    num_beams=5,
    min_new_tokens=1,
    length_penalty=0.0,
)


class Blip2(ModelFamily):
    """`Blip2ForConditionalGeneration`, e.g. Salesforce/blip2-opt-2.7b."""

    architectures: ClassVar[tuple[str, ...]] = ("Blip2ForConditionalGeneration", "blip-2")
    components: ClassVar[tuple[ComponentSpec, ...]] = (VISION, QFORMER, LANGUAGE)
    generation: ClassVar[Mapping[str, Generation]] = {
        "captioning": Generation(prompt="", max_new_tokens=30, num_beams=5),
        "vqa": SHORT_ANSWER,
    }

    def skeleton(self, config: Any) -> "nn.Module":
        """The model without weights."""
        from transformers import Blip2ForConditionalGeneration

        model: nn.Module = Blip2ForConditionalGeneration(config)
        return model

    def load(self, source: str, dtype: Any, device: str) -> tuple["nn.Module", Any]:
        """Model and processor; safetensors only, no remote code."""
        from transformers import Blip2ForConditionalGeneration, Blip2Processor

        model = load_weights(Blip2ForConditionalGeneration, source, dtype, device)
        processor = Blip2Processor.from_pretrained(source)
        processor.tokenizer.padding_side = "left"
        return model, processor

    def generate(
        self,
        model: "LoadedModel",
        images: "Sequence[Image]",
        texts: Sequence[str],
        settings: Generation,
    ) -> list[str]:
        """The generated continuations, cut by token position."""
        module: Any = model.module  # generate is not part of nn.Module
        inputs = model.processor(
            images=list(images), text=list(texts), padding=True, return_tensors="pt"
        ).to(model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(module.dtype)
        tokens = module.generate(
            **inputs,
            max_new_tokens=settings.max_new_tokens,
            min_new_tokens=settings.min_new_tokens or None,
            num_beams=settings.num_beams,
            length_penalty=settings.length_penalty,
            do_sample=False,
        )
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        decoded = model.processor.batch_decode(answers, skip_special_tokens=True)
        return [text.strip() for text in decoded]
