"""Pixel limits: applied if a processor supports them, refused otherwise."""

import copy

import pytest
from PIL import Image
from tiny_vlms import tiny_vlm

from mmq.contracts import InputOptions
from mmq.errors import InputError
from mmq.models.pixel_limits import limit_pixels_


def patches(processor, size):
    grid = processor.image_processor(images=[Image.new("RGB", size)], return_tensors="pt")
    return int(grid["image_grid_thw"].prod())


def test_a_picture_is_scaled_to_the_limits():
    processor = copy.deepcopy(tiny_vlm("qwen2_5_vl").processor)
    limit_pixels_(processor, InputOptions(min_pixels=28**2 * 4, max_pixels=28**2 * 9))
    assert patches(processor, (600, 600)) == 9 * 4
    assert patches(processor, (30, 30)) == 4 * 4


def test_a_processor_that_scales_all_pictures_to_one_size_is_refused():
    with pytest.raises(InputError, match="max_pixels: .* has no pixel limits"):
        limit_pixels_(tiny_vlm("llava").processor, InputOptions(max_pixels=10_000))


def test_a_lower_limit_above_the_upper_is_refused():
    processor = copy.deepcopy(tiny_vlm("qwen2_5_vl").processor)
    with pytest.raises(InputError, match="is more than max_pixels"):
        limit_pixels_(processor, InputOptions(min_pixels=28**2 * 9, max_pixels=28**2))


def test_no_limits_change_nothing():
    processor = tiny_vlm("llava").processor
    before = dict(processor.image_processor.size)
    limit_pixels_(processor, InputOptions())
    assert dict(processor.image_processor.size) == before
