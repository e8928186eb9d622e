"""A file system of a few dictionaries, for session tests. It notes each call with its arguments in `calls`."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any

from unionfs import vfs
from unionfs.vfs import Attr, Caller, DirEntry, DirEntryPlus, Entry, OpenResult, SetAttr, StatFs


def fail(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Node:
    def __init__(self, ino: int, mode: int, caller: Caller) -> None:
        self.ino, self.mode, self.uid, self.gid = ino, mode, caller.uid, caller.gid
        self.nlink = 2 if stat.S_ISDIR(mode) else 1
        self.rdev = 0
        self.atime = self.mtime = 1_000
        self.data = bytearray()
        self.target = b""
        self.names: dict[bytes, int] = {}
        self.xattrs: dict[bytes, bytes] = {}
        self.lookups = 0


class MemoryFs:
    """`fds` gives descriptors for the files it opens, by ino; `broken` makes an operation raise."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {1: Node(1, stat.S_IFDIR | 0o755, Caller(0, 0))}
        self.calls: list[tuple[Any, ...]] = []
        self.handles: dict[int, int] = {}
        self.fds: dict[int, int] = {}
        self.broken: dict[str, BaseException] = {}
        self.before: Callable[[str], None] = lambda name: None

    def _note(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, *arguments))
        self.before(name)
        if name in self.broken:
            raise self.broken[name]

    def _node(self, number: int) -> Node:
        try:
            return self.nodes[number]
        except KeyError:
            raise fail(errno.ESTALE) from None

    def record(self, number: int) -> bytes:
        n = self._node(number)
        size = len(n.target) or len(n.data)
        return Attr(n.ino, size, 0, n.atime, n.mtime, 0, n.mode, n.nlink, n.uid, n.gid, n.rdev, 4096).pack()

    def _entry(self, number: int) -> Entry:
        self.nodes[number].lookups += 1
        return Entry(number, self.record(number))

    def _new(self, parent: int, name: bytes, mode: int, caller: Caller) -> int:
        names = self._node(parent).names
        if name in names:
            raise fail(errno.EEXIST)
        number = max(self.nodes) + 1
        self.nodes[number] = Node(number + 1000, (mode & ~0o777) | (mode & 0o777 & ~caller.umask), caller)
        names[name] = number
        return number

    @staticmethod
    def _fits(size: int) -> None:
        if size > 1 << 24:
            raise fail(errno.EFBIG)

    def _handle(self, number: int) -> int:
        fh = max(self.handles, default=100) + 1
        self.handles[fh] = number
        return fh

    # names ------------------------------------------------------------------------------------------------------
    def lookup(self, parent: int, name: bytes) -> Entry:
        self._note("lookup", parent, name)
        try:
            return self._entry(self._node(parent).names[name])
        except KeyError:
            raise fail(errno.ENOENT) from None

    def forget(self, node: int, count: int) -> None:
        self._note("forget", node, count)
        if node in self.nodes:
            self.nodes[node].lookups -= count

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Entry:
        self._note("mknod", parent, name, mode, rdev, caller)
        number = self._new(parent, name, mode, caller)
        self.nodes[number].rdev = rdev
        return self._entry(number)

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Entry:
        self._note("mkdir", parent, name, mode, caller)
        return self._entry(self._new(parent, name, stat.S_IFDIR | mode, caller))

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        self._note("symlink", parent, name, target, caller)
        number = self._new(parent, name, stat.S_IFLNK | 0o777, caller)
        self.nodes[number].target = target
        return self._entry(number)

    def link(self, node: int, parent: int, name: bytes, caller: Caller) -> Entry:
        self._note("link", node, parent, name, caller)
        self._node(parent).names[name] = node
        self.nodes[node].nlink += 1
        return self._entry(node)

    def unlink(self, parent: int, name: bytes) -> None:
        self._note("unlink", parent, name)
        if self._node(parent).names.pop(name, None) is None:
            raise fail(errno.ENOENT)

    def rmdir(self, parent: int, name: bytes) -> None:
        self._note("rmdir", parent, name)
        self.unlink(parent, name)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        self._note("rename", parent, name, new_parent, new_name, flags)
        self._node(new_parent).names[new_name] = self._node(parent).names.pop(name)

    # inodes -----------------------------------------------------------------------------------------------------
    def getattr(self, node: int, fh: int | None = None) -> bytes:
        self._note("getattr", node, fh)
        return self.record(node)

    def setattr(self, node: int, changes: SetAttr, caller: Caller, fh: int | None = None) -> bytes:
        self._note("setattr", node, changes, caller, fh)
        n = self._node(node)
        if changes.mode is not None:
            n.mode = stat.S_IFMT(n.mode) | changes.mode
        if changes.size is not None:
            self._fits(changes.size)
            n.data = n.data[: changes.size].ljust(changes.size, b"\0")
        return self.record(node)

    def readlink(self, node: int) -> bytes:
        self._note("readlink", node)
        return self._node(node).target

    def getxattr(self, node: int, name: bytes) -> bytes:
        self._note("getxattr", node, name)
        try:
            return self._node(node).xattrs[name]
        except KeyError:
            raise fail(errno.ENODATA) from None

    def listxattr(self, node: int) -> list[bytes]:
        self._note("listxattr", node)
        return list(self._node(node).xattrs)

    def setxattr(self, node: int, name: bytes, value: bytes, flags: int) -> None:
        self._note("setxattr", node, name, value, flags)
        self._node(node).xattrs[name] = value

    def removexattr(self, node: int, name: bytes) -> None:
        self._note("removexattr", node, name)
        if self._node(node).xattrs.pop(name, None) is None:
            raise fail(errno.ENODATA)

    def statfs(self, node: int) -> StatFs:
        self._note("statfs", node)
        return StatFs(1, 2, 3, 4, 5, 6, 7, 255)

    # files ------------------------------------------------------------------------------------------------------
    def _opened(self, number: int) -> OpenResult:
        return OpenResult(self._handle(number), self.fds.get(self.nodes[number].ino, -1))

    def open(self, node: int, flags: int) -> OpenResult:
        self._note("open", node, flags)
        self._node(node)
        return self._opened(node)

    def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Entry, OpenResult]:
        self._note("create", parent, name, mode, flags, caller)
        number = self._node(parent).names.get(name) or self._new(parent, name, mode, caller)
        return self._entry(number), self._opened(number)

    def tmpfile(self, parent: int, mode: int, flags: int, caller: Caller) -> tuple[Entry, OpenResult]:
        self._note("tmpfile", parent, mode, flags, caller)
        number = self._new(parent, b"#tmp", mode, caller)
        del self.nodes[parent].names[b"#tmp"]
        return self._entry(number), self._opened(number)

    def read(self, fh: int, offset: int, size: int) -> bytes:
        self._note("read", fh, offset, size)
        return bytes(self._node(self.handles[fh]).data[offset : offset + size])

    def write(self, fh: int, offset: int, data: bytes | memoryview, kill_priv: bool = False) -> int:
        self._note("write", fh, offset, bytes(data), kill_priv)
        self._fits(offset)
        content = self._node(self.handles[fh]).data
        content[len(content) : offset] = bytes(max(offset - len(content), 0))
        content[offset : offset + len(data)] = data
        return len(data)

    def flush(self, fh: int) -> None:
        self._note("flush", fh)

    def release(self, fh: int) -> None:
        self._note("release", fh)
        del self.handles[fh]

    def fsync(self, fh: int, datasync: bool) -> None:
        self._note("fsync", fh, datasync)

    def fallocate(self, fh: int, mode: int, offset: int, length: int) -> None:
        self._note("fallocate", fh, mode, offset, length)

    def lseek(self, fh: int, offset: int, whence: int) -> int:
        self._note("lseek", fh, offset, whence)
        return offset + 1

    def copy_file_range(self, fh_in: int, offset_in: int, fh_out: int, offset_out: int, length: int) -> int:
        self._note("copy_file_range", fh_in, offset_in, fh_out, offset_out, length)
        return 12

    # directories ------------------------------------------------------------------------------------------------
    def opendir(self, node: int) -> int:
        self._note("opendir", node)
        return self._handle(node)

    def _names(self, fh: int, offset: int) -> list[tuple[bytes, int]]:
        node = self.handles[fh]
        return [(b".", node), (b"..", node), *self.nodes[node].names.items()][offset:]

    def readdir(self, fh: int, offset: int, budget: int, overhead: int) -> Sequence[DirEntry]:
        self._note("readdir", fh, offset, budget, overhead)
        return [
            DirEntry(name, self.nodes[node].ino, vfs.d_type(self.nodes[node].mode), offset + i + 1)
            for i, (name, node) in enumerate(self._names(fh, offset))
        ]

    def readdirplus(self, fh: int, offset: int, budget: int, overhead: int) -> Sequence[DirEntryPlus]:
        self._note("readdirplus", fh, offset, budget, overhead)
        return [
            DirEntryPlus(
                name, 0 if name in (b".", b"..") else self._entry(node).node, self.record(node), offset + i + 1
            )
            for i, (name, node) in enumerate(self._names(fh, offset))
        ]

    def releasedir(self, fh: int) -> None:
        self._note("releasedir", fh)
        del self.handles[fh]

    def fsyncdir(self, fh: int, datasync: bool) -> None:
        self._note("fsyncdir", fh, datasync)

    def syncfs(self) -> None:
        self._note("syncfs")

    def statistics(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self._note("close")
