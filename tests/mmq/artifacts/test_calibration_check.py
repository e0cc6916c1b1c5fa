"""A model that cannot be calibrated is refused on one sample, before a study begins."""

from types import SimpleNamespace

import pytest
import torch
from mmq_plugins.quantizers.gptq import Gptq
from mmq_plugins.quantizers.rtn import Rtn
from tiny_vlms import tiny_vlm
from torch import nn

from mmq.artifacts.calibration_check import check_calibration, check_longest_text
from mmq.contracts import Request
from mmq.data.calibration import Calibration
from mmq.errors import InputError
from mmq.models.components import Component, Layer
from mmq.tensors.matrices import matrices


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.up_proj = nn.Parameter(torch.randn(2, 8, 8))

    def forward(self, x):
        return torch.einsum("ti,oi->to", x, self.up_proj[0])


class Normed(nn.Module):
    """Blocks with an operation between them that changes every token."""

    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.ran = 0

    def forward(self, x):
        self.ran += 1
        for block in self.blocks:
            x = block(nn.functional.layer_norm(x, (8,)))
        return x


def checked(quantizer, *blocks):
    """Check a model of these blocks; returns how many samples it ran."""
    root = Normed(*blocks).requires_grad_(False)
    layers = tuple(
        Layer(f"blocks.{k}.{name}", k, "ff", matrix)
        for k, block in enumerate(blocks)
        for name, matrix in matrices(block)
    )
    model = SimpleNamespace(
        module=root, components={"llm": Component("llm", len(blocks), layers, ("blocks",))}
    )
    samples = [torch.randn(4, 8) for _ in range(5)]
    calibration = SimpleNamespace(
        pairs=(), forwards=lambda model: (lambda x=x: root(x) for x in samples)
    )
    used = calibration if quantizer.calibrated else None
    check_calibration(
        model, SimpleNamespace(quantizer=quantizer, calibration=used, widths={"llm": [4]})
    )
    return root.ran


def linears(count):
    return [nn.Sequential(nn.Linear(8, 8)) for _ in range(count)]


def test_one_sample_decides_and_a_quantizer_without_data_needs_none():
    assert checked(Gptq(), *linears(2)) == 1
    assert checked(Rtn(), *linears(2)) == 0


def test_blocks_that_form_no_chain_are_refused_in_the_sequential_order_alone():
    with pytest.raises(InputError, match="cannot be run one after another, as sequential"):
        checked(Gptq(calibration_inputs="sequential"), *linears(2))


def test_experts_that_calibration_cannot_follow_are_refused():
    block = nn.Sequential(nn.Linear(8, 8), Experts())
    with pytest.raises(InputError, match="Experts multiplies by its experts in a way that cal"):
        checked(Gptq(), block)


def test_a_model_that_fails_on_texts_alone_is_refused():
    calibration = Calibration(((Request((), "a dark red cat", "1"), ""),))
    check_longest_text(tiny_vlm("llava_next"), calibration)
    with pytest.raises(InputError, match=r"a text of 14 characters without a picture \(You have"):
        check_longest_text(tiny_vlm("kosmos2"), calibration)
