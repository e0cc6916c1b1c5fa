"""File systems on which locks and SQLite are not safe: those that several machines mount."""

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|lustre|beegfs|gpfs|ceph|glusterfs|afs|panfs|pvfs2|orangefs|"
    r"ocfs2|gfs2|fuse\.(?!fuse-overlayfs|lxcfs|portal|gvfsd|snapfuse|mergerfs).+"
)


def network_file_system(path: Path, mounts: str | None = None) -> str:
    """The type of the network file system that a path is on; "" for a local one.

    mounts: the text of /proc/mounts; that of this system by default. A system without it has no
    answer, and the path counts as local.
    """
    if mounts is None:
        try:
            mounts = MOUNTS.read_text(errors="replace")
        except OSError:
            return ""
    real, best, kind = os.path.realpath(path), "", ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), fields[1])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # the last mount on a point hides earlier ones
            best, kind = point, fields[2]
    return kind if NETWORK.fullmatch(kind) else ""
