"""Batches by tokens: the prompt's and the pictures'."""

import pytest
from asking import requests_for, silent
from mmq_plugins.embedded.scenes import make_scene, render
from mmq_plugins.models.generic_inputs import prompt_inputs
from tiny_vlms import tiny_vlm

from mmq.contracts import GenerationConfig
from mmq.errors import InputError
from mmq.models.batching import batches, by_tokens, token_counts

SIZES = ((64, 64), (200, 40), (40, 120), (64, 64))
QUESTIONS = ("how many?", "what color is it?", "is there a red star? " * 4, "why?")


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava", "llava_next"])
def test_counted_tokens_are_those_that_the_model_reads(name):
    model = tiny_vlm(name)
    pictures = [render(make_scene(k)).resize(size) for k, size in enumerate(SIZES)]
    requests = requests_for(model, pictures, QUESTIONS)
    texts = [model.render(request) for request in requests]
    for count, request, text in zip(
        token_counts(model, requests, texts), requests, texts, strict=True
    ):
        opened = [[image.open() for image in request.images]]
        if name == "llava":  # it has a family of its own
            ids = model.processor(images=opened[0], text=[text], return_tensors="pt")
        else:
            ids = prompt_inputs(model.module, model.processor, opened, [text])
        assert count == ids["input_ids"].shape[1]


def test_a_batch_has_at_most_the_given_number_of_tokens_padding_included():
    lengths = [30, 10, 20, 10, 50]
    parts = by_tokens(lengths, size=64, most=60)
    assert sorted(k for part in parts for k in part) == [0, 1, 2, 3, 4]
    assert all(len(part) * max(lengths[k] for k in part) <= 60 for part in parts)
    assert by_tokens(lengths, size=1, most=60) == [[1], [3], [2], [0], [4]]


def test_a_sample_with_more_tokens_than_a_batch_may_have_is_refused():
    model = tiny_vlm("qwen2_5_vl")
    requests = requests_for(model, [render(make_scene(0))], ["how many?"])
    texts = [model.render(request) for request in requests]
    with pytest.raises(InputError, match="max_batch_tokens: sample '0' alone has"):
        batches(model, requests, texts, 64, max_tokens=3)
    config = GenerationConfig(max_new_tokens=2, max_batch_tokens=200)
    assert len(model.generate(requests, config, silent)) == 1
