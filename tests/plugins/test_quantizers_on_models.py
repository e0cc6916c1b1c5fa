"""Calibrated quantizers on the embedded models' own layers and calibration inputs."""

from collections import defaultdict
from copy import copy
from dataclasses import dataclass
from functools import partial
from statistics import mean

import pytest
from mmq_plugins.quantizers.awq import Awq
from mmq_plugins.quantizers.gptq import Gptq
from mmq_plugins.quantizers.rtn import Rtn

from mmq.artifacts.component_blocks import component_blocks
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.contracts.quantizer import CalibratedQuantizer, Solved
from mmq.prepare import prepare
from mmq.quantization.blocks import advance_
from mmq.quantization.capture import capture
from mmq.quantization.sequential import quantize_block

MODELS = {"embedded-blip2": "vqa", "embedded-llava": "gqa", "embedded-retrieval": "retrieval"}
WIDTHS = (4, 3, 2)
SIZES = (0, 64, 128)


@dataclass(frozen=True)
class Nearest(CalibratedQuantizer):
    """Rounds to nearest, as a calibrated quantizer, so that its output error is measured."""

    group_size: int = 0

    def quantize(self, weight, bits):
        return Rtn(self.group_size).quantize(weight, bits)

    def solve(self, weights, inputs, widths):
        return [{bits: Solved(self.quantize(w, bits)) for bits in widths} for w in weights]


@pytest.fixture(scope="module", params=MODELS)
def blocks(request, tmp_path_factory):
    """Every block of a model with its component, its number and the calls that reach it."""
    name = request.param
    options = EvalOptions(
        model=name, task=MODELS[name], quantizer="gptq", limit="8", calibration_samples=10
    )
    prepared = prepare(options, {}, lambda parts: [])
    model = prepared.load()
    calibration = prepared.artifacts(Store(tmp_path_factory.mktemp("store"))).calibration
    result = []
    for component in model.components.values():
        for some in component_blocks(model, component):
            calls = capture(some, partial(calibration.forwards, model))
            for number, block in enumerate(some):
                result.append((component.name, number, block, [copy(call) for call in calls]))
                advance_(block, calls, number)
    return result


def errors(quantizer, number, block, calls, widths=WIDTHS):
    """Output error by layer and width, as the engine reports it."""
    states = {0: [copy(call) for call in calls]}
    solved = quantize_block(block, number, states, quantizer, widths, lambda bits: None)
    return {(n, bits): x.output_error for bits, some in solved.items() for n, x in some.items()}


def test_awq_never_has_a_larger_output_error_than_round_to_nearest(blocks):
    """Of any layer: every block has its own group size and width, each size meets each width."""
    better = []
    for turn, (component, number, block, calls) in enumerate(blocks):
        size, widths = SIZES[turn % 3], [WIDTHS[turn // 3 % 3]]
        plain = errors(Nearest(group_size=size), number, block, calls, widths)
        for place, error in errors(Awq(group_size=size), number, block, calls, widths).items():
            assert error <= plain[place] * (1 + 1e-6), (component, size, place)
            better.append(error < plain[place])
    assert mean(better) > 0.99


@pytest.mark.parametrize("size", SIZES[:2])
def test_gptqs_outputs_are_closer_than_round_to_nearests(blocks, size):
    plain, solved = defaultdict(list), defaultdict(list)
    for component, number, block, calls in blocks:
        for quantizer, result in (
            (Nearest(group_size=size), plain),
            (Gptq(group_size=size), solved),
        ):
            for (_, bits), error in errors(quantizer, number, block, calls).items():
                result[component, bits].append(error)
    for place, expected in plain.items():
        lower = [one < other for one, other in zip(solved[place], expected, strict=True)]
        assert mean(solved[place]) < 0.5 * mean(expected), place
        assert mean(lower) >= 0.99, place
