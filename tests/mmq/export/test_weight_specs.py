"""The planned spec of a weight is that of the quantized weight."""

import pytest
import torch
from mmq_plugins.quantizers.awq import Awq
from mmq_plugins.quantizers.gptq import Gptq
from mmq_plugins.quantizers.rtn import Rtn
from mmq_plugins.quantizers.uniform import Uniform

from mmq.contracts.target import WeightSpec
from mmq.export.weight_specs import planned_spec

WEIGHT = 0.05 * torch.randn(24, 192, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "quantizer",
    [Rtn(), Rtn(group_size=64), Rtn(group_size=192), Rtn(group_size=32, symmetric=True), Uniform(),
     Gptq(group_size=64), Gptq(symmetric=True)],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_the_spec_is_that_of_the_quantized_weight(quantizer, bits):
    assert planned_spec(quantizer, 192, bits) == WeightSpec.of(quantizer.quantize(WEIGHT, bits))


@pytest.mark.parametrize("mapping", ["", "symmetric", "symmetric_no_clipping"])
@pytest.mark.parametrize("group_size", [0, 32, 64])
@pytest.mark.parametrize("foldable", [False, True])
def test_awq_is_known_to_scale_inputs_whatever_its_options(mapping, group_size, foldable):
    options = {mapping: True} if mapping else {}
    spec = planned_spec(Awq(group_size=group_size, foldable=foldable, **options), 192, 4)
    assert spec.input_scale
    assert spec.folds == foldable
    assert str(spec).endswith(f", {'foldable ' * foldable}input scales")
