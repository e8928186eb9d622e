"""The vocabulary that engine and transports share: attributes, entries, callers, and `Filesystem`.

Nothing here behaves. A `Filesystem` is addressed by `NodeId`, the handle its user (a transport, the path API)
holds on an inode; `st_ino`, the number people see, is a field of the attributes and quite another thing.

Names, link targets, paths and xattr names are `bytes`; times are integer nanoseconds since the epoch.

*Attribute records.* Attributes travel as `bytes` of 88 octets, little-endian, in the order of `ATTR_RECORD`
below, so that an attribute cached once can be handed out any number of times with no object built for it.
`Attr.unpack(record)` gives the readable form. (The layout is that of the Linux FUSE `struct fuse_attr`, whose
transport may copy it verbatim; nothing else follows from that.)
"""

from __future__ import annotations

import os
import stat as _stat
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

NodeId = int
FileHandle = int
AttrRecord = bytes

ROOT: Final[NodeId] = 1

#: ino size blocks | atime mtime ctime (s) | atime mtime ctime (ns part) | mode nlink uid gid rdev blksize flags
ATTR_RECORD: Final = struct.Struct("<QQQqqqIIIIIIIIII")

DT_UNKNOWN, DT_FIFO, DT_CHR, DT_DIR, DT_BLK, DT_REG, DT_LNK, DT_SOCK, DT_WHT = 0, 1, 2, 4, 6, 8, 10, 12, 14
#: What people call them.
TYPES: Final = {1: "fifo", 2: "char", 4: "dir", 6: "block", 8: "file", 10: "symlink", 12: "socket", 14: "whiteout"}

# renameat2(2)
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4

# open(2)'s access mode, and lseek(2)'s whence: Python has them only where the system does
O_ACCMODE: Final = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
SEEK_DATA: Final[int] = getattr(os, "SEEK_DATA", 3)
SEEK_HOLE: Final[int] = getattr(os, "SEEK_HOLE", 4)

# fallocate(2)
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_COLLAPSE_RANGE = 0x01, 0x02, 0x08
FALLOC_FL_ZERO_RANGE, FALLOC_FL_INSERT_RANGE = 0x10, 0x20

# setxattr(2)
XATTR_CREATE, XATTR_REPLACE = 1, 2


_pack_record = ATTR_RECORD.pack
#: (ino,) and (size,) of an attribute record, without building the whole.
record_ino: Final = struct.Struct("<Q").unpack_from
record_size: Final = struct.Struct("<8xQ").unpack_from


def d_type(mode: int) -> int:
    """The `DT_*` of a mode (dirent's d_type; IFTODT of <dirent.h>)."""
    return (mode & 0o170000) >> 12


class Attr(NamedTuple):
    """struct stat, without st_dev (one for the whole mount). Sizes in bytes, `blocks` in 512-byte units."""

    ino: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    blksize: int

    @classmethod
    def unpack(cls, record: AttrRecord) -> Attr:
        (ino, size, blocks, at, mt, ct, atn, mtn, ctn, mode, nlink, uid, gid, rdev, blksize, _) = ATTR_RECORD.unpack(
            record
        )
        ns = 1_000_000_000
        return cls(ino, size, blocks, at * ns + atn, mt * ns + mtn, ct * ns + ctn, mode, nlink, uid, gid, rdev, blksize)

    def pack(self) -> AttrRecord:
        at, atn = divmod(self.atime_ns, 1_000_000_000)
        mt, mtn = divmod(self.mtime_ns, 1_000_000_000)
        ct, ctn = divmod(self.ctime_ns, 1_000_000_000)
        return ATTR_RECORD.pack(
            self.ino, self.size, self.blocks, at, mt, ct, atn, mtn, ctn,
            self.mode, self.nlink, self.uid, self.gid, self.rdev, self.blksize, 0,
        )  # fmt: skip

    @classmethod
    def from_stat(cls, st: os.stat_result) -> Attr:
        return cls(
            st.st_ino, st.st_size, st.st_blocks, st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns,
            st.st_mode, st.st_nlink, st.st_uid, st.st_gid, st.st_rdev, st.st_blksize,
        )  # fmt: skip

    @property
    def is_dir(self) -> bool:
        return _stat.S_ISDIR(self.mode)


