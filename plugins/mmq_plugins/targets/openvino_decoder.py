"""A language model with its keys and values as inputs and outputs, which become its state."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from mmq_plugins.targets.openvino_tracing import Input

INPUTS = ("inputs_embeds", "attention_mask", "position_ids")
BEAMS = "beam_idx"


class _Cache(DynamicCache):  # type: ignore[misc]
    """Keys and values of earlier tokens, two tensors per layer, joined with those of new ones."""

    def __init__(self, past: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.tensors = list(past)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *rest: Any, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """The keys and values of all tokens of a layer."""
        for k, new in enumerate((key_states, value_states), start=2 * layer_idx):
            self.tensors[k] = torch.cat([self.tensors[k], new], dim=2)
        return self.tensors[2 * layer_idx], self.tensors[2 * layer_idx + 1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of earlier tokens."""
        return int(self.tensors[0].shape[2])


def causal_mask(attention_mask: Tensor, queries: int) -> Tensor:
    """The addition to attention scores, (n, 1, queries, tokens), from a mask (n, tokens)."""
    tokens = attention_mask.shape[1]
    position = torch.arange(tokens)
    causal = position[None, :] <= position[:, None]
    allowed = causal[tokens - queries :][None, None] & (attention_mask[:, None, None, :] > 0)
    return torch.where(allowed, 0.0, torch.finfo(torch.float32).min)


class DecoderToTrace(nn.Module):
    """A decoder of transformers with plain tensors in and out."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder
        config = decoder.config.get_text_config()
        heads = config.num_attention_heads
        self.layers = int(config.num_hidden_layers)
        self.heads = int(getattr(config, "num_key_value_heads", None) or heads)
        self.width = int(config.hidden_size)
        self.embedded = int(getattr(config, "word_embed_proj_dim", None) or self.width)
        self.head = int(getattr(config, "head_dim", None) or self.width // heads)
        keeps = "logits_to_keep" in signature(decoder.forward).parameters
        self.options = {"logits_to_keep": 1} if keeps else {}

    @property
    def states(self) -> Mapping[str, str]:
        """The output that each input of earlier keys or values becomes."""
        names = [f"{k}.{kind}" for k in range(self.layers) for kind in ("key", "value")]
        return {f"past_key_values.{name}": f"present.{name}" for name in names}

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return ["logits", *self.states.values()]

    def inputs(self, rows: int, tokens: int) -> list[Input]:
        """The inputs; the examples are some tokens after as many earlier ones."""
        past = torch.zeros(rows, self.heads, tokens, self.head)
        examples = (
            torch.zeros(rows, tokens, self.embedded),
            torch.ones(rows, 2 * tokens, dtype=torch.long),
            torch.arange(tokens, 2 * tokens).expand(rows, -1),
        )
        shapes = ((-1, -1, self.embedded), (-1, -1), (-1, -1))
        new = [Input(*facts) for facts in zip(INPUTS, examples, shapes, strict=True)]
        earlier = (-1, self.heads, -1, self.head)
        return [*new, *(Input(name, past.clone(), earlier) for name in self.states)]

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """Logits, then the keys and values of all tokens."""
        cache = _Cache(past)
        output = self.decoder(
            inputs_embeds=inputs_embeds,
            attention_mask=causal_mask(attention_mask, inputs_embeds.shape[1]),
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            **self.options,
        )
        return (output.logits, *cache.tensors)


def stateful(model: Any, states: Mapping[str, str]) -> None:
    """Make keys and values a state of the model, whose rows the input `beam_idx` selects.

    The state starts empty, for as many rows as the inputs have.
    """
    import openvino as ov
    from openvino import opset13 as op
    from openvino._offline_transformations import apply_make_stateful_transformation

    rows = model.input(INPUTS[0]).get_partial_shape()[0]
    beams = op.parameter(ov.PartialShape([rows]), ov.Type.i32, name=BEAMS)
    beams.output(0).get_tensor().set_names({BEAMS})
    model.add_parameters([beams])
    zero = op.constant(np.int64(0))
    for name in states:
        port = model.input(name)
        readers = port.get_target_inputs()
        selected = op.gather(port, beams, zero)
        for reader in readers:
            reader.replace_source_output(selected.output(0))
    model.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(model, dict(states))
    shape = op.shape_of(model.input(INPUTS[0]), output_type="i64")
    batch = op.gather(shape, op.constant(np.array([0], np.int64)), zero)
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            lengths = [length.min_length for length in node.get_output_partial_shape(0)]
            rest = op.constant(np.array(lengths[1:], np.int64))
            empty = op.broadcast(op.constant(np.float32(0)), op.concat([batch, rest], 0))
            node.set_arguments([empty])
    model.validate_nodes_and_infer_types()
