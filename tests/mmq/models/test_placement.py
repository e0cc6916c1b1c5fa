"""A model that fits on no device is spread over memory and disk, and computes the same."""

import pytest
import torch

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.errors import InputError
from mmq.models.spread import parse_memory, resolve_placement
from mmq.prepare import prepare
from mmq.record import TrialSpec
from mmq.trial import run_trial

ALLOCATION = BitAllocation.parse("llm=3")


def trial(folder, **options):
    """A trial's result, and the model after it."""
    options = EvalOptions(
        model="embedded-llava", task="gqa", quantizer="gptq", limit="2", calibration_samples=3,
        **options,
    )  # fmt: skip
    prepared = prepare(options, {"group-size": "32"}, lambda parts: [ALLOCATION])
    with prepared.task as task:
        model = prepared.load()
        artifacts = prepared.artifacts(Store(folder), quiet=True)
        spec = TrialSpec(prepared.eval_spec, ALLOCATION)
        return run_trial(spec, model, artifacts, task, quiet=True), model


def test_a_model_that_is_partly_on_disk_gets_the_codes_and_scores_of_one_in_memory(tmp_path):
    expected, whole = trial(tmp_path / "memory")
    result, spread = trial(tmp_path / "disk", device_map="auto", max_memory="cpu=8MiB")
    assert any(parameter.is_meta for parameter in spread.module.parameters())
    assert result.details == expected.details
    assert result.record.size == expected.record.size
    for name, component in whole.components.items():  # restored where they are
        for one, other in zip(component.layers, spread.components[name].layers, strict=True):
            assert torch.equal(one.weight, other.weight), one.name


def test_memory_is_given_by_device():
    assert parse_memory("0=1GiB cpu=1.5GB") == {0: 2**30, "cpu": 1_500_000_000}
    with pytest.raises(InputError, match=r"'cpu=12' is not DEVICE=SIZE; write it like 0=20GiB"):
        parse_memory("cpu=12")


def test_settings_that_do_not_belong_together_are_refused():
    with pytest.raises(InputError, match="only with --device-map auto"):
        resolve_placement("", "cpu=1GiB", "cpu")
    with pytest.raises(InputError, match="device_map: 'all' is not valid"):
        resolve_placement("all", "", "cpu")
