"""What a layer is: one tree, read by path, and (an upper) changed by path.

A path is `bytes` relative to the layer's root: b"" is the root, b"etc/passwd" a file; no empty components, no "."
or "..", no leading slash. Resolution never follows a symbolic link, in no component, and never leaves the tree.
A path may be longer than PATH_MAX.

Every failure is an `OSError`: ENOENT, ENOTDIR (a parent is no directory), and whatever the storage says. These
protocols know nothing of whiteouts, stacking or inode numbers of the union: they show what is stored, literally.

Calls are not synchronised; the user of a layer serialises them. Open files (`LayerFile`) may be used from any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

from unionfs.vfs import Now, StatFs

Path = bytes


class ScanEntry(NamedTuple):
    """One stored directory entry: name, DT_* type (DT_UNKNOWN never: resolved where the storage says it), inode."""

    name: bytes
    type: int
    ino: int


class OriginHandle(NamedTuple):
    """A file handle as name_to_handle_at(2) gives it, with the UUID of its file system (16 bytes, or zeros)."""

    type: int
    handle: bytes
    uuid: bytes


class Changeable(Protocol):
    """An object whose attributes can be changed: an open file of a writable layer, or a `PathIn` one."""

    def chmod(self, mode: int) -> None: ...
    def chown(self, uid: int, gid: int) -> None:
        """-1 leaves an id as it is."""
        ...

    def utime(self, atime_ns: int | Now | None, mtime_ns: int | Now | None) -> None:
        """None leaves a time as it is (UTIME_OMIT)."""
        ...

    def setxattr(self, name: bytes, value: bytes) -> None: ...


class LayerFile(Changeable, Protocol):
    """An open regular file of a layer. `fd` is its descriptor, or -1 where the storage has none. Attributes can be
    changed in a writable layer, however the file was opened.

    One without a descriptor of its own may have `extent(offset)`: where what is at `offset` lies now, as (a descriptor,
    the offset there, how many bytes from there on belong to the file), or None where that is in no descriptor; and
    `in_one_piece`: those bytes go on to the file's end."""

    fd: int

    def pread(self, size: int, offset: int) -> bytes: ...
    def pwrite(self, data: bytes | memoryview, offset: int) -> int: ...
    def fstat(self) -> os.stat_result: ...
    def stat_when_opened(self) -> os.stat_result:
        """`fstat` of a file that does not change: it may have been asked long ago."""
        ...

    def ftruncate(self, size: int) -> None: ...
    def fsync(self, datasync: bool) -> None: ...
    def fallocate(self, mode: int, offset: int, length: int) -> None: ...
    def seek_data(self, offset: int) -> int:
        """SEEK_DATA: ENXIO past the last data."""
        ...

    def seek_hole(self, offset: int) -> int: ...
    def copy_range(self, source: LayerFile, source_offset: int, offset: int, length: int) -> int:
        """Copy up to `length` bytes from `source`; the count may be short; 0 at its end."""
        ...

    def replace(self, other: LayerFile) -> None:
        """From now on be the file that `other` is, in place and atomically for concurrent readers."""
        ...

    def close(self) -> None: ...


class Layer(Protocol):
    """A read-only tree. `name` is what people called it (a path, an image layer).

    What some have besides:

        records(path, base)    the attributes of all that a directory holds, as vfs.ATTR_RECORD by name, with `base` (a
                               multiple of 2^48) added to the inode numbers; or None
        is_implied(path)       the layer has something in this directory, but no description of it: its attributes are
                               those that the layers below have, if they do
        stat_handle(handle)    what a handle says of its object, from who makes its handles itself
        fetches                True: files may have `fetch(size, offset, check)`, which waits until what `pread` would
                               give has come from a network, and asks `check` meanwhile, which raises to end that;
                               `fetched_bytes` counts what came
    """

    name: str

    def lstat(self, path: Path) -> os.stat_result: ...
    def stat_in(self, path: Path) -> Callable[[bytes], os.stat_result]:
        """`lstat` for the names in one directory, faster for many. Good until the next other call on the layer."""
        ...

    def scan(self, path: Path) -> list[ScanEntry]:
        """The stored entries of a directory, without "." and "..", in no particular order."""
        ...

    def readlink(self, path: Path) -> bytes: ...
    def getxattr(self, path: Path, name: bytes) -> bytes | None:
        """The value, or None where the attribute or the whole namespace is not there."""
        ...

    def listxattr(self, path: Path) -> list[bytes]: ...
    def open(self, path: Path, flags: int = os.O_RDONLY) -> LayerFile: ...
    def handle(self, path: Path) -> OriginHandle | None:
        """A persistent handle on the object itself, or None where the storage has none."""
        ...

    def statfs(self) -> StatFs: ...
    def close(self) -> None: ...


class WritableLayer(Layer, Protocol):
    """A tree that can be changed: the upper, and the work directory beside it.

    No call follows a symbolic link. Owners and modes are exactly as given (the process umask is taken as 0).
    """

    @property
    def new_owner(self) -> tuple[int, int]:
        """(uid, gid) of what is made, until it is given another; -1 for one that has to be given in any case."""
        ...

    def create(self, path: Path, mode: int, flags: int = os.O_RDWR) -> LayerFile:
        """O_CREAT | O_EXCL."""
        ...

    def tmpfile(self, path: Path, mode: int) -> LayerFile:
        """O_TMPFILE in the directory `path`; EOPNOTSUPP where the storage has none."""
        ...

    def mkdir(self, path: Path, mode: int) -> None: ...
    def mknod(self, path: Path, mode: int, rdev: int) -> None: ...
    def symlink(self, path: Path, target: bytes) -> None: ...
    def link(self, path: Path, to: WritableLayer, to_path: Path) -> None: ...
    def link_file(self, file: LayerFile, path: Path) -> None:
        """Give an open (O_TMPFILE) file a name."""
        ...

    def unlink(self, path: Path) -> None: ...
    def rmdir(self, path: Path) -> None: ...
    def rename(self, path: Path, to: WritableLayer, to_path: Path, flags: int = 0) -> None:
        """renameat2(2) into `to`, which is this layer or another on the same file system."""
        ...

    def chmod(self, path: Path, mode: int) -> None: ...
    def chown(self, path: Path, uid: int, gid: int) -> None:
        """-1 leaves an id as it is."""
        ...

    def utime(self, path: Path, atime_ns: int | Now | None, mtime_ns: int | Now | None) -> None:
        """None leaves a time as it is (UTIME_OMIT)."""
        ...

    def truncate(self, path: Path, size: int) -> None: ...
    def setxattr(self, path: Path, name: bytes, value: bytes, flags: int = 0) -> None: ...
    def removexattr(self, path: Path, name: bytes) -> None: ...
    def sync(self) -> None:
        """syncfs(2) of the file system that holds the tree."""
        ...

    def fsync_dir(self, path: Path) -> Callable[[], None]:
        """Opens the directory; the result, to be called once, flushes it, beside any other call on the layer."""
        ...


class PathIn(NamedTuple):
    """`Changeable` by name."""

    tree: WritableLayer
    path: Path

    def chmod(self, mode: int) -> None:
        self.tree.chmod(self.path, mode)

    def chown(self, uid: int, gid: int) -> None:
        self.tree.chown(self.path, uid, gid)

    def utime(self, atime_ns: int | Now | None, mtime_ns: int | Now | None) -> None:
        self.tree.utime(self.path, atime_ns, mtime_ns)

    def setxattr(self, name: bytes, value: bytes) -> None:
        self.tree.setxattr(self.path, name, value)
