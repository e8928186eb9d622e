"""`FdFile`: an open regular file of a layer, held by a descriptor. Knows no names."""

from __future__ import annotations

import os

from unionfs.layers.layer import LayerFile
from unionfs.linux import data as linux_data
from unionfs.linux import path as linux_path
from unionfs.vfs import NOW, Now

_CHUNK = 1 << 20


def to_linux_time(time: int | Now | None) -> linux_path.Time:
    return linux_path.UTIME_NOW if time is NOW else time  # type: ignore[return-value]  # there is one Now


class FdFile:
    """Implements `LayerFile`. Owns `fd`; `close` is idempotent, after it `fd` is -1. `stat`: of the file as it was
    opened, where somebody has asked."""

    __slots__ = ("_stat", "fd")

    def __init__(self, fd: int, stat: os.stat_result | None = None) -> None:
        self.fd = fd
        self._stat = stat

    def stat_when_opened(self) -> os.stat_result:
        return self._stat if self._stat is not None else os.fstat(self.fd)

    def pread(self, size: int, offset: int) -> bytes:
        return os.pread(self.fd, size, offset)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(self.fd, data, offset)

    def fstat(self) -> os.stat_result:
        return os.fstat(self.fd)

    def ftruncate(self, size: int) -> None:
        os.ftruncate(self.fd, size)

    def fsync(self, datasync: bool) -> None:
        if datasync:
            os.fdatasync(self.fd)
        else:
            os.fsync(self.fd)

    def fallocate(self, mode: int, offset: int, length: int) -> None:
        linux_data.fallocate(self.fd, mode, offset, length)

    def seek_data(self, offset: int) -> int:
        return os.lseek(self.fd, offset, os.SEEK_DATA)

    def seek_hole(self, offset: int) -> int:
        return os.lseek(self.fd, offset, os.SEEK_HOLE)

    def copy_range(self, source: LayerFile, source_offset: int, offset: int, length: int) -> int:
        if source.fd >= 0:
            return linux_data.copy_range(source.fd, source_offset, self.fd, offset, length)
        extent = getattr(source, "extent", None)
        found = extent(source_offset) if extent is not None else None
        if found is not None:
            fd, start, left = found
            return linux_data.copy_range(fd, start, self.fd, offset, min(length, left))
        chunk = source.pread(min(length, _CHUNK), source_offset)
        return os.pwrite(self.fd, chunk, offset) if chunk else 0

    def replace(self, other: LayerFile) -> None:
        """dup3(2) puts the other file in this descriptor's place: a concurrent pread sees the one or the other.

        `other` must have a descriptor of its own (EBADF where it has none)."""
        os.dup2(other.fd, self.fd, inheritable=False)

    def chmod(self, mode: int) -> None:
        os.fchmod(self.fd, mode)

    def chown(self, uid: int, gid: int) -> None:
        os.fchown(self.fd, uid, gid)

    def utime(self, atime_ns: int | Now | None, mtime_ns: int | Now | None) -> None:
        linux_path.futimens(self.fd, to_linux_time(atime_ns), to_linux_time(mtime_ns))

    def setxattr(self, name: bytes, value: bytes) -> None:
        os.setxattr(self.fd, name, value)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
