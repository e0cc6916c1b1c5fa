"""The training of the embedded models: packing, outliers, and resuming after a kill."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from mmq_plugins.embedded import build_llava, build_retrieval, outliers, scenes, train
from mmq_plugins.embedded.build import PROMPT, build_blip2, build_processor, build_tokenizer
from mmq_plugins.embedded.command import make
from mmq_plugins.embedded.packing import logits_at_labels, pack
from mmq_plugins.embedded.speakers import Example, blip2_speaker, llava_speaker
from mmq_plugins.embedded.steps import Checkpoint
from mmq_plugins.embedded.train_retrieval import Texts, tokenize, wrong_tokens

from mmq.errors import InputError
from mmq.models.loading import load_model


def make_blip2(seed=1):
    model = build_blip2(seed).eval()
    return model, blip2_speaker(model, build_tokenizer(scenes=300))


def make_llava(seed=1):
    model = build_llava.build_llava(seed).eval()
    return model, llava_speaker(model, build_llava.build_llava_tokenizer(scenes=300))


@pytest.mark.parametrize(("make_model", "tokens"), [(make_blip2, 16), (make_llava, 16)])
def test_packed_texts_see_what_they_see_alone(make_model, tokens):
    _, speaker = make_model()
    features = torch.randn(2, tokens, 128)
    texts = [
        [Example("say it:", " a red star"), speaker.question("how many objects are there?", "3")],
        [speaker.question("what color is the background?", "white")],
    ]
    with torch.no_grad():
        together = logits_at_labels(speaker, features, pack(texts, speaker))
        apart = [
            logits_at_labels(speaker, features[k : k + 1], pack([[text]], speaker))
            for k, row in enumerate(texts)
            for text in row
        ]
    assert torch.allclose(together, torch.cat(apart), atol=1e-4)


def processed(name, speaker, question, image):
    if name == "blip2":
        processor, prompt = build_processor(speaker.tokenizer), PROMPT.format(question)
    else:
        processor = build_llava.build_llava_processor(speaker.tokenizer)
        prompt = f"USER: <image>\n{question}{build_llava.INSTRUCTION}"
    return processor(images=[image], text=[prompt], return_tensors="pt")["input_ids"]


@pytest.mark.parametrize(("name", "make_model"), [("blip2", make_blip2), ("llava", make_llava)])
def test_packing_puts_texts_where_the_processor_puts_them(name, make_model):
    _, speaker = make_model()
    question = "where is the star?"
    ids = processed(name, speaker, question, scenes.render(scenes.make_scene(0)))[0]
    packed = pack([[speaker.question(question, "top left")]], speaker)
    assert packed.ids[0, : len(ids)].tolist() == ids.tolist()
    assert packed.positions[0, : len(ids)].tolist() == list(range(len(ids)))


def blip2_outputs(model, pixels):
    ids = torch.tensor([[4] * 16 + [2, 40, 50, 60]] * len(pixels))
    return model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def llava_outputs(model, pixels):
    ids = torch.tensor([[0, *[4] * 16, 40, 50, 60]] * len(pixels))
    return model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def retrieval_outputs(model, pixels):
    ids = torch.tensor([[0, 40, 50, 60]] * len(pixels))
    given = {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    result = [model(**given, use_image_text_matching_head=head) for head in (True, False)]
    return torch.cat([output.logits_per_image.flatten() for output in result])


@pytest.mark.parametrize(
    ("build", "outputs"),
    [
        (lambda: build_blip2(1), blip2_outputs),
        (lambda: build_llava.build_llava(1), llava_outputs),
        (lambda: build_retrieval.build_retrieval(1, build_blip2(1)), retrieval_outputs),
    ],
    ids=["blip2", "llava", "retrieval"],
)
def test_outlier_channels_do_not_change_one_bit_of_the_function(build, outputs):
    model = build().eval()
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # as after a training: no bias at zero, no gain at one
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        before = outputs(model, pixels)
        changed = copy.deepcopy(model)
        outliers.add_outliers_(changed, seed=0)
        same = [
            torch.equal(a, b)
            for a, b in zip(model.parameters(), changed.parameters(), strict=True)
        ]
        assert not all(same)
        assert torch.equal(outputs(changed, pixels), before)
        # what ships is float16: rescaling costs no more there than rounding does by itself
        rounded = (outputs(model.half().float(), pixels) - before).norm()
        both = (outputs(changed.half().float(), pixels) - before).norm()
    assert both < 1.3 * rounded


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


def test_wrong_tokens_are_those_between_what_two_texts_share():
    tokenizer = build_retrieval.build_retrieval_tokenizer(scenes=300)
    texts = tokenize(tokenizer, ["a large red star", "a small red star and a blue cross"])
    given, right = (Texts(texts.ids[k : k + 1], texts.mask[k : k + 1]) for k in (0, 1))
    assert wrong_tokens(given, given).sum() == 0
    wrong = wrong_tokens(given, right)[0].bool()
    kept = [i for i, bad in zip(given.ids[0].tolist(), wrong.tolist(), strict=True) if not bad]
    assert tokenizer.decode(kept, skip_special_tokens=True).strip() == "a"


SHORT = {
    "images": 128, "vision_steps": 3, "vision_batch": 16, "language_steps": 6,
    "language_batch": 8, "probe_images": 8, "checkpoint_every": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", list(train.RECIPES))
def test_a_killed_training_resumes_with_the_same_result(name, tmp_path):
    recipe = train.RECIPES[name]
    config = replace(recipe.config, **SHORT, **({"relation_steps": 4} if "blip2" in name else {}))
    tokenizer = build_tokenizer(scenes=300, bos="</s>" if "blip2" in name else "<s>")
    if "llava" in name:
        tokenizer = build_llava.build_llava_tokenizer(scenes=300)

    def run(folder, stop_at=None):
        folder.mkdir(exist_ok=True)
        saves = [0]

        def sink(values, step):
            saves[0] += any("unseen" in key for key in values)
            if stop_at and saves[0] == stop_at:
                raise KeyboardInterrupt

        return recipe.train(tokenizer, config, Checkpoint(folder, config), sink).state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", stop_at=2)
    again = run(tmp_path / "killed")
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    other = replace(config, seed=5)
    with pytest.raises(InputError, match="other settings"):
        Checkpoint(tmp_path / "killed", other).load("any")


def test_a_damaged_training_state_restarts_the_training(tmp_path, caplog):
    config = train.RECIPES["embedded-llava"].config
    checkpoint = Checkpoint(tmp_path, config)
    assert checkpoint.load("vision") is None
    checkpoint.save("vision", 3, model={"a": torch.arange(5)})
    assert checkpoint.load("vision")["model"]["a"].tolist() == [0, 1, 2, 3, 4]
    content = checkpoint.path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for damaged in (flipped, content[:middle], b"", bytes(1000)):
        checkpoint.path.write_bytes(damaged)
        assert checkpoint.load("vision") is None
        assert "is damaged" in caplog.text
        caplog.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"]


def test_a_trained_checkpoint_loads_and_records_its_training(tmp_path, monkeypatch):
    recipe = replace(
        train.RECIPES["embedded-retrieval"],
        tokenizer=lambda: build_retrieval.build_retrieval_tokenizer(scenes=300),
    )
    monkeypatch.setattr(train.torch, "set_num_threads", lambda n: None)
    make(recipe, replace(recipe.config, **SHORT), tmp_path, lambda values, step: None)
    model = load_model(str(tmp_path))
    assert list(model.components) == ["vit", "qformer"]
    assert json.loads((tmp_path / "recipe.json").read_text())["training"]["images"] == 128
    assert json.loads((tmp_path / "mmq.json").read_text())["protocol"]["retrieval"]["k"] == 16
