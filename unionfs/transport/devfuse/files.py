"""Open files and their data paths: passthrough, cached, or by way of us; and inodes that have two nodes for a while.

    passthrough   root, and a kernel that has it: reads, writes and mappings go to the backing file without a request
    cached        else, and small files opened for reading: READ fills the page cache, which stays valid over close
                  and open; each write(2) is a WRITE. A small file's data is given to the kernel with its first open
                  (notify `store`), so that there is no READ, nor the GETATTR that the kernel sends after one; from
                  then on it is opened without its file being opened
    by way of us  writers of a set-user-ID file in passthrough: their WRITEs come here, mappings use the backing file

What a reader sees whose file is copied up under it: in passthrough its descriptor keeps the lower file (as a mapping
does with the kernel's overlayfs), and the writer's open gets a new node (`_supersede`). Cached, the file system puts
the upper file behind the same handle, and the reader sees what is written.

No I/O but through what is given in; no request and no reply is taken apart here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from struct import Struct
from typing import Protocol

from unionfs.transport.devfuse import abi
from unionfs.transport.devfuse.passthrough import StaleBacking
from unionfs.transport.devfuse.replies import FOREVER
from unionfs.vfs import AttrRecord, Extent, FileHandle, Filesystem, NodeId, OpenResult, record_ino

_S_ISUID, _S_ISGID, _S_IXGRP = 0o4000, 0o2000, 0o010
record_mode = Struct("<60xI").unpack_from


class BackingFiles(Protocol):
    """See passthrough.Backings."""

    enabled: bool
    small: int

    def open(self, node: int, fd: int, writing: bool, size: int = -1) -> tuple[int, bool]: ...
    def open_cached(self, node: int) -> bool: ...
    def release(self, node: int) -> None: ...
    def has(self, node: int) -> bool: ...
    def __len__(self) -> int: ...


class Reader(Protocol):
    """Reads file data, into a ready reply or into the kernel's cache."""

    def store(self, node: int, fd: int, size: int, start: int = 0) -> bool:
        """Put the whole data of a file, `size` bytes, into the kernel's cache of a node that nobody has open. False
        where it is not in memory now, is not of that size, or the kernel would not take it. `start`: where it begins,
        if it is a piece of a larger file, whose size says nothing."""
        ...

    def __call__(self, unique: int, fd: int, offset: int, size: int, may_wait: bool) -> memoryview | None:
        """The READ reply, empty where it has been sent, or None where the data is not in memory and `may_wait` is
        false."""
        ...


#: What the kernel's page cache may hold of a node: something, of use; all of it; what passthrough has overwritten.
_SOME, _ALL, _OUTDATED = 1, 2, 3


