"""Quantizers with options by width: the codes at a width are those of the plain quantizer."""

import pytest
import torch
from mmq_plugins.quantizers.gptq import Gptq
from mmq_plugins.quantizers.rtn import Rtn

from mmq.errors import InputError
from mmq.quantization.by_width import build, by_width, common, option_values
from mmq.tensors.layer_inputs import LayerInputs

WEIGHT = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))


def same(one, other):
    return torch.equal(one.codes, other.codes) and torch.equal(one.scale, other.scale)


def test_options_by_width_are_read_and_written_alike():
    quantizer = build(Rtn, {"group_size": "32,3=64", "symmetric": "4=true"})
    assert quantizer.at(3) == Rtn(group_size=64)
    assert quantizer.at(4) == Rtn(group_size=32, symmetric=True)
    assert quantizer.at(8) == common(quantizer) == Rtn(group_size=32)
    values = option_values(quantizer)
    assert values["group_size"] == "32,3=64"
    assert values["symmetric"] == "false,4=true"
    assert build(Rtn, values) == quantizer


def test_options_that_do_not_depend_on_the_width_stay_a_plain_quantizer():
    quantizer = build(Rtn, {"group_size": "32", "symmetric": "4=false"})
    assert quantizer == Rtn(group_size=32)
    assert option_values(quantizer)["group_size"] == 32


def test_codes_at_a_width_are_those_of_its_own_quantizer():
    quantizer = by_width(Rtn(), {4: Rtn(group_size=16, symmetric=True)})
    assert same(quantizer.quantize(WEIGHT, 4), Rtn(16, symmetric=True).quantize(WEIGHT, 4))
    assert same(quantizer.quantize(WEIGHT, 3), Rtn().quantize(WEIGHT, 3))
    assert quantizer.stored_bits((8, 64), 4) == Rtn(16, symmetric=True).stored_bits((8, 64), 4)


def test_calibrated_widths_are_solved_with_their_own_options():
    inputs = LayerInputs(64, max_rows=0)
    inputs.update_(torch.randn(128, 64, generator=torch.Generator().manual_seed(1)))
    quantizer = by_width(Gptq(), {4: Gptq(group_size=32)})
    (together,) = quantizer.solve([WEIGHT], inputs, [3, 4])
    (narrow,), (wide,) = (
        Gptq().solve([WEIGHT], inputs, [3]),
        Gptq(group_size=32).solve([WEIGHT], inputs, [4]),
    )
    assert same(together[3].weight, narrow[3].weight)
    assert same(together[4].weight, wide[4].weight)


def test_a_width_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="write it like 3=256,4=32"):
        build(Rtn, {"group_size": "9=32"})
