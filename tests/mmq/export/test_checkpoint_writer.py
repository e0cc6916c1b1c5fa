"""Safetensors files written tensor by tensor are valid."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mmq.export.checkpoint_writer import Outline, ShardWriter, Unit, plan_shards, write_index

TENSORS = {
    "odd": torch.arange(3, dtype=torch.float16),
    "scalar": torch.tensor([7], dtype=torch.int8),
    "words": torch.arange(6, dtype=torch.int32).reshape(2, 3),
    "shape": torch.tensor([2, 3]),
    "halves": torch.arange(5, dtype=torch.bfloat16),
    "single": torch.tensor(0.5),
}
DTYPES = {"odd": "F16", "scalar": "I8", "words": "I32", "shape": "I64", "halves": "BF16"}


def units():
    return [
        Unit((Outline(name, DTYPES.get(name, "F32"), tuple(t.shape)),))
        for name, t in TENSORS.items()
    ]


def write(folder, shard):
    with ShardWriter(folder, shard) as file:
        for unit in shard.units:
            file.add({outline.name: TENSORS[outline.name] for outline in unit.outlines})


def test_tensors_come_back_as_they_were_and_the_file_has_the_promised_size(tmp_path):
    (shard,) = plan_shards(units())
    write(tmp_path, shard)
    path = tmp_path / "model.safetensors"
    assert path.stat().st_size == shard.bytes
    tensors = load_file(path)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_several_files_have_an_index_that_names_every_tensor(tmp_path):
    shards = plan_shards(units(), limit=24)
    for shard in shards:
        write(tmp_path, shard)
    write_index(tmp_path, shards)
    assert len(shards) > 2
    facts = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert facts["weight_map"].keys() == TENSORS.keys()
    for name, file in facts["weight_map"].items():
        assert torch.equal(load_file(tmp_path / file)[name], TENSORS[name])


def test_an_error_leaves_no_file(tmp_path):
    (shard,) = plan_shards(units())
    with pytest.raises(KeyError), ShardWriter(tmp_path, shard) as file:
        file.add({"odd": TENSORS["odd"], "words": TENSORS["no such tensor"]})
    assert not list(tmp_path.iterdir())


def test_a_tensor_that_was_not_written_is_a_bug(tmp_path):
    (shard,) = plan_shards(units())
    with pytest.raises(RuntimeError, match="single"), ShardWriter(tmp_path, shard) as file:
        file.add({name: t for name, t in TENSORS.items() if name != "single"})
