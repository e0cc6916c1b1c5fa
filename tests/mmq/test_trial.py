import dataclasses

import pytest
import torch
from paper_pairs import PAIRS, good

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.models.components import count_parameters
from mmq.models.size import planned_bpw
from mmq.prepare import prepare
from mmq.record import TrialSpec
from mmq.trial import run_trial


@pytest.fixture(scope="module")
def loaded():
    prepared = prepare(EvalOptions(limit=24), {"num-beams": "1"}, lambda parts: [])
    return prepared, prepared.load(), prepared.eval_spec


def run(loaded, tmp_path, bits):
    prepared, model, eval_spec = loaded
    spec = TrialSpec(eval_spec, BitAllocation.parse(bits))
    return run_trial(
        spec, model, prepared.artifacts(Store(tmp_path), quiet=True), prepared.task, quiet=True,
    )  # fmt: skip


def state(model):
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


@pytest.mark.parametrize(("model", "task", "bits"), PAIRS)
def test_every_family_and_task_of_the_paper_is_scored(tmp_path, model, task, bits):
    prepared = prepare(EvalOptions(model=model, task=task, limit="12"), {}, lambda parts: [])
    result = run((prepared, prepared.load(), prepared.eval_spec), tmp_path, bits)
    prepared.task.close()
    assert good(task, result.record.score.value)


def test_a_trial_leaves_the_model_as_it_was(loaded, tmp_path):
    before = state(loaded[1])
    run(loaded, tmp_path, "vit=3,llm=2")
    after = loaded[1].module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_failing_scorer_leaves_the_model_as_it_was(loaded, tmp_path, monkeypatch):
    before = state(loaded[1])

    def fail(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(loaded[0].task.scorer), "score", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(loaded, tmp_path, "vit=3,llm=2")
    after = loaded[1].module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_only_the_allocated_layers_change_and_all_of_them(loaded, tmp_path, monkeypatch):
    _, model, _ = loaded
    before, seen = state(model), {}
    generate = type(model).generate

    def spy(self, *arguments):
        seen.update(state(model))
        return generate(self, *arguments)

    monkeypatch.setattr(type(model), "generate", spy)
    run(loaded, tmp_path, "llm=3")
    changed = {name for name in before if not torch.equal(before[name], seen[name])}
    assert changed == {f"{layer.name}.weight" for layer in model.components["llm"].layers}


def test_the_report_lists_every_layer_and_the_size_comes_from_it(loaded, tmp_path):
    _, model, _ = loaded
    result = run(loaded, tmp_path, "vit=4,llm=3")
    layers = result.details.layers
    assert [layer.name for layer in layers] == [
        layer.name for component in model.components.values() for layer in component.layers
    ]
    assert {layer.bits for layer in layers if layer.component == "qformer"} == {16}
    assert all(layer.skipped for layer in layers if layer.component == "qformer")
    planned = planned_bpw(
        result.record.allocation, model.components, count_parameters(model.module)
    )
    assert result.record.size.bpw == pytest.approx(planned, abs=1e-12)
    assert result.record.size.stored_bpw > result.record.size.bpw


def test_finer_parts_are_quantized_at_their_own_widths(loaded, tmp_path):
    _, model, _ = loaded
    mixed = run(loaded, tmp_path, "vit.front=3,vit.end.ff=4,llm.attn=2")
    whole = {bits: run(loaded, tmp_path, f"vit={bits},llm={bits}") for bits in (2, 3, 4)}
    by_name = {b: {layer.name: layer for layer in r.details.layers} for b, r in whole.items()}
    widths = mixed.record.allocation.widths(model.components)
    parts = {x.name: c.part(x) for c in model.components.values() for x in c.layers}
    for layer in mixed.details.layers:
        bits = widths[parts[layer.name]]
        assert layer.bits == bits
        assert layer == (by_name[bits][layer.name] if bits < 16 else layer)
        assert bool(layer.skipped) == (bits == 16)
    assert {layer.bits for layer in mixed.details.layers} == {2, 3, 4, 16}
    planned = planned_bpw(
        mixed.record.allocation, model.components, count_parameters(model.module)
    )
    assert mixed.record.size.bpw == pytest.approx(planned, abs=1e-12)


def test_the_second_trial_takes_the_codes_from_the_store(loaded, tmp_path, monkeypatch):
    first = run(loaded, tmp_path, "vit=4,qformer=4,llm=4")

    def refuse(self, weight, bits):
        raise AssertionError("quantized again")

    monkeypatch.setattr(type(loaded[0].quantizer), "quantize", refuse)
    second = run(loaded, tmp_path, "vit=4,qformer=4,llm=4")
    assert second.details == first.details
    assert second.record.metrics == first.record.metrics


def test_fewer_bits_cost_more_error_and_less_size(loaded, tmp_path):
    results = [run(loaded, tmp_path, f"vit={b},qformer={b},llm={b}") for b in (8, 4, 2)]
    errors = [sum(layer.relative_error for layer in r.details.layers) for r in results]
    assert errors == sorted(errors)
    sizes = [r.record.size.stored_bpw for r in results]
    assert sizes == sorted(sizes, reverse=True)


def test_the_eval_spec_key_depends_on_what_the_scores_depend_on(loaded):
    eval_spec = loaded[2]
    assert dataclasses.replace(eval_spec, model="other name").key == eval_spec.key
    for name, value in {"model_fingerprint": "x", "seed": 1, "quantizer_options": {}}.items():
        assert dataclasses.replace(eval_spec, **{name: value}).key != eval_spec.key
