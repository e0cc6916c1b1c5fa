"""A model that fits on no device is spread over memory and disk, and computes the same."""

import pytest
import torch

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.errors import InputError
from mmq.models.spread import parse_memory, resolve_placement
from mmq.prepare import prepare

ALLOCATION = BitAllocation.parse("llm=3")


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


def test_memory_is_given_by_device():
    assert parse_memory("0=1GiB cpu=1.5GB") == {0: 2**30, "cpu": 1_500_000_000}
    with pytest.raises(InputError, match=r"'cpu=12' is not DEVICE=SIZE; write it like 0=20GiB"):
        parse_memory("cpu=12")


def test_settings_that_do_not_belong_together_are_refused():
    with pytest.raises(InputError, match="only with --device-map auto"):
        resolve_placement("", "cpu=1GiB", "cpu")
    with pytest.raises(InputError, match="device_map: 'all' is not valid"):
        resolve_placement("all", "", "cpu")
