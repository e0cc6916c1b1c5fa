"""Input scales that are powers of two fold into the norm before them without changing answers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gguf_models import (
    LLAVA,
    answers,
    class_token_last,
    loaded,
    pairs,
    quantized,
    rounded,
    simulate_,
    source_of,
    uniform,
)
from mmq_plugins.targets.gguf import Gguf

from mmq.contracts.target import ExportedLayer, WeightSpec
from mmq.errors import InputError

pytest.importorskip("gguf", reason="needs mmq[gguf]")
pytest.importorskip("xllamacpp", reason="needs mmq[gguf]")

READERS = {
    "q_proj": "input_layernorm",
    "k_proj": "input_layernorm",
    "v_proj": "input_layernorm",
    "gate_proj": "post_attention_layernorm",
    "up_proj": "post_attention_layernorm",
}


def scaled(model):
    """Weights at 4 bits, those after the language model's norms with input scales; the norms."""
    weights, norms = quantized(model, uniform(4, 32, True)), {}
    generator = torch.Generator().manual_seed(0)
    scale = 2.0 ** torch.randint(-2, 3, (256,), generator=generator)
    for layer in model.components["llm"].layers:
        block, _, kind = layer.name.partition(".self_attn.")
        if not kind:
            block, _, kind = layer.name.partition(".mlp.")
        if kind in READERS:
            weight = rounded(layer.module.weight.detach() * scale, 4, 32, True)
            weights[layer.name] = replace(weight, input_scale=scale.half())
            norms[layer.name] = f"{block}.{READERS[kind]}"
    return weights, norms


@pytest.fixture(scope="module")
def model():
    return loaded(LLAVA)


def sources(weights):
    """The export's source, with the names of norms in the checkpoint."""
    from mmq.export.source_checkpoint import SourceCheckpoint

    source = source_of(LLAVA, weights)
    specs = {name: replace(WeightSpec.of(w), folds=True) for name, w in weights.items()}
    stored = SourceCheckpoint.open(Path(LLAVA), source.skeleton).names
    return replace(source, specs=specs, stored=stored)


def test_scales_are_folded_exactly(model, tmp_path):
    weights, norms = scaled(model)
    layers = [ExportedLayer(n, "", w, norms.get(n, "")) for n, w in weights.items()]
    source = sources(weights)
    report = Gguf().export(source, layers, tmp_path)
    assert report.folded == norms.keys()
    assert Gguf().planned_bytes(source) == sum(report.files.values())
    for name, weight in Gguf().read_back(tmp_path):
        assert torch.equal(weight, replace(weights[name], input_scale=None).dequantize())
    questions = pairs(6)
    simulate_(model, weights)
    with class_token_last(model):
        simulated = answers(model, questions)
    model.restore_()
    with Gguf().open(tmp_path, "cpu") as engine:
        assert answers(engine, questions) == simulated


def test_input_scales_are_refused_for_rewritten_files(model):
    weights, _ = scaled(model)
    with pytest.raises(InputError, match="export without --from"):
        Gguf(from_="a.gguf,b.gguf").planned_bytes(sources(weights))
