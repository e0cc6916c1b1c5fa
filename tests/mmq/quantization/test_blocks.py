"""Blocks run one after another read the same inputs as in the model's own forward passes."""

from functools import partial

import pytest
import torch
from mmq_plugins.quantizers.gptq import Gptq
from torch import nn

from mmq.artifacts.component_blocks import component_blocks
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.errors import InputError
from mmq.prepare import prepare
from mmq.quantization.block_inputs import read
from mmq.quantization.blocks import Block, ReplayedCall
from mmq.quantization.capture import capture
from mmq.quantization.sequential import initial_states
from mmq.tensors.layer_inputs import LayerInputs
from mmq.tensors.matrices import Matrix

MODELS = {"embedded-blip2": "vqa", "embedded-llava": "gqa", "embedded-retrieval": "retrieval"}


@pytest.fixture(scope="module", params=MODELS)
def loaded(request, tmp_path_factory):
    options = EvalOptions(
        model=request.param,
        task=MODELS[request.param],
        quantizer="gptq",
        limit="8",
        calibration_samples=20,
    )
    prepared = prepare(options, {}, lambda parts: [])
    model = prepared.load()
    artifacts = prepared.artifacts(Store(tmp_path_factory.mktemp("store")), quiet=True)
    return model, artifacts.calibration


def real_inputs(model, calibration):
    """Every layer's inputs summed in the model's own forwards."""
    result = {}

    def listen(layer):
        def hook(module, given):
            sums = result.setdefault(layer.name, LayerInputs(layer.shape[1]))
            sums.update_(given[0])

        return hook

    layers = [layer for component in model.components.values() for layer in component.layers]
    handles = [layer.module.register_forward_pre_hook(listen(layer)) for layer in layers]
    with torch.no_grad():
        for forward in calibration.forwards(model):
            forward()
    for handle in handles:
        handle.remove()
    return result


def test_block_by_block_every_layer_reads_what_it_reads_in_the_model(loaded):
    model, calibration = loaded
    expected = real_inputs(model, calibration)
    seen = set()
    for component in model.components.values():
        for blocks in component_blocks(model, component):
            calls = capture(blocks, partial(calibration.forwards, model))
            for number, block in enumerate(blocks):
                for group, inputs in read(block, calls, number, advance=True).items():
                    for name in group:
                        seen.add(name)
                        share = expected[name].count / inputs.count
                        assert share == int(share)  # the matching forward reads pictures again
                        assert torch.allclose(
                            inputs.gram * share, expected[name].gram, rtol=1e-3, atol=1e-2
                        )
    layers = {x.name for component in model.components.values() for x in component.layers}
    assert seen == layers == set(expected)


class Step(nn.Module):
    def __init__(self, out=8):
        super().__init__()
        self.linear = nn.Linear(8, out)

    def forward(self, states, mask=None):
        return torch.tanh(self.linear(states)) * (1 if mask is None else mask)


class Chain(nn.Module):
    """Three blocks with optional operations on the hidden states between them."""

    def __init__(self, between=lambda x, k: x, masks=lambda x, k: None, named=False):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Step() for _ in range(3))
        self.between, self.masks, self.named = between, masks, named

    def forward(self, x):
        for number, block in enumerate(self.blocks):
            x = self.between(x, number)
            mask = self.masks(x, number)
            x = block(states=x, mask=mask) if self.named else block(x, mask)
        return x


def injected(x, number):
    x = x.clone()
    x[:, 1:3] += number
    return x


def sliding(x, number):
    """One mask for short inputs; a second one in every other block for long ones."""
    mask = torch.ones(x.shape[1], 1)
    if number % 2 and len(mask) > 4:
        mask[:2] = 0
    return mask


def every_second_first(module, x):
    return module.blocks[1](module.blocks[0](module.blocks[2](x)))


def grams(module, inputs):
    """Every block's Gram matrix block by block, and in the model's own forwards."""
    blocks = [Block(b, {str(k): Matrix(b.linear)}) for k, b in enumerate(module.blocks)]
    calls = capture(blocks, lambda: [partial(module, x) for x in inputs])
    seen = [
        next(iter(read(block, calls, number, advance=True).values())).gram
        for number, block in enumerate(blocks)
    ]
    expected = [LayerInputs(8) for _ in blocks]
    handles = [
        block.linear.register_forward_pre_hook(lambda m, given, sums=sums: sums.update_(given[0]))
        for block, sums in zip(module.blocks, expected, strict=True)
    ]
    for x in inputs:
        module(x)
    for handle in handles:
        handle.remove()
    return calls, seen, [sums.gram for sums in expected]


@pytest.mark.parametrize(
    ("module", "replayed"),
    [
        (Chain(), False),
        (Chain(between=injected), False),
        (Chain(masks=sliding), False),
        (Chain(named=True), False),
        (Chain(between=lambda x, k: x / (1 + k)), True),
    ],
    ids=["plain", "injected", "masks", "named", "scaled"],
)
@torch.no_grad()
def test_whatever_happens_between_blocks_their_inputs_are_the_models(module, replayed):
    inputs = [torch.randn(1, length, 8) for length in (4, 3, 9, 8)]
    calls, seen, expected = grams(module, inputs)
    assert all(isinstance(call, ReplayedCall) == replayed for call in calls)
    assert len(calls) == 4
    for own, real in zip(seen, expected, strict=True):
        assert torch.allclose(own, real, atol=1e-5)


@torch.no_grad()
def test_blocks_in_another_order_are_replayed_and_refused_in_the_sequential_order():
    module = Chain()
    module.forward = partial(every_second_first, module)
    calls, seen, expected = grams(module, [torch.randn(1, 4, 8)])
    assert all(torch.allclose(own, real) for own, real in zip(seen, expected, strict=True))
    blocks = [Block(block, {}) for block in module.blocks]
    with pytest.raises(InputError, match="Step blocks of this model cannot be run one after"):
        initial_states(calls, Gptq(calibration_inputs="sequential"), [4], blocks)


@torch.no_grad()
def test_later_forwards_skip_the_work_of_blocks_that_all_read_the_same_arguments():
    module, ran = Chain(), []
    handle = module.blocks[1].linear.register_forward_hook(lambda *_: ran.append(1))
    blocks = [Block(block, {}) for block in module.blocks]
    inputs = [torch.randn(1, 4, 8) for _ in range(5)]
    calls = capture(blocks, lambda: [partial(module, x) for x in inputs])
    handle.remove()
    assert len(ran) == 2  # the first forward, and the check that its blocks form a chain
    assert all(torch.equal(call.hidden, x) for call, x in zip(calls, inputs, strict=True))
    assert not any("forward" in vars(block) for block in module.blocks)
