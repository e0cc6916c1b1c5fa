"""Texts without pictures calibrate the language model, and nothing else."""

import pytest
import torch
from asking import requests_for
from mmq_plugins.embedded.scenes import make_scene, render
from tiny_vlms import tiny_vlm

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.component_blocks import component_blocks
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.contracts import Request
from mmq.data.calibration import Calibration
from mmq.errors import InputError
from mmq.prepare import prepare
from mmq.quantization.block_inputs import read
from mmq.quantization.capture import capture

TEXTS = tuple((Request((), text, text), "") for text in ("a dark red cat", "what is on it?"))


def tokens_read(model, component, pairs):
    """How many rows the layers of a component's first block read."""
    calibration = Calibration(tuple(pairs))
    blocks = component_blocks(model, model.components[component])[0]
    groups = read(blocks[0], capture(blocks, lambda: calibration.forwards(model)), 0)
    return next(iter(groups.values()))


@pytest.mark.parametrize("name", ["llava", "idefics3", "qwen2_5_vl"])
def test_vision_parts_read_the_pictures_alone_and_the_language_model_reads_both(name):
    model = tiny_vlm(name)
    requests = requests_for(model, [render(make_scene(k)) for k in range(2)], ["how many?"] * 2)
    pairs = [(request, "two") for request in requests]
    vision = tokens_read(model, "vit", [*TEXTS, *pairs])
    assert torch.equal(vision.gram, tokens_read(model, "vit", pairs).gram)
    language = tokens_read(model, "llm", [*TEXTS, *pairs]).count
    apart = tokens_read(model, "llm", pairs).count + tokens_read(model, "llm", TEXTS).count
    assert language == apart
    lengths = [len(model.processor.tokenizer(r.prompt)["input_ids"]) for r, _ in TEXTS]
    assert tokens_read(model, "llm", TEXTS).count == sum(lengths)


def prepared(tmp_path, widths, model="embedded-llava"):
    (tmp_path / "wiki.txt").write_text("\n".join(request.prompt for request, _ in TEXTS))
    options = EvalOptions(
        model=model, task="vqa", quantizer="gptq", limit="2",
        calibration_data=str(tmp_path / "wiki.txt"), calibration_samples=2,
    )  # fmt: skip
    return prepare(options, {}, lambda parts: [BitAllocation.of(widths).over(parts)])


def test_texts_alone_calibrate_a_language_model_beside_an_unquantized_tower(tmp_path):
    setup = prepared(tmp_path, {"llm": 4})
    model = setup.load()
    reports = setup.artifacts(Store(tmp_path), quiet=True).write_(
        model, BitAllocation.of({"llm": 4}).over(model.components)
    )
    solved = [report for report in reports if report.component == "llm"]
    assert all(report.output_error is not None for report in solved)
    assert not any("rounded" in report.note for report in solved)


@pytest.mark.parametrize(
    ("model", "widths", "message"),
    [
        ("embedded-llava", {"vit": 4, "llm": 4}, "cannot calibrate vit; add data with pictures"),
        ("embedded-blip2", {"llm": 4}, "Blip2 models cannot .* need a picture; name data with"),
    ],
)
def test_texts_that_cannot_calibrate_the_model_are_refused(tmp_path, model, widths, message):
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, widths, model)
