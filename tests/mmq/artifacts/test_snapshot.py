"""Progress through finished blocks is saved; filling the store from there has the same result."""

import pytest
from safetensors import safe_open

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.prepare import prepare
from mmq.system.home import home

WIDTHS = (3, 8)


@pytest.fixture(scope="module", params=["full_precision", "sequential"])
def prepared(request):
    options = EvalOptions(quantizer="gptq", limit="8", calibration_samples=8)
    result = prepare(
        options,
        {"calibration-inputs": request.param, "num-beams": "1"},
        lambda parts: [BitAllocation.uniform(parts, bits) for bits in WIDTHS],
    )
    return result, result.load()


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """The blocks that an uninterrupted run stores."""
    return contents(fill(prepared, tmp_path_factory.mktemp("whole")))


@pytest.fixture(autouse=True)
def _eager(monkeypatch, tmp_path, prepared):
    """Keep the inputs of every block, in a home of the test's own."""
    monkeypatch.setattr("mmq.artifacts.snapshot.SECONDS", 0.0)
    monkeypatch.setenv("MMQ_HOME", str(tmp_path / "home"))


def snapshots():
    return list((home() / "calibration").glob("*.safetensors"))


def fill(prepared, root):
    result, model = prepared
    artifacts = result.artifacts(Store(root), quiet=True)
    artifacts.fill(model, "qformer", WIDTHS)
    return artifacts.store


def killed_before(prepared, root, block, monkeypatch):
    """A store that was filled up to a block."""
    put = Store.put

    def die(self, key, *rest):
        if key.block == block:
            raise KeyboardInterrupt
        put(self, key, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", die)
        with pytest.raises(KeyboardInterrupt):
            fill(prepared, root)
    assert len(snapshots()) == 1


def contents(store):
    """Hashes over key, tensors and errors, by name."""
    result = {}
    for entry in store.entries():
        with safe_open(entry.path, framework="pt") as file:
            result[entry.path.name] = file.metadata()["sha256"]
    return result


def test_finished_blocks_are_not_run_again(prepared, whole, tmp_path, monkeypatch):
    assert len(whole) == 4 * len(WIDTHS)
    assert not snapshots()
    killed_before(prepared, tmp_path / "part", 2, monkeypatch)
    ran = []

    def record(block, number, *rest):
        ran.append(number)
        return run(block, number, *rest)

    from mmq.artifacts import artifacts

    run = artifacts.quantize_block
    monkeypatch.setattr(artifacts, "quantize_block", record)
    assert contents(fill(prepared, tmp_path / "part")) == whole
    assert ran == [2, 3]
    assert not snapshots()


def test_artifacts_that_vanished_since_are_computed_again(prepared, whole, tmp_path, monkeypatch):
    killed_before(prepared, tmp_path / "part", 2, monkeypatch)
    first = next(e for e in Store(tmp_path / "part").entries() if e.key["block"] == 0)
    first.path.unlink()  # as `mmq store prune` does
    assert contents(fill(prepared, tmp_path / "part")) == whole


def cut(content):
    return content[:1000]


def flip_a_bit(content):
    return content[:-30] + bytes([content[-30] ^ 64]) + content[-29:]


def other_block(content):
    return content.replace(b'"block":"2"', b'"block":"1"')


@pytest.mark.parametrize(
    ("prepared", "damage"),
    [("full_precision", cut), ("full_precision", other_block), ("sequential", flip_a_bit)],
    indirect=["prepared"],
)
def test_a_damaged_snapshot_restarts_the_component_and_nothing_else(
    prepared, whole, tmp_path, monkeypatch, damage, caplog
):
    killed_before(prepared, tmp_path / "part", 2, monkeypatch)
    (path,) = snapshots()
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
    assert contents(fill(prepared, tmp_path / "part")) == whole
    assert f"{path} is damaged" in caplog.text
    assert not snapshots()
