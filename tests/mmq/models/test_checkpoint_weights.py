"""The model that is scored is the one in the folder, or the folder is refused by name."""

import json
import struct
from contextlib import suppress

import pytest
import torch
from model_folders import INDEX, WEIGHTS, as_lora, copied, edit, edit_weights, examine, shard
from safetensors.torch import load_file, save_file

from mmq.cli.main import main
from mmq.errors import InputError
from mmq.models.checkpoint_weights import read_header
from mmq.models.loading import load_model

FIRST = "vision_model.encoder.layers.0.mlp.fc1.weight"


def fewer_layers(folder):
    edit(folder / "config.json", lambda c: c["vision_config"].update(num_hidden_layers=1))


def lora_inside(folder):
    edit_weights(folder, as_lora)


def another_file(folder):
    save_file({"x": torch.ones(2)}, folder / "more.safetensors")


def adapter_weights(folder):
    save_file({"x": torch.ones(2)}, folder / "adapter_model.safetensors")


def adapter_folder(folder):
    (folder / "vision-lora").mkdir()
    (folder / "vision-lora/adapter_config.json").write_text("{}")


def single_and_shards(folder):
    single = (folder / WEIGHTS).resolve()
    shard(folder)
    (folder / WEIGHTS).symlink_to(single)


def shard_with_more(folder):
    shard(folder)
    tensors = load_file(folder / "model-1.safetensors") | {"more.weight": torch.ones(2)}
    save_file(tensors, folder / "model-1.safetensors", {"format": "pt"})


UNREAD = {
    fewer_layers: "vision_model.encoder.layers.1",
    lora_inside: "lora_A.default.weight",
    another_file: "more.safetensors",
    adapter_weights: "adapter_model.safetensors",
    adapter_folder: "vision-lora/",
    single_and_shards: "model-1.safetensors",
    shard_with_more: "more.weight",
}


@pytest.mark.parametrize("damage", UNREAD)
def test_weights_that_nothing_reads_are_refused_by_name_unless_allowed(tmp_path, damage):
    folder = copied(tmp_path / "m")
    damage(folder)
    with pytest.raises(InputError) as caught:
        examine(folder)
    assert UNREAD[damage] in str(caught.value)
    assert "--allow-unread-weights" in str(caught.value)
    assert examine(folder, allow_unread=True).parameters > 0


def test_unread_weights_are_refused_when_they_are_loaded_too(tmp_path):
    folder = copied(tmp_path / "m")
    edit_weights(folder, as_lora)
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors, folder / "pytorch_model.bin")  # seen only when it is loaded
    with pytest.raises(InputError, match="lora_A"):
        load_model(str(folder), allow_pickle=True)
    assert load_model(str(folder), allow_pickle=True, allow_unread=True).components


@pytest.mark.parametrize("name", ["embeddings.position_ids", "a.rotary_emb.inv_freq"])
def test_buffers_of_older_versions_do_not_count_as_unread_weights(tmp_path, name):
    folder = copied(tmp_path / "m")
    edit_weights(folder, lambda tensors: tensors.update({name: torch.arange(4)}))
    examine(folder)
    assert load_model(str(folder)).components


def test_weights_of_other_formats_beside_safetensors_are_ignored(tmp_path):
    folder = copied(tmp_path / "m")
    for name in ("pytorch_model.bin", "consolidated.safetensors", "model-q4.gguf"):
        (folder / name).write_bytes(b"0")
    examine(folder)


@pytest.mark.parametrize(
    "places",
    [("a.safetensors", "b.safetensors"), ("x/1.safetensors", "../2.safetensors")],
)
def test_shards_are_read_wherever_the_index_says(tmp_path, places):
    folder = copied(tmp_path / "m")
    whole = load_file(folder / WEIGHTS)
    shard(folder, places)
    examine(folder)
    module = load_model(str(folder)).module
    assert torch.equal(module.state_dict()[FIRST], whole[FIRST])


def test_weights_in_float64_are_weights(tmp_path):
    folder = copied(tmp_path / "m")
    edit_weights(folder, lambda tensors: tensors.update({FIRST: tensors[FIRST].double()}))
    examine(folder)


