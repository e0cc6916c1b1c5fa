"""Models that write answers by denoising a canvas of tokens, such as DiffusionGemma.

An encoder reads the prompt, and a decoder with the same weights refines the canvas, which starts
as random tokens.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def canvas_length(config: Any) -> int:
    """The tokens that a model denoises at a time; 0 for a model that writes one after another."""
    return int(getattr(config, "canvas_length", 0) or 0)


def denoised(module: Any, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Tensor:
    """Prompts with their answers, (n, length), from the same random canvas in every call.

    settings: arguments of `generate`; canvases that are longer than max_new_tokens are cut.
    """
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(0)
        tokens: Tensor = module.generate(**inputs, **settings).sequences
    return tokens[:, : inputs["input_ids"].shape[1] + settings["max_new_tokens"]]


def canvas_inputs(module: Any, inputs: Mapping[str, Any], answer: list[int]) -> dict[str, Any]:
    """Inputs for a prompt with a canvas on which its answer is written, then padding."""
    length, config = canvas_length(module.config), module.config
    padding = config.get_text_config().pad_token_id or 0
    canvas = [*answer, *[padding] * length][:length]
    return {**inputs, "decoder_input_ids": torch.tensor([canvas], device=module.device)}
