import os
import socket

import pytest

from mmq.errors import InputError
from mmq.system.regular_file import is_folder, open_regular, read_regular, read_text


def put(path, kind):
    """Create a file that is not regular."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "broken":
        path.symlink_to("nowhere")
    else:
        with socket.socket(socket.AF_UNIX) as result:
            result.bind(str(path))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pipe", "is a named pipe; give a regular file"),
        ("folder", "is a folder"),
        ("socket", "is a socket"),
        ("device", "is a device"),
        ("loop", "cannot be opened"),
        ("broken", "cannot be read: it does not exist"),
    ],
)
def test_files_that_are_not_regular_are_refused_at_once(tmp_path, monkeypatch, kind, message):
    monkeypatch.chdir(tmp_path)  # the name of a socket has a limit
    path = type(tmp_path)("it.json")
    put(path, kind)
    with pytest.raises(InputError, match=f"^data: it.json {message}"), open_regular(path, "data"):
        pass


def test_more_bytes_than_the_bound_are_refused(tmp_path):
    path = tmp_path / "it"
    path.write_bytes(b"1234")
    assert read_regular(path, "data", limit=4) == b"1234"
    with pytest.raises(InputError, match="it is larger than .* MiB"):
        read_regular(path, "data", limit=3)


def test_text_is_utf8_with_or_without_a_mark(tmp_path):
    path = tmp_path / "it"
    path.write_text("\ufeffä", "utf-8")
    assert read_text(path, "data") == "ä"
    path.write_text("a\nä", "latin-1")
    with pytest.raises(InputError, match="line 2 is not UTF-8 text; save the file as UTF-8"):
        read_text(path, "data")
    path.write_text("a", "utf-16")
    with pytest.raises(InputError, match="is UTF-16 text; save it as UTF-8"):
        read_text(path, "data")


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    for name in ("a\0b", "a" * 300):
        with pytest.raises(InputError, match="cannot be opened"):
            read_regular(tmp_path / name, "data")


def test_folders_that_cannot_be_read_do_not_count(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert is_folder(tmp_path)
    for name in ("loop", "nothing", "a" * 300, "a\0b"):
        assert not is_folder(tmp_path / name)