class OpenFiles:
    """The open files of one mount. May be used from several threads.

    `invalidate(node)` tells the kernel that a node's attributes are stale. `twins` is true while some inode has two
    nodes: callers then ask `valid` for how long a record's attributes may be kept, which else is FOREVER.
    """

    def __init__(
        self,
        fs: Filesystem,
        backings: BackingFiles,
        reader: Reader | None,
        invalidate: Callable[[int], object] | None,
    ) -> None:
        self._fs = fs
        self.backings = backings
        self._reader = reader
        self._invalidate = invalidate
        self._fs_supersede: Callable[[NodeId], None] | None = getattr(fs, "supersede", None)
        self._fs_open_later: Callable[[NodeId], FileHandle | None] | None = getattr(fs, "open_later", None)
        self._superseded: dict[NodeId, int] = {}  # node -> st_ino
        self.twins: set[int] = set()  # those st_ino
        self._pages: dict[NodeId, int] = {}
        self.stored_bytes = 0
        #: Some file has been opened that the kernel writes by itself.
        self.bypassed = False
        self.fds: dict[FileHandle, int] = {}  # cached files: handle -> descriptor to read from
        self.extents: dict[FileHandle, Extent] = {}  # those that are a piece of a larger file

    def open_again(self, node: NodeId) -> FileHandle | None:
        """A handle for reading a file whose data the kernel has, or None where it has to be opened."""
        if self._pages.get(node) != _ALL or self._fs_open_later is None or not self.backings.open_cached(node):
            return None
        fh = None
        try:
            fh = self._fs_open_later(node)
        finally:
            if fh is None:
                self.backings.release(node)
        return fh

    def opened(self, node: NodeId, opened: OpenResult, writing: bool, record: AttrRecord | None) -> tuple[int, int]:
        """(FOPEN_* flags, backing id) for a file just opened. `record` is asked for where None and needed.

        Where it raises (ESTALE), the file has been closed again."""
        try:
            backing_id, first = self.backings.open(node, opened.fd, writing, opened.size)
        except StaleBacking:
            self._fs.release(opened.fh)
            self._supersede(node)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None
        if backing_id:
            return self._passed_through(node, writing, record), backing_id
        if opened.fd >= 0:
            self.fds[opened.fh] = opened.fd
        elif opened.extent is not None:
            self.extents[opened.fh] = opened.extent
        pages = self._pages.get(node)
        if pages == _OUTDATED:
            self._pages[node] = _SOME
            return 0, 0
        if pages != _ALL:
            # INVARIANT: nobody has the node open, and nothing that needs our answer holds its pages' locks, which
            # storing takes (fuse_notify_store): a READ or a write-back keeps its file open until it is answered.
            store = first and not writing and self._reader is not None
            stored = store and self._stored(node, opened)
            self._pages[node] = _ALL if stored else _SOME
        # Pages stay valid over close and open: nobody changes the data behind the kernel's back.
        return abi.FOPEN_KEEP_CACHE, 0

    def _stored(self, node: NodeId, opened: OpenResult) -> bool:
        if not 0 < opened.size <= self.backings.small:
            return opened.size == 0
        assert self._reader is not None
        place = (opened.fd, 0) if opened.fd >= 0 else self.place(opened.fh, 0, opened.size)
        stored = place[0] >= 0 and self._reader.store(node, place[0], opened.size, place[1])
        if stored:
            self.stored_bytes += opened.size
        return stored

    def _passed_through(self, node: NodeId, writing: bool, record: AttrRecord | None) -> int:
        if not writing:
            return abi.FOPEN_PASSTHROUGH
        self.bypassed = True
        if node in self._pages:
            # Passthrough writes do not touch the pages that an earlier cached open has left.
            self._pages[node] = _OUTDATED
        if _has_suid(record_mode(record or self._fs.getattr(node))[0]):
            # A passthrough write has the daemon's rights, which keep set-user-ID; so writes to such a file
            # come to us, with WRITE_KILL_SUIDGID where the writer has not those rights.
            return abi.FOPEN_PASSTHROUGH | abi.FOPEN_DIRECT_IO
        return abi.FOPEN_PASSTHROUGH

    def place(self, fh: FileHandle, offset: int, size: int) -> tuple[int, int, int]:
        """Where to read what is asked of an open file: descriptor, offset there, how much is to be read from there at
        most. The descriptor is -1 where only the file system can read it."""
        fd = self.fds.get(fh, -1)
        if fd >= 0 or fh not in self.extents:
            return fd, offset, size
        found = self.extents[fh](offset)
        return (-1, offset, size) if found is None else (found[0], found[1], min(size, found[2]))

    def reading(self, node: NodeId) -> None:
        """The kernel asks for data: it has dropped what it was given."""
        if self._pages.get(node) == _ALL:
            self._pages[node] = _SOME

    def was_read(self, node: NodeId, offset: int, asked: int, got: int) -> None:
        """The kernel has asked for `asked` bytes and gets `got`: only the end of the file makes them fewer."""
        if offset == 0 and got < asked and self._pages.get(node) == _SOME:
            self._pages[node] = _ALL

    def close(self, node: NodeId, fh: FileHandle) -> None:
        self.backings.release(node)
        self.fds.pop(fh, None)
        self.extents.pop(fh, None)
        self._fs.release(fh)

    def _supersede(self, node: NodeId) -> None:
        """`node` was copied up while the kernel reads the lower file for it: its name is to lead to a new node.

        From here on two nodes stand for one inode. What is changed through one is not seen by the kernel on the
        other, so the attributes of neither may be kept until the old one is forgotten.
        """
        ino = record_ino(self._fs.getattr(node))[0]
        if self._fs_supersede is not None:
            self._fs_supersede(node)
        self._superseded[node] = ino
        self.twins.add(ino)
        if self._invalidate is not None:
            self._invalidate(node)

    def valid(self, record: AttrRecord) -> int:
        """For how many seconds the kernel may keep these attributes."""
        return 0 if record_ino(record)[0] in self.twins else FOREVER

    def forgotten(self, node: NodeId) -> None:
        """The kernel has dropped the node, with all its lookups at once (fuse_evict_inode)."""
        self._pages.pop(node, None)
        ino = self._superseded.pop(node, None) if self._superseded else None
        if ino is not None and ino not in self._superseded.values():
            self.twins.discard(ino)


def _has_suid(mode: int) -> bool:
    """setattr_should_drop_suidgid(): set-group-ID counts with group execute only."""
    return bool(mode & _S_ISUID) or mode & (_S_ISGID | _S_IXGRP) == _S_ISGID | _S_IXGRP
