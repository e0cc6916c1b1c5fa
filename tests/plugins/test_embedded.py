"""The embedded task and model: deterministic, compositional, rescaled without a change."""

import copy
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmq_plugins.embedded import outliers, scenes
from mmq_plugins.embedded.build import PROMPT, build_blip2, build_processor, build_tokenizer
from mmq_plugins.embedded.scene_text import annotate, ask, captions
from mmq_plugins.embedded.steps import TrainConfig
from mmq_plugins.embedded.train import train_blip2
from mmq_plugins.embedded.train_language import logits_at_labels, pack

from mmq.model import load_model
from mmq.prepare import QuestionOptions, prepare


def test_the_same_index_is_the_same_scene_and_picture():
    for split in ("train", "test"):
        first, second = scenes.make_scene(7, split), scenes.make_scene(7, split)
        assert first == second
        assert scenes.encode_jpeg(scenes.render(first)) == scenes.encode_jpeg(
            scenes.render(second)
        )


def test_held_out_pairs_are_never_trained_and_in_every_second_test_scene():
    assert not any(o.held_out for k in range(2000) for o in scenes.make_scene(k).objects)
    held = [any(o.held_out for o in scenes.make_scene(k, "test").objects) for k in range(400)]
    assert all(held[::2])
    assert len(scenes.HELD_OUT_PAIRS) == 6


def test_cell_labels_say_what_stands_where():
    scene = scenes.make_scene(3)
    labels = scenes.cell_labels(scene)
    filled = {(o.row * 4 + o.col) for o in scene.objects}
    for cell in range(16):
        assert (labels[cell, 0] == len(scenes.SHAPES)) == (cell not in filled)


def answer_by_looking(scene, question):
    """An independent reader of the questions: it parses the text."""
    words = question.text.rstrip("?").split()
    objects = [{o.shape, o.color, o.size} for o in scene.objects]
    if words[:2] == ["is", "there"]:
        return "yes" if any(set(words[3:]) <= o for o in objects) else "no"
    if words[:2] == ["how", "many"]:
        wanted = set(words[2:-2]) - {"shapes", "objects"}
        return str(sum(wanted <= o for o in objects))
    if "background" in words:
        return scene.background
    fitting = [
        o for o in scene.objects
        if set(words[words.index("the") + 1 :]) - {"object"} <= {o.shape, o.color, o.size}
    ]  # fmt: skip
    assert len(fitting) == 1, "the question has more than one answer"
    o = fitting[0]
    if words[0] == "where":
        return f"{'top' if o.row < 2 else 'bottom'} {'left' if o.col < 2 else 'right'}"
    return getattr(o, words[1])


def test_every_answer_is_right_and_unique():
    rng = random.Random(0)
    for index in range(1500):
        scene = scenes.make_scene(index, "test")
        question = ask(scene, rng)
        assert question.answer == answer_by_looking(scene, question), question


def test_yes_and_no_are_balanced_and_every_kind_occurs():
    rng = random.Random(0)
    asked = [ask(scenes.make_scene(k), rng) for k in range(3000)]
    yes_no = [q.answer for q in asked if q.answer_type == "yes/no"]
    assert 0.45 < yes_no.count("yes") / len(yes_no) < 0.55
    kinds = {q.kind for q in asked}
    assert kinds == {"exist", "count", "color", "shape", "size", "background", "where"}


def test_annotators_mostly_agree_and_captions_differ():
    rng = random.Random(0)
    for index in range(200):
        scene = scenes.make_scene(index)
        question = ask(scene, rng)
        answers = annotate(question, rng)
        assert len(answers) == 10
        assert answers.count(question.answer) >= 7
        assert len(set(captions(scene, rng))) == 5


@pytest.fixture(scope="module")
def untrained():
    return build_tokenizer(scenes=300), build_blip2(seed=1).eval()


def test_packed_texts_see_what_they_see_alone(untrained):
    tokenizer, model = untrained
    features = torch.randn(2, 16, 128)
    texts = [
        [("", "a red star", 1.0), (PROMPT.format("how many objects are there?"), " 3", 1.0)],
        [(PROMPT.format("what color is the background?"), " white", 1.0)],
    ]
    with torch.no_grad():
        together = logits_at_labels(model, features, pack(texts, tokenizer))
        apart = [
            logits_at_labels(model, features[k : k + 1], pack([[text]], tokenizer))
            for k, row in enumerate(texts)
            for text in row
        ]
    assert torch.allclose(together, torch.cat(apart), atol=1e-4)


