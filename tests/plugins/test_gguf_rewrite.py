"""16-bit GGUF files of any family are rewritten, each layer found in them by its values."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import gguf_families
import numpy as np
import pytest
import torch
from gguf_families import QwenProcessor
from gguf_models import LLAVA, by_part, exported, loaded, quantized, source_of, uniform
from mmq_plugins.models.generic import Generic
from mmq_plugins.targets import gguf_copied
from mmq_plugins.targets.gguf import Gguf
from mmq_plugins.targets.gguf_copied import check_copied
from mmq_plugins.targets.gguf_plain import PlainTensor
from mmq_plugins.targets.gguf_rewrite import _order
from safetensors.torch import load_file, save_file

from mmq.errors import InputError
from mmq.models.checkpoint_weights import Stored

gguf = pytest.importorskip("gguf", reason="needs mmq[gguf]")

MIXED = by_part((5, 64, True), (6, 0, True), (4, 32, False))


def pair(folder):
    """The value of --from for a folder's files."""
    return f"{folder / 'model.gguf'},{folder / 'mmproj.gguf'}"


def tensors(folder):
    """All tensors of both files."""
    readers = [gguf.GGUFReader(folder / name) for name in ("model.gguf", "mmproj.gguf")]
    return {t.name: t for reader in readers for t in reader.tensors}


def same(one, other):
    """Whether two folders hold the same tensors and metadata."""
    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(
        a[name].tensor_type == b[name].tensor_type and np.array_equal(a[name].data, b[name].data)
        for name in a
    )


@pytest.fixture(scope="module")
def model():
    return loaded(LLAVA)


@pytest.fixture(scope="module")
def plain(model, tmp_path_factory):
    """The embedded LLaVA's 16-bit files."""
    folder = tmp_path_factory.mktemp("plain") / "f16"
    exported(LLAVA, model, {}, folder)
    return folder


def test_rewritten_files_are_those_of_the_family_s_own_writer(model, plain, tmp_path):
    weights = quantized(model, MIXED)
    exported(LLAVA, model, weights, tmp_path / "own")
    target = Gguf(from_=pair(plain))
    promised = target.planned_bytes(source_of(LLAVA, weights))
    report = exported(LLAVA, model, weights, tmp_path / "rewritten", target)
    assert same(tmp_path / "own", tmp_path / "rewritten")
    assert promised == sum(report.files.values())
    assert any("25814" in note for note in report.notes)
    read = dict(target.read_back(tmp_path / "rewritten"))
    assert all(torch.equal(read[name], w.dequantize()) for name, w in weights.items())


def test_metadata_are_copied(model, plain, tmp_path):
    weights = quantized(model, uniform(4, 32, True))
    exported(LLAVA, model, weights, tmp_path / "out", Gguf(from_=pair(plain)))
    for name in ("model.gguf", "mmproj.gguf"):
        before = gguf.GGUFReader(plain / name).fields
        after = gguf.GGUFReader(tmp_path / "out" / name).fields
        assert {k: f.contents() for k, f in before.items()} == {
            k: f.contents() for k, f in after.items()
        }


def test_layers_that_stay_are_copied_as_they_are(model, plain, tmp_path):
    weights = quantized(model, by_part(None, (4, 32, True), (8, 0, True)))
    exported(LLAVA, model, weights, tmp_path / "out", Gguf(from_=pair(plain)))
    before, after = tensors(plain), tensors(tmp_path / "out")
    for name in before:
        if name.startswith(("v.", "mm.", "token", "output")):
            assert np.array_equal(before[name].data, after[name].data)


def test_a_layer_that_the_files_split_is_found_by_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(Generic, "load_processor", lambda self, source: QwenProcessor())
    gguf_families.save_qwen2_5_vl(tmp_path / "model")
    model = loaded(tmp_path / "model")
    exported(tmp_path / "model", model, {}, tmp_path / "f16")
    weights = quantized(model, MIXED)
    target = Gguf(from_=pair(tmp_path / "f16"))
    exported(tmp_path / "model", model, weights, tmp_path / "own")
    exported(tmp_path / "model", model, weights, tmp_path / "rewritten", target)
    assert same(tmp_path / "own", tmp_path / "rewritten")


def changed_checkpoint(folder, change):
    """The embedded LLaVA with other weights."""
    shutil.copytree(LLAVA, folder)
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def name_of(block, layer):
    return f"language_model.model.layers.{block}.{layer}.weight"


def test_files_of_another_checkpoint_are_refused(model, plain, tmp_path):
    def change(state):
        state[name_of(2, "mlp.up_proj")][5, 7] += 1

    folder = changed_checkpoint(tmp_path / "other", change)
    source = source_of(folder, quantized(model, uniform(4, 32, True)))
    with pytest.raises(InputError, match=r"no tensor .* has the values of .*layers.2.mlp.up_proj"):
        Gguf(from_=pair(plain)).planned_bytes(source)


