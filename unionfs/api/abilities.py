"""What the file system of a directory is able to hold, found out by trying, in a directory that is removed again."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from unionfs.api.layers import remove_temporary
from unionfs.layers.upper import WritableDirectory
from unionfs.linux import data
from unionfs.vfs import RENAME_WHITEOUT

#: Mounting an overlayfs takes some milliseconds; nothing there waits for anybody.
_MOUNT_SECONDS: Final = 10.0


class Ability(NamedTuple):
    """`found`: what there is, or, where it is not `there`, what the kernel said."""

    name: str
    there: bool
    found: str


def abilities(place: bytes) -> list[Ability]:
    """d_type, xattrs, whiteouts, tmpfile, rename-whiteout, reflink. OSError where nothing can be made there."""
    with _trial(place) as trial:
        layer = WritableDirectory(trial)
        try:
            return [_tried(name, attempt, layer) for name, attempt in _TRIES.items()]
        finally:
            layer.close()


def kernel_overlay(place: bytes) -> Ability:
    """May an upper of the kernel's overlayfs lie there? It is mounted on one, where nobody else sees it: as root in a
    mount namespace, as a user in a user namespace too. OSError as above."""
    namespaces = ["unshare", "-m", "--propagation", "private"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    options = "lowerdir=lower,upperdir=upper,workdir=work" + ("" if os.geteuid() == 0 else ",userxattr")
    with _trial(place) as trial:
        for name in (b"lower", b"upper", b"work", b"tree"):
            os.mkdir(os.path.join(trial, name))
        # Into the directory too: what it is without the other xattrs mounts, read-only or with a warning in the log.
        script = 'mount -t overlay -o "$0" overlay tree && mkdir tree/made && rmdir tree/made'
        try:
            tried = subprocess.run(
                [*namespaces, "sh", "-c", script, options],
                cwd=trial, stdin=subprocess.DEVNULL, capture_output=True, timeout=_MOUNT_SECONDS, check=False,
            )  # fmt: skip
        except FileNotFoundError:
            return Ability("kernel-overlay", False, "unshare(1) is not installed")
        except subprocess.TimeoutExpired:
            return Ability("kernel-overlay", False, "mounting it did not end")
        if tried.returncode == 0:
            return Ability("kernel-overlay", True, "userxattr" if os.geteuid() else "usable")
        said = tried.stderr.decode(errors="replace").strip().splitlines()
        return Ability("kernel-overlay", False, said[0] if said else f"mount ended with {tried.returncode}")


@contextmanager
def _trial(place: bytes) -> Iterator[bytes]:
    trial = tempfile.mkdtemp(prefix=b".unionfs-trial-", dir=place)
    try:
        yield trial
    finally:
        remove_temporary(trial)  # an overlayfs leaves a directory without any permission


def _tried(name: str, attempt: Callable[[WritableDirectory], str], layer: WritableDirectory) -> Ability:
    try:
        return Ability(name, True, attempt(layer))
    except OSError as error:
        return Ability(name, False, error.strerror or str(error))


def _try_d_type(layer: WritableDirectory) -> str:
    layer.create(b"listed", 0o600).close()
    # Opened anew: through a descriptor from before, btrfs does not list it (btrfs_opendir(), last_index).
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=layer.root_fd)
    try:
        with os.scandir(fd) as listing:
            entries = [entry for entry in listing if entry.name == "listed"]
    finally:
        os.close(fd)
    layer.unlink(b"listed")
    # What is gone can only be told from what the listing said (readdir(3), d_type).
    if not entries[0].is_file(follow_symlinks=False):
        raise OSError(0, "DT_UNKNOWN")
    return "listings tell types"


def _try_xattrs(layer: WritableDirectory) -> str:
    layer.create(b"marked", 0o600).close()
    try:
        layer.setxattr(b"marked", b"trusted.overlay.opaque", b"y")
        return "trusted.overlay"
    except OSError:
        layer.setxattr(b"marked", b"user.overlay.opaque", b"y")
        return "user.overlay"


def _try_whiteout(layer: WritableDirectory) -> str:
    layer.mknod(b"whiteout", stat.S_IFCHR, 0)
    return "devices 0:0"


def _try_tmpfile(layer: WritableDirectory) -> str:
    layer.tmpfile(b"", 0o600).close()
    return "O_TMPFILE works"


def _try_rename_whiteout(layer: WritableDirectory) -> str:
    layer.create(b"old", 0o600).close()
    layer.rename(b"old", layer, b"new", RENAME_WHITEOUT)
    return "RENAME_WHITEOUT works"


def _try_reflink(layer: WritableDirectory) -> str:
    source = layer.create(b"source", 0o600)
    target = layer.create(b"target", 0o600)
    try:
        source.pwrite(b"x" * 65536, 0)
        data.ficlone(target.fd, source.fd)
    finally:
        source.close()
        target.close()
    return "a copy-up within it shares the data"


_TRIES: Final[dict[str, Callable[[WritableDirectory], str]]] = {
    "d_type": _try_d_type,
    "xattrs": _try_xattrs,
    "whiteouts": _try_whiteout,
    "tmpfile": _try_tmpfile,
    "rename-whiteout": _try_rename_whiteout,
    "reflink": _try_reflink,
}
