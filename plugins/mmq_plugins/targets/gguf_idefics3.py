"""SmolVLM and Idefics3 as GGUF: a SigLIP tower, a connector that shuffles pixels, and Llama."""

from copy import deepcopy
from typing import Any

import torch

from mmq_plugins.targets.gguf_layout import MMPROJ, Layout, Source, place_all
from mmq_plugins.targets.gguf_text import layout_of, text_keys
from mmq_plugins.targets.gguf_vision import BLOCK, EMBEDDINGS, vision_keys

RESAMPLING = (
    "llama.cpp and transformers resize pictures differently: answers about resized pictures "
    "may differ"
)
NAMES = {
    **EMBEDDINGS,
    **BLOCK,
    "vit.post_layernorm": "v.post_ln",
    "connector.modality_projection.proj": "mm.model.fc",
}


def idefics3(source: Source) -> Layout:
    """The layout of an `Idefics3ForConditionalGeneration` or a SmolVLM."""
    config = source.config
    keys = vision_keys(
        source, config.vision_config, "idefics3", config.get_text_config().hidden_size
    )
    keys.add_vision_projector_scale_factor(config.scale_factor)
    keys.add_vision_preproc_image_size(source.processor.image_processor.size["longest_edge"])
    places = place_all(source.checkpoint, MMPROJ, NAMES, ("vit.", "connector."))
    notes = (RESAMPLING, *_shifted(config.vision_config))
    return layout_of(source, places, keys, text_keys(source), notes)


def _shifted(vision: Any) -> tuple[str, ...]:
    """A note where the installed transformers reads patches' positions in another order.

    It computes them by dividing and comparing floats, which fails in some versions and sizes;
    llama.cpp counts.
    """
    import transformers
    from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionEmbeddings

    small = deepcopy(vision)
    small.hidden_size = 1
    module: Any = Idefics3VisionEmbeddings(small)
    side = vision.image_size // vision.patch_size
    counted = torch.arange(side * side, dtype=torch.float32)[:, None]
    module.patch_embedding.requires_grad_(False)
    module.patch_embedding.weight.zero_()
    module.patch_embedding.bias.zero_()
    with torch.no_grad():
        module.position_embedding.weight.copy_(counted)
        picture = torch.zeros(1, 3, vision.image_size, vision.image_size)
        positions = module(picture, torch.ones(1, side, side, dtype=torch.bool))[0]
    wrong = int((positions != counted).sum())
    if not wrong:
        return ()
    return (
        f"transformers {transformers.__version__} gives {wrong} of {len(counted)} patches a "
        f"neighbour's position, and llama.cpp gives each its own: answers differ from the "
        f"scored model's even at 16 bits",
    )
