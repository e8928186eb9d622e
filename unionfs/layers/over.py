"""Layers over layers: everything is passed on, so that a view of a layer defines only what it shows differently.

    FileOver       an open file          LayerOver       a read-only tree
    WritableOver   a tree that can be changed

A call with two trees expects both to be views of one kind, or none, as upper and work directory are.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from unionfs.layers.layer import Layer, LayerFile, OriginHandle, Path, ScanEntry, WritableLayer
from unionfs.vfs import FlagsForm, Now, StatFs


def altered(
    st: os.stat_result,
    *,
    uid: int,
    gid: int,
    mode: int | None = None,
    rdev: int | None = None,
    empty: bool = False,
    identity: tuple[int, int, int] | None = None,
) -> os.stat_result:
    """`st` with other ids, and (None: as they are) another mode, device number, and (st_ino, st_dev, st_nlink);
    `empty`: without a size."""
    reduced: Any = st.__reduce__()
    _, (fields, named) = reduced
    if rdev is not None:
        named["st_rdev"] = rdev
    if empty:
        named["st_blocks"] = 0
    size = 0 if empty else fields[6]
    return os.stat_result(
        (fields[0] if mode is None else mode, *(identity or fields[1:4]), uid, gid, size, *fields[7:]), named
    )


class FileOver:
    """Implements `LayerFile` by another one. INVARIANT: `fd` is that one's, which keeps its number until closed."""

    __slots__ = ("fd", "file")

    def __init__(self, file: LayerFile) -> None:
        self.file = file
        self.fd = file.fd

    def stat_when_opened(self) -> os.stat_result:
        return self.file.stat_when_opened()

    def pread(self, size: int, offset: int) -> bytes:
        return self.file.pread(size, offset)

    def fetch(self, size: int, offset: int, check: Callable[[], None]) -> None:
        """Wait for what `pread` will give, where that is still to come (layers.lazy_tar)."""
        fetch = getattr(self.file, "fetch", None)
        if fetch is not None:
            fetch(size, offset, check)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        return self.file.pwrite(data, offset)

    def fstat(self) -> os.stat_result:
        return self.file.fstat()

    def ftruncate(self, size: int) -> None:
        self.file.ftruncate(size)

    def fsync(self, datasync: bool) -> None:
        self.file.fsync(datasync)

    def fallocate(self, mode: int, offset: int, length: int) -> None:
        self.file.fallocate(mode, offset, length)

    def seek_data(self, offset: int) -> int:
        return self.file.seek_data(offset)

    def seek_hole(self, offset: int) -> int:
        return self.file.seek_hole(offset)

    def copy_range(self, source: LayerFile, source_offset: int, offset: int, length: int) -> int:
        return self.file.copy_range(source, source_offset, offset, length)

    def replace(self, other: LayerFile) -> None:
        self.file.replace(other)

    def chmod(self, mode: int) -> None:
        self.file.chmod(mode)

    def chown(self, uid: int, gid: int) -> None:
        self.file.chown(uid, gid)

    def utime(self, atime_ns: int | Now | None, mtime_ns: int | Now | None) -> None:
        self.file.utime(atime_ns, mtime_ns)

    def setxattr(self, name: bytes, value: bytes) -> None:
        self.file.setxattr(name, value)

    def close(self) -> None:
        self.fd = -1
        self.file.close()


