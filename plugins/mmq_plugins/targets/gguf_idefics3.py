"""SmolVLM and Idefics3 as GGUF: a SigLIP tower, a connector that shuffles pixels, and Llama."""

from mmq_plugins.targets.gguf_layout import MMPROJ, MODEL, Layout, Source, place_all
from mmq_plugins.targets.gguf_text import text_keys, text_places
from mmq_plugins.targets.gguf_vision import BLOCK, EMBEDDINGS, vision_keys

RESAMPLING = (
    "llama.cpp resizes pictures by another rule than transformers (there Lanczos): answers about "
    "pictures that are resized differ slightly"
)
NAMES = (
    EMBEDDINGS
    | BLOCK
    | {
        "vit.post_layernorm": "v.post_ln",
        "connector.modality_projection.proj": "mm.model.fc",
    }
)


def idefics3(source: Source) -> Layout:
    """The layout of an `Idefics3ForConditionalGeneration` or a SmolVLM."""
    config = source.config
    keys = vision_keys(
        source, config.vision_config, "idefics3", config.get_text_config().hidden_size
    )
    keys.add_vision_projector_scale_factor(config.scale_factor)
    edge = source.processor.image_processor.size["longest_edge"]
    keys.add_vision_preproc_image_size(edge)
    places = place_all(source.checkpoint, MMPROJ, NAMES, ("vit.", "connector."))
    return Layout(
        places=(*text_places(source), *places),
        keys={MODEL: text_keys(source), MMPROJ: keys},
        read=source.checkpoint.read,
        bits=source.checkpoint.bits,
        notes=(RESAMPLING,),
    )
