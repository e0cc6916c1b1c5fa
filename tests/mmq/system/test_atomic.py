"""Files are written completely or not at all."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mmq.system.atomic import ABANDONED, UNFINISHED, atomic_write


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_appears_when_it_is_complete(tmp_path, durable):
    path = tmp_path / "a" / "b.json"
    with atomic_write(path, durable) as aside:
        aside.write_text("text")
        assert not path.exists()
    assert path.read_text() == "text"
    assert list((path.parent / UNFINISHED).iterdir()) == []


def test_existing_files_survive_a_failed_write(tmp_path):
    path = tmp_path / "a"
    path.write_text("before")

    def write_half():
        with atomic_write(path) as aside:
            aside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "before"
    assert list((tmp_path / UNFINISHED).iterdir()) == []


def test_leftovers_of_a_killed_process_are_removed_after_a_while(tmp_path):
    work = (
        "import sys, os, signal; from pathlib import Path\n"
        "from mmq.system.atomic import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as aside:\n"
        "    aside.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", work, str(tmp_path / "a")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (left,) = (tmp_path / UNFINISHED).iterdir()
    with atomic_write(tmp_path / "b") as aside:
        aside.write_text("")
    assert left.exists()  # its writer may be at work
    os.utime(left, (time.time() - ABANDONED - 1,) * 2)
    with atomic_write(tmp_path / "b") as aside:
        aside.write_text("")
    assert not left.exists()
