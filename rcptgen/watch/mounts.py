"""Which file systems tell of changes at all (proc(5): mountinfo)."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

SILENT = frozenset(
    {"9p", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "fuse", "fuseblk", "gfs2", "gpfs", "lustre"}
    | {"ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs"}
)
"""Others may change what is there without a word to this kernel.  Every `fuse.NAME` is one of them, too."""

_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Mounts:
    """The mounts of one moment."""

    def __init__(self, mountinfo: bytes) -> None:
        self._types: dict[bytes, str] = {}
        for line in mountinfo.splitlines():
            before, _, after = line.partition(b" - ")
            fields = before.split(b" ")
            if len(fields) > 4 and after:
                # What is mounted later on the same place hides what was there.
                self._types[_unescaped(fields[4])] = after.split(b" ")[0].decode("ascii", "replace")

    @classmethod
    def now(cls) -> Mounts:
        """Those of this moment; none at all where nobody can tell."""
        try:
            return cls(MOUNTINFO.read_bytes())
        except OSError:
            return cls(b"")

    def type_of(self, path: bytes) -> str:
        """The type of the file system at a path without links; empty where it is not known."""
        here = path.rstrip(b"/")
        while here:
            if here in self._types:
                return self._types[here]
            here = here.rpartition(b"/")[0]
        return self._types.get(b"/", "")

    def has_events(self, path: bytes) -> bool:
        """Whether changes in the directory `path`, which has no links in it, are told by the kernel."""
        found = self.type_of(path)
        return found not in SILENT and not found.startswith("fuse.")


def _unescaped(path: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: bytes((int(found[1], 8) & 255,)), path)
