"""LLaVA-1.5: CLIP ViT, a two-layer projector (kept at 16 bits) and Llama."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mmq.contracts import ComponentSpec, Generation, ModelFamily
from mmq.model import load_weights

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn

    from mmq.model import LoadedModel

# the tower's inner path differs between transformers 4.55 and 5.x
_TOWER = ("model.vision_tower.vision_model.encoder.layers", "model.vision_tower.encoder.layers")


class Llava(ModelFamily):
    """`LlavaForConditionalGeneration`, e.g. llava-hf/llava-1.5-7b-hf."""

    architectures: ClassVar[tuple[str, ...]] = ("LlavaForConditionalGeneration", "llava")
    components: ClassVar[tuple[ComponentSpec, ...]] = (
        ComponentSpec("vit", _TOWER),
        ComponentSpec("llm", ("model.language_model.layers",)),
    )
    generation: ClassVar[Mapping[str, Generation]] = {
        "vqa": Generation(
            prompt=(
                "USER: <image>\n{}\nAnswer the question using a single word or phrase. ASSISTANT:"
            ),
            max_new_tokens=10,
        ),
    }

    def skeleton(self, config: Any) -> "nn.Module":
        """The model without weights."""
        from transformers import LlavaForConditionalGeneration

        model: nn.Module = LlavaForConditionalGeneration(config)
        return model

    def load(self, source: str, dtype: Any, device: str) -> tuple["nn.Module", Any]:
        """Model and processor; safetensors only, no remote code."""
        from transformers import LlavaForConditionalGeneration, LlavaProcessor

        model = load_weights(LlavaForConditionalGeneration, source, dtype, device)
        processor = LlavaProcessor.from_pretrained(source)
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
        inputs.pop("token_type_ids", None)  # some tokenizers emit them; generate refuses them
        inputs["pixel_values"] = inputs["pixel_values"].to(module.dtype)
        tokens = module.generate(
            **inputs,
            max_new_tokens=settings.max_new_tokens,
            num_beams=settings.num_beams,
            do_sample=False,
        )
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        decoded = model.processor.batch_decode(answers, skip_special_tokens=True)
        return [text.strip() for text in decoded]
