"""Every calibrated quantizer on layers with unusual inputs or weights."""

import pytest
import torch
from legacy_solvers import auto_gptq, autoawq
from mmq_plugins.quantizers.auto_awq import AutoAwq
from mmq_plugins.quantizers.auto_gptq import AutoGptq
from mmq_plugins.quantizers.awq import Awq
from mmq_plugins.quantizers.gptq import Gptq
from mmq_plugins.quantizers.rtn import Rtn
from torch import nn

from mmq.quantization.modules import quantize_module

QUANTIZERS = {
    "gptq": (Gptq, lambda: None),
    "awq": (Awq, lambda: None),
    "auto-gptq": (AutoGptq, auto_gptq),
    "autoawq": (AutoAwq, autoawq),
}
NORMAL = torch.randn(64, 64, generator=torch.Generator().manual_seed(6))
INPUTS = {
    "none": torch.zeros(0, 64),
    "zero": torch.zeros(9, 64),
    "constant": torch.full((9, 64), 0.7),
    "rank one": NORMAL[:, :1] * torch.arange(64),
    "one token": NORMAL[:1],
    "half dead": NORMAL * (torch.arange(64) % 2),
    "some NaN": torch.where(NORMAL > 2.5, torch.nan, NORMAL),
    "some infinite": torch.where(NORMAL > 2.5, torch.inf, NORMAL),
    "all NaN": torch.full((9, 64), torch.nan),
    "tiny": NORMAL * 1e-18,
    "overflowing": NORMAL * 1e25,
}
NO_INFORMATION = {"none", "zero", "all NaN", "overflowing"}
WEIGHTS = {"normal": NORMAL.flip(0), "zero": torch.zeros(64, 64)}
ORDERS = ("full_precision", "sequential")


def quantized(kind, weight, inputs, group_size=32, **options):
    """The engine's result for a single linear layer at 2 and 4 bits."""
    layer = nn.Linear(64, 64, bias=False)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    module = nn.Sequential(layer)
    quantizer = kind(group_size=group_size, **options)
    result = quantize_module(module, [lambda: module(inputs)], quantizer, [2, 4], quiet=True)
    assert torch.equal(layer.weight, weight)
    return {bits: layers["0"] for bits, layers in result.items()}


@pytest.mark.parametrize(
    ("name", "inputs", "order"),
    [
        (name, inputs, ORDERS[(number + other) % 2])
        for number, name in enumerate(QUANTIZERS)
        for other, inputs in enumerate(INPUTS)
    ],
)
def test_odd_inputs_give_finite_codes_and_are_noted(name, inputs, order):
    kind, require = QUANTIZERS[name]
    require()
    for label, weight in WEIGHTS.items():
        solved = quantized(kind, weight, INPUTS[inputs], calibration_inputs=order)
        for bits, layer in solved.items():
            near = layer.weight.dequantize()
            plain = Rtn(group_size=32).quantize(weight, bits).dequantize()
            assert torch.isfinite(near).all(), label
            if "rounded to nearest" in layer.note:
                assert torch.equal(near, plain), label
            if inputs in NO_INFORMATION and weight.any():
                assert "rounded to nearest" in layer.note, label
                assert torch.allclose(near, plain), label
            if inputs.startswith("some"):
                assert "inputs were not finite and left out" in layer.note
            if inputs == "half dead":
                noted = "weights of 32 inputs that were always zero became zero" in layer.note
                lost = bool(weight[:, ::2].any()) and not near[:, ::2].any()
                assert noted == lost, label
                assert not lost or name != "gptq", label


@pytest.mark.parametrize("inputs", ["constant", "rank one", "one token", "half dead", "some NaN"])
@pytest.mark.parametrize("name", ["gptq", "awq"])
def test_output_errors_for_odd_inputs_do_not_exceed_those_of_round_to_nearest(name, inputs):
    x = INPUTS[inputs][torch.isfinite(INPUTS[inputs]).all(-1)].double()
    weight = WEIGHTS["normal"]
    for bits, layer in quantized(QUANTIZERS[name][0], weight, INPUTS[inputs]).items():
        plain = Rtn(group_size=32).quantize(weight, bits).dequantize()
        ours, theirs = (
            float((x @ (near.double() - weight.double()).T).norm())
            for near in (layer.weight.dequantize(), plain)
        )
        assert ours <= theirs * (1 + 1e-6), bits
