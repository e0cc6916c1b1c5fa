"""Embeddings, heads and projectors are parts on request; without it nothing changes."""

import pytest
import torch
from tiny_models import tiny_config

from mmq.allocation.allocation import BitAllocation
from mmq.allocation.parts import names
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.errors import InputError
from mmq.models.loading import locate, read_config
from mmq.models.optional_parts import parse_parts, with_parts
from mmq.models.size import measure_size, planned_size
from mmq.models.skeleton import skeleton
from mmq.prepare import prepare

ALLOCATION = "vit=16,llm=4,embed=4,head=8,projector=3"


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """A model, its unquantized weights, and the report of an allocation with optional parts."""
    options = EvalOptions(
        model="embedded-llava", task="gqa", quantizer="gptq", limit="4", calibration_samples=8,
        parts="head,projector,embed",
    )  # fmt: skip
    allocation = BitAllocation.parse(ALLOCATION)
    prepared = prepare(options, {"group-size": "32"}, lambda parts: [allocation])
    model = prepared.load()
    before = {name: p.clone() for name, p in model.module.named_parameters()}
    artifacts = prepared.artifacts(Store(tmp_path_factory.mktemp("store")), quiet=True)
    reports = artifacts.write_(model, allocation.over(model.components))
    return prepared, model, before, reports


def test_parts_are_in_the_order_in_which_the_model_runs(quantized):
    _, model, _, _ = quantized
    assert list(model.components) == ["embed", "vit", "projector", "llm", "head"]
    assert list(skeleton(locate("embedded-llava")).components) == ["vit", "llm"]
    assert list(names(model.components, "type"))[:2] == ["embed", "vit.attn"]


def test_tables_are_rounded_by_row_and_projectors_calibrated(quantized):
    _, _, _, reports = quantized
    by_part = {r.component: r for r in reports}
    for name, bits in (("embed", 4), ("head", 8)):
        report = by_part[name]
        assert (report.bits, report.group_size) == (bits, report.shape[1])
        assert report.output_error is None
        assert report.note == ""
    assert by_part["projector"].group_size == 32
    assert 0 < by_part["projector"].output_error < by_part["projector"].relative_error


def test_the_measured_size_is_the_planned_one_and_weights_are_restored(quantized):
    prepared, model, before, reports = quantized
    outline = prepared.skeleton
    allocation = BitAllocation.parse(ALLOCATION).over(outline.components)
    planned = planned_size(allocation, outline.components, outline.parameters, prepared.quantizer)
    report = type("Report", (), {"layers": reports})
    assert measure_size(report, outline.parameters) == planned
    assert planned.reach == pytest.approx(0.745, abs=0.01)
    changed = [n for n, p in model.module.named_parameters() if not torch.equal(p, before[n])]
    assert {"lm_head.weight", "model.language_model.embed_tokens.weight"} <= set(changed)
    model.restore_()
    assert all(torch.equal(p, before[n]) for n, p in model.module.named_parameters())


def tied_model(tmp_path, tied):
    source = tiny_config("paligemma", tmp_path)
    config = read_config(source)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    outline = skeleton(source)
    with torch.device("meta"):
        return outline.family.skeleton(config), outline.components


def test_a_table_that_is_also_the_head_counts_once(tmp_path):
    root, components = tied_model(tmp_path, tied=True)
    result = with_parts(root, components, ("embed", "head"))
    assert list(result) == ["embed", "vit", "llm"]
    assert len(result["embed"].layers) == 1
    with pytest.raises(InputError, match="shares its weights with the token embeddings; name emb"):
        with_parts(root, components, ("head",))


def test_unknown_and_missing_parts_are_refused_by_name():
    with pytest.raises(InputError, match="Did you mean 'embed'"):
        parse_parts("embedd")
    with pytest.raises(InputError, match="Blip2ForImageTextRetrieval has no head to quantize"):
        skeleton(locate("embedded-retrieval"), ("head",))
