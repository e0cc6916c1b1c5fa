"""Choose the layout of a model's GGUF files: a family's own, or that of a user's 16-bit files."""

from collections.abc import Callable, Mapping

from mmq.contracts.family import architecture_of
from mmq.contracts.target import ExportSource
from mmq.errors import InputError
from mmq.models.checkpoint import read_config
from mmq_plugins.targets.gguf_checkpoint import PartTensors
from mmq_plugins.targets.gguf_idefics3 import idefics3
from mmq_plugins.targets.gguf_layout import Layout, Source
from mmq_plugins.targets.gguf_llava import llava
from mmq_plugins.targets.gguf_qwen2_5_vl import qwen2_5_vl
from mmq_plugins.targets.gguf_qwen3_vl import qwen3_vl
from mmq_plugins.targets.gguf_rewrite import layout_from_pair
from mmq_plugins.targets.gguf_tokenizer import chat_parts

LAYOUTS: Mapping[str, Callable[[Source], Layout]] = {
    "Idefics3ForConditionalGeneration": idefics3,
    "LlavaForConditionalGeneration": llava,
    "Qwen2_5_VLForConditionalGeneration": qwen2_5_vl,
    "Qwen3VLForConditionalGeneration": qwen3_vl,
    "SmolVLMForConditionalGeneration": idefics3,
}


def layout_of(source: ExportSource, pair: str) -> Layout:
    """The layout of a checkpoint's GGUF files; InputError for a family without one.

    pair: the user's 16-bit files, "model.gguf,mmproj.gguf", or "".
    """
    if pair:
        checkpoint = PartTensors.open(source.folder, source.dtype)
        return layout_from_pair(checkpoint, source.specs, pair)
    config = read_config(str(source.folder))
    architecture = architecture_of(config)
    if architecture not in LAYOUTS:
        raise InputError(
            f"the target gguf cannot write {architecture} by itself (supported: "
            f"{', '.join(sorted(LAYOUTS))}); give --from model.gguf,mmproj.gguf with 16-bit files "
            f"of this model, if llama.cpp has converted it"
        )
    family = source.skeleton.family
    processor = family.load_processor(str(source.folder))
    return LAYOUTS[architecture](
        Source(
            folder=source.folder,
            config=config,
            processor=processor,
            checkpoint=PartTensors.open(source.folder, source.dtype),
            chat=chat_parts(lambda prompt, images: family.chat(processor, prompt, images)),
        )
    )
