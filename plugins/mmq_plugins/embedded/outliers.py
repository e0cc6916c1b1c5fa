"""Gives a small model the outlier channels of large ones, without changing its function.

Why: a small model trained for an hour has none and works at two bits, where large transformers
collapse. How many: 0.1% to 1% of the channels are salient (Lin et al. 2023, AWQ, section 3.1), so
1% of the channels are selected, at least one. How large: in LLaMA-7B and similar models, 99.9% of
a layer's weights lie within a tenth of its range (Kim et al. 2023, SqueezeLLM, section 4.2), so
the selected channels are scaled until the others lie within a tenth, to the nearest power of two.

What: a channel between two operations that are linear in it is scaled on one side and unscaled on
the other: a normalization's gain against the next layer's weights, the value against the output
projection, the first against the second feed-forward layer through ReLU (in Llama the up- against
the down-projection). All factors are powers of two, so float32 outputs are identical to the bit.
This imitates the difficulty of a large model and says nothing about one.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Draw = Callable[[int], Tensor]  # a mask of selected channels
SHARE = 0.01
BULK_RANGE = 0.1  # the part of a layer's range that holds its other weights
BULK_QUANTILE = 0.999


def draw_channels(channels: int, generator: torch.Generator) -> Tensor:
    """The channels to scale, 1% of them and at least one, as a mask (channels,)."""
    count = max(1, round(SHARE * channels))
    mask = torch.zeros(channels, dtype=torch.bool)
    mask[torch.randperm(channels, generator=generator)[:count]] = True
    return mask


def choose_factors(readers: Sequence[nn.Linear], channels: Tensor) -> Tensor:
    """A factor per input channel (channels,): 1, or a power of two for the selected ones."""
    magnitude = torch.cat([reader.weight.abs() for reader in readers])  # (outputs, channels)
    bulk = torch.quantile(magnitude[:, ~channels].flatten(), BULK_QUANTILE)
    wanted = bulk / BULK_RANGE / magnitude[:, channels].max()
    factor = 2.0 ** round(math.log2(float(wanted)))
    return torch.where(channels, torch.tensor(factor), torch.tensor(1.0))


def scale_norm_(norm: Any, readers: Sequence[nn.Linear], channels: Tensor) -> None:
    """Divide a normalization's selected outputs, multiply its readers' input columns."""
    factors = choose_factors(readers, channels)
    norm.weight.div_(factors)
    if getattr(norm, "bias", None) is not None:  # Llama's has none
        norm.bias.div_(factors)
    for reader in readers:
        reader.weight.mul_(factors)


def scale_between_(
    writer: nn.Linear, reader: nn.Linear, channels: Tensor, rows: slice = slice(None)
) -> None:
    """Divide a layer's selected output rows, multiply the next layer's input columns."""
    factors = choose_factors([reader], channels)
    writer.weight[rows].div_(factors[:, None])
    if writer.bias is not None:
        writer.bias[rows].div_(factors)
    reader.weight.mul_(factors)


@torch.no_grad()
def add_outliers_(model: Any, seed: int) -> None:
    """Rescale an embedded model in place: BLIP-2 with OPT, BLIP-2 for retrieval, or LLaVA."""
    generator = torch.Generator().manual_seed(seed)

    def draw(channels: int) -> Tensor:
        return draw_channels(channels, generator)

    if hasattr(model, "qformer"):
        _scale_blip2_vit_(model.vision_model, draw)
        _scale_qformer_(model, draw)
        if hasattr(model, "language_model"):
            _scale_opt_(model.language_model.model.decoder, draw)
    else:
        tower = model.model.vision_tower
        _scale_clip_(getattr(tower, "vision_model", tower), draw)  # transformers 4, else 5
        _scale_llama_(model.model.language_model, draw)


def _scale_blip2_vit_(vit: Any, draw: Draw) -> None:
    for block in vit.encoder.layers:
        width = block.self_attn.qkv.in_features
        scale_norm_(block.layer_norm1, [block.self_attn.qkv], draw(width))
        scale_norm_(block.layer_norm2, [block.mlp.fc1], draw(width))
        values = slice(2 * width, 3 * width)  # qkv is one layer: the last third are the values
        scale_between_(block.self_attn.qkv, block.self_attn.projection, draw(width), values)


def _scale_qformer_(model: Any, draw: Draw) -> None:
    """The Q-Former is normalized after its additions and uses GELU: only its values against its
    output projections can be rescaled, and what its cross-attention reads from the ViT.
    """
    crossing = []
    for block in model.qformer.encoder.layer:
        parts = [block.attention]
        if block.has_cross_attention:
            parts.append(block.crossattention)
            attention = block.crossattention.attention
            crossing += [attention.key, attention.value]
        for part in parts:
            value, output = part.attention.value, part.output.dense
            scale_between_(value, output, draw(value.out_features))
    norm = model.vision_model.post_layernorm
    scale_norm_(norm, crossing, draw(norm.normalized_shape[0]))


def _scale_attention_(block: Any, norm: Any, output: nn.Linear, draw: Draw) -> None:
    """A normalization against queries, keys and values, and the values against their output."""
    attention = block.self_attn
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    scale_norm_(norm, projections, draw(attention.q_proj.in_features))
    scale_between_(attention.v_proj, output, draw(output.in_features))


def _scale_opt_(decoder: Any, draw: Draw) -> None:
    for block in decoder.layers:
        norm, output = block.self_attn_layer_norm, block.self_attn.out_proj
        _scale_attention_(block, norm, output, draw)
        scale_norm_(block.final_layer_norm, [block.fc1], draw(block.fc1.in_features))
        scale_between_(block.fc1, block.fc2, draw(block.fc1.out_features))


def _scale_clip_(vit: Any, draw: Draw) -> None:
    """CLIP's feed-forwards use GELU: only what reads a normalization, and the values."""
    for block in vit.encoder.layers:
        _scale_attention_(block, block.layer_norm1, block.self_attn.out_proj, draw)
        scale_norm_(block.layer_norm2, [block.mlp.fc1], draw(block.mlp.fc1.in_features))


def _scale_llama_(decoder: Any, draw: Draw) -> None:
    """Llama's feed-forward is linear in its up-projection, whose gate is the nonlinearity."""
    for block in decoder.layers:
        mlp = block.mlp
        _scale_attention_(block, block.input_layernorm, block.self_attn.o_proj, draw)
        readers = [mlp.gate_proj, mlp.up_proj]
        scale_norm_(block.post_attention_layernorm, readers, draw(mlp.up_proj.in_features))
        scale_between_(mlp.up_proj, mlp.down_proj, draw(mlp.down_proj.in_features))


def bulk_range(weight: Tensor) -> float | None:
    """The part of a layer's range that holds 99.9% of the weights outside its outlier columns.

    A column is an outlier if its peak exceeds three times the median column's; None without any.
    """
    peaks = weight.abs().amax(0)
    outlying = peaks > 3 * peaks.median()
    if not outlying.any():
        return None
    bulk = torch.quantile(weight[:, ~outlying].abs().flatten().float(), BULK_QUANTILE)
    return bulk.item() / weight.abs().max().item()
