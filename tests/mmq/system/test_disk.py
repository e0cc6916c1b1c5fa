"""Disk errors are reported in one sentence that names the path, with exit code 2."""

import errno
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from safetensors import SafetensorError
from sqlalchemy.exc import OperationalError

from mmq.cli.main import main
from mmq.errors import InputError
from mmq.models.loaded import Originals
from mmq.system import disk
from mmq.system.atomic import atomic_write
from mmq.system.disk import check_writable, naming, sentence
from mmq.system.sealed import write_json, write_tensors


@contextmanager
def small_disk(path, options="size=256k"):
    """A real file system of this size; skips where none can be mounted."""
    path.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_is_named_with_what_is_free(tmp_path):
    import torch

    with small_disk(tmp_path / "small") as folder:
        with pytest.raises(OSError, match="No space left") as caught:
            write_json(folder / "a.json", {"text": "x" * 500_000})
        assert str(folder / "a.json") in sentence(caught.value)
        assert "no space is left (0." in sentence(caught.value)
        tensors = {"a": torch.zeros(500_000)}
        with pytest.raises(OSError, match="No space left") as caught:
            write_tensors(folder / "b.safetensors", tensors, "b")
        assert str(folder / "b.safetensors") in sentence(caught.value)
        assert not [path for path in folder.rglob("*") if path.is_file()]  # nothing half written


def test_weights_without_a_place_in_the_files_are_refused_at_once(tmp_path, monkeypatch):
    import torch

    with small_disk(tmp_path / "small") as folder:
        monkeypatch.setenv("MMQ_HOME", str(folder))
        originals = Originals()
        with pytest.raises(OSError, match="No space left") as caught:
            originals.save("a", torch.zeros(500_000))
        assert "1.9 MiB needed" in sentence(caught.value)
        originals.save("b", torch.arange(8))
        assert originals["b"].tolist() == list(range(8))
        del originals


def test_an_unwritable_home_is_refused_before_the_work(tmp_path):
    with small_disk(tmp_path / "small", "size=64k") as folder:
        (folder / "fill").write_bytes(bytes(32 * 1024))
        with pytest.raises(InputError, match="no space is left"):
            check_writable(folder)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        with pytest.raises(InputError, match="read-only"):
            check_writable(folder)
        with pytest.raises(InputError, match="read-only"):
            check_writable(folder / "new")


def loop(path):
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "below", "message"),
    [
        (lambda path: path.touch(), "", "there is a file in place of a folder"),
        (lambda path: path.touch(), "home", "there is a file in place of a folder"),
        (loop, "home", "leads back to itself"),
        (lambda path: path.mkdir(), "n" * 300, "too long"),
    ],
)
def test_a_home_that_cannot_be_created_is_refused(tmp_path, make, below, message):
    make(tmp_path / "a")
    with pytest.raises(InputError, match=message):
        check_writable(tmp_path / "a" / below if below else tmp_path / "a")


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), errno.EDQUOT),
        (OperationalError("insert", {}, Exception("database or disk is full")), errno.ENOSPC),
        (OperationalError("insert", {}, Exception("attempt to write a readonly database")),
         errno.EROFS),
        (OperationalError("select", {}, Exception("unable to open database file")), errno.EACCES),
        (SafetensorError("I/O error: No space left on device (os error 28)"), errno.ENOSPC),
    ],
)  # fmt: skip
def test_a_disk_error_is_recognized_whichever_library_reports_it(error, number, tmp_path):
    assert disk.trouble(error).errno == number
    behind = RuntimeError("something failed")
    behind.__cause__ = error
    assert disk.trouble(behind).errno == number
    assert sentence(behind, tmp_path)


def test_other_errors_are_not_refusals():
    assert sentence(ValueError("wrong")) is None
    assert sentence(FileNotFoundError(errno.ENOENT, "no such file", "a")) is None
    assert sentence(OSError("without a number")) is None


def test_a_refusal_that_names_the_file_is_unchanged(tmp_path):
    with pytest.raises(OSError, match="full") as caught, naming(tmp_path):
        raise OSError(errno.ENOSPC, "full", "its own name")
    assert caught.value.filename == "its own name"
    with pytest.raises(ValueError, match="unchanged"), naming(tmp_path):
        raise ValueError("unchanged")


def test_a_command_ends_with_the_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("signal.signal", lambda *arguments: None)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "file"))

    monkeypatch.setattr(
        sys.modules["mmq.cli.main"], "cli", type("Full", (), {"main": staticmethod(full)})
    )
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    output = capsys.readouterr().err
    assert output.startswith(f"Error: {tmp_path / 'file'}: no space is left (")
    assert "Traceback" not in output


def test_a_folder_in_the_place_of_a_file_is_set_aside(tmp_path, caplog):
    (tmp_path / "a.json").mkdir()
    (tmp_path / "a.json" / "mine").write_text("text")
    with atomic_write(tmp_path / "a.json") as aside:
        aside.write_text("new")
    assert (tmp_path / "a.json").read_text() == "new"
    (other,) = tmp_path.glob("a.json.*")
    assert (other / "mine").read_text() == "text"
    assert other.name in caplog.text