def test_packing_puts_texts_where_the_processor_puts_them(untrained):
    tokenizer, model = untrained
    processor = build_processor(tokenizer)
    prompt = PROMPT.format("where is the star?")
    image = scenes.render(scenes.make_scene(0))
    inputs = processor(images=[image], text=[prompt], return_tensors="pt")
    packed = pack([[(prompt, " top left", 1.0)]], tokenizer)
    length = inputs["input_ids"].shape[1]
    assert packed.ids[0, :length].tolist() == inputs["input_ids"][0].tolist()
    assert packed.positions[0, :length].tolist() == list(range(length))


def logits(model, pixels, ids):
    with torch.no_grad():
        return model(
            pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids)
        ).logits


def test_outlier_channels_do_not_change_one_bit_of_the_function(untrained):
    _, model = untrained
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[4] * 16 + [2, 40, 50, 60]] * 3)
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # as after a training: no bias at zero, no gain at one
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    before = logits(model, pixels, ids)
    changed = copy.deepcopy(model)
    outliers.add_outliers_(changed, seed=0)
    same = [
        torch.equal(a, b) for a, b in zip(model.parameters(), changed.parameters(), strict=True)
    ]
    assert not all(same)
    assert torch.equal(logits(changed, pixels, ids), before)
    # what ships is float16: rescaling costs no more there than rounding does by itself
    rounded = (logits(model.half().float(), pixels, ids) - before).norm()
    both = (logits(changed.half().float(), pixels, ids) - before).norm()
    assert both < 1.2 * rounded


def test_outlier_channels_are_rare_and_leave_the_others_a_tenth_of_the_range():
    generator = torch.Generator().manual_seed(0)
    chosen = outliers.draw_channels(1000, generator)
    assert int(chosen.sum()) == 10
    assert int(outliers.draw_channels(20, generator).sum()) == 1
    layer = torch.nn.Linear(1000, 64, bias=False)
    with torch.no_grad():
        layer.weight.normal_(generator=generator)
        factors = outliers.choose_factors([layer], chosen)
        layer.weight.mul_(factors)
    assert set(factors.tolist()) == {1.0, float(factors.max())}
    assert float(torch.log2(factors.max())).is_integer()
    assert 0.1 / 2**0.5 <= outliers.bulk_range(layer.weight) <= 0.1 * 2**0.5


def test_a_short_training_learns_and_goes_on_after_a_kill(tmp_path):
    config = TrainConfig(
        images=256, vision_steps=6, vision_batch=32, language_steps=12, language_batch=16,
        questions_per_image=3, probe_images=32, checkpoint_every=4,
    )  # fmt: skip

    def train(folder, stop_at=None):
        folder.mkdir(exist_ok=True)
        losses = {}

        def sink(values, step):
            losses.update({(name, step): value for name, value in values.items()})
            if stop_at and "unseen/all" in values and step == stop_at:
                raise KeyboardInterrupt

        model = build_blip2(config.seed).train()
        train_blip2(model, build_tokenizer(scenes=300), config, folder, sink)
        return model.state_dict(), losses

    whole, losses = train(tmp_path / "whole")
    assert losses[("unseen/all", 12)] >= losses[("unseen/all", 4)]
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", stop_at=8)
    again, _ = train(tmp_path / "killed")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_the_shipped_model_is_small_and_has_at_least_four_blocks_a_component():
    model = load_model("embedded-blip2")
    assert all(component.blocks >= 4 for component in model.components.values())
    for component in model.components.values():
        assert all(layer.shape[1] % 64 == 0 for layer in component.layers)
    shares = [component.weights for component in model.components.values()]
    assert shares[1] < shares[0] < shares[2]  # connector, ViT, language model as in BLIP-2


def test_the_shipped_model_has_the_outliers_that_were_published():
    components = load_model("embedded-blip2").components
    found = [outliers.bulk_range(layer.module.weight) for layer in components["llm"].layers]
    assert all(share is not None for share in found)
    # SqueezeLLM: a tenth; factors are powers of two, and q, k and v share theirs
    assert 0.05 <= float(np.median(found)) <= 0.2


def score(task, exchange_pictures=False):
    options = QuestionOptions(task=task, limit=160)
    prepared = prepare(options, {"num-beams": "1"}, lambda parts: [])
    samples = list(prepared.samples)
    if exchange_pictures:
        images = [s.image for s in samples]
        half = len(images) // 2
        others = images[half:] + images[:half]
        samples = [replace(s, image=i) for s, i in zip(samples, others, strict=True)]
    model = prepared.load()
    evaluation = prepared.evaluator.evaluate(model, samples, lambda items, text: items)
    prepared.evaluator.close()
    return evaluation.score


def test_the_shipped_model_answers_at_least_80_percent_and_not_without_looking():
    looking, blind = score("vqa"), score("vqa", exchange_pictures=True)
    assert looking.low > 80
    assert blind.high < 60


def test_the_shipped_model_captions_what_it_sees():
    looking, blind = score("captioning"), score("captioning", exchange_pictures=True)
    assert looking.low > 3 * blind.high
