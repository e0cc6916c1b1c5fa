"""Retrieval: recalls against a literal computation, the evaluator against brute force."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from asking import scores
from mmq_plugins.evaluators.recall import (
    WAYS,
    image_ranks,
    recall_metrics,
    text_ranks,
    undefined_recalls,
)
from mmq_plugins.evaluators.retrieval import Retrieval, candidates, normalize_caption
from mmq_plugins.evaluators.vqa import Vqa

from mmq.config import EvalOptions
from mmq.data.source import find_source
from mmq.errors import InputError
from mmq.evaluation.generating import protocol_for
from mmq.models.loading import load_model
from mmq.prepare import prepare
from mmq.testing import EvaluatorContract
from mmq.tracking.params import eval_spec_params


@pytest.fixture(scope="module")
def model():
    return load_model("embedded-retrieval")


@pytest.fixture(scope="module")
def pool():
    return find_source("retrieval", "scenes").samples()[:24]


class TestRetrieval(EvaluatorContract):
    model_name = "embedded-retrieval"

    def make(self):
        return Retrieval(k=16)


def literal_recall(scores, owner, rank):
    """Sort each row and look; scores without ties."""
    result = []
    for picture in range(len(scores)):
        order = sorted(range(scores.shape[1]), key=lambda t: -scores[picture, t])
        result.append(any(owner[t] == picture for t in order[:rank]))
    other = []
    for text in range(scores.shape[1]):
        order = sorted(range(len(scores)), key=lambda i: -scores[i, text])
        other.append(owner[text] in order[:rank])
    return 100 * np.mean(result), 100 * np.mean(other)


@pytest.mark.parametrize("seed", range(5))
def test_recalls_are_those_of_sorting_every_row(seed):
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(20), rng.integers(1, 6, 20))
    scores = rng.normal(size=(20, len(owner)))
    scores[owner, np.arange(len(owner))] += 1
    metrics, each = recall_metrics(scores, scores, scores, owner, [str(k) for k in range(20)])
    means = []
    for rank in (1, 5, 10):
        expected = literal_recall(scores, owner, rank)
        for way, value in zip(("image_to_text", "text_to_image"), expected, strict=True):
            assert metrics[f"retrieval/{way}_R{rank}"].value == pytest.approx(value)
            means.append(value)
    assert metrics["retrieval/mean_recall"].value == pytest.approx(np.mean(means))
    assert metrics["retrieval/image_to_text_mean"].value == pytest.approx(np.mean(means[::2]))
    contrastive = metrics["retrieval/contrastive_text_to_image_R1"]
    assert contrastive.value == metrics["retrieval/text_to_image_R1"].value
    queries = {name: metric.n for name, metric in metrics.items()}
    assert queries == {name: len(owner) if "text_to_image" in name else 20 for name in metrics}
    assert all(len(values) == 20 for values in each.values())


@pytest.mark.parametrize(
    ("pictures", "captions", "expected"),
    [
        (12, 5, set()),
        (10, 5, {"text_to_image_R10"}),
        (2, 5, {"image_to_text_R10", "text_to_image_R5", "text_to_image_R10"}),
        (11, 1, set()),
        (5, 1, {f"{way}_R{k}" for way in WAYS for k in (5, 10)}),
        (1, 5, {f"{way}_R{k}" for way in WAYS for k in (1, 5, 10)}
         | {f"contrastive_{way}_R1" for way in WAYS}),
    ],
)  # fmt: skip
def test_recalls_that_no_ranking_can_miss_are_undefined(pictures, captions, expected):
    owner = np.repeat(np.arange(pictures), captions)
    assert set(undefined_recalls(owner, pictures)) == expected
    worst = np.where(owner[None, :] == np.arange(pictures)[:, None], -1.0, 1.0)
    for way, ranks in zip(
        WAYS, (text_ranks(worst, owner), image_ranks(worst, owner)), strict=True
    ):
        for k in (1, 5, 10):
            assert (f"{way}_R{k}" in expected) == bool((ranks < k).all())


def test_means_are_those_of_the_recalls_that_are_defined():
    owner = np.repeat(np.arange(4), 5)
    scores = np.random.default_rng(0).normal(size=(4, 20))
    metrics, each = recall_metrics(scores, scores, scores, owner, list("abcd"))
    values = {name.removeprefix("retrieval/"): metric.value for name, metric in metrics.items()}
    recalls = [values[name] for name in values if re.fullmatch(r"(image|text)_to_\w+_R\d+", name)]
    assert len(recalls) == 4  # 15 foreign texts leave all three, 3 foreign pictures only R@1
    assert values["mean_recall"] == pytest.approx(np.mean(recalls))
    assert values["text_to_image_mean"] == values["text_to_image_R1"]
    assert set(each) == set(metrics)


def test_data_on_which_every_ranking_is_correct_is_refused(model, pool):
    for scored in (Retrieval().check_samples, lambda s, _: scores(Retrieval(), model, s)):
        with pytest.raises(InputError, match="undefined: with one picture"):
            scored(pool[:1], pool)
    mute = replace(pool[1], references=("a dog", " *.! "))
    with pytest.raises(InputError, match="1 of 3 pictures have a caption without a word"):
        Retrieval().check_samples([pool[0], mute, pool[2]], pool)


def test_a_small_pool_is_scored_and_reports_undefined_recalls(model, pool):
    metrics = scores(Retrieval(k=10), model, pool[:6])
    assert set(metrics.undefined) == {"retrieval/text_to_image_R10"}
    assert "at most 5 wrong candidates" in metrics.undefined["retrieval/text_to_image_R10"]
    assert metrics.primary == "retrieval/mean_recall"


def test_a_model_with_equal_scores_retrieves_nothing():
    owner = np.repeat(np.arange(4), 5)
    scores = np.zeros((4, 20))
    assert (text_ranks(scores, owner) == 15).all()
    assert (image_ranks(scores, owner) == 3).all()


def test_non_candidates_are_never_retrieved():
    owner = np.array([0, 1])
    scores = np.array([[-np.inf, 1.0], [-np.inf, -np.inf]])
    assert text_ranks(scores, owner).tolist() == [2, 2]
    assert image_ranks(scores, owner).tolist() == [2, 2]


def test_captions_are_read_as_blip2_reads_them():
    assert normalize_caption('A dog. (Two!) "cats": #1; ~x*') == "a dog two cats 1 x"
    assert normalize_caption("It's a man, and well-known") == "it's a man, and well-known"
    assert normalize_caption(" ".join(["word"] * 60)) == " ".join(["word"] * 50)


def test_the_limits_and_the_padding_of_texts_are_logged():
    options = EvalOptions(model="embedded-retrieval", task="retrieval", limit="4")
    params = eval_spec_params(prepare(options, {"max-words": "7"}, lambda parts: []).eval_spec)
    assert params["evaluator.max_words"] == 7
    assert (params["model.padding_side"], params["model.max_tokens"]) == ("right", 35)


def test_how_many_words_are_read_is_an_option(model, pool):
    pairs = Retrieval(max_words=2).calibration(pool[:3])
    assert all(len(request.prompt.split()) == 2 for request, _ in pairs)
    metrics = scores(Retrieval(k=10, max_words=2), model, pool[:3])
    assert {len(p.text.split()) for p in metrics.predictions} == {2}
    with pytest.raises(ValueError, match="max_words: 0 is not at least 1"):
        Retrieval(max_words=0)


def brute_force(model, samples):
    """All rankings from the model's own forward pass, pair by pair."""
    texts = [normalize_caption(t) for s in samples for t in s.references]
    images = [s.image.open() for s in samples]
    pixels = model.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
    scores = np.empty((len(samples), len(texts)))
    contrast = np.empty_like(scores)
    with torch.no_grad():
        for t, text in enumerate(texts):
            tokens = model.processor.tokenizer([text] * len(samples), return_tensors="pt")
            given = {"pixel_values": pixels, "input_ids": tokens["input_ids"],
                     "attention_mask": tokens["attention_mask"]}  # fmt: skip
            result = model.module(**given, use_image_text_matching_head=True).logits_per_image
            similar = model.module(**given, use_image_text_matching_head=False).logits_per_image
            contrast[:, t] = similar[:, 0]
            scores[:, t] = result[:, 1] + similar[:, 0]
    return scores, contrast