class LayerOver:
    """Implements `Layer` by another one, which is closed with it."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self.name = layer.name

    @property
    def root_fd(self) -> int:
        """The descriptor of the root where the storage is a directory, else -1."""
        fd: int = getattr(self._layer, "root_fd", -1)
        return fd

    @property
    def fetches(self) -> bool:
        return getattr(self._layer, "fetches", False)

    @property
    def fetched_bytes(self) -> int:
        return getattr(self._layer, "fetched_bytes", 0)

    def lstat(self, path: Path) -> os.stat_result:
        return self._layer.lstat(path)

    def stat_in(self, path: Path) -> Callable[[bytes], os.stat_result]:
        return self._layer.stat_in(path)

    def scan(self, path: Path) -> list[ScanEntry]:
        return self._layer.scan(path)

    def readlink(self, path: Path) -> bytes:
        return self._layer.readlink(path)

    def getxattr(self, path: Path, name: bytes) -> bytes | None:
        return self._layer.getxattr(path, name)

    def listxattr(self, path: Path) -> list[bytes]:
        return self._layer.listxattr(path)

    def open(self, path: Path, flags: int = os.O_RDONLY) -> LayerFile:
        return self._layer.open(path, flags)

    def handle(self, path: Path) -> OriginHandle | None:
        return self._layer.handle(path)

    def is_implied(self, path: Path) -> bool:
        implied = getattr(self._layer, "is_implied", None)
        return implied is not None and bool(implied(path))

    def statfs(self) -> StatFs:
        return self._layer.statfs()

    def fileattr(self, path: Path, form: FlagsForm) -> bytes:
        get = getattr(self._layer, "fileattr", None)
        if get is None:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        return bytes(get(path, form))

    def limit_dir_fds(self, bound: int) -> None:
        limit = getattr(self._layer, "limit_dir_fds", None)
        if limit is not None:
            limit(bound)

    def invalidate(self) -> None:
        invalidate = getattr(self._layer, "invalidate", None)
        if invalidate is not None:
            invalidate()

    def close(self) -> None:
        self._layer.close()


class WritableOver(LayerOver):
    """Implements `WritableLayer` by another one."""

    def __init__(self, layer: WritableLayer) -> None:
        super().__init__(layer)
        self._tree = layer

    @property
    def new_owner(self) -> tuple[int, int]:
        return self._tree.new_owner

    def create(self, path: Path, mode: int, flags: int = os.O_RDWR) -> LayerFile:
        return self._tree.create(path, mode, flags)

    def tmpfile(self, path: Path, mode: int) -> LayerFile:
        return self._tree.tmpfile(path, mode)

    def mkdir(self, path: Path, mode: int) -> None:
        self._tree.mkdir(path, mode)

    def mknod(self, path: Path, mode: int, rdev: int) -> None:
        self._tree.mknod(path, mode, rdev)

    def symlink(self, path: Path, target: bytes) -> None:
        self._tree.symlink(path, target)

    def link(self, path: Path, to: WritableLayer, to_path: Path) -> None:
        self._tree.link(path, _below(to), to_path)

    def link_file(self, file: LayerFile, path: Path) -> None:
        self._tree.link_file(file, path)

    def unlink(self, path: Path) -> None:
        self._tree.unlink(path)

    def rmdir(self, path: Path) -> None:
        self._tree.rmdir(path)

    def rename(self, path: Path, to: WritableLayer, to_path: Path, flags: int = 0) -> None:
        self._tree.rename(path, _below(to), to_path, flags)

    def chmod(self, path: Path, mode: int) -> None:
        self._tree.chmod(path, mode)

    def chown(self, path: Path, uid: int, gid: int) -> None:
        self._tree.chown(path, uid, gid)

    def utime(self, path: Path, atime_ns: int | Now | None, mtime_ns: int | Now | None) -> None:
        self._tree.utime(path, atime_ns, mtime_ns)

    def truncate(self, path: Path, size: int) -> None:
        self._tree.truncate(path, size)

    def setxattr(self, path: Path, name: bytes, value: bytes, flags: int = 0) -> None:
        self._tree.setxattr(path, name, value, flags)

    def removexattr(self, path: Path, name: bytes) -> None:
        self._tree.removexattr(path, name)

    def set_fileattr(self, path: Path, form: FlagsForm, value: bytes) -> None:
        put = getattr(self._tree, "set_fileattr", None)
        if put is None:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        put(path, form, value)

    def sync(self) -> None:
        self._tree.sync()

    def fsync_dir(self, path: Path) -> Callable[[], None]:
        return self._tree.fsync_dir(path)


def _below(tree: WritableLayer) -> WritableLayer:
    return tree._tree if isinstance(tree, WritableOver) else tree
