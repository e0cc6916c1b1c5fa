"""Every parameter is mapped to its tensors, under the names of any version of transformers."""

from pathlib import Path

import pytest
import torch
from model_folders import copied, edit_weights
from safetensors import safe_open

from mmq.models.checkpoint_names import stored_names
from mmq.models.checkpoint_weights import stored_weights
from mmq.models.loading import load_model, locate, read_config
from mmq.models.skeleton import family_of, on_meta


def names_of(folder):
    config = read_config(folder)
    return stored_names(on_meta(folder, family_of(config), config), stored_weights(Path(folder)))


@pytest.mark.parametrize("name", ["embedded-llava", "embedded-blip2", "embedded-retrieval"])
def test_each_parameter_is_loaded_from_the_tensor_that_is_named(name):
    folder = locate(name)
    state, names = load_model(name).module.state_dict(), names_of(folder)
    tied = {"language_model.lm_head.weight"} if name == "embedded-blip2" else set()
    assert {k for k in state if not k.endswith("position_ids")} - names.keys() == tied
    with safe_open(f"{folder}/model.safetensors", framework="pt") as file:
        for parameter, stored in names.items():
            assert torch.equal(state[parameter], file.get_tensor(stored).float()), parameter


def test_names_as_they_are_in_memory_are_known_too(tmp_path):
    folder = copied(tmp_path / "model", "embedded-llava")
    before = names_of(str(folder))

    def rename(tensors):
        for parameter, stored in before.items():
            tensors[parameter] = tensors.pop(stored)

    edit_weights(folder, rename)
    assert names_of(str(folder)) == {parameter: parameter for parameter in before}