def pack_stat(st: os.stat_result, ino: int, nlink: int) -> AttrRecord:
    """The attribute record of a stat result, shown under `ino` and `nlink` in place of its own. The hot path."""
    # The times of the tuple are whole seconds, rounded towards minus infinity as the ns properties are.
    mode, _, _, _, uid, gid, size, atime, mtime, ctime = st
    return _pack_record(
        ino, size, st.st_blocks, atime, mtime, ctime,
        st.st_atime_ns % 1_000_000_000, st.st_mtime_ns % 1_000_000_000, st.st_ctime_ns % 1_000_000_000,
        mode, nlink, uid, gid, st.st_rdev & 0xFFFFFFFF, st.st_blksize, 0,
    )  # fmt: skip


class Now:
    """The type of `NOW`: set a time to the file system's own current time (UTIME_NOW)."""

    __slots__ = ()


NOW: Final = Now()


class FlagsForm(NamedTuple):
    """One of the two forms in which ioctl(2) hands over an inode's flags (chattr(1)); either is bytes of `size`, that
    begin with the flags. `get` and `set` are the ioctls' numbers, `protecting` the flags for append-only and immutable.
    """

    get: int
    set: int
    size: int
    protecting: int

    @staticmethod
    def flags(value: bytes) -> int:
        return int.from_bytes(value[:4], sys.byteorder)

    @staticmethod
    def with_flags(value: bytes, flags: int) -> bytes:
        return flags.to_bytes(4, sys.byteorder) + value[4:]


#: FS_IOC_GETFLAGS and FS_IOC_SETFLAGS: an int, FS_…_FL.
SHORT_FLAGS: Final = FlagsForm(0x80086601, 0x40086602, 4, 0x20 | 0x10)
#: FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR: struct fsxattr, FS_XFLAG_….
LONG_FLAGS: Final = FlagsForm(0x801C581F, 0x401C5820, 28, 0x10 | 0x08)


class SetAttr(NamedTuple):
    """What `setattr` changes; None leaves a field as it is (UTIME_OMIT for the times).

    `kill_priv`: the caller asks that set-user-ID, set-group-ID and file capabilities go, as after a write by an
    unprivileged process (FUSE_HANDLE_KILLPRIV_V2; the kernel itself sends the new mode where that is not agreed).
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | Now | None = None
    mtime_ns: int | Now | None = None
    kill_priv: bool = False


class Caller(NamedTuple):
    """Who asks: owner of what the call creates. `mode` arguments arrive unmasked; `umask` is applied by the file
    system unless the parent has a default ACL (acl(5), OBJECT CREATION AND DEFAULT ACLs)."""

    uid: int
    gid: int
    pid: int = 0
    umask: int = 0


class Entry(NamedTuple):
    """A looked-up name. Each `Entry` handed out adds one to the node's lookup count, to be given back by `forget`."""

    node: NodeId
    attr: AttrRecord


class DirEntry(NamedTuple):
    """One directory entry. `cookie` is the offset at which reading continues after it."""

    name: bytes
    ino: int
    type: int
    cookie: int


class DirEntryPlus(NamedTuple):
    """A directory entry with its attributes. `node` is 0 for "." and "..", for which no lookup is counted."""

    name: bytes
    node: NodeId
    attr: AttrRecord
    cookie: int


#: See OpenResult.
Extent = Callable[[int], "tuple[int, int, int] | None"]


class OpenResult(NamedTuple):
    """An open file.

    `fh` names it in later calls. `fd` is the descriptor of the file that holds the data, or -1; it belongs to the
    file system and is valid until `release`, and at copy-up it may come to mean another file. `size` is that of the
    data in bytes as attributes have it, or -1 where it may change without notice, or a read is to be seen by its
    access time.

    `extent`, where `fd` is -1 and the data lies in one piece of a larger file: called with an offset, says where that
    is now: (descriptor, offset there, bytes from there to the file's end), or None for nowhere. To be asked anew for
    each read; from any thread, until `release`.
    """

    fh: FileHandle
    fd: int = -1
    size: int = -1
    extent: Extent | None = None


class StatFs(NamedTuple):
    """statvfs(3). Counts are in units of `frsize`."""

    bsize: int
    frsize: int
    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    namemax: int


class Notifier(Protocol):
    """A transport's way to make the kernel drop what it caches. Both say whether it had anything to drop; OSError where
    it cannot be told (ENODEV after the unmount).

    They may wait for an operation in progress: never call them from within one, nor with a lock held that one takes.
    """

    def inval_inode(self, node: NodeId, offset: int = 0, length: int = 0) -> bool:
        """The attributes of an inode, and its data or listing from `offset` on (`length` 0: to the end; `offset` < 0:
        neither)."""
        ...

    def inval_entry(self, parent: NodeId, name: bytes) -> bool:
        """What `name` in `parent` leads to, or that it leads to nothing."""
        ...