@pytest.mark.parametrize(
    ("tensor", "in_file"),
    [
        ("vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight", "v.blk.1.ffn_"),
        ("multi_modal_projector.linear_1.weight", "mm.0.weight"),
        ("language_model.model.embed_tokens.weight", "token_embd.weight"),
    ],
)
def test_copied_tensors_of_another_checkpoint_are_refused(model, plain, tmp_path, tensor, in_file):
    def change(state):
        state[tensor][3] *= 2

    folder = changed_checkpoint(tmp_path / "other", change)
    source = source_of(folder, quantized(model, by_part(None, (4, 32, True), (4, 32, True))))
    with pytest.raises(InputError, match=f"{in_file}.* has values that are not in the checkpoint"):
        Gguf(from_=pair(plain)).planned_bytes(source)


def test_columns_and_split_rows_of_the_checkpoint_may_be_copied(monkeypatch):
    weight = torch.arange(12.0).reshape(3, 4)
    checkpoint = SimpleNamespace(
        folder=Path("model"), stored={"w": Stored("file", "F32", (3, 4))}, keys={"w": "w"}
    )
    monkeypatch.setattr(gguf_copied, "read_tensor", lambda *place: weight)

    def tensor(values):
        stored = SimpleNamespace(
            name="blk.0.w", data=values.numpy(), shape=[*reversed(values.shape)],
            tensor_type=gguf.GGMLQuantizationType.F32,
        )  # fmt: skip
        return PlainTensor("model.gguf", stored)

    check_copied([tensor(weight[[2, 0]]), tensor(weight.T.contiguous())], checkpoint)
    with pytest.raises(InputError, match="blk.0.w in the file of model.gguf has values"):
        check_copied([tensor(weight + 1)], checkpoint)


def equal_layers(state):
    """Blocks with the same weight in both components, and one whose gate is its up projection."""
    fc1 = "vision_tower.vision_model.encoder.layers.{}.mlp.fc1.weight"
    state[fc1.format(4)] = state[fc1.format(0)].clone()
    state[name_of(1, "mlp.down_proj")] = state[name_of(3, "mlp.down_proj")].clone()
    state[name_of(2, "mlp.gate_proj")] = state[name_of(2, "mlp.up_proj")].clone()


def test_equal_layers_are_distinguished_by_name(tmp_path):
    folder = changed_checkpoint(tmp_path / "model", equal_layers)
    model = loaded(folder)
    exported(folder, model, {}, tmp_path / "f16")
    weights = quantized(model, MIXED)
    # of two equal layers one may be quantized otherwise
    weights |= quantized(
        model,
        lambda _, layer: (8, 0, True) if layer.name.endswith("1.mlp.down_proj") else None,
    )
    exported(folder, model, weights, tmp_path / "own")
    target = Gguf(from_=pair(tmp_path / "f16"))
    exported(folder, model, weights, tmp_path / "rewritten", target)
    assert same(tmp_path / "own", tmp_path / "rewritten")


def test_equal_layers_without_names_are_refused(tmp_path, monkeypatch):
    folder = changed_checkpoint(tmp_path / "model", equal_layers)
    model = loaded(folder)
    exported(folder, model, {}, tmp_path / "f16")
    monkeypatch.setattr("mmq_plugins.targets.gguf_rewrite._expected_names", lambda *_: set())
    source = source_of(folder, quantized(model, MIXED))
    with pytest.raises(InputError, match="several tensors have the values of"):
        Gguf(from_=pair(tmp_path / "f16")).planned_bytes(source)


def test_files_that_are_quantized_are_refused(model, tmp_path):
    weights = quantized(model, uniform(4, 32, True))
    exported(LLAVA, model, weights, tmp_path / "q4")
    with pytest.raises(InputError, match=r"is quantized \(Q4_0\); give the files"):
        Gguf(from_=pair(tmp_path / "q4")).planned_bytes(source_of(LLAVA, weights))


@pytest.mark.parametrize(
    ("given", "words"),
    [("model.gguf", "is not a pair"), ("nowhere.gguf,also.gguf", "nowhere.gguf is not a file")],
)
def test_an_invalid_pair_is_refused(given, words, model):
    source = source_of(LLAVA, quantized(model, uniform(4, 32, True)))
    with pytest.raises(InputError, match=words):
        Gguf(from_=given).planned_bytes(source)


def test_files_in_the_wrong_order_are_refused(model, plain):
    source = source_of(LLAVA, quantized(model, uniform(4, 32, True)))
    given = f"{plain / 'mmproj.gguf'},{plain / 'model.gguf'}"
    with pytest.raises(InputError, match="language model's file first and the vision file second"):
        Gguf(from_=given).planned_bytes(source)


def test_equal_rows_are_matched_in_their_order():
    hashes = np.array([7, 3, 7, 9], np.uint64)
    assert _order(np.array([9, 7, 7, 3], np.uint64), hashes).tolist() == [3, 0, 2, 1]
