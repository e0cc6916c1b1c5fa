"""Other families in llama.cpp: random models whose answers depend on every tensor."""

import gguf_families
import pytest
import torch
from gguf_families import SINCE_5, QwenProcessor
from gguf_models import (
    answers,
    by_part,
    exported,
    loaded,
    pairs,
    quantized,
    simulate_,
    source_of,
)
from mmq_plugins.models.generic import Generic
from mmq_plugins.targets.gguf import Gguf
from PIL import Image

from mmq.errors import InputError

pytest.importorskip("gguf", reason="needs mmq[gguf]")
pytest.importorskip("xllamacpp", reason="needs mmq[gguf]")

SIZES = {
    "idefics3": (64, 64),
    "smolvlm": (64, 64),
    "qwen2_5_vl": (112, 84),
    "qwen3_vl": (128, 128),
    "siglip_llava": (64, 64),
}
PATCHES = {"qwen2_5_vl": 14, "qwen3_vl": 16}
new = pytest.mark.skipif(not SINCE_5, reason="this version of transformers has no Qwen3-VL")
shifted = pytest.mark.skipif(
    not SINCE_5, reason="transformers 4 reads Idefics3's positions shifted by one patch"
)
FAMILIES = [
    pytest.param("idefics3", marks=shifted),
    pytest.param("smolvlm", marks=shifted),
    "qwen2_5_vl",
    pytest.param("qwen3_vl", marks=new),
    "siglip_llava",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of models, each created once."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            getattr(gguf_families, f"save_{name}")(made[name])
        return made[name]

    return folder


@pytest.fixture
def family(request, folders, monkeypatch):
    """A family's name and the folder of its model."""
    if (patch := PATCHES.get(request.param)) is not None:
        processor = QwenProcessor(patch)
        monkeypatch.setattr(Generic, "load_processor", lambda self, source: processor)
    return request.param, folders(request.param)


def questions_for(name, count=6):
    """Pictures that neither side resizes; of one color, where both resize them as they differ."""
    result = pairs(count, SIZES[name])
    if name in ("idefics3", "smolvlm"):
        colors = [(200, 30, 30), (10, 20, 200), (30, 200, 10), (0, 0, 0), (255, 255, 255)]
        return [
            (Image.new("RGB", (64, 64), c), q) for c, (_, q) in zip(colors, result, strict=False)
        ]
    return result


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
def test_answers_of_unquantized_models_are_equal(family, tmp_path):
    name, folder = family
    model = loaded(folder)
    exported(folder, model, {}, tmp_path / "out")
    questions = questions_for(name)
    simulated = answers(model, questions, max_new_tokens=4)
    assert len(set(simulated)) > 1  # the pictures matter
    with Gguf().open(tmp_path / "out", "cpu") as engine:
        assert answers(engine, questions, max_new_tokens=4) == simulated


@pytest.mark.parametrize(
    "family",
    ["idefics3", "smolvlm", "qwen2_5_vl", pytest.param("qwen3_vl", marks=new), "siglip_llava"],
    indirect=True,
)
def test_weights_and_bytes_of_a_mixed_allocation_are_as_promised(family, tmp_path):
    name, folder = family
    model = loaded(folder)
    weights = quantized(model, by_part((5, 64, True), (8, 0, True), (4, 32, False)))
    assert len({layer.split(".")[1] for layer in weights}) == 2  # of both components
    promised = Gguf().planned_bytes(source_of(folder, weights))
    report = exported(folder, model, weights, tmp_path / "out")
    assert promised == sum(report.files.values())
    read = dict(Gguf().read_back(tmp_path / "out"))
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[layer], w.dequantize()) for layer, w in weights.items())


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
def test_the_first_word_of_a_quantized_model_is_equal(family, tmp_path):
    name, folder = family
    model = loaded(folder)
    weights = quantized(model, by_part((8, 32, True), (8, 32, True), (8, 32, True)))
    exported(folder, model, weights, tmp_path / "out")
    simulate_(model, weights)
    questions = questions_for(name)
    simulated = answers(model, questions, max_new_tokens=1)
    with Gguf().open(tmp_path / "out", "cpu") as engine:
        assert answers(engine, questions, max_new_tokens=1) == simulated


@pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True)
def test_windows_that_llama_cpp_does_not_know_are_refused(family, tmp_path):
    import json
    import shutil

    _, folder = family
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["vision_config"]["fullatt_block_indexes"] = [0, 3]
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="full attention in every n-th block"):
        Gguf().planned_bytes(source_of(tmp_path / "model", {}))


def test_the_report_notes_shifted_positions_of_transformers(folders):
    folder = folders("idefics3")
    layout = Gguf().layout(source_of(folder, {}))
    assert any("16 patches at a neighbour's position" in n for n in layout.notes) != SINCE_5
