"""A picture that the image processor refuses is named before any weight is loaded."""

import logging

import official_files as official
import pytest
import torch
from model_folders import copied
from PIL import Image
from tiny_vlms import SINCE_5, tiny_vlm

from mmq.config import EvalOptions
from mmq.contracts import FileImage, Sample
from mmq.errors import InputError
from mmq.models.image_sizes import check_sizes
from mmq.prepare import prepare


def sample(folder, key, *sizes):
    images = []
    for number, size in enumerate(sizes):
        images.append(FileImage(folder / f"{key}-{number}.png"))
        Image.new("RGB", size).save(images[-1].path)
    return Sample(key, key, tuple(images))


@pytest.fixture(scope="module")
def qwen():
    from transformers import Qwen2VLImageProcessor

    return Qwen2VLImageProcessor()


def test_pictures_of_refused_sizes_are_counted_and_the_first_is_named(tmp_path, qwen):
    samples = [
        sample(tmp_path, "a", (640, 480)),
        sample(tmp_path, "b", (64, 64), (5000, 1)),
        sample(tmp_path, "c", (5000, 1), (1, 5000)),
    ]
    check_sizes(samples[:1], qwen, quiet=True)
    with pytest.raises(InputError) as caught:
        check_sizes(samples, qwen, quiet=True)
    text = str(caught.value)
    assert f"rejects {tmp_path / 'c-1.png'} (1 x 5000 pixels: " in text
    assert "aspect ratio" in text
    assert "and 2 other pictures; it belongs to the sample c" in text


def test_each_size_is_tried_once(tmp_path):
    sizes = []

    def processor(images, return_tensors):
        sizes.extend(image.size for image in images)

    samples = [sample(tmp_path, str(k), (8, 8), (8 + k % 2, 8)) for k in range(6)]
    check_sizes(samples, processor, quiet=True)
    assert sizes == [(8, 8), (9, 8)]
    check_sizes(samples, None)


@pytest.mark.skipif(SINCE_5, reason="fixed in transformers 5")
def test_pictures_whose_rows_transformers_4_takes_for_colours_are_refused(tmp_path, qwen):
    check_sizes([sample(tmp_path, "a", (64, 64), (1, 64), (3, 64))], qwen, quiet=True)
    for height in (1, 3):
        with pytest.raises(InputError, match="reads its rows as colours"):
            check_sizes([sample(tmp_path, "b", (64, height))], qwen, quiet=True)


@pytest.mark.skipif(not SINCE_5, reason="refused with transformers 4")
@pytest.mark.parametrize("name", ["llava", "idefics3", "gemma3"])
def test_a_model_sees_the_colour_of_a_picture_of_one_pixel(name):
    images = tiny_vlm(name).processor.image_processor
    ordinary, single = (
        images(images=[Image.new("RGB", size, (9, 99, 199))], return_tensors="pt")["pixel_values"]
        for size in ((64, 64), (1, 1))
    )
    assert torch.equal(ordinary.unique(), single.unique())


def test_a_processor_that_refuses_every_picture_says_nothing_about_sizes(tmp_path, caplog):
    def processor(images, return_tensors):
        raise TypeError("text is missing")

    with caplog.at_level(logging.WARNING):
        check_sizes([sample(tmp_path, "a", (8, 8))], processor, quiet=True)
    assert "Cannot check the sizes of the pictures for this model: text is missing" in caplog.text


@pytest.mark.parametrize("split", ["val2014", "train2014"])
def test_a_strip_is_refused_with_its_sample_before_the_model_is_loaded(tmp_path, qwen, split):
    model = copied(tmp_path / "model", "embedded-llava")
    qwen.save_pretrained(model)
    root = official.vqav2(tmp_path / "data")
    number = {"val2014": 2, "train2014": 103}[split]
    path = root / split / f"COCO_{split}_{number:012d}.jpg"
    Image.new("RGB", (5000, 1)).save(path)
    options = EvalOptions(model=str(model), data=str(root), quantizer="gptq")
    with pytest.raises(InputError, match=rf"{path.name} \(5000 x 1 .*the sample {number}00\d\."):
        prepare(options, {}, lambda parts: [])
