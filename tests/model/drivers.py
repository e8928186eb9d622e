"""The interface of what can be driven, and `PathDriver`, which drives a mounted path by system calls.

Each operation of `model.Model` has a method of the same name in a driver which returns the same data or raises OSError
with the same errno; `tree()` shows everything there is to see. engine_driver.py has the one for a file system in
process.
"""

from __future__ import annotations

import ctypes
import errno as E
import os
import stat
from collections.abc import Callable, Collection
from typing import Any, Literal, NoReturn, Protocol

from .model import UMASK, fail

KnownDifference = Literal["stray whiteouts", "unmarked upper", "stale readers", "whiteouts by hand"]

#: Where a mount does otherwise than the model, and why; the tests steer round it. All else is a bug.
KNOWN_DIFFERENCES: dict[KnownDifference, str] = {
    "stray whiteouts": (
        "Kernel overlayfs. A whiteout stored in a directory that merges with nothing below is listed by readdir, "
        "though stat says ENOENT, and rmdir then says ENOTEMPTY: ovl_iterate() hands on the entries of a directory "
        "that merges with nothing, and xattr whiteouts of the lowest layer are not looked for. The stacks have none."
    ),
    "unmarked upper": (
        "Kernel overlayfs. In an upper that another program filled, without origin and impure marks, d_ino of a merged "
        "directory is the upper's and st_ino the lower's. d_ino is not compared where the stack has an upper."
    ),
    "stale readers": (
        "Ours, with passthrough (files over 128 KiB). A descriptor opened for reading before a copy-up goes on reading "
        "the lower file, since the backing file of an open file cannot be changed. (The kernel's own shows the new "
        "data to read(2), the old to a shared mapping.) Files are opened for writing too."
    ),
    "whiteouts by hand": (
        "Kernel overlayfs. mknod(2) of a character device 0:0 is EPERM (ovl_mknod()); ours makes an object like any "
        "other, for an overlayfs whose upper is in the union. The operations have none."
    ),
}

Op = tuple[Any, ...]
Tree = dict[str, dict[str, Any]]
_libc = ctypes.CDLL(None, use_errno=True)


class Driver(Protocol):
    """`tree()`: path to what stat, the content and the xattrs say, plus ino, nlink (non-directories) and mtime (ns)."""

    def run(self, op: Op) -> Any: ...
    def tree(self) -> Tree: ...
    def close(self) -> None: ...


def check(code: int) -> None:
    if code < 0:
        fail(ctypes.get_errno())


def view(mode: int, uid: int, gid: int, nlink: int, size: int) -> dict[str, Any]:
    """As Model.view."""
    seen: dict[str, Any] = {"mode": mode, "uid": uid, "gid": gid}
    if not stat.S_ISDIR(mode):
        seen["nlink"] = nlink
    if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
        seen["size"] = size
    return seen


