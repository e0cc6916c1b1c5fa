"""`mmq store verify` reads all stored files, counts them by kind, and removes damaged ones."""

import dataclasses
import json

import pytest
import torch
from click.testing import CliRunner
from mmq_plugins.quantizers.rtn import Rtn
from stored_layers import KEY, layer
from trial_records import record_of

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts import unlogged
from mmq.artifacts.store import Store
from mmq.cli.store import store
from mmq.models.stages import StageCache
from mmq.record import Pruned
from mmq.studies.records import Records
from mmq.system import checksums, sealed
from mmq.system.home import home
from mmq.system.sealed import NotReadable


@pytest.fixture(autouse=True)
def kinds(tmp_path, monkeypatch):
    """A home with one file of every kind; their paths."""
    monkeypatch.setenv("MMQ_HOME", str(tmp_path / "home"))
    root = home()
    Store(root / "store").put(KEY, {"a": layer(Rtn().quantize(torch.randn(4, 8), 4))})
    other = dataclasses.replace(KEY, bits=3)
    Store(root / "store").put(other, {"a": layer(Rtn().quantize(torch.randn(4, 8), 3))})
    sealed.write_tensors(path := root / "calibration" / "a.safetensors", {"x": torch.ones(9)}, "a")
    StageCache(root / "stages", 10_000).put("vision-1", torch.ones(40))
    sealed.write_json(root / "profiles" / "p.json", {"vit": {"4": 0.5}})
    record = record_of("vit=4")
    for folder in ("records/spec", "studies/s"):
        Records(root / folder).put(record)
    pruned = Pruned(2, 8, "vit=3", True, 4.0, 1.5)
    Records(root / "studies/s").put(dataclasses.replace(record, pruned=pruned))
    with unlogged.staging("run") as folder:
        (folder / "layers.json").write_text("{}")
    (root / "data" / "set").mkdir(parents=True)
    (root / "data" / "set" / "1.jpg").write_bytes(b"picture")
    checksums.seal_folder(root / "data" / "set", "set")
    path_of_record = Records(root / "records/spec").path(BitAllocation.parse("vit=4"))
    return {
        "blocks": Store(root / "store").path(KEY),
        "snapshots": path,
        "stage outputs": root / "stages" / "vision-1.safetensors",
        "sensitivity profiles": root / "profiles" / "p.json",
        "records": path_of_record,
        "records of studies": root / "studies" / "s" / path_of_record.name,
        "records of pruned trials": root / "studies" / "s" / f"{path_of_record.stem}.pruned",
        "unlogged runs": unlogged.staged("run") / "layers.json",
        "embedded data files": root / "data" / "set" / "1.jpg",
    }


def verify(*arguments):
    return CliRunner().invoke(store, ["verify", *arguments])


def test_all_intact_files_are_counted_by_kind(kinds):
    result = verify()
    assert result.exit_code == 0
    for kind in kinds:
        count = 2 if kind == "blocks" else 1
        assert f"{count} of {count} {kind} are intact." in result.output


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_damaged_files_are_named_and_removed(kinds):
    for path in kinds.values():
        flip(path)
    result = verify()
    assert "9 files are damaged; --remove removes them" in str(result.exception)
    for kind in kinds:
        assert f"{int(kind == 'blocks')} of {1 + (kind == 'blocks')} {kind} are" in result.output
    removed = verify("--remove")
    assert removed.exit_code == 0
    assert removed.output.count("; removed") == 9
    assert not any(path.exists() for path in kinds.values())


def test_a_folder_with_files_is_not_removed(kinds):
    path = kinds["blocks"]
    path.unlink()
    path.mkdir()
    (path / "mine").touch()
    result = verify("--remove")
    assert "not removed" in result.output
    assert "by hand" in str(result.exception)
    assert (path / "mine").exists()
    assert "not removed" in CliRunner().invoke(store, ["prune", "--everything", "--yes"]).output


def test_files_without_read_permission_are_not_called_damaged(kinds, monkeypatch):
    read = sealed.read_bytes

    def refuse(path):
        if path == kinds["records"]:
            raise NotReadable("it cannot be read: Permission denied")  # root may read all
        return read(path)

    monkeypatch.setattr(sealed, "read_bytes", refuse)
    result = verify("--remove")
    assert "not readable" in result.output
    assert "damaged" not in str(result.exception)
    assert "1 files are not readable" in str(result.exception)
    assert kinds["records"].exists()


def test_a_folder_without_read_permission_is_named(kinds, monkeypatch):
    import os

    scan = os.scandir

    def refuse(path="."):
        if str(path).endswith("profiles"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("os.scandir", refuse)
    result = verify()
    assert "profiles: not readable" in result.output


def test_listing_continues_past_odd_files(kinds):
    root = kinds["blocks"].parent
    (root / "loop.safetensors").symlink_to("loop.safetensors")
    (root / "folder.safetensors").mkdir()
    (root / "empty.safetensors").touch()
    assert "5 blocks" in CliRunner().invoke(store, ["list"], catch_exceptions=False).output
    rows = json.loads(CliRunner().invoke(store, ["list", "--json"]).output)
    assert sum(bool(row["problem"]) for row in rows) == 3
