"""A LLaVA of real width with few blocks, for benchmarks: random weights, written one at a time."""

from pathlib import Path
from typing import Any

import torch
from mmq_plugins.embedded import llava_checkpoint
from torch import Tensor

from mmq.export.checkpoint_writer import Outline, ShardWriter, Unit, plan_shards, write_index

PATTERN = 2**20 + 7  # random numbers, repeated: no two rows of a weight are equal
STD = 0.02


def llava_config(width: int, inner: int, blocks: int, context: int) -> Any:
    """The embedded LLaVA's configuration with a wider language model."""
    from transformers import LlavaConfig

    config = LlavaConfig.from_pretrained(llava_checkpoint())
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = width, inner, blocks
    text.num_attention_heads = text.num_key_value_heads = width // 128
    text.head_dim, text.max_position_embeddings = 128, context
    return config


def write_llava(folder: Path, config: Any) -> int:
    """A float16 checkpoint with the embedded LLaVA's processor; returns its weights' bytes."""
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    config.architectures = [LlavaForConditionalGeneration.__name__]
    config.dtype = torch.float16
    config.save_pretrained(folder)
    LlavaProcessor.from_pretrained(llava_checkpoint()).save_pretrained(folder)
    with torch.device("meta"):
        module = LlavaForConditionalGeneration(config)
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}  # tied ones once
    shards = plan_shards(Unit((Outline(name, "F16", shape),)) for name, shape in shapes.items())
    pattern = torch.randn(PATTERN, generator=torch.Generator().manual_seed(0)).mul(STD).half()
    for shard in shards:
        with ShardWriter(folder, shard) as file:
            for unit in shard.units:
                (outline,) = unit.outlines
                file.add({outline.name: _values(outline.name, outline.shape, pattern)})
    write_index(folder, shards)
    return sum(unit.bytes for shard in shards for unit in shard.units)


def _values(name: str, shape: tuple[int, ...], pattern: Tensor) -> Tensor:
    """Ones for norms, random numbers for all else."""
    if "norm" in name and name.endswith("weight"):
        return torch.ones(shape, dtype=torch.float16)
    count = torch.Size(shape).numel()
    return pattern.repeat(-(-count // len(pattern)))[:count].reshape(shape)
