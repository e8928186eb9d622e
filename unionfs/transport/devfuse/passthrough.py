"""Passthrough: which backing file the kernel reads and writes for an inode, one backing id each.

    fs/fuse/iomode.c: all opens of an inode that is open in passthrough must name the same backing id, and a cached
    open beside a passthrough open is refused; either mistake reaches the user as EIO.

So the first open of an inode decides the mode for as long as any open of it lasts, and the id is counted. When a
later open brings another file (the inode was copied up meanwhile), `open` raises `StaleBacking`: the caller answers
ESTALE, and the kernel looks the name up again and comes back with a new inode number.

Which file a descriptor is, is fixed when its id is made: at copy-up the file system may put another file behind the
same descriptor, while the kernel's id keeps the old one.

The kernel ends its use of an id before it sends RELEASE (fuse_file_put, fs/fuse/file.c), hence our count is never
below its own.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable

#: A file to be read that is no larger is cached: one READ for all of it costs less than making and ending a backing
#: id, and the next reader needs neither.
SMALL = 128 << 10

_log = logging.getLogger(__name__)


class StaleBacking(Exception):
    """The inode is open in passthrough on another file than the one just opened."""


class _Backing:
    __slots__ = ("dev", "id", "ino", "users")

    def __init__(self, backing_id: int, dev: int, ino: int) -> None:
        self.id = backing_id
        self.dev = dev
        self.ino = ino
        self.users = 1


class Backings:
    """The open files of a mount, by node. `register(fd)` makes a backing id (> 0), `unregister(id)` ends it.
    Files of up to `small` bytes are cached unless their first open is for writing; all are while `enabled` is false.

    All methods may be called from any thread.
    """

    def __init__(self, register: Callable[[int], int], unregister: Callable[[int], None], small: int = SMALL) -> None:
        self.small = small
        self.enabled = True
        self._register = register
        self._unregister = unregister
        self._open: dict[int, _Backing] = {}
        self._lock = threading.Lock()

    def open(self, node: int, fd: int, writing: bool, size: int = -1) -> tuple[int, bool]:
        """Count an open of `node` on the file `fd`, of `size` bytes if that is known. Returns its backing id, or 0:
        the open is to be a cached one; and whether the node was not open before."""
        with self._lock:
            backing = self._open.get(node)
            if backing is None:
                small = not writing and 0 <= size <= self.small
                backing = _Backing(0, 0, 0) if small or fd < 0 or not self.enabled else self._first(fd, writing)
                self._open[node] = backing
                return backing.id, True
            if backing.id:
                if fd < 0:
                    raise StaleBacking
                st = os.fstat(fd)
                if st.st_ino != backing.ino or st.st_dev != backing.dev:
                    raise StaleBacking
            backing.users += 1
            return backing.id, False

    def open_cached(self, node: int) -> bool:
        """Count an open that needs no file. False, and not counted, where the node is open in passthrough."""
        with self._lock:
            backing = self._open.get(node)
            if backing is None:
                self._open[node] = _Backing(0, 0, 0)
                return True
            if not backing.id:
                backing.users += 1
            return not backing.id

    def _first(self, fd: int, writing: bool) -> _Backing:
        st = os.fstat(fd)
        if not writing and st.st_size <= self.small:
            return _Backing(0, 0, 0)
        try:
            backing_id = self._register(fd)
        except OSError as error:
            if error.errno == errno.EPERM:
                # CAP_SYS_ADMIN is missing, and will be for every file.
                self.enabled = False
                _log.warning("the kernel refuses passthrough (%s): reads and writes go through the daemon", error)
            # ELOOP: this file's own file system is a stacked one. Others may be fine.
            return _Backing(0, 0, 0)
        return _Backing(backing_id, st.st_dev, st.st_ino)

    def release(self, node: int) -> None:
        """An open counted by `open` has ended."""
        with self._lock:
            backing = self._open.get(node)
            if backing is None:
                return
            backing.users -= 1
            if backing.users:
                return
            del self._open[node]
        if backing.id:
            self._unregister(backing.id)

    def has(self, node: int) -> bool:
        """Is the inode open in passthrough?"""
        backing = self._open.get(node)
        return backing is not None and backing.id != 0

    def __len__(self) -> int:
        """How many inodes are open in passthrough."""
        return sum(1 for backing in list(self._open.values()) if backing.id)


def no_backings() -> Backings:
    """For a mount without passthrough: all opens are cached ones."""

    def refuse(_: int) -> int:
        raise AssertionError("no file is ever registered")

    backings = Backings(refuse, lambda _: None)
    backings.enabled = False
    return backings
