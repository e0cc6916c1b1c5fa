"""An answer does not depend on its batch, in every architecture that can be built here."""

import pytest
import torch
from asking import requests_for, silent
from mmq_plugins.embedded.scenes import make_scene, render
from PIL import ExifTags, Image
from tiny_vlms import SINCE_5, names, tiny_vlm

from mmq.contracts import FileImage, GenerationConfig, Request
from mmq.models import generation

SLOW = {"aria", "pix2struct"}  # pictures of 490 pixels, 2,048 patches: in benchmarks/end_to_end.py
SIZES = ((64, 64), (90, 40), (40, 70))
QUESTIONS = ("how many?", "what color is the background of this picture?", "is there a star? " * 3)
PICTURES = [render(make_scene(k)).resize(size) for k, size in enumerate(SIZES)]
SHORT = GenerationConfig(max_new_tokens=4, min_new_tokens=4)


@pytest.fixture
def token_scores(monkeypatch):
    """Log-probabilities of each generated token, (rows, steps, tokens), batch after batch."""
    seen, real = [], generation.LogitsWatch.__call__

    def watched(self, input_ids, scores):
        if self.start < 0:
            seen.append([])
        seen[-1].append(scores.float().log_softmax(-1))
        return real(self, input_ids, scores)

    monkeypatch.setattr(generation.LogitsWatch, "__call__", watched)
    yield lambda: torch.cat([torch.stack(steps, 1) for steps in seen])
    seen.clear()


@pytest.mark.parametrize("name", [name for name in names() if name not in SLOW])
def test_an_answer_does_not_depend_on_its_batch(name, token_scores):
    model = tiny_vlm(name)
    requests = requests_for(model, PICTURES, QUESTIONS)
    together = model.generate(requests, SHORT, silent)
    # batches are sorted by length
    order = sorted(range(3), key=lambda k: len(requests[k].prompt))
    apart = {k: model.generate([requests[k]], SHORT, silent)[0] for k in order}
    assert together == [apart[k] for k in range(3)]
    if name != "janus":  # it takes no watch
        in_batch, alone = token_scores().chunk(2)
        assert torch.allclose(in_batch.exp(), alone.exp(), atol=1e-4)


@pytest.mark.skipif(SINCE_5, reason="fixed in transformers 5")
@pytest.mark.parametrize("name", ["git", "qwen2_vl", "qwen2_5_vl"])
def test_models_that_this_version_pads_incorrectly_run_one_sample_at_a_time(name):
    assert "positions" in tiny_vlm(name).family.one_by_one


@pytest.mark.parametrize("name", ["idefics3", "qwen2_5_vl", "gemma3"])
def test_several_pictures_per_sample_share_a_batch_and_keep_their_order(name):
    model = tiny_vlm(name)
    one, two, three = (request.images[0] for request in requests_for(model, PICTURES, QUESTIONS))
    groups = [(one, two), (two, one), (three, three), (one,)]
    requests = [Request(images, "compare them", str(k)) for k, images in enumerate(groups)]
    together = model.generate(requests, SHORT, silent)
    apart = [model.generate([request], SHORT, silent)[0] for request in requests]
    assert together == apart


def test_a_rotated_phone_photo_is_shown_upright(tmp_path):
    model, upright = tiny_vlm("qwen2_5_vl"), PICTURES[1]
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6  # held upright, stored on its side
    upright.rotate(90, expand=True).save(tmp_path / "photo.png", exif=tags)
    upright.save(tmp_path / "upright.png")
    photos = [FileImage(tmp_path / f"{name}.png") for name in ("photo", "upright")]
    requests = [Request((photo,), "how many?", photo.name) for photo in photos]
    assert photos[0].size() == photos[1].size() == upright.size
    first, second = model.generate(requests, SHORT, silent)
    assert first == second