class Gate(Protocol):
    """A transport's way to hold changes: while it is shut, whatever would change the file system waits, and reads go
    on. None of this may be called by a thread that answers requests; one thread at a time works the gate.
    """

    #: st_dev of the mount, (major, minor).
    device: tuple[int, int]
    #: The kernel has been let write a file by itself: it, or who maps it, needs no request for that.
    bypassed: bool

    def shut(self, seconds: float) -> None:
        """From the return on nothing is changed, and what was being changed is done. TimeoutError where that took
        longer: then the gate is open again."""
        ...

    def open(self) -> None:
        """What waits goes on, in the order in which it came. Idempotent."""
        ...

    def waiting(self) -> frozenset[int]:
        """The threads whose operations wait at the gate. Those among them that are to die, or to handle a signal, are
        sent away with EINTR by this call."""
        ...

    def bypasses(self, node: NodeId) -> bool:
        """Does the kernel write this open file by itself?"""
        ...

    def flush(self, node: NodeId) -> None:
        """Have what was written through mappings of a file, and is only in the kernel's cache, come as writes now. Only
        while the gate is open."""
        ...


class Asked(NamedTuple):
    """A request, as a transport tells a `Watcher` of it.

    `op`: the FUSE opcode in lower case, without a number ("rename2" is rename, too). `node`: what it is about, or the
    directory of `name`; 0 where the transport speaks paths, and `path` then is that of the object itself. `to` and
    `to_name`, or `to_path`: where a rename or link leads. `attribute`: the name of an xattr. `data`: what is written,
    an xattr's value, a link's target; a view is good until the answer. `fields`: the other arguments, by the names that
    the methods of `Filesystem` have for them; of times -1 is now.
    """

    op: str
    node: NodeId = 0
    name: bytes | None = None
    to: NodeId = 0
    to_name: bytes | None = None
    path: bytes | None = None
    to_path: bytes | None = None
    attribute: bytes | None = None
    caller: Caller | None = None
    fields: Mapping[str, int] = MappingProxyType({})
    data: bytes | memoryview = b""


class Answered(NamedTuple):
    """What came of a request. `errno`: 0 where it succeeded. `node`: that was looked up or made. `fh`: that was opened.
    `way`: of an open file, passthrough (the kernel reads and writes by itself), cached or direct. `amount`: bytes read,
    written or copied, or entries listed. `data`: a link's target or an xattr's value."""

    errno: int = 0
    node: NodeId = 0
    fh: FileHandle | None = None
    way: str | None = None
    amount: int | None = None
    data: bytes = b""


class Watcher(Protocol):
    """Somebody who is told of every request while it is answered. Neither method fails, nor waits for anybody.

    Both are called by the thread that answers, `asked` before and `answered` after; with None where another thread is
    to ask once more."""

    def asked(self, asked: Asked) -> object: ...

    def answered(self, token: object, answered: Answered | None) -> None:
        """`token`: what `asked` gave."""
        ...