def test_scores_are_those_of_ranking_everything_again_with_transformers_own_forward(model, pool):
    samples = pool[:12]
    owner = np.repeat(np.arange(12), 5)
    ranks, contrast = brute_force(model, samples)
    ids = [s.image_id for s in samples]
    expected, _ = recall_metrics(ranks, ranks, contrast, owner, ids)
    metrics = scores(Retrieval(k=60, batch_size=7), model, samples)
    assert metrics.metrics == expected
    top = ranks.argmax(1)
    texts = [normalize_caption(t) for s in samples for t in s.references]
    assert [p.text for p in metrics.predictions] == [texts[k] for k in top]


def test_only_the_candidates_are_ranked_again(model, pool):
    samples = pool[:12]
    owner = np.repeat(np.arange(12), 5)
    ranks, contrast = brute_force(model, samples)
    to_text = np.where(candidates(contrast, 10), ranks, -np.inf)
    to_image = np.where(candidates(contrast.T, 10).T, ranks, -np.inf)
    expected, _ = recall_metrics(to_text, to_image, contrast, owner, [s.image_id for s in samples])
    metrics = scores(Retrieval(k=10), model, samples)
    assert metrics.metrics == expected


def test_too_few_candidates_and_models_without_a_matching_head_are_refused():
    with pytest.raises(ValueError, match="k: 5 is less than 10"):
        Retrieval(k=5)
    with pytest.raises(InputError, match="Blip2 models cannot rank pictures and texts"):
        protocol_for(Retrieval(), load_model("embedded-blip2").family)
    with pytest.raises(InputError, match="Blip2Retrieval models cannot write a short answer"):
        protocol_for(Vqa(), load_model("embedded-retrieval").family)


def test_the_matching_head_helps_clearly(model):
    samples = find_source("retrieval", "scenes").samples()
    metrics = scores(Retrieval(k=16), model, samples).metrics
    for way in ("image_to_text", "text_to_image"):
        ranked, contrast = (
            metrics[f"retrieval/{way}_R1"],
            metrics[f"retrieval/contrastive_{way}_R1"],
        )
        assert ranked.value >= contrast.value + 3, way
