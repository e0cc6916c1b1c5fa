"""Which paths are on a network file system."""

from pathlib import Path

import pytest

from mmq.errors import InputError
from mmq.system.database import Database
from mmq.system.mounts import network_file_system

MOUNTS = """\
overlay / overlay rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local ext4 rw 0 0
fs@tcp:/scratch /scratch/with\\040blank lustre rw 0 0
sshfs#host: /mnt/ssh fuse.sshfs rw 0 0
fuse-overlayfs /containers fuse.fuse-overlayfs rw 0 0
//nas/team /nas cifs rw 0 0
tmpfs /nas tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tmp/x", ""),
        ("/home/me/.mmq", "nfs4"),
        ("/homes/me", ""),
        ("/home/local/me", ""),
        ("/scratch/with blank/x", "lustre"),
        ("/mnt/ssh", "fuse.sshfs"),
        ("/containers/x", ""),
        ("/nas/x", ""),  # a later mount hides the first
    ],
)
def test_the_last_mount_that_contains_a_path_decides(path, kind):
    assert network_file_system(Path(path), MOUNTS) == kind


def test_sqlite_on_a_network_file_system_is_refused_with_the_reason(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/ {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr("mmq.system.mounts.MOUNTS", mounts)
    with pytest.raises(InputError, match=r"network file system \(nfs4\), where SQLite's locks"):
        Database(tmp_path)
    monkeypatch.setenv("MMQ_STORAGE", "mysql://mmq@host/db")
    assert Database(tmp_path).kind == "mysql"
