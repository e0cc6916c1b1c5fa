"""LLaVA-1.5: CLIP ViT, a two-layer projector (kept at 16 bits) and Llama."""

from collections.abc import Mapping
from typing import ClassVar

from mmq.contracts import ComponentSpec, Generation
from mmq.families import TransformersFamily

# the tower's inner path differs between transformers 4.55 and 5.x
_TOWER = ("model.vision_tower.vision_model.encoder.layers", "model.vision_tower.encoder.layers")


class Llava(TransformersFamily):
    """`LlavaForConditionalGeneration`, e.g. llava-hf/llava-1.5-7b-hf."""

    model_class: ClassVar[str] = "LlavaForConditionalGeneration"
    processor_class: ClassVar[str] = "LlavaProcessor"
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
