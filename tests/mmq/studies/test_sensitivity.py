"""How far decisions move, on real embedded models."""

from dataclasses import replace
from unittest import mock

import pytest
import torch

from mmq.allocation.parts import names
from mmq.artifacts.artifacts import Artifacts
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.data.calibration import Calibration
from mmq.prepare import prepare
from mmq.studies.sensitivity import divergence, profile
from mmq.system.home import home

WIDTHS = (2, 4, 16)


def ready(model, task, pairs):
    options = EvalOptions(model=model, task=task, limit="8", calibration_samples=pairs)
    prepared = prepare(options, {}, lambda parts: [], pairs=True)
    return prepared, prepared.load(), prepared.artifacts(Store(home() / "store"), quiet=True)


@pytest.fixture(scope="module")
def llava():
    return ready("embedded-llava", "gqa", 16)


def measure(found, granularity, widths=WIDTHS):
    prepared, model, artifacts = found
    parts = dict.fromkeys(names(model.components, granularity), widths)
    return profile(model, prepared, artifacts, parts)


def test_fewer_bits_change_decisions_more_and_unquantized_parts_change_none(llava):
    result = measure(llava, "type")
    assert list(result) == ["vit.attn", "vit.ff", "llm.attn", "llm.ff"]
    for losses in result.values():
        assert list(losses) == list(WIDTHS)
        assert losses[2] > losses[4] > losses[16] == 0


def test_a_profile_is_measured_once_and_leaves_the_model_unchanged(llava):
    prepared, model, _ = llava
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    first = measure(llava, "component")
    after = model.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with mock.patch.object(Artifacts, "write_", side_effect=AssertionError("measured again")):
        assert measure(llava, "component") == first
        with pytest.raises(AssertionError, match="measured again"):
            measure(llava, "component", (3, 16))


def test_a_profile_that_was_changed_is_measured_again(llava, caplog):
    first = measure(llava, "component")
    for path in (home() / "profiles").glob("*.json"):
        path.write_text(path.read_text().replace('"2": ', '"2": 9'))
    assert measure(llava, "component") == first
    assert "is damaged" in caplog.text


def test_without_pairs_the_layers_own_errors_are_used_with_a_warning(llava, caplog):
    _, model, artifacts = llava
    prepared = replace(llava[0], calibration=[])
    prepared.eval_spec = replace(prepared.eval_spec, calibration="")
    result = measure((prepared, model, artifacts), "type")
    assert "no calibration pairs; using the layers' own errors" in caplog.text
    assert all(row[2] > row[4] > row[16] == 0 for row in result.values())


def test_decisions_along_correct_answers_are_the_models_own(llava):
    prepared, model, _ = llava
    samples = prepared.calibration[:8]
    pairs = prepared.evaluator.calibration(samples, prepared.protocol)
    requests = [request for request, _ in pairs]
    outputs = model.generate(requests, prepared.protocol.config, lambda items, text: items)
    right = 0
    for (request, answer), spoken in zip(pairs, outputs, strict=True):
        (forward,) = Calibration(((request, answer),)).forwards(model)
        rows = forward()
        assert torch.allclose(rows.exp().sum(-1), torch.ones(len(rows)), atol=1e-4)
        if spoken == answer:
            right += 1
            tokens = rows.argmax(-1)
            assert model.processor.decode(tokens, skip_special_tokens=True).strip() == answer
    assert right >= 4


@pytest.mark.parametrize(
    ("model", "task"), [("embedded-blip2", "captioning"), ("embedded-retrieval", "retrieval")]
)
def test_every_embedded_model_defines_decisions(model, task):
    result = measure(ready(model, task, 16), "component", (2, 16))
    assert all(row[2] > 0 == row[16] for row in result.values())


def test_padding_changes_no_decision(llava):
    prepared, model, _ = llava
    pairs = prepared.pairs()
    alone, padded = ([f() for f in pairs.forwards(model, padded)] for padded in (False, True))
    assert len(padded) < len(alone)  # larger batches

    def ordered(rows):
        return sorted(torch.cat(rows).max(-1).values.tolist())

    assert ordered(alone) == pytest.approx(ordered(padded), abs=1e-3)


def test_divergence_of_known_distributions():
    sure, unsure = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.5, 0.5]]).log()
    assert divergence([sure], [sure]) == 0
    assert divergence([sure], [unsure]) == pytest.approx(0.6931, abs=1e-4)
    broken = torch.full((1, 2), float("nan"))
    assert divergence([sure, unsure], [broken, broken]) == pytest.approx(0.6931 / 2, abs=1e-4)
