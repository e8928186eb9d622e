"""A file system in memory: what `MemoryLayer` stands on. No descriptor, no system call, no name longer than 255 bytes.

    MemoryDisk      the whole: a device number, a UUID for handles, a clock, what it can hold
    MemoryInode     one object: attributes, xattrs, and its entries, target or data
    MemoryFile      an open regular file

Data is kept in pages of 4 KiB; one that was never written is a hole. Everybody is root here: nothing is refused for
want of permission. There are no ACLs (`system.` attributes are EOPNOTSUPP), and reading leaves no trace (noatime).

A disk is for one thread at a time, but for the data of open files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any, Final, NoReturn, cast

from unionfs.layers.layer import LayerFile
from unionfs.vfs import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    NOW,
    O_ACCMODE,
    XATTR_CREATE,
    XATTR_REPLACE,
    Now,
)

#: Nanoseconds since the epoch.
Clock = Callable[[], int]

PAGE: Final = 4096
NAME_MAX: Final = 255
_READABLE, _WRITABLE = 1, 2
_ACCESS: Final = {os.O_RDONLY: _READABLE, os.O_WRONLY: _WRITABLE, os.O_RDWR: _READABLE | _WRITABLE}
#: include/uapi/linux/limits.h
_XATTR_NAME_MAX, _XATTR_SIZE_MAX = 255, 65536
_CAPABILITY: Final = b"security.capability"
_NO_DATA: Final = getattr(errno, "ENODATA", errno.ENOENT)


def fail(number: int, path: bytes | None = None) -> NoReturn:
    raise OSError(number, os.strerror(number), path)


class MemoryStat(tuple[int, ...]):
    """What `os.stat_result` is, with all the fields of Linux on every system."""

    def __new__(cls, fields: tuple[int, ...], **named: int) -> MemoryStat:
        return super().__new__(cls, fields)

    def __init__(self, fields: tuple[int, ...], **named: int) -> None:
        names = ("mode", "ino", "dev", "nlink", "uid", "gid", "size", "atime", "mtime", "ctime")
        self.__dict__.update({f"st_{name}": value for name, value in zip(names, fields, strict=True)}, **named)


class MemoryInode:
    """One stored object. `entries` of a directory, in the order they were made; `target` of a symbolic link; `pages`
    and `size` of a regular file. `links`: names of anything but a directory."""

    __slots__ = (
        "atime", "ctime", "entries", "gid", "links", "mode", "mtime", "number", "pages", "rdev", "size", "target",
        "uid", "xattrs",
    )  # fmt: skip

    def __init__(self, number: int, mode: int, owner: tuple[int, int], now: int) -> None:
        self.number = number
        self.mode = mode
        self.uid, self.gid = owner
        self.rdev = 0
        self.links = 0
        self.size = 0
        self.atime = self.mtime = self.ctime = now
        self.entries: dict[bytes, MemoryInode] = {}
        self.pages: dict[int, bytearray] = {}
        self.target = b""
        self.xattrs: dict[bytes, bytes] = {}

    @property
    def kind(self) -> int:
        return stat.S_IFMT(self.mode)

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def nlink(self) -> int:
        """Of a directory: its name, its "." and the ".." of each directory in it."""
        return 2 + sum(entry.is_dir for entry in self.entries.values()) if self.is_dir else self.links

    def changed(self, now: int) -> None:
        """Its names, data or entries changed."""
        self.mtime = self.ctime = now


class MemoryDisk:
    """`owner`: (uid, gid) of what is made. `xattrs`, `devices`: whether the file system holds these; without, a union
    writes AUFS names. `clock`: its idea of now."""

    def __init__(
        self,
        clock: Clock,
        device: int = 1,
        *,
        owner: tuple[int, int] = (0, 0),
        xattrs: bool = True,
        devices: bool = True,
    ) -> None:
        self.clock = clock
        self.device = device
        self.owner = owner
        self.xattrs = xattrs
        self.devices = devices
        self.inodes: dict[int, MemoryInode] = {}

    @property
    def uuid(self) -> bytes:
        """In handles: no other disk has the same, as long as no other has the device number."""
        return b"unionfs-mem" + self.device.to_bytes(5, "big")

    def make(self, mode: int) -> MemoryInode:
        """A new object with no name yet. Numbers are never used again."""
        inode = MemoryInode(len(self.inodes) + 1, mode, self.owner, self.clock())
        self.inodes[inode.number] = inode
        return inode

    def nlink(self, inode: MemoryInode) -> int:
        return inode.nlink

    def stat(self, inode: MemoryInode) -> os.stat_result:
        size = len(inode.target) if stat.S_ISLNK(inode.mode) else inode.size
        times = (inode.atime, inode.mtime, inode.ctime)
        named: dict[str, Any] = {"st_blksize": PAGE, "st_blocks": len(inode.pages) * PAGE // 512}
        named["st_rdev"] = inode.rdev
        for name, ns in zip(("st_atime_ns", "st_mtime_ns", "st_ctime_ns"), times, strict=True):
            named[name] = ns
        whole = tuple(ns // 1_000_000_000 for ns in times)
        head = (inode.mode, inode.number, self.device, self.nlink(inode), inode.uid, inode.gid, size)
        return cast(os.stat_result, MemoryStat(head + whole, **named))

    # attributes -------------------------------------------------------------------------------------------------
    def chmod(self, inode: MemoryInode, mode: int) -> None:
        """EOPNOTSUPP for a symbolic link."""
        if stat.S_ISLNK(inode.mode):
            fail(errno.EOPNOTSUPP)
        inode.mode = inode.kind | stat.S_IMODE(mode)
        inode.ctime = self.clock()

    def chown(self, inode: MemoryInode, uid: int, gid: int) -> None:
        """Takes set-ID bits and capabilities of all but directories away (chown_common() of fs/open.c)."""
        if uid != -1:
            inode.uid = uid
        if gid != -1:
            inode.gid = gid
        if not inode.is_dir:
            inode.mode &= ~stat.S_ISUID
            if inode.mode & stat.S_IXGRP:
                inode.mode &= ~stat.S_ISGID
            inode.xattrs.pop(_CAPABILITY, None)
        inode.ctime = self.clock()

    def utime(self, inode: MemoryInode, atime_ns: int | Now | None, mtime_ns: int | Now | None) -> None:
        now = self.clock()
        if atime_ns is not None:
            inode.atime = now if atime_ns is NOW else cast(int, atime_ns)
        if mtime_ns is not None:
            inode.mtime = now if mtime_ns is NOW else cast(int, mtime_ns)
        if atime_ns is not None or mtime_ns is not None:
            inode.ctime = now

    def setxattr(self, inode: MemoryInode, name: bytes, value: bytes, flags: int = 0) -> None:
        self._check_namespace(inode, name)
        if len(value) > _XATTR_SIZE_MAX:
            fail(errno.E2BIG)
        if flags & XATTR_CREATE and name in inode.xattrs:
            fail(errno.EEXIST)
        if flags & XATTR_REPLACE and name not in inode.xattrs:
            fail(_NO_DATA)
        inode.xattrs[name] = bytes(value)
        inode.ctime = self.clock()

    def removexattr(self, inode: MemoryInode, name: bytes) -> None:
        self._check_namespace(inode, name)
        if name not in inode.xattrs:
            fail(_NO_DATA)
        del inode.xattrs[name]
        inode.ctime = self.clock()

    def _check_namespace(self, inode: MemoryInode, name: bytes) -> None:
        """What xattr_permission() of fs/xattr.c says to root, for a file system without ACLs."""
        if len(name) > _XATTR_NAME_MAX:
            fail(errno.ERANGE)
        if not self.xattrs or not name.startswith((b"trusted.", b"user.", b"security.")):
            fail(errno.EOPNOTSUPP)
        if name.startswith(b"user.") and inode.kind not in (stat.S_IFREG, stat.S_IFDIR):
            fail(errno.EPERM)


class MemoryFile:
    """Implements `LayerFile`. Reading what was opened for writing only, and the reverse, is EBADF."""

    __slots__ = ("_access", "_disk", "fd", "inode")

    def __init__(self, disk: MemoryDisk, inode: MemoryInode, flags: int) -> None:
        self.fd = -1
        self.inode = inode
        self._disk = disk
        self._access = _ACCESS[flags & O_ACCMODE]

    def pread(self, size: int, offset: int) -> bytes:
        self._check(_READABLE)
        inode = self.inode
        end = min(offset + size, inode.size)
        data = bytearray(max(0, end - offset))
        for number in range(offset // PAGE, -(-end // PAGE)):
            page = inode.pages.get(number)
            if page is not None:
                start, stop = max(offset, number * PAGE), min(end, (number + 1) * PAGE)
                data[start - offset : stop - offset] = page[start - number * PAGE : stop - number * PAGE]
        return bytes(data)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        self._check(_WRITABLE)
        if len(data):
            self._store(bytes(data), offset)
            self.inode.size = max(self.inode.size, offset + len(data))
            self._written()
        return len(data)

    def fstat(self) -> os.stat_result:
        return self._disk.stat(self.inode)

    def stat_when_opened(self) -> os.stat_result:
        return self.fstat()

    def ftruncate(self, size: int) -> None:
        self._check(_WRITABLE)
        self._zero(size, self.inode.size)
        self.inode.size = size
        self._written()

    def fsync(self, datasync: bool) -> None:
        """There is nothing that memory could be flushed to."""

    def fallocate(self, mode: int, offset: int, length: int) -> None:
        self._check(_WRITABLE)
        if length <= 0 or offset < 0:
            fail(errno.EINVAL)
        if mode not in (0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) and (
            mode & ~FALLOC_FL_KEEP_SIZE != FALLOC_FL_ZERO_RANGE
        ):
            fail(errno.EOPNOTSUPP)
        end = offset + length
        if mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE):
            self._zero(offset, min(end, self.inode.size))
        if not mode & FALLOC_FL_KEEP_SIZE:
            self.inode.size = max(self.inode.size, end)
        self._written()

    def seek_data(self, offset: int) -> int:
        """A page that was written is data, whatever is in it."""
        if not 0 <= offset < self.inode.size:
            fail(errno.ENXIO)
        found = [number for number in self.inode.pages if number >= offset // PAGE]
        if not found:
            fail(errno.ENXIO)
        return max(offset, min(found) * PAGE)

    def seek_hole(self, offset: int) -> int:
        """The end of the file is one."""
        if not 0 <= offset < self.inode.size:
            fail(errno.ENXIO)
        number = offset // PAGE
        while number in self.inode.pages:
            number += 1
        return min(max(offset, number * PAGE), self.inode.size)

    def copy_range(self, source: LayerFile, source_offset: int, offset: int, length: int) -> int:
        data = source.pread(length, source_offset)
        return self.pwrite(data, offset)

    def replace(self, other: LayerFile) -> None:
        """EBADF where the other is no file in memory."""
        if not isinstance(other, MemoryFile):
            fail(errno.EBADF)
        self._disk, self.inode = other._disk, other.inode

    def chmod(self, mode: int) -> None:
        self._disk.chmod(self.inode, mode)

    def chown(self, uid: int, gid: int) -> None:
        self._disk.chown(self.inode, uid, gid)

    def utime(self, atime_ns: int | Now | None, mtime_ns: int | Now | None) -> None:
        self._disk.utime(self.inode, atime_ns, mtime_ns)

    def setxattr(self, name: bytes, value: bytes) -> None:
        self._disk.setxattr(self.inode, name, value)

    def close(self) -> None:
        """Idempotent. Reading or writing after it is EBADF."""
        self._access = 0

    def _check(self, access: int) -> None:
        if not self._access & access:
            fail(errno.EBADF)

    def _written(self) -> None:
        self.inode.changed(self._disk.clock())
        self.inode.xattrs.pop(_CAPABILITY, None)  # security_inode_killpriv(), whoever writes

    def _store(self, data: bytes, offset: int) -> None:
        end, pages = offset + len(data), self.inode.pages
        for number in range(offset // PAGE, -(-end // PAGE)):
            start, stop = max(offset, number * PAGE), min(end, (number + 1) * PAGE)
            page = pages.get(number)
            if page is None:
                page = pages[number] = bytearray(PAGE)
            page[start - number * PAGE : stop - number * PAGE] = data[start - offset : stop - offset]

    def _zero(self, offset: int, end: int) -> None:
        """Make a hole of [offset, end): whole pages go, parts are zeroed. Nothing if that is empty."""
        first, last = offset // PAGE, (end - 1) // PAGE
        for number in [number for number in self.inode.pages if first <= number <= last and offset < end]:
            start, stop = max(offset, number * PAGE), min(end, (number + 1) * PAGE)
            if start == number * PAGE and stop in ((number + 1) * PAGE, self.inode.size):
                del self.inode.pages[number]
            else:
                self.inode.pages[number][start - number * PAGE : stop - number * PAGE] = bytes(stop - start)