class PathDriver:
    """System calls below the directory `base`. `mount` and `unmount` are called at the start, the end, by remount();
    `forget` is to make the kernel drop what it knows of the tree, `push` is run between them by rotate().

    `quirks`: names of rows of KNOWN_DIFFERENCES, round which this driver steers.
    """

    def __init__(
        self,
        base: str,
        mount: Callable[[], None] = lambda: None,
        unmount: Callable[[], None] = lambda: None,
        forget: Callable[[], None] = lambda: None,
        push: Callable[[], None] = lambda: None,
        quirks: Collection[KnownDifference] = (),
    ) -> None:
        self.base, self.mount, self.unmount, self.quirks = base, mount, unmount, quirks
        self.forget, self.push = forget, push
        self.fds: dict[int, tuple[int, bool]] = {}
        self.mount()

    def run(self, op: Op) -> Any:
        os.umask(UMASK)
        return getattr(self, op[0])(*op[1:])

    def _at(self, path: str) -> str:
        return f"{self.base}/{path}" if path else self.base

    def close(self) -> None:
        self._close_all()
        self.unmount()

    def _close_all(self) -> None:
        while self.fds:
            os.close(self.fds.popitem()[1][0])

    # names
    def create(self, path: str, mode: int) -> None:
        os.close(os.open(self._at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))

    def creat(self, path: str, mode: int) -> None:
        flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        os.close(os.open(self._at(path), flags, mode))

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._at(path), mode)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, self._at(path))

    def mkfifo(self, path: str, mode: int) -> None:
        os.mkfifo(self._at(path), mode)

    def link(self, source: str, path: str) -> None:
        os.link(self._at(source), self._at(path), follow_symlinks=False)

    def unlink(self, path: str) -> None:
        os.unlink(self._at(path))

    def rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))

    def rename(self, source: str, path: str, flags: int = 0) -> None:
        check(_libc.renameat2(-100, os.fsencode(self._at(source)), -100, os.fsencode(self._at(path)), flags))

    # inodes
    def write(self, path: str, offset: int, data: bytes) -> int:
        fd = os.open(self._at(path), os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    def append(self, path: str, data: bytes) -> int:
        fd = os.open(self._at(path), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return os.write(fd, data)
        finally:
            os.close(fd)

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self._at(path), size)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.lchown(self._at(path), uid, gid)

    def utime(self, path: str, mtime_ns: int) -> None:
        os.utime(self._at(path), ns=(0, mtime_ns), follow_symlinks=False)

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        os.setxattr(self._at(path), name, value, flags, follow_symlinks=False)

    def removexattr(self, path: str, name: str) -> None:
        os.removexattr(self._at(path), name, follow_symlinks=False)

    def getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(self._at(path), name, follow_symlinks=False)

    # looking
    def stat(self, path: str) -> dict[str, Any]:
        return self._view(os.lstat(self._at(path)))

    def _view(self, st: os.stat_result) -> dict[str, Any]:
        return view(st.st_mode, st.st_uid, st.st_gid, st.st_nlink, st.st_size)

    def readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def readdir(self, path: str) -> list[str]:
        return sorted(os.listdir(self._at(path)))

    def read(self, path: str) -> bytes:
        fd = os.open(self._at(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb", buffering=0) if not stat.S_ISDIR(os.fstat(fd).st_mode) else _directory(fd) as file:
            return file.read()

    # open files
    def open(self, slot: int, path: str, writable: bool) -> None:
        if slot in self.fds:
            self.close_slot(slot)
        if not writable and not stat.S_ISREG(mode := os.lstat(self._at(path)).st_mode):  # Model: as for writing
            fail({stat.S_IFLNK: E.ELOOP, stat.S_IFDIR: E.EISDIR, stat.S_IFIFO: E.ENXIO}[stat.S_IFMT(mode)])
        access = os.O_RDWR if writable or "stale readers" in self.quirks else os.O_RDONLY
        self.fds[slot] = (self._open_file(path, access, writable), writable)

    def _open_file(self, path: str, access: int, writable: bool) -> int:
        # O_RDWR on a fifo succeeds on Linux; nobody but us would be at the other end.
        if writable and stat.S_ISFIFO(os.lstat(self._at(path)).st_mode):
            fail(E.ENXIO)
        return os.open(self._at(path), access | os.O_NOFOLLOW | os.O_NONBLOCK)

    def tmpfile(self, slot: int, path: str, mode: int) -> None:
        if slot in self.fds:
            self.close_slot(slot)
        self.fds[slot] = (os.open(self._at(path), os.O_TMPFILE | os.O_RDWR | os.O_NOFOLLOW, mode), True)

    def close_slot(self, slot: int) -> None:
        os.close(self._fd(slot))
        del self.fds[slot]

    def _fd(self, slot: int, writable: bool = False) -> int:
        fd, may_write = self.fds.get(slot) or fail(E.EBADF)
        return fd if may_write or not writable else fail(E.EBADF)

    def hread(self, slot: int) -> bytes:
        fd = self._fd(slot)
        return os.pread(fd, 1 << 20, 0)

    def hwrite(self, slot: int, offset: int, data: bytes) -> int:
        return os.pwrite(self._fd(slot, True), data, offset)

    def htruncate(self, slot: int, size: int) -> None:
        fd = self._fd(slot)
        os.ftruncate(fd if self.fds[slot][1] else fail(E.EINVAL), size)

    def hstat(self, slot: int) -> dict[str, Any]:
        return self._view(os.fstat(self._fd(slot)))

    def hchmod(self, slot: int, mode: int) -> None:
        os.fchmod(self._fd(slot), mode)

    def hchown(self, slot: int, uid: int, gid: int) -> None:
        os.fchown(self._fd(slot), uid, gid)

    def hlink(self, slot: int, path: str) -> None:
        # linkat(AT_SYMLINK_FOLLOW): os.link() uses it only when given a directory descriptor.
        fd = self._fd(slot)
        os.link(f"/proc/self/fd/{fd}", self._at(path), src_dir_fd=fd, follow_symlinks=True)

    def hsetxattr(self, slot: int, name: str, value: bytes) -> None:
        os.setxattr(self._fd(slot), name, value)

    # the whole
    def remount(self) -> None:
        self._close_all()
        self.unmount()
        self.mount()

    def rotate(self) -> None:
        self._close_all()
        self.unmount()
        self.push()
        self.mount()

    def drop_caches(self) -> None:
        self.forget()

    def refresh(self) -> None:
        pass

    def tree(self) -> Tree:
        found: Tree = {}
        self._add(found, "", os.lstat(self.base))
        return found

    def _add(self, found: Tree, path: str, st: os.stat_result) -> None:
        at = self._at(path)
        seen = {**self._view(st), "ino": st.st_ino, "mtime": st.st_mtime_ns}
        names = sorted(os.listxattr(at, follow_symlinks=False))
        seen["xattrs"] = {name: os.getxattr(at, name, follow_symlinks=False) for name in names}
        if stat.S_ISREG(st.st_mode):
            seen["data"] = self.read(path)
        elif stat.S_ISLNK(st.st_mode):
            seen["target"] = os.readlink(at)
        found[path] = seen
        if not stat.S_ISDIR(st.st_mode):
            return
        with os.scandir(at) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                child = os.lstat(entry.path)
                if "unmarked upper" not in self.quirks:
                    assert entry.inode() == child.st_ino, f"d_ino {entry.inode()} st_ino {child.st_ino}: {entry.path}"
                assert entry.is_dir(follow_symlinks=False) == stat.S_ISDIR(child.st_mode), f"d_type: {entry.path}"
                self._add(found, f"{path}/{entry.name}".lstrip("/"), child)


def _directory(fd: int) -> NoReturn:
    os.close(fd)
    fail(E.EISDIR)
