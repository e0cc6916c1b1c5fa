"""Tiny models for llama.cpp, quantized, exported and compared with their simulation."""

import random
from contextlib import contextmanager
from pathlib import Path

import torch
from asking import ask
from mmq_plugins.embedded import llava_checkpoint
from mmq_plugins.embedded.build import build_tokenizer
from mmq_plugins.embedded.scene_text import ask as question_about
from mmq_plugins.embedded.scenes import make_scene, render
from mmq_plugins.targets.gguf import Gguf
from torch import nn

from mmq.contracts.target import ExportedLayer, ExportSource, WeightSpec
from mmq.models.loading import load_model
from mmq.models.skeleton import skeleton
from mmq.tensors.affine import MappingType
from mmq.tensors.quantized_weight import round_to_nearest

LLAVA = str(llava_checkpoint())


def pairs(count, size=(64, 64)):
    """Pictures with a question about each."""
    rng = random.Random(0)
    scenes = [make_scene(k) for k in range(count)]
    return [(render(scene).resize(size), question_about(scene, rng).text) for scene in scenes]


@contextmanager
def class_token_last(model):
    """LLaVA-1.5 as llama.cpp computes it: the class token follows the patches."""
    tower = model.module.model.vision_tower
    embeddings = getattr(tower, "vision_model", tower).embeddings

    def forward(pixel_values, interpolate_pos_encoding=False):
        patches = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        token = embeddings.class_embedding.expand(len(patches), 1, -1)
        return torch.cat([patches, token], 1) + embeddings.position_embedding.weight

    embeddings.forward = forward
    try:
        yield
    finally:
        del embeddings.forward


def rounded(weight, bits, group_size, symmetric):
    """A weight rounded to nearest."""
    return round_to_nearest(weight, bits, group_size, MappingType.of(symmetric))


def quantized(model, options):
    """Weights by layer. options(component, layer): (bits, group_size, symmetric) or None."""
    result = {}
    for name, component in model.components.items():
        for layer in component.layers:
            if (chosen := options(name, layer)) is not None:
                result[layer.name] = rounded(layer.module.weight.detach(), *chosen)
    return result


def by_part(vit, attn, ff):
    """Options of the vision tower, and of the language model's attention and feed-forward."""
    return lambda name, layer: vit if name == "vit" else {"attn": attn, "ff": ff}[layer.layer_type]


def uniform(*options):
    """The same options everywhere."""
    return by_part(options, options, options)


def source_of(folder, weights, dtype="float32", parts=()):
    """What a target exports from."""
    specs = {name: WeightSpec.of(weight) for name, weight in weights.items()}
    return ExportSource(Path(folder), skeleton(str(folder), parts), dtype, specs=specs)


def exported(folder, model, weights, out, target=None, parts=()):
    """Write a model with these weights; the report."""
    out.mkdir(parents=True)
    layers = (
        ExportedLayer(layer.name, name, weights.get(layer.name, layer.module.weight.detach()))
        for name, component in model.components.items()
        for layer in component.layers
    )
    return (target or Gguf()).export(source_of(folder, weights, parts=parts), layers, out)


def simulate_(model, weights):
    """Write dequantized weights into a model."""
    for name, component in model.components.items():
        own = {x.name: weights[x.name].dequantize() for x in component.layers if x.name in weights}
        model.write_(name, own)


def answers(model, questions, **changes):
    """A model's answers to pairs of picture and question."""
    return ask(
        model, [image for image, _ in questions], [text for _, text in questions], **changes
    )


def loaded(folder):
    """A model from a folder, or the embedded LLaVA."""
    return load_model(str(folder))


def randomize(model, std):
    """Weights with which answers depend on every layer."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "embed" in name or "lm_head" in name:
            nn.init.normal_(parameter, std=0.4)
        elif parameter.dim() > 1:
            nn.init.normal_(parameter, std=std)
        elif "norm" not in name:
            nn.init.normal_(parameter, std=0.1)
    return model.half()


def plain_tokenizer(*special):
    """The embedded models' tokenizer with more special tokens, and none around a text."""
    from tokenizers.processors import ByteLevel

    tokenizer = build_tokenizer(scenes=200)
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)
    return tokenizer


TEXT = {
    "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "pad_token_id": 1,
}  # fmt: skip
