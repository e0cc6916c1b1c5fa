"""Gives a small model the outlier channels of large ones, without changing its function.

Why: a small model trained for an hour has none, and stays good at two bits, where large
transformers collapse. How large: in LLaMA-7B and its like, 99.9% of a layer's weights lie within
a tenth of its range (Kim et al. 2023, SqueezeLLM, section 4.2); up to 1% of the channels carry
what quantization must not lose (Lin et al. 2023, AWQ, section 3.1: 0.1% to 1%). So 1% of the
channels (at least one) are scaled by 8 or 16, a factor of about ten.

What: a channel between two operations that are linear in it is scaled on one side and unscaled on
the other: a normalization's gain against the weights behind it, the value against the output
projection, the first against the second feed-forward layer through ReLU. All factors are powers of
two, so that in float32 not a bit of the output changes. This stands in for a large model's
difficulty; it is no finding about one.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

SHARE = 0.01
FACTORS = (8.0, 16.0)


def draw_factors(channels: int, generator: torch.Generator) -> Tensor:
    """A factor per channel, (channels,): 1 for most, 8 or 16 for 1% of them, at least one."""
    factors = torch.ones(channels)
    count = max(1, round(SHARE * channels))
    chosen = torch.randperm(channels, generator=generator)[:count]
    picks = torch.randint(len(FACTORS), (count,), generator=generator)
    factors[chosen] = torch.tensor(FACTORS)[picks]
    return factors


def scale_norm_(norm: nn.LayerNorm, readers: Iterable[nn.Linear], factors: Tensor) -> None:
    """Divide a normalization's output by `factors`, multiply its readers' input columns."""
    norm.weight.div_(factors)
    norm.bias.div_(factors)
    for reader in readers:
        reader.weight.mul_(factors)


def scale_between_(
    writer: nn.Linear, reader: nn.Linear, factors: Tensor, rows: slice = slice(None)
) -> None:
    """Divide a layer's output rows by `factors`, multiply the next layer's input columns."""
    writer.weight[rows].div_(factors[:, None])
    if writer.bias is not None:
        writer.bias[rows].div_(factors)
    reader.weight.mul_(factors)


@torch.no_grad()
def add_outliers_(model: Any, seed: int) -> None:
    """Rescale a Blip2ForConditionalGeneration with an OPT language model in place.

    The Q-Former is normalized behind its additions and uses GELU: only its values against its
    output projections can be rescaled, and what its cross-attention reads from the ViT.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(channels: int) -> Tensor:
        return draw_factors(channels, generator)

    for block in model.vision_model.encoder.layers:
        width = block.self_attn.qkv.in_features
        scale_norm_(block.layer_norm1, [block.self_attn.qkv], draw(width))
        scale_norm_(block.layer_norm2, [block.mlp.fc1], draw(width))
        values = slice(2 * width, 3 * width)  # qkv is one layer: the last third are the values
        scale_between_(block.self_attn.qkv, block.self_attn.projection, draw(width), values)
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
    for block in model.language_model.model.decoder.layers:
        attention, width = block.self_attn, block.fc1.in_features
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        scale_norm_(block.self_attn_layer_norm, projections, draw(width))
        scale_norm_(block.final_layer_norm, [block.fc1], draw(width))
        scale_between_(attention.v_proj, attention.out_proj, draw(width))
        scale_between_(block.fc1, block.fc2, draw(block.fc1.out_features))


def range_share(weight: Tensor, share: float = 0.999) -> float:
    """What part of a weight's range holds this share of its entries around zero (SqueezeLLM)."""
    magnitude = weight.abs().flatten().float()
    return float(torch.quantile(magnitude, share) / magnitude.max())
