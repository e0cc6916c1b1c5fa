"""A model's folder: quantized, damaged and absurd ones are refused; what counts is hashed."""

import json
import os
import socket

import pytest
import torch
from mmq_plugins.evaluators.retrieval import Retrieval
from model_folders import INDEX, WEIGHTS, copied, edit, edit_weights, examine, shard

from mmq.errors import InputError
from mmq.models.checkpoint import (
    fingerprint,
    locate,
    read_config,
    read_protocol,
    with_checkpoint_options,
)
from mmq.models.checkpoint_config import describe
from mmq.models.loading import load_model

METHODS = {
    "awq": ({"bits": 4}, "awq, 4 bits"),
    "gptq": ({"bits": 8}, "gptq, 8 bits"),
    "bitsandbytes": ({"load_in_8bit": True, "load_in_4bit": False}, "bitsandbytes, 8 bits"),
    "compressed-tensors": (
        {"config_groups": {"group_0": {"weights": {"num_bits": 3}}}},
        "compressed-tensors, 3 bits",
    ),
    "quanto": ({"weights": "int4"}, "quanto, 4 bits"),
    "fbgemm_fp8": ({}, "fbgemm_fp8, 8 bits"),
    "mxfp4": ({}, "mxfp4, 4 bits"),
    "torchao": ({"quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}, "torchao"),
    "hqq": ({"quant_config": {"weight_quant_params": {"nbits": 4}}}, "hqq, 4 bits"),
    "vptq": ({}, "vptq"),
    "unheard-of": ({}, "unheard-of"),
}


@pytest.mark.parametrize("method", METHODS)
def test_the_method_and_bits_of_a_quantized_checkpoint_are_named(method):
    facts, text = METHODS[method]
    assert describe({"quant_method": method, **facts}) == text


def at_the_top(config):
    config["quantization_config"] = {"quant_method": "awq", "bits": 4}


def in_the_text(config):
    config["vision_config"]["quantization_config"] = {"quant_method": "gptq", "bits": 4}


def compression(config):
    config["compression_config"] = {"format": "int-quantized"}


def mlx(config):
    config["quantization"] = {"group_size": 64, "bits": 4}


def bare_flag(config):
    config["load_in_4bit"] = True


@pytest.mark.parametrize("change", [at_the_top, in_the_text, compression, mlx, bare_flag])
def test_a_quantized_configuration_is_refused(tmp_path, change):
    folder = copied(tmp_path / "m")
    edit(folder / "config.json", change)
    for look in (examine, lambda f: read_config(str(f / "config.json"))):
        with pytest.raises(InputError, match="quantized already.*full-precision"):
            look(folder)


@pytest.mark.parametrize(
    "name", ["hf_quant_config.json", "quantize_config.json", "quant_config.json"]
)
def test_a_file_that_only_quantized_checkpoints_have_is_refused(tmp_path, name):
    folder = copied(tmp_path / "m")
    (folder / name).write_text("{}")
    with pytest.raises(InputError, match=f"quantized already .*{name}"):
        examine(folder)


def test_an_adapter_is_refused_whatever_lies_beside_it(tmp_path):
    folder = copied(tmp_path / "m")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "other"}')
    with pytest.raises(InputError, match="merge_and_unload"):
        examine(folder)


def test_gguf_files_are_refused_by_name(tmp_path):
    (tmp_path / "m.gguf").touch()
    (tmp_path / "config.json").write_text("{}")
    for given in (tmp_path, tmp_path / "m.gguf"):
        with pytest.raises(InputError, match=r"m.gguf is a GGUF file"):
            locate(str(given))


def write(name, text):
    def damage(folder):
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(text)

    return damage


def pipe(name):
    def damage(folder):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return damage


def folder_for(name):
    def damage(folder):
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return damage


def link(name, target):
    def damage(folder):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return damage


def a_socket(folder):
    before = os.getcwd()
    os.chdir(folder)  # the name of a socket may not be long
    try:
        socket.socket(socket.AF_UNIX).bind("extra.txt")
    finally:
        os.chdir(before)


def setting(**values):
    return lambda folder: edit(folder / "config.json", lambda config: config.update(values))


def vision(**values):
    def damage(folder):
        edit(folder / "config.json", lambda config: config["vision_config"].update(values))

    return damage


def pictures(**values):
    return lambda folder: edit(folder / "preprocessor_config.json", lambda c: c.update(values))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
DAMAGES = [
    (write("tokenizer.json", POINTER), "tokenizer.json is a Git LFS pointer"),
    (write(WEIGHTS, POINTER), "model.safetensors is a Git LFS pointer"),
    (write("config.json", "[" * 1_000_000), "config.json is not readable JSON: it is nested"),
    (write("config.json", "[]"), "config.json is a JSON list"),
    (write("config.json", '{"a": 1, "a": 2}'), 'the key "a" appears twice'),
    (write("config.json", ""), "config.json is not readable JSON"),
    (write("tokenizer_config.json", "{"), "tokenizer_config.json is not readable JSON"),
    (write("preprocessor_config.json", "7"), "preprocessor_config.json is a JSON int"),
    (pipe("config.json"), "config.json is a named pipe"),
    (pipe(WEIGHTS), "model.safetensors is a named pipe"),
    (pipe("chat_template.jinja"), "chat_template.jinja is a named pipe"),
    (a_socket, "extra.txt is a socket"),
    (folder_for("config.json"), "config.json is a folder"),
    (folder_for(WEIGHTS), "model.safetensors is a folder"),
    (link("config.json", "config.json"), "config.json"),
    (link(WEIGHTS, WEIGHTS), "model.safetensors cannot be read"),
    (link("tokenizer.model", "nowhere"), "tokenizer.model cannot be read"),
    (setting(torch_dtype="torch.float16"), "torch_dtype: 'torch.float16' is not a dtype"),
    (setting(dtype="half-ish"), "dtype: 'half-ish' is not a dtype"),
    (setting(torch_dtype=16), "torch_dtype: 16 is not a dtype"),
    (setting(vision_config=None), "vision_config: None is not an object"),
    (setting(vision_config=[]), "vision_config: [] is not an object"),
    (setting(model_type="strange"), "configuration cannot be read"),
    (setting(architectures=["LlavaForConditionalGeneration"]), "m"),
    (vision(num_hidden_layers=10**7), "num_hidden_layers: 10000000 is not a number from 0"),
    (vision(num_hidden_layers=-1), "num_hidden_layers: -1 is not a number from 0"),
    (vision(num_hidden_layers="two"), "num_hidden_layers: 'two' is not a whole number"),
    (vision(num_labels=10**9), "num_labels: 1000000000 is not a number"),
    (vision(hidden_size=-4), "hidden_size: -4 is not a size"),
    (vision(hidden_size=10**12), "hidden_size: 1000000000000 is not a size"),
    (setting(architectures="Blip2"), "architectures: 'Blip2' is not a list of names"),
    (setting(image_token_id="<image>"), "image_token_id: '<image>' is not a token id"),
    (vision(layer_norm_eps="1e-5"), "layer_norm_eps: '1e-5' is not a finite number"),
    (vision(layer_norm_eps=float("nan")), "layer_norm_eps: nan is not a finite number"),
    (
        write("generation_config.json", '{"eos_token_id": "x"}'),
        "eos_token_id: 'x' is not a token id",
    ),
    (pictures(image_mean=[0.5, 0.5]), "image_mean: [0.5, 0.5] is not one valid number"),
    (pictures(image_std=[0, 0, 0]), "image_std: [0, 0, 0] is not one valid number"),
    (pictures(size={"height": 10**6, "width": 10**6}), "1000000 is not from 1 to 16384 pixels"),
    (vision(patch_size=0), "no model can be built from its configuration"),
    (vision(hidden_act="no-such"), "no model can be built from its configuration"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_or_absurd_folder_is_refused_with_the_file_at_fault(tmp_path, damage, message):
    folder = copied(tmp_path / "m")
    damage(folder)
    with pytest.raises(InputError) as caught:
        examine(folder)
    assert message in str(caught.value)


def without_padding(folder):
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        edit(folder / name, lambda facts: {k: v for k, v in facts.items() if k != "pad_token"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (write("tokenizer.json", "{}"), "tokenizer.json is not a readable tokenizer"),
        (write("tokenizer.json", "not json"), "tokenizer.json"),
        (lambda f: (f / "tokenizer.json").unlink(), "processor or tokenizer cannot be loaded"),
        (without_padding, "has no padding token"),
        (lambda f: (f / "preprocessor_config.json").unlink(), "preprocessor_config.json"),
    ],
)
def test_a_processor_that_cannot_be_loaded_is_refused(tmp_path, damage, message):
    folder = copied(tmp_path / "m")
    damage(folder)
    with pytest.raises(InputError) as caught:
        load_model(str(folder))
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    "name",
    ["vision_model.post_layernorm.weight", "embeddings.word_embeddings.weight",
     "vision_model.encoder.layers.0.mlp.fc1.bias", "query_tokens", "itm_head.weight"],
)  # fmt: skip
def test_a_weight_that_is_not_finite_is_refused_by_its_name(tmp_path, name, value):
    folder = copied(tmp_path / "m")
    edit_weights(folder, lambda tensors: tensors[name].view(-1)[-1:].fill_(value))
    with pytest.raises(InputError, match=f"{name}: 1 of its"):
        load_model(str(folder))


def test_weights_too_large_for_float16_are_refused_there_alone(tmp_path):
    folder = copied(tmp_path / "m")
    name = "vision_model.post_layernorm.weight"
    edit_weights(folder, lambda tensors: tensors.update({name: torch.full((128,), 1e6)}))
    with pytest.raises(InputError, match=f"{name}.*give --dtype bfloat16 or float32"):
        load_model(str(folder), "float16")
    assert torch.isfinite(load_model(str(folder), "bfloat16").module.itm_head.weight).all()


def hashed(folder):
    return fingerprint(str(folder), None, "float32")


@pytest.mark.parametrize(
    "name",
    ["tokenizer.model", "vocab.txt", "merges.txt", "chat_template.jinja", "cl100k.tiktoken",
     "chat_templates/tool.jinja", "tokenizer/vocab.json", "video_preprocessor_config.json",
     "spiece.vocab", "mmq.json", "generation_config.json", "processor_config.json",
     "preprocessor_config.json", "tokenizer_config.json", "tokenizer.json", "chat_template.json",
     "special_tokens_map.json", "added_tokens.json", "additional_chat_templates/rag.jinja"],
)  # fmt: skip
def test_every_file_that_changes_inputs_or_outputs_counts(tmp_path, name):
    folder = copied(tmp_path / "m")
    before = hashed(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    between = hashed(folder)
    (folder / name).write_text("{ }")
    assert len({before, between, hashed(folder)}) == 3


@pytest.mark.parametrize(
    "name",
    ["README.md", "LICENSE", "LICENSE.txt", ".gitattributes", ".git/HEAD", ".cache/x.json",
     "picture.png", "pytorch_model.bin", "m.pth", "m.gguf", "onnx/m.onnx", "tf_model.h5",
     "flax_model.msgpack", "original/params.json"],
)  # fmt: skip
def test_files_that_are_not_read_do_not_count(tmp_path, name):
    folder = copied(tmp_path / "m")
    before = hashed(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("anything")
    assert hashed(folder) == before


def test_a_shard_counts_wherever_it_lies_and_links_count_by_their_content(tmp_path):
    folder = copied(tmp_path / "m")
    shard(folder, ("inside/1.safetensors", "../2.safetensors"))
    (folder / "vocab.txt").symlink_to(tmp_path / "vocab")
    (tmp_path / "vocab").write_text("a")
    result = [hashed(folder)]
    for path in (folder / "inside/1.safetensors", tmp_path / "2.safetensors", tmp_path / "vocab"):
        path.write_bytes(path.read_bytes() + b" ")
        result.append(hashed(folder))
    assert len(set(result)) == 4


def test_pickled_weights_count_where_they_are_loaded(tmp_path):
    folder = copied(tmp_path / "m")
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_text("a")
    before = hashed(folder)
    (folder / "pytorch_model.bin").write_text("b")
    assert hashed(folder) != before


def test_a_link_to_a_folder_above_ends(tmp_path):
    folder = copied(tmp_path / "m")
    before = hashed(folder)
    (folder / "loop").symlink_to(folder)
    assert hashed(folder) == before


def test_bundled_models_keep_the_fingerprint_that_their_results_are_stored_under():
    assert hashed(locate("embedded-llava")) == "453fa2a67c714e346323"


def test_a_hub_model_of_unknown_commit_is_refused(monkeypatch):
    monkeypatch.setattr("transformers.utils.hub.cached_file", lambda *a, **k: None)

    class Config:
        _commit_hash = None

    with pytest.raises(InputError, match="the hub commit of some/model is unknown"):
        fingerprint("some/model", Config(), "float32")
    Config._commit_hash = "abc"
    assert fingerprint("some/model", Config(), "float32")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"protocol": {"retreival": {"k": 16}}}', "Did you mean 'retrieval'"),
        ('{"protocols": {}}', "should look like"),
        ('{"protocol": {}, "protocol": {}}', "appears twice"),
        ('{"protocol": {"retrieval": [16]}}', "should look like"),
        ("[]", "should look like"),
    ],
)
def test_a_protocol_that_would_be_ignored_is_refused(tmp_path, text, message):
    (tmp_path / "mmq.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_protocol(str(tmp_path), "retrieval")


@pytest.mark.parametrize("layer", [99, -9, "last", [1.5], []])
def test_a_feature_layer_that_the_vision_tower_lacks_is_refused(tmp_path, layer):
    folder = copied(tmp_path / "m", "embedded-llava")
    edit(folder / "config.json", lambda config: config.update(vision_feature_layer=layer))
    with pytest.raises(InputError, match="vision_feature_layer"):
        examine(folder)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    folder = copied(tmp_path / "m", "embedded-llava")

    def more(facts):
        facts["model"]["vocab"].update({f"zz{k}": 10_000 + k for k in range(600)})

    edit(folder / "tokenizer.json", more)
    with pytest.raises(InputError, match="use the tokenizer's files of this model"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": "16"}, "k: '16' is not valid"),
        ({"k": 16.5}, "k: 16.5 is not valid"),
        ({"k": True}, "k: True is not valid"),
        ({"k": -3}, "k: -3 is less than"),
        ({"kk": 16}, "Did you mean 'k'"),
    ],
)
def test_an_option_of_a_protocol_is_checked_like_one_of_a_command(tmp_path, options, message):
    (tmp_path / "mmq.json").write_text(json.dumps({"protocol": {"retrieval": options}}))
    with pytest.raises(InputError, match=f"mmq.json: .*{message}"):
        with_checkpoint_options(Retrieval(), str(tmp_path), "retrieval")


def test_an_index_that_names_no_file_is_refused(tmp_path):
    folder = copied(tmp_path / "m")
    shard(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": {}}))
    with pytest.raises(InputError, match="weight_map.*is empty"):
        examine(folder)
