"""LLaVA: a CLIP or SigLIP ViT, a two-layer projector (unquantized) and a language model."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from mmq.contracts import ComponentSpec, Stage
from mmq.models.transformers_family import TransformersFamily

# the tower's inner path differs between transformers 4.55 and 5.x
_TOWER = ("model.vision_tower.vision_model.encoder.layers", "model.vision_tower.encoder.layers")
TOWERS = ("clip_vision_model", "siglip_vision_model")


def _vision(module: Any, pixels: Tensor) -> Tensor:
    """Patch features of the layer (or layers) that this LLaVA reads, (n, patches, width)."""
    config = module.config
    states = module.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    layers = config.vision_feature_layer
    selected = [layers] if isinstance(layers, int) else layers
    features = torch.cat([states[layer] for layer in selected], dim=-1)
    return features[:, 1:] if config.vision_feature_select_strategy == "default" else features


def _connector(module: Any, vision: Tensor) -> Tensor:
    """The patches as language model inputs, (n, patches, width)."""
    projected: Tensor = module.model.multi_modal_projector(vision)
    return projected


class Llava(TransformersFamily):
    """`LlavaForConditionalGeneration`, e.g. llava-hf/llava-1.5-7b-hf."""

    version: ClassVar[int] = 2
    model_class: ClassVar[str] = "LlavaForConditionalGeneration"
    processor_class: ClassVar[str] = "LlavaProcessor"
    architectures: ClassVar[tuple[str, ...]] = ("LlavaForConditionalGeneration", "llava")
    components: ClassVar[tuple[ComponentSpec, ...]] = (
        ComponentSpec("vit", _TOWER),
        ComponentSpec("llm", ("model.language_model.layers",)),
    )
    stages: ClassVar[tuple[Stage, ...]] = (
        Stage("vision", ("vit",), _vision),
        # two layers, four times wider than their inputs: faster to compute than to cache
        Stage("connector", (), _connector, cached=False),
    )
    most_images: ClassVar[int | None] = None
    needs_pictures: str = ""

    def unsupported(self, config: Any) -> str:
        """Why a tower's features cannot be computed apart from the model; "" if they can."""
        tower = config.vision_config.model_type
        return "" if tower in TOWERS else f"its vision tower is a {tower}, not CLIP or SigLIP"

    def own_words(self, prompt: str, images: int) -> str:
        """LLaVA-1.5's conversation format, without its system prompt."""
        return f"USER: {'<image>' * images}\n{prompt} ASSISTANT:"
