import dataclasses
import multiprocessing
import os
import shutil

import torch
from mmq_plugins.quantizers.rtn import Rtn
from stored_layers import KEY, layer

from mmq.artifacts.store import ArtifactKey, Store


def test_stored_blocks_are_read_back_unchanged(tmp_path):
    weights = {name: Rtn(64).quantize(torch.randn(8, 128), 4) for name in ("a.b", "c")}
    Store(tmp_path).put(KEY, {name: layer(weight) for name, weight in weights.items()})
    result = Store(tmp_path).get(KEY)
    assert list(result) == ["a.b", "c"]
    for name, weight in weights.items():
        assert torch.equal(result[name].weight.dequantize(), weight.dequantize())
        assert result[name].weight.stored_bits == weight.stored_bits
        assert dataclasses.replace(result[name], weight=weight) == layer(weight)


def test_layers_that_share_an_act_order_are_stored(tmp_path):
    index = torch.arange(128, dtype=torch.int32) % 2
    weights = {name: Rtn(64).quantize(torch.randn(8, 128), 4) for name in ("q", "k")}
    ordered = {name: dataclasses.replace(w, group_index=index) for name, w in weights.items()}
    Store(tmp_path).put(KEY, {name: layer(weight) for name, weight in ordered.items()})
    for name, stored in Store(tmp_path).get(KEY).items():
        assert torch.equal(stored.weight.dequantize(), ordered[name].dequantize())


def test_every_part_of_the_key_counts(tmp_path):
    Store(tmp_path).put(KEY, {"a": layer(Rtn().quantize(torch.randn(4, 8), 4))})
    others = {
        "model": "m2", "component": "llm", "quantizer": "q", "quantizer_distribution": "x",
        "quantizer_version": 2, "versions": (("tensors", 2),),
        "options": (("group_size", 32),), "bits": 3, "block": 1, "layers": ("b",),
        "calibration": "c",
    }  # fmt: skip
    assert set(others) == {field.name for field in dataclasses.fields(ArtifactKey)}
    for name, value in others.items():
        assert Store(tmp_path).get(dataclasses.replace(KEY, **{name: value})) is None


def test_codes_take_their_bits_on_disk(tmp_path):
    weight = Rtn().quantize(torch.randn(256, 1024), 3)
    Store(tmp_path).put(KEY, {"a": layer(weight)})
    size = next(tmp_path.glob("*.safetensors")).stat().st_size
    assert size < weight.stored_bits / 8 + 2048


def test_no_partial_file_remains(tmp_path):
    Store(tmp_path).put(KEY, {"a": layer(Rtn().quantize(torch.randn(4, 8), 4))})
    (artifact,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert artifact.suffix == ".safetensors"


def test_one_of_several_processes_computes_what_all_of_them_need(tmp_path):
    receiver, sender = multiprocessing.Pipe(duplex=False)

    go = multiprocessing.Event()

    def other():
        go.wait()
        with Store(tmp_path).locked("llm"):
            sender.send("in")

    process = multiprocessing.get_context("fork").Process(target=other)
    process.start()
    with Store(tmp_path).locked("llm"):
        go.set()
        assert not receiver.poll(0.5)
    assert receiver.poll(30)
    process.join()


def damaged(path):
    """One bit of the codes, in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


def test_a_damaged_block_counts_as_missing_and_is_reported_once(tmp_path, caplog):
    store = Store(tmp_path)
    store.put(KEY, {"a": layer(Rtn().quantize(torch.randn(4, 8), 4))}, 1.5)
    assert store.has(KEY)
    assert store.seconds(KEY) == 1.5
    times = store.path(KEY).stat()
    damaged(store.path(KEY))
    os.utime(store.path(KEY), ns=(times.st_atime_ns, times.st_mtime_ns))
    assert store.get(KEY) is None  # however recently it was checked
    assert not store.has(KEY)
    assert not Store(tmp_path).has(KEY)
    assert caplog.text.count(f"{store.path(KEY)} is damaged") == 2  # by each store
    store.put(KEY, {"a": layer(Rtn().quantize(torch.randn(4, 8), 4))})
    assert store.has(KEY)


def test_the_block_of_another_key_is_not_taken_for_this_one(tmp_path):
    store, other = Store(tmp_path), dataclasses.replace(KEY, bits=3)
    for key in (KEY, other):
        store.put(key, {"a": layer(Rtn().quantize(torch.randn(4, 8), key.bits))})
    shutil.copy(store.path(other), store.path(KEY))
    assert store.get(KEY) is None


def test_changed_seconds_count_as_unknown(tmp_path):
    store = Store(tmp_path)
    store.put(KEY, {"a": layer(Rtn().quantize(torch.randn(4, 8), 4))}, 1.5)
    path = store.path(KEY)
    path.write_bytes(path.read_bytes().replace(b"1.500000", b"9.500000"))
    assert store.seconds(KEY) is None
    assert store.get(KEY) is None