class Filesystem(Protocol):
    """One method per operation. Every failure is an `OSError` with an errno; nothing else may come out.

    Concurrency: all methods may be called from several threads at once. Operations on names are atomic with respect
    to each other; `read`, `write`, `fsync` and the data of a copy-up run beside them.

    A `NodeId` stays valid until its lookup count, raised by each `Entry` or `DirEntryPlus`, has been forgotten. Open
    handles keep the inode alive by themselves.

    A file system may offer more; a transport uses of it what it can:

        cancellation(asked)            from now on in this thread, `asked()` says whether the caller of an operation has
                                       given up; None: nobody can tell. An operation that takes long asks now and then,
                                       and may fail with EINTR for it, having changed nothing
        attach(notifier, statistics, gate, watch)   called once before the first operation, with a `Notifier`, a
                                       function that returns the transport's own counters, by name, a `Gate`, None where
                                       the transport has none, and a function that has a `Watcher` told of every
                                       request, or with None nobody; and at the end with None, the function, None, None
    """

    # names ------------------------------------------------------------------------------------------------------
    def lookup(self, parent: NodeId, name: bytes) -> Entry:
        """ENOENT where there is no such name, ENOTDIR where `parent` is no directory, ENAMETOOLONG over 255 bytes.
        "." is the node itself, of any type, and ".." the directory above one: for file handles. ESTALE: not known."""
        ...

    def forget(self, node: NodeId, count: int) -> None:
        """Give back `count` lookups. Never fails; unknown nodes are ignored."""
        ...

    def mknod(self, parent: NodeId, name: bytes, mode: int, rdev: int, caller: Caller) -> Entry:
        """Make a regular file, fifo, socket or device; `mode` has the S_IFMT bits. A char device 0:0 is EPERM."""
        ...

    def mkdir(self, parent: NodeId, name: bytes, mode: int, caller: Caller) -> Entry: ...

    def symlink(self, parent: NodeId, name: bytes, target: bytes, caller: Caller) -> Entry: ...

    def link(self, node: NodeId, parent: NodeId, name: bytes, caller: Caller) -> Entry: ...

    def unlink(self, parent: NodeId, name: bytes) -> None: ...

    def rmdir(self, parent: NodeId, name: bytes) -> None: ...

    def rename(self, parent: NodeId, name: bytes, new_parent: NodeId, new_name: bytes, flags: int) -> None:
        """renameat2(2): flags are RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT. Never EXDEV."""
        ...

    # inodes -----------------------------------------------------------------------------------------------------
    def getattr(self, node: NodeId, fh: FileHandle | None = None) -> AttrRecord: ...

    def setattr(self, node: NodeId, changes: SetAttr, caller: Caller, fh: FileHandle | None = None) -> AttrRecord: ...

    def readlink(self, node: NodeId) -> bytes: ...

    def getxattr(self, node: NodeId, name: bytes) -> bytes:
        """ENODATA where the attribute does not exist, EOPNOTSUPP where its namespace does not."""
        ...

    def listxattr(self, node: NodeId) -> list[bytes]: ...

    def setxattr(self, node: NodeId, name: bytes, value: bytes, flags: int) -> None: ...

    def removexattr(self, node: NodeId, name: bytes) -> None: ...

    def statfs(self, node: NodeId) -> StatFs: ...

    # files ------------------------------------------------------------------------------------------------------
    def open(self, node: NodeId, flags: int) -> OpenResult:
        """`flags` are open(2)'s access mode and O_TRUNC; others are ignored."""
        ...

    def create(self, parent: NodeId, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Entry, OpenResult]:
        """Create and open. An existing name is EEXIST with O_EXCL, else opened (the kernel's race with another
        client)."""
        ...

    def tmpfile(self, parent: NodeId, mode: int, flags: int, caller: Caller) -> tuple[Entry, OpenResult]:
        """O_TMPFILE in `parent`: an inode with no name; `link` gives it one unless opened with O_EXCL."""
        ...

    def read(self, fh: FileHandle, offset: int, size: int) -> bytes: ...

    def write(self, fh: FileHandle, offset: int, data: bytes | memoryview, kill_priv: bool = False) -> int: ...

    def flush(self, fh: FileHandle) -> None:
        """close(2) of one descriptor: report what writing back would fail with."""
        ...

    def release(self, fh: FileHandle) -> None: ...

    def fsync(self, fh: FileHandle, datasync: bool) -> None: ...

    def fallocate(self, fh: FileHandle, mode: int, offset: int, length: int) -> None: ...

    def lseek(self, fh: FileHandle, offset: int, whence: int) -> int:
        """SEEK_HOLE and SEEK_DATA only."""
        ...

    def copy_file_range(
        self, fh_in: FileHandle, offset_in: int, fh_out: FileHandle, offset_out: int, length: int
    ) -> int: ...

    # directories ------------------------------------------------------------------------------------------------
    def opendir(self, node: NodeId) -> FileHandle: ...

    def readdir(self, fh: FileHandle, offset: int, budget: int, overhead: int) -> Sequence[DirEntry]:
        """Entries from `offset` (0, or a cookie of this handle) on, "." and ".." first, none at the end.

        As many as fit in `budget` bytes where an entry takes `overhead` plus its name, rounded up to 8. Offset 0
        looks at the directory anew; a cookie stays valid while entries come and go.
        """
        ...

    def readdirplus(self, fh: FileHandle, offset: int, budget: int, overhead: int) -> Sequence[DirEntryPlus]:
        """As `readdir`, each entry looked up (and its lookup count raised). Names that vanish are left out."""
        ...

    def releasedir(self, fh: FileHandle) -> None: ...

    def fsyncdir(self, fh: FileHandle, datasync: bool) -> None: ...

    # the whole --------------------------------------------------------------------------------------------------
    def syncfs(self) -> None: ...

    def statistics(self) -> dict[str, int]:
        """Counters since the start and present sizes, by name."""
        ...

    def close(self) -> None:
        """Release every descriptor. Idempotent; no other call may follow or run beside it."""
        ...
