"""A weight that several modules share is calibrated on what all of them read."""

from functools import partial

import pytest
import torch
from mmq_plugins.quantizers.awq import Awq
from mmq_plugins.quantizers.gptq import Gptq
from mmq_plugins.quantizers.rtn import Rtn
from torch import nn

from mmq.quantization.block_inputs import read
from mmq.quantization.blocks import Block, ReplayedCall
from mmq.quantization.capture import capture
from mmq.quantization.folds import find_folds
from mmq.quantization.modules import quantize_module
from mmq.tensors.layer_inputs import LayerInputs, output_error
from mmq.tensors.matrices import Matrix, holders, with_twins

WIDTH = 16


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return x + torch.tanh(self.linear(self.norm(x)))


class Pair(nn.Module):
    """A decoder with the weights of its encoder, one by one or in another order."""

    def __init__(self, order=(0, 1, 2)):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.ModuleList(Step() for _ in range(3))
        self.decoder = nn.ModuleList(Step() for _ in range(3))
        for block, other in zip(self.decoder, order, strict=True):
            block.linear.weight = self.encoder[other].linear.weight

    def forward(self, x):
        for block in self.encoder:
            x = block(x)
        y = 5 * x.flip(-1)
        for block in self.decoder:
            y = block(y)
        return y


def blocks_of(module, with_lists):
    owners = holders(module)
    layers = [{f"{k}": with_twins(Matrix(b.linear), owners)} for k, b in enumerate(module.encoder)]
    twins = [(block,) if with_lists else () for block in module.decoder]
    return [Block(*parts) for parts in zip(module.encoder, layers, twins, strict=True)]


@torch.no_grad()
def sums_of(module, inputs):
    """The inputs of each shared weight in the model's own forwards."""
    sums = {id(block.linear.weight): LayerInputs(WIDTH) for block in module.encoder}

    def listen(layer, given):
        sums[id(layer.weight)].update_(given[0])

    handles = [b.linear.register_forward_pre_hook(listen)
               for b in (*module.encoder, *module.decoder)]  # fmt: skip
    for x in inputs:
        module(x)
    for handle in handles:
        handle.remove()
    return [sums[id(block.linear.weight)] for block in module.encoder]


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    return [torch.randn(1, length, WIDTH) for length in (40, 60, 40)]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0)], ids=["one by one", "another order"])
@torch.no_grad()
def test_the_inputs_of_all_callers_count(order, inputs):
    module = Pair(order)
    is_parallel = order == (0, 1, 2)
    blocks = blocks_of(module, with_lists=is_parallel)
    calls = capture(blocks, lambda: [partial(module, x) for x in inputs])
    assert all(isinstance(call, ReplayedCall) != is_parallel for call in calls)
    for number, (block, expected) in enumerate(zip(blocks, sums_of(module, inputs), strict=True)):
        (sums,) = read(block, calls, number, advance=True).values()
        assert sums.count == expected.count == 2 * 140
        assert torch.allclose(sums.gram, expected.gram, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_codes_fit_what_all_callers_read(inputs):
    module = Pair()
    sums = sums_of(module, inputs)[0]
    forwards = [partial(module, x) for x in inputs]
    solved = quantize_module(module, forwards, Gptq(group_size=8), [3], quiet=True)[3]
    assert set(solved) == {f"encoder.{k}.linear" for k in range(3)}
    weight, layer = module.encoder[0].linear.weight, solved["encoder.0.linear"]
    own = output_error(weight, layer.weight.dequantize(), sums.gram)
    assert layer.output_error == pytest.approx(own, rel=1e-3)
    rounded = Rtn(group_size=8).quantize(weight, 3).dequantize()
    assert own < output_error(weight, rounded, sums.gram)


@torch.no_grad()
def test_no_scale_folds_into_the_norm_of_one_of_several_callers(inputs):
    module = Pair()
    blocks = blocks_of(module, with_lists=True)
    calls = capture(blocks, lambda: [partial(module, x) for x in inputs])
    assert find_folds(blocks[0], calls, 0) == {}
    solved = quantize_module(
        module, [partial(module, x) for x in inputs], Awq(group_size=8), [4], quiet=True
    )[4]
    assert not any(layer.folds_into for layer in solved.values())
