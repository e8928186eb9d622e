"""Where the layers of an example live, and the mounts made of them.

A `Bench` is a directory on tmpfs (a workdir may not lie on another overlay, and nothing is to survive) with the
layers of one stack. Everything made here is removed by `close`, mounts first.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from functools import cache

from .drivers import KNOWN_DIFFERENCES, PathDriver
from .layers import XATTR_PREFIX, Stack, build
from .model import fail

_libc = ctypes.CDLL(None, use_errno=True)
MNT_DETACH = 2


@cache
def scratch() -> str:
    """A directory whose file system may hold an upper, preferably in memory."""
    candidates = ["/dev/shm", tempfile.gettempdir()]
    for candidate in candidates:
        if os.path.isdir(candidate) and os.access(candidate, os.W_OK) and _takes_xattrs(candidate):
            return candidate
    raise AssertionError(f"no directory among {candidates} takes {XATTR_PREFIX}* extended attributes")


def _takes_xattrs(directory: str) -> bool:
    probe = tempfile.mkdtemp(dir=directory)
    try:
        os.setxattr(probe, f"{XATTR_PREFIX}overlay.probe", b"y")
    except OSError:
        return False
    finally:
        os.rmdir(probe)
    return True


def mount(source: str, target: str, kind: str, options: str) -> None:
    if _libc.mount(source.encode(), os.fsencode(target), kind.encode(), 0, options.encode()) < 0:
        fail(ctypes.get_errno())


def umount(target: str) -> None:
    if _libc.umount2(os.fsencode(target), 0) < 0:
        code = ctypes.get_errno()
        _libc.umount2(os.fsencode(target), MNT_DETACH)
        fail(code)


class Bench:
    """The layers of one stack on disk, and directories to mount on."""

    def __init__(self, stack: Stack) -> None:
        self.directory = tempfile.mkdtemp(prefix="unionfs-model-", dir=scratch())
        os.chmod(self.directory, 0o755)
        self.lowers, self.upper, self.work = build(stack, self.directory)
        self.mounted: list[str] = []
        self.quirks = {name for name in KNOWN_DIFFERENCES if name != "unmarked upper" or stack.upper}

    def mountpoint(self, name: str) -> str:
        path = f"{self.directory}/{name}"
        os.makedirs(path, exist_ok=True)
        return path

    def kernel(self, name: str = "kernel") -> PathDriver:
        """Kernel overlayfs on these layers, with what DESIGN promises to be compatible with."""
        at = self.mountpoint(name)
        options = (
            f"lowerdir={':'.join(self.lowers)},upperdir={self.upper},workdir={self.work},"
            "redirect_dir=on,index=on,metacopy=off,nfs_export=off"
        )
        return self.driver(at, lambda: mount("overlay", at, "overlay", options), self.quirks)

    def driver(self, at: str, make: Callable[[], None], quirks: Collection[str] = ()) -> PathDriver:
        """A PathDriver on `at`, which `make` mounts; unmounted at the latest by `close`."""

        def start() -> None:
            make()
            self.mounted.append(at)

        def stop() -> None:
            if at in self.mounted:
                self.mounted.remove(at)
                umount(at)

        return PathDriver(at, start, stop, quirks)

    def close(self) -> None:
        for at in self.mounted:
            _libc.umount2(os.fsencode(at), MNT_DETACH)
        shutil.rmtree(self.directory, onerror=_make_removable)


def _make_removable(_function: object, path: str, _info: object) -> None:
    """work/work has mode 000, which matters to other users than root."""
    os.chmod(os.path.dirname(path), 0o700)
    os.chmod(path, 0o700)
    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
