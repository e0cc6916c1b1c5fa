"""Quantizers on any module: weights that are not plain linear layers are named and unchanged."""

import logging

import pytest
import torch
from mmq_plugins.quantizers.gptq import Gptq
from mmq_plugins.quantizers.rtn import Rtn
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from mmq.errors import InputError
from mmq.quantization.modules import quantize_module, unquantized_weights, write_
from mmq.tensors.quantized_weight import QuantizedLayer

WIDTH = 64


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=WIDTH, n_head=4, vocab_size=100))


def llama(tied):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=1, num_attention_heads=4,
        vocab_size=96, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def reasons(module, blocks=""):
    return {each.name: each.reason for each in unquantized_weights(module, blocks)}


def quantized(module, blocks="", quantizer=None):
    return quantize_module(module, [], quantizer or Rtn(), [3], blocks, quiet=True)[3]


@pytest.mark.parametrize("blocks", ["", "transformer.h"])
@pytest.mark.parametrize("quantizer", [Rtn(), Gptq()])
def test_a_model_of_conv1d_with_a_tied_head_is_refused_by_the_names(blocks, quantizer):
    with pytest.raises(InputError) as caught:
        quantized(gpt2(), blocks, quantizer)
    output = str(caught.value)
    assert "transformer.h.1.mlp.c_proj" in output
    assert "Conv1D" in output
    assert ("lm_head (its weight is also that of transformer.wte (tied))" in output) != bool(
        blocks
    )


def test_a_head_tied_to_the_embedding_stays_with_a_warning(caplog):
    model = llama(tied=True)
    before = model.get_input_embeddings().weight.clone()
    with caplog.at_level(logging.WARNING):
        result = quantized(model)
    write_(model, result)
    assert "lm_head" not in result
    assert len(result) == 7
    assert "lm_head (its weight is also that of model.embed_tokens (tied))" in caplog.text
    assert torch.equal(model.get_input_embeddings().weight, before)


def test_a_head_of_its_own_is_quantized_and_the_embedding_named():
    model = llama(tied=False)
    assert "lm_head" in quantized(model)
    assert list(reasons(model)) == ["model.embed_tokens"]


def test_writing_a_weight_that_an_embedding_shares_is_refused_before_anything_is_written():
    free, tied = llama(tied=False), llama(tied=True)
    result = quantized(free)
    before = {name: p.clone() for name, p in tied.named_parameters()}
    with pytest.raises(InputError, match="lm_head shares its weight with model.embed_tokens"):
        write_(tied, result)
    assert all(torch.equal(p, before[name]) for name, p in tied.named_parameters())


def test_a_weight_under_two_linear_names_is_quantized_once():
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))
    model[1].weight = model[0].weight
    assert list(quantized(model)) == ["0"]
    assert reasons(model) == {"1": "the same weight as 0, quantized there"}


def test_a_layer_that_two_blocks_share_is_quantized_once():
    blocks = nn.ModuleList([nn.Sequential(nn.Linear(WIDTH, WIDTH)) for _ in range(2)])
    blocks[1][0] = blocks[0][0]
    model = nn.ModuleDict({"blocks": blocks})
    assert list(quantized(model, "blocks")) == ["blocks.0.0"]
    assert reasons(model, "blocks") == {
        "blocks.1.0": "the same weight as blocks.0.0, quantized there"
    }


def test_a_layer_that_is_tied_to_one_outside_the_blocks_stays():
    model = nn.ModuleDict({
        "blocks": nn.ModuleList([nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))]),
        "head": nn.Linear(WIDTH, WIDTH),
    })  # fmt: skip
    model["head"].weight = model["blocks"][0][1].weight
    assert list(quantized(model, "blocks")) == ["blocks.0.0"]
    assert reasons(model, "blocks") == {"blocks.0.1": "its weight is also that of head (tied)"}


class Scaled(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


@pytest.mark.parametrize(
    ("odd", "name", "reason"),
    [
        (nn.Embedding(9, WIDTH), "1", "Embedding, 2 dimensions: not a linear layer"),
        (nn.Conv2d(3, 4, 2), "1", "Conv2d, 4 dimensions: not a linear layer"),
        (nn.Conv1d(3, 4, 2), "1", "Conv1d, 3 dimensions: not a linear layer"),
        (Scaled(WIDTH, WIDTH), "1", "Scaled has a forward of its own"),
        (weight_norm(nn.Linear(WIDTH, WIDTH)), "1", "is computed from other parameters"),
    ],
)
def test_weights_that_are_not_plain_linear_layers_are_listed_with_their_reason(odd, name, reason):
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), odd)
    assert list(quantized(model)) == ["0"]
    assert reason in reasons(model)[name]


def test_writing_a_computed_weight_is_refused():
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH))
    found: dict[str, QuantizedLayer] = quantized(model)
    weight_norm(model[0])
    with pytest.raises(InputError, match="computed from other parameters"):
        write_(model, found)
