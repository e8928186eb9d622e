"""Names below one directory, resolved as if it were the root: what a hostile tar may name is never outside.

`ScopedRoot.open` walks one component at a time, each opened with O_NOFOLLOW relative to the one before. A symbolic
link on the way is read and its target walked in turn from here, an absolute one from the scoped root, ".." never above
it; so `bin -> /usr/bin` works as it will inside the container, and no race with another process can lead outside, since
no path of more than one component is ever given to the kernel. (openat2's RESOLVE_IN_ROOT means the same, but
makes no missing directories on its way and takes no path beyond PATH_MAX.)
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

Parts = tuple[bytes, ...]

_STEP: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOT: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MAX_LINKS: Final = 40  # as the kernel (MAXSYMLINKS)
_KEPT: Final = 16


class Opened(NamedTuple):
    """A directory: its O_PATH descriptor, and where it really is."""

    fd: int
    parts: Parts


class ScopedRoot:
    """The directory `path`, held by a descriptor. `made` is told of each directory that `open` had to create."""

    def __init__(self, path: bytes, made: Callable[[int], None]) -> None:
        self.fd = os.open(path, _ROOT)
        self._made = made
        self._open: OrderedDict[Parts, Opened] = OrderedDict()
        self._stale: list[int] = []

    def close(self) -> None:
        self.invalidate()
        self._close_stale()
        os.close(self.fd)

    def invalidate(self) -> None:
        """A directory or symbolic link below went away or became another: resolve anew from now on. Descriptors
        already handed out stay open until the next `open`."""
        self._stale += (opened.fd for opened in self._open.values())
        self._open.clear()

    def _close_stale(self) -> None:
        while self._stale:
            os.close(self._stale.pop())

    def open(self, parts: Parts, *, create: bool) -> int | None:
        """An O_PATH descriptor of the directory `parts`, symbolic links followed within the root.

        Missing directories are made with mode 0755 if `create`, else the answer is None. The descriptor belongs to
        this object and survives several further calls. ENOTDIR for what is no directory, ELOOP for too many links.
        """
        opened = self.resolve(parts, create=create)
        return None if opened is None else opened.fd

    def resolve(self, parts: Parts, *, create: bool) -> Opened | None:
        """The same, with the names that lead there without symbolic links."""
        self._close_stale()
        if not parts:
            return Opened(self.fd, ())
        opened = self._open.get(parts)
        if opened is not None:
            self._open.move_to_end(parts)
            return opened
        opened = self._walk(parts, create)
        if opened is None:
            return None
        self._open[parts] = opened
        if len(self._open) > _KEPT:
            os.close(self._open.popitem(last=False)[1].fd)
        return opened

    def _walk(self, parts: Parts, create: bool) -> Opened | None:
        at = os.open(b".", _STEP, dir_fd=self.fd)
        real: list[bytes] = []
        todo, links = list(reversed(parts)), 0
        try:
            while todo:
                name = todo.pop()
                if name in (b"", b"."):
                    continue
                if name == b"..":
                    del real[-1:]
                    at = self._again(at, real)
                    continue
                child = self._child(at, name, create)
                if child is None:
                    os.close(at)
                    return None
                mode = os.fstat(child).st_mode
                if stat.S_ISDIR(mode):
                    os.close(at)
                    at = child
                    real.append(name)
                    continue
                target = _target(child, name, mode)
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
                if target.startswith(b"/"):
                    real.clear()
                    at = self._again(at, real)
                todo.extend(reversed(target.split(b"/")))
        except BaseException:
            os.close(at)
            raise
        return Opened(at, tuple(real))

    def _child(self, at: int, name: bytes, create: bool) -> int | None:
        try:
            return os.open(name, _STEP, dir_fd=at)
        except FileNotFoundError:
            if not create:
                return None
        os.mkdir(name, 0o755, dir_fd=at)
        fd = os.open(name, _STEP | os.O_DIRECTORY, dir_fd=at)
        self._made(fd)
        return fd

    def _again(self, old: int, real: list[bytes]) -> int:
        """Walk plain names from the root; closes `old` when it has the new one. (An open("..") could lead outside, if
        somebody moved the directory.)"""
        at = os.open(b".", _STEP, dir_fd=self.fd)
        try:
            for name in real:
                child = os.open(name, _STEP | os.O_DIRECTORY, dir_fd=at)
                os.close(at)
                at = child
        except BaseException:
            os.close(at)
            raise
        os.close(old)
        return at


def _target(fd: int, name: bytes, mode: int) -> bytes:
    """The target of a symbolic link's descriptor, which is closed."""
    try:
        if not stat.S_ISLNK(mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
        return os.readlink(b"", dir_fd=fd)
    finally:
        os.close(fd)
