"""Blocks quantized from a checkpoint's files are those of the loaded model."""

import pytest
import torch
from exporting import session_for, simulated

from mmq.artifacts.streaming import holds
from mmq.prepare import Prepared


def forget(layers):
    """Remove an export's blocks from the store."""
    for key in layers.artifact_keys:
        layers.artifacts.store.path(key).unlink()


def test_the_codes_are_those_of_the_loaded_model_and_no_model_is_loaded(monkeypatch):
    session = session_for("embedded-retrieval", "vit=5,qformer.attn=6", group_size=32)
    forget(session.layers())

    def load(self):
        pytest.fail("the model is loaded")

    with monkeypatch.context() as patch:
        patch.setattr(Prepared, "load", load)
        layers = session.layers()
    streamed = {name: layers.dequantized(name) for name in session.plan.specs}
    forget(layers)
    model = simulated(session)
    for name, weight in streamed.items():
        assert torch.equal(weight, model.module.get_submodule(name).weight), name


@pytest.mark.parametrize(
    ("dtype", "stored", "expected"),
    [
        (torch.float32, torch.bfloat16, True),
        (torch.float16, torch.float16, True),
        (torch.float16, torch.bfloat16, False),
        (torch.bfloat16, torch.float32, False),
    ],
)
def test_a_dtype_represents_another_only_if_no_value_is_rounded(dtype, stored, expected):
    assert holds(dtype, stored) == expected