@pytest.mark.parametrize("differ", [True, False])
def test_a_head_that_a_tie_would_replace_is_refused_unless_it_is_the_same(tmp_path, differ):
    folder = copied(tmp_path / "m", "embedded-llava")

    def tie(config):
        config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True

    def heads(tensors):
        head = next(name for name in tensors if name.endswith("lm_head.weight"))
        table = next(name for name in tensors if name.endswith("embed_tokens.weight"))
        tensors[head] = tensors[table] * (2 if differ else 1)

    edit(folder / "config.json", tie)
    edit_weights(folder, heads)
    if not differ:
        load_model(str(folder))
        return
    module = None
    with suppress(InputError):  # transformers 5 keeps both
        module = load_model(str(folder)).module
    if module is not None:
        assert not torch.equal(module.lm_head.weight, module.get_input_embeddings().weight)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.int8, FIRST),
        (torch.float8_e4m3fn, FIRST),
        (torch.float8_e5m2, FIRST),
        (torch.int64, FIRST),
        (torch.uint8, "vision_model.encoder.layers.0.mlp.fc1.weight.absmax"),
        (torch.int32, "vision_model.encoder.layers.0.mlp.fc1.qweight"),
        (torch.int32, "vision_model.encoder.layers.0.mlp.fc1.weight_packed"),
        (torch.float32, "vision_model.encoder.layers.0.mlp.fc1.weight_scale_inv"),
        (torch.float32, "vision_model.encoder.layers.0.mlp.fc1.SCB"),
    ],
)
def test_codes_in_place_of_weights_are_refused_even_if_no_config_declares_them(
    tmp_path, dtype, name
):
    folder = copied(tmp_path / "m")
    edit_weights(folder, lambda tensors: tensors.update({name: torch.ones(512, 128).to(dtype)}))
    with pytest.raises(InputError, match="quantized already") as caught:
        examine(folder)
    assert name in str(caught.value)


def cut(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).write_bytes(data[:-100])


def empty(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).touch()


def endless_header(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2**62) + b"{}")


def header_without_offsets(folder):
    header = json.dumps({"a": {"dtype": "F32"}}).encode()
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header)


def shard_gone(folder):
    shard(folder)
    (folder / "model-2.safetensors").unlink()


def shard_twice(folder):
    shard(folder)
    (folder / "model-2.safetensors").write_bytes((folder / "model-1.safetensors").read_bytes())


def shard_lacks(folder):
    shard(folder)
    tensors = load_file(folder / "model-2.safetensors")
    tensors.popitem()
    save_file(tensors, folder / "model-2.safetensors", {"format": "pt"})


def index_of_numbers(folder):
    shard(folder)
    (folder / INDEX).write_text('{"weight_map": {"a": 1}}')


def index_of_pickles(folder):
    shard(folder, ("a.bin", "b.bin"))


def wrong_shape(folder):
    edit_weights(folder, lambda tensors: tensors.update({FIRST: torch.ones(3, 3)}))


def zero_rows(folder):
    edit_weights(folder, lambda tensors: tensors.update({FIRST: torch.ones(0, 128)}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "model.safetensors is truncated"),
        (empty, "model.safetensors is truncated or not a safetensors file"),
        (endless_header, "model.safetensors is truncated or not a safetensors file"),
        (header_without_offsets, "model.safetensors has a damaged header"),
        (shard_gone, "model-2.safetensors, which is missing"),
        (shard_twice, "in two shards"),
        (shard_lacks, "lists 1 tensors in model-2.safetensors that it does not have"),
        (index_of_numbers, 'no "weight_map"'),
        (index_of_pickles, "a.bin, which is not a .safetensors file"),
        (wrong_shape, "another shape for 1 weights"),
        (zero_rows, "another shape for 1 weights"),
    ],
)
def test_weights_that_contradict_their_headers_or_index_are_refused(tmp_path, damage, message):
    folder = copied(tmp_path / "m")
    damage(folder)
    with pytest.raises(InputError) as caught:
        examine(folder)
    assert message in str(caught.value)


def test_a_header_lists_names_types_and_shapes(tmp_path):
    save_file({"a": torch.ones(2, 3, dtype=torch.float16)}, tmp_path / "f.safetensors")
    (result,) = read_header(tmp_path / "f.safetensors").values()
    assert (result.dtype, result.shape) == ("F16", (2, 3))


@pytest.mark.parametrize("command", ["size", "trial", "search", "grid", "compare-quantizers"])
def test_every_command_refuses_before_it_reads_data(tmp_path, capsys, monkeypatch, command):
    folder = copied(tmp_path / "m")
    edit_weights(folder, as_lora)

    def too_late(*arguments):
        raise AssertionError("data was read")

    monkeypatch.setattr("mmq.prepare.draw_data", too_late)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    task = [] if command == "size" else ["--task", "retrieval"]
    bits = ["--bits", "vit=4"] if command in ("trial", "size") else []
    with pytest.raises(SystemExit) as caught:
        main([command, "--model", str(folder), *task, *bits])
    assert caught.value.code == 2
    assert "lora_A" in capsys.readouterr().err
