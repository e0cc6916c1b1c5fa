"""Scales that are subnormal in float16 are raised."""

from dataclasses import replace

import pytest
import torch

from mmq.tensors.affine import MappingType
from mmq.tensors.quantized_weight import round_to_nearest
from mmq.tensors.raised_scales import SMALLEST, raise_scales

MAPPINGS = [MappingType.SYMMETRIC, MappingType.ASYMMETRIC]


def weight_with_small_groups():
    weight = 0.05 * torch.randn(24, 96, generator=torch.Generator().manual_seed(0))
    weight[3] *= 1e-4
    weight[5, 32:64] *= 1e-3
    return weight


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_scales_are_normal_float16_numbers_and_other_groups_are_unchanged(mapping, bits):
    weight = weight_with_small_groups()
    quantized = round_to_nearest(weight, bits, 32, mapping)
    assert quantized.scale.dtype == torch.float32
    raised = raise_scales(quantized, weight)
    assert raised.scale.dtype == torch.float16
    assert float(raised.scale.min()) == SMALLEST
    small = (quantized.scale < SMALLEST).repeat_interleave(32, 1)
    assert torch.equal(raised.codes[~small], quantized.codes[~small])
    assert torch.equal(raised.dequantize()[~small], quantized.dequantize()[~small])
    error = (raised.dequantize() - weight)[small].abs()
    assert float(error.max()) <= SMALLEST


def test_a_layer_without_small_scales_is_returned_as_it_is():
    weight = torch.randn(8, 64)
    quantized = round_to_nearest(weight, 4, 32)
    assert raise_scales(quantized, weight) is quantized


def test_input_scales_and_an_order_of_inputs_are_followed():
    weight = weight_with_small_groups()
    index = torch.arange(96).flip(0) // 32
    scale = torch.full((96,), 2.0)
    order = torch.argsort(index, stable=True)
    quantized = round_to_nearest((weight * scale)[:, order], 4, 32, MappingType.SYMMETRIC)
    codes = torch.empty_like(quantized.codes)
    codes[:, order] = quantized.codes
    quantized = replace(quantized, codes=codes, input_scale=scale, group_index=index)
    raised = raise_scales(quantized, weight)
    small = (quantized.scale < SMALLEST)[:, index]
    assert small.any()
    assert float((raised.dequantize() - weight)[small].abs().max()) <= SMALLEST
    assert torch.equal(raised.dequantize()[~small], quantized.dequantize()[~small])
