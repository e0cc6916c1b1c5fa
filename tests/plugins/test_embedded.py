"""The shipped models: small, with outliers, and good at what they were trained for."""

from dataclasses import replace

import numpy as np
import pytest
from mmq_plugins.embedded import outliers

from mmq.config import EvalOptions
from mmq.evaluation.generating import evaluate
from mmq.models.loading import load_model
from mmq.prepare import prepare

MODELS = ("embedded-blip2", "embedded-llava", "embedded-retrieval")


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_models_have_at_least_four_blocks_per_component(name):
    model = load_model(name)
    assert all(component.blocks >= 4 for component in model.components.values())
    for component in model.components.values():
        assert all(layer.shape[1] % 64 == 0 for layer in component.layers)


def test_the_components_rank_by_size_as_in_blip2():
    shares = [c.weights for c in load_model("embedded-blip2").components.values()]
    assert shares[1] < shares[0] < shares[2]  # connector, ViT, language model


@pytest.mark.parametrize(
    ("name", "component"), [("embedded-blip2", "llm"), ("embedded-llava", "llm")]
)
def test_the_shipped_models_have_the_outliers_that_were_published(name, component):
    layers = load_model(name).components[component].layers
    result = [outliers.bulk_range(layer.module.weight) for layer in layers]
    assert all(share is not None for share in result)
    # SqueezeLLM: a tenth; factors are powers of two, and layers that read together share theirs
    assert 0.05 <= float(np.median(result)) <= 0.2


def score(model_name, task, exchange_pictures=False, limit=160):
    options = EvalOptions(model=model_name, task=task, limit=limit)
    prepared = prepare(options, {"num-beams": "1"}, lambda parts: [])
    samples = list(prepared.samples)
    if exchange_pictures:
        images = [s.images for s in samples]
        half = len(images) // 2
        others = images[half:] + images[:half]
        samples = [replace(s, images=i) for s, i in zip(samples, others, strict=True)]
    model = prepared.load()
    task = replace(prepared.task, samples=samples)
    evaluation = evaluate(task, model, lambda items, text: items)
    prepared.task.close()
    return evaluation.score


@pytest.mark.parametrize(
    ("name", "task", "least"),
    [
        ("embedded-blip2", "vqa", 80),
        ("embedded-blip2", "gqa", 70),
        ("embedded-llava", "vqa", 70),
        ("embedded-llava", "gqa", 65),
    ],
)
def test_the_shipped_models_answer_better_with_pictures_than_without(name, task, least):
    looking, blind = score(name, task), score(name, task, exchange_pictures=True)
    assert looking.low > least
    assert blind.high < 65


def test_the_shipped_model_captions_pictures_correctly():
    looking = score("embedded-blip2", "captioning")
    blind = score("embedded-blip2", "captioning", exchange_pictures=True)
    assert looking.low > 3 * blind.high
