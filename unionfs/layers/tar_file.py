"""Open regular files of a tar: what lies there in one piece, and sparse files, which lie in several.

The tar's descriptor is the layer's, and stays open as long as the layer; a file has none of its own. What `replace`
puts in its place (its copy, when it is copied up) has. Which of the two is read is one attribute, exchanged at once, so
that concurrent readers need no lock.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from itertools import accumulate
from typing import Final

from unionfs.layers.fd_file import FdFile
from unionfs.layers.layer import LayerFile
from unionfs.vfs import Now

_UNBOUNDED: Final = 1 << 62


class TarFile:
    """Implements `LayerFile` over `stat.st_size` bytes at `start` of the descriptor `fd`, which is not closed with it.
    What changes a file is EBADF, until it has been replaced by one that can be changed."""

    __slots__ = ("_copy", "_stat", "_where", "fd")

    in_one_piece = True

    def __init__(self, fd: int, start: int, stat: os.stat_result) -> None:
        self.fd = -1
        self._where = (fd, start, stat.st_size)
        self._stat = stat
        self._copy: FdFile | None = None

    def extent(self, offset: int) -> tuple[int, int, int] | None:
        """Where what is at `offset` lies now: (descriptor, offset there, bytes from there that belong to the file).
        None: nowhere, it is a hole."""
        fd, start, size = self._where
        return fd, start + offset, max(0, size - offset)

    def stat_when_opened(self) -> os.stat_result:
        return self._stat

    def fstat(self) -> os.stat_result:
        return self._stat if self._copy is None else self._copy.fstat()

    def pread(self, size: int, offset: int) -> bytes:
        fd, start, whole = self._where
        return os.pread(fd, max(0, min(size, whole - offset)), start + offset)

    def seek_data(self, offset: int) -> int:
        if self._copy is not None:
            return self._copy.seek_data(offset)
        self._check_inside(offset)
        return offset

    def seek_hole(self, offset: int) -> int:
        if self._copy is not None:
            return self._copy.seek_hole(offset)
        self._check_inside(offset)
        return self._stat.st_size

    def _check_inside(self, offset: int) -> None:
        if not 0 <= offset < self._stat.st_size:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))

    def replace(self, other: LayerFile) -> None:
        """EBADF where the other has no descriptor."""
        if self._copy is not None:
            self._copy.replace(other)
            return
        self._copy = FdFile(os.dup(other.fd))
        self._where = (self._copy.fd, 0, _UNBOUNDED)

    def close(self) -> None:
        """Idempotent."""
        self._where = (-1, 0, 0)
        if self._copy is not None:
            self._copy.close()

    # what only the copy can do ----------------------------------------------------------------------------------------
    def _writable(self) -> FdFile:
        if self._copy is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._copy

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        return self._writable().pwrite(data, offset)

    def ftruncate(self, size: int) -> None:
        self._writable().ftruncate(size)

    def fsync(self, datasync: bool) -> None:
        """What was never written has nothing to flush."""
        if self._copy is not None:
            self._copy.fsync(datasync)

    def fallocate(self, mode: int, offset: int, length: int) -> None:
        self._writable().fallocate(mode, offset, length)

    def copy_range(self, source: LayerFile, source_offset: int, offset: int, length: int) -> int:
        return self._writable().copy_range(source, source_offset, offset, length)

    def chmod(self, mode: int) -> None:
        self._writable().chmod(mode)

    def chown(self, uid: int, gid: int) -> None:
        self._writable().chown(uid, gid)

    def utime(self, atime_ns: int | Now | None, mtime_ns: int | Now | None) -> None:
        self._writable().utime(atime_ns, mtime_ns)

    def setxattr(self, name: bytes, value: bytes) -> None:
        self._writable().setxattr(name, value)


class SparseTarFile(TarFile):
    """A file whose data is that of `extents` ((offset, bytes), ascending), stored from `start` on without the holes."""

    __slots__ = ("_offsets", "_pieces")

    in_one_piece = False

    def __init__(self, fd: int, start: int, stat: os.stat_result, extents: tuple[tuple[int, int], ...]) -> None:
        super().__init__(fd, start, stat)
        held = [(offset, length) for offset, length in extents if length]
        stored = accumulate((length for _, length in held), initial=start)
        #: (offset, end, where that is in the tar)
        self._pieces = [(offset, offset + length, at) for (offset, length), at in zip(held, stored, strict=False)]
        self._offsets = [piece[0] for piece in self._pieces]

    def extent(self, offset: int) -> tuple[int, int, int] | None:
        if self._copy is not None:
            return super().extent(offset)
        at = bisect_right(self._offsets, offset) - 1
        if at < 0 or offset >= self._pieces[at][1]:
            return None
        start, end, stored = self._pieces[at]
        return self._where[0], stored + offset - start, end - offset

    def pread(self, size: int, offset: int) -> bytes:
        if self._copy is not None:
            return super().pread(size, offset)
        end = min(offset + size, self._stat.st_size)
        parts: list[bytes] = []
        at = max(0, bisect_right(self._offsets, offset) - 1)
        while offset < end:
            while at < len(self._pieces) and self._pieces[at][1] <= offset:
                at += 1
            if at == len(self._pieces) or self._pieces[at][0] >= end:
                parts.append(bytes(end - offset))
                break
            start, stop, stored = self._pieces[at]
            if offset < start:
                parts.append(bytes(start - offset))
                offset = start
            data = os.pread(self._where[0], min(stop, end) - offset, stored + offset - start)
            if not data:
                break  # the tar was cut behind our back
            parts.append(data)
            offset += len(data)
        return b"".join(parts)

    def seek_data(self, offset: int) -> int:
        if self._copy is None and 0 <= offset < self._stat.st_size:
            at = max(0, bisect_right(self._offsets, offset) - 1)
            for start, stop, _ in self._pieces[at : at + 2]:
                if offset < stop:
                    return max(offset, start)
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return super().seek_data(offset)

    def seek_hole(self, offset: int) -> int:
        if self._copy is None and 0 <= offset < self._stat.st_size:
            at = max(0, bisect_right(self._offsets, offset) - 1)
            for start, stop, _ in self._pieces[at:]:
                if not start <= offset < stop:
                    break
                offset = stop
            return offset
        return super().seek_hole(offset)
