"""A model that fits on no device is spread over memory and disk, and computes the same."""

import pytest
import torch
from asking import silent
from tiny_vlms import SINCE_5, save_vlm

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.errors import InputError
from mmq.evaluation.generating import evaluate
from mmq.models import placement
from mmq.models.loading import load_model, read_config
from mmq.models.placement import planned_placement, within_memory
from mmq.models.skeleton import family_of
from mmq.models.spread import Spread, parse_memory, resolve_placement
from mmq.prepare import prepare
from mmq.system.disk import GIB
from mmq.tensors.offloaded import read_parameter

ALLOCATION = BitAllocation.parse("llm=3")
ON_DISK = {"device_map": "auto", "max_memory": "cpu=200KB"}


def quantized(folder, **options):
    """A quantized model and its layers' report."""
    options = EvalOptions(
        model="embedded-llava", task="gqa", quantizer="gptq", limit="1", calibration_samples=2,
        **options,
    )  # fmt: skip
    prepared = prepare(options, {"group-size": "32"}, lambda parts: [ALLOCATION])
    model = prepared.load()
    prepared.task.close()
    artifacts = prepared.artifacts(Store(folder), quiet=True)
    return model, artifacts.write_(model, ALLOCATION.over(model.components)), artifacts


def equal_weights(one, other):
    pairs = zip(one.components["llm"].layers, other.components["llm"].layers, strict=True)
    return [torch.equal(a.weight, b.weight) for a, b in pairs]


def test_a_model_that_is_partly_on_disk_gets_the_codes_and_outputs_of_one_in_memory(tmp_path):
    pytest.importorskip("accelerate")
    whole, expected, artifacts = quantized(tmp_path / "memory")
    spread, reports, _ = quantized(tmp_path / "disk", device_map="auto", max_memory="cpu=8MiB")
    assert any(parameter.is_meta for parameter in spread.module.parameters())
    assert spread.parameters == whole.parameters
    assert reports == expected
    assert all(equal_weights(whole, spread))
    ours, theirs = (next(artifacts.calibration.forwards(m))() for m in (whole, spread))
    assert torch.equal(ours, theirs)
    whole.restore_()
    assert not any(equal_weights(whole, spread))
    spread.restore_()
    assert all(equal_weights(whole, spread))


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    """A tiny Gemma 3 in a folder; its output head is its embedding table."""
    return save_vlm("gemma3", tmp_path_factory.mktemp("gemma3"))


def table_and_head(model):
    embed, head = model.module.get_input_embeddings(), model.module.get_output_embeddings()
    return read_parameter(embed, "weight").clone(), read_parameter(head, "weight").clone()


def test_a_table_on_disk_changes_together_with_the_head_that_is_tied_to_it(tied, tmp_path):
    pytest.importorskip("accelerate")
    allocation = BitAllocation.parse("llm=16,embed=4")
    written = []
    for name, options in (("memory", {}), ("disk", ON_DISK)):
        options = EvalOptions(
            model=tied, task="vqa", quantizer="rtn", limit="1", parts="embed", **options
        )
        prepared = prepare(options, {"group-size": "16"}, lambda parts: [allocation])
        model = prepared.load()
        prepared.task.close()
        before = table_and_head(model)
        artifacts = prepared.artifacts(Store(tmp_path / name), quiet=True)
        artifacts.write_(model, allocation.over(model.components))
        written.append(table_and_head(model))
        assert not torch.equal(before[0], written[-1][0])
        model.restore_()
        assert all(map(torch.equal, before, table_and_head(model)))
    assert model.module.get_output_embeddings().weight.is_meta
    in_memory, on_disk = written
    assert all(torch.equal(in_memory[0], other) for other in (in_memory[1], *on_disk))


@pytest.mark.parametrize(("model", "task"), [("embedded-blip2", "vqa"),
                                             ("embedded-retrieval", "retrieval")])  # fmt: skip
def test_parameters_outside_of_modules_are_read_from_disk(model, task):
    pytest.importorskip("accelerate")
    if not SINCE_5:
        pytest.skip("transformers 4 cannot load a model with all weights on disk")
    scores = []
    for options in ({}, ON_DISK | {"max_memory": "cpu=1KB"}):
        options = EvalOptions(model=model, task=task, quantizer="rtn", limit="2", **options)
        prepared = prepare(options, {}, lambda parts: [])
        loaded = prepared.load()
        loaded.stage_cache = None
        with prepared.task:
            scores.append(evaluate(prepared.task, loaded, silent).score.value)
    assert loaded.module.query_tokens.is_meta
    assert scores[0] == scores[1]


@pytest.mark.skipif(SINCE_5, reason="fixed in transformers 5")
def test_a_model_with_all_weights_on_disk_is_refused_with_transformers_4(tied):
    pytest.importorskip("accelerate")
    with pytest.raises(InputError, match="some weights must fit into memory: raise --max"):
        load_model(tied, device=Spread.of("cpu", {"cpu": 1000}))


def test_weights_leave_memory_for_the_work_unless_limits_are_given(monkeypatch):
    utils = pytest.importorskip("accelerate.utils")
    monkeypatch.setattr(placement, "available_memory", lambda: 12 * GIB)
    monkeypatch.setattr(utils, "get_max_memory", lambda: {0: 24 * GIB, "cpu": 64 * GIB})
    spread = Spread.of("cpu", None)
    assert within_memory(spread, 5 * GIB).max_memory == {0: 19 * GIB, "cpu": 7 * GIB}
    assert within_memory(spread, 13 * GIB).max_memory == {0: 11 * GIB, "cpu": 0}
    given = Spread.of("cpu", {"cpu": GIB})
    assert within_memory(given, 5 * GIB) is given


def test_the_plan_is_what_transformers_then_does(tied):
    pytest.importorskip("accelerate")
    config = read_config(tied)
    spread = Spread.of("cpu", {"cpu": 200_000})
    outline = family_of(config).skeleton
    with torch.device("meta"):
        sizes = planned_placement(outline(config), torch.float32, spread)
    model = load_model(tied, device=spread)
    on_disk = {n: p for n, p in model.module.named_parameters() if p.is_meta}
    assert sum(p.nbytes for p in on_disk.values()) == sizes["disk"] > 0


def test_memory_is_given_by_device():
    assert parse_memory("0=1GiB cpu=1.5GB") == {0: 2**30, "cpu": 1_500_000_000}
    with pytest.raises(InputError, match=r"'cpu=12' is not DEVICE=SIZE; write it like 0=20GiB"):
        parse_memory("cpu=12")


def test_settings_that_do_not_belong_together_are_refused():
    with pytest.raises(InputError, match="only with --device-map auto"):
        resolve_placement("", "cpu=1GiB", "cpu")
    with pytest.raises(InputError, match="device_map: 'all' is not valid"):
        resolve_placement("all", "", "cpu")
