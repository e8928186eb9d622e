"""An idmapped mount, as podman's `--uidmap` makes them of layers: open_tree(2), mount_setattr(2), move_mount(2)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.rigs import run

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD, _AT_EMPTY_PATH, _OPEN_TREE_CLONE = -100, 0x1000, 1
_MOVE_MOUNT_F_EMPTY_PATH, _MOUNT_ATTR_IDMAP = 4, 0x0010_0000

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *args: object) -> int:
    result: int = _libc.syscall(number, *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"system call {number}")
    return result


@contextlib.contextmanager
def idmapped(source: Path, target: Path, mapping: str) -> Iterator[Path]:
    """`source`, bound to the directory `target` with ids shown by `mapping` ("0 100000 5000": 0 on disk is 100000)."""
    script = "import os, sys; os.unshare(os.CLONE_NEWUSER); print(flush=True); sys.stdin.read()"
    if not hasattr(os, "unshare"):  # Python 3.11
        script = "import ctypes, sys; ctypes.CDLL(None).unshare(0x10000000); print(flush=True); sys.stdin.read()"
    holder = subprocess.Popen(["python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline()
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{name}").write_text(mapping)
        namespace = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY)
        try:
            tree = _call(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), _OPEN_TREE_CLONE)
            try:
                attributes = struct.pack("=QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, namespace)
                _call(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes))
                _call(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
            finally:
                os.close(tree)
        finally:
            os.close(namespace)
    finally:
        holder.communicate(timeout=20)
    try:
        yield target
    finally:
        run("umount", "-l", str(target))
