"""Replies: values in, bytes for one write(2) on /dev/fuse out.

Header and body are packed in one call, for each reply is one `bytes` object in the common case; where data follows,
the caller gets only the part before it. `record` is always the 88-byte attribute record of `vfs`, which has the
layout of `struct fuse_attr` and is copied as it is.

This module knows nothing of requests, and does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

from unionfs.transport.devfuse import abi
from unionfs.vfs import AttrRecord, DirEntry, DirEntryPlus, StatFs

#: Seconds that the kernel may believe a name or attributes: "for ever", as every change goes through it. Ten years;
#: fuse_time_to_jiffies() clamps larger values, not reliably on 32-bit jiffies.
FOREVER: Final = 315_360_000

#: What an entry takes besides its name, before rounding up to 8: the `overhead` argument of vfs.readdir(plus).
DIRENT_OVERHEAD: Final = abi.DIRENT.size
DIRENTPLUS_OVERHEAD: Final = abi.DIRENTPLUS.size


# OUT_HEADER joined with a body. "0I" style padding is explicit in the bodies.
_ENTRY = Struct("<IiQ" + "QQQQII88s")
_ENTRY_OPEN = Struct("<IiQ" + "QQQQII88s" + "QIi")
_ATTR = Struct("<IiQ" + "QI4x88s")
_OPEN = Struct("<IiQ" + "QIi")
_U32_REPLY = Struct("<IiQ" + "I4x")
_U64_REPLY = Struct("<IiQ" + "Q")
_STATFS = Struct("<IiQ" + "QQQQQIIII24x")
_IOCTL = Struct("<IiQ" + "iIII")
_INIT = Struct("<IiQ" + "IIIIHHIIHHIIH22x")

_header = abi.OUT_HEADER.pack
_pack_entry = _ENTRY.pack
_pack_attr = _ATTR.pack
_pack_open = _OPEN.pack
# Directory entries: one packer for each length of a name, which the format pads to a multiple of 8. With attributes the
# inode number is given as the record again, as it is its first 8 bytes: "8s" takes no more of it.
_dirent: Final = [Struct(f"<QQII{-(-n // 8) * 8}s").pack for n in range(abi.NAME_MAX + 1)]
_direntplus: Final = [Struct(f"<QQQQII88s8sQII{-(-n // 8) * 8}s").pack for n in range(abi.NAME_MAX + 1)]


def error(unique: int, errno: int) -> bytes:
    """A negative reply; `errno` is positive."""
    return _header(16, -errno, unique)


def empty(unique: int) -> bytes:
    """Success, and nothing to say."""
    return _header(16, 0, unique)


def data(unique: int, payload: bytes) -> bytes:
    """Bytes: READLINK, GETXATTR, LISTXATTR, READ of little."""
    return _header(16 + len(payload), 0, unique) + payload


def data_header(unique: int, size: int) -> bytes:
    """What precedes `size` bytes that are written behind it by the same writev(2)."""
    return _header(16 + size, 0, unique)


# `generation` tells the nodes of one mount from those of another with the same numbers, in file handles that are kept.
def entry(unique: int, node: int, record: AttrRecord, attr_valid: int, generation: int = 0) -> bytes:
    """LOOKUP, MKNOD, MKDIR, SYMLINK, LINK. A node number is never used twice in a mount."""
    return _pack_entry(144, 0, unique, node, generation, FOREVER, attr_valid, 0, 0, record)


def negative_entry(unique: int) -> bytes:
    """LOOKUP of a name that is not there, to be remembered: "zero nodeid is same as -ENOENT, but with valid
    timeout" (fuse_lookup_name, fs/fuse/dir.c)."""
    return _pack_entry(144, 0, unique, 0, 0, FOREVER, 0, 0, 0, _NO_ATTR)


_NO_ATTR: Final = bytes(88)


def attr(unique: int, record: AttrRecord, attr_valid: int) -> bytes:
    """GETATTR, SETATTR."""
    return _pack_attr(120, 0, unique, attr_valid, 0, record)


def opened(unique: int, fh: int, open_flags: int, backing_id: int) -> bytes:
    """OPEN, OPENDIR. `backing_id` with FOPEN_PASSTHROUGH, else 0."""
    return _pack_open(32, 0, unique, fh, open_flags, backing_id)


def created(
    unique: int,
    node: int,
    record: AttrRecord,
    attr_valid: int,
    fh: int,
    open_flags: int,
    backing_id: int,
    generation: int = 0,
) -> bytes:
    """CREATE, TMPFILE: an entry and an open file."""
    return _ENTRY_OPEN.pack(
        160, 0, unique, node, generation, FOREVER, attr_valid, 0, 0, record, fh, open_flags, backing_id
    )  # fmt: skip


def written(unique: int, size: int) -> bytes:
    """WRITE, COPY_FILE_RANGE: how many bytes."""
    return _U32_REPLY.pack(24, 0, unique, size)


def xattr_size(unique: int, size: int) -> bytes:
    """GETXATTR and LISTXATTR with size 0: how much there would be."""
    return _U32_REPLY.pack(24, 0, unique, size)


def offset(unique: int, position: int) -> bytes:
    """LSEEK; and COPY_FILE_RANGE_64, whose count has 64 bits."""
    return _U64_REPLY.pack(24, 0, unique, position)


def ioctl(unique: int, payload: bytes) -> bytes:
    """IOCTL: a result of 0, and what the caller's structure holds by now."""
    return _IOCTL.pack(32 + len(payload), 0, unique, 0, 0, 0, 0) + payload


def statfs(unique: int, st: StatFs) -> bytes:
    return _STATFS.pack(
        96, 0, unique, st.blocks, st.bfree, st.bavail, st.files, st.ffree, st.bsize, st.namemax, st.frsize, 0
    )


def init(
    unique: int, *, minor: int, max_readahead: int, flags: int, max_background: int, max_write: int, max_pages: int,
    max_stack_depth: int,
) -> bytes:  # fmt: skip
    """INIT. `flags` is the 64-bit word. Times are in whole nanoseconds (time_gran 1)."""
    congestion = max_background * 3 // 4
    return _INIT.pack(
        80, 0, unique, abi.VERSION, minor, max_readahead, flags & 0xFFFFFFFF, max_background, congestion, max_write,
        1, max_pages, 0, flags >> 32, max_stack_depth, 0,
    )  # fmt: skip


def init_version(unique: int) -> bytes:
    """INIT of a kernel with a higher major version: "reply with the major version it supports, ignore the rest"."""
    return _INIT.pack(80, 0, unique, abi.VERSION, abi.MINOR, *(0,) * 11)


def directory(unique: int, entries: Iterable[DirEntry]) -> bytes:
    """READDIR."""
    body = b"".join([_dirent[len(name)](ino, cookie, len(name), kind, name) for name, ino, kind, cookie in entries])
    return _header(16 + len(body), 0, unique) + body


def directory_plus(unique: int, entries: Iterable[DirEntryPlus], attr_valid: int, generation: int = 0) -> bytes:
    """READDIRPLUS. Each entry's attributes hold for `attr_valid` seconds. The type of an entry is the top four bits
    of its mode's low half, found in byte 61 of the record."""
    body = b"".join(
        [
            _direntplus[len(name)](
                node, generation, FOREVER, attr_valid, 0, 0, record, record, cookie, len(name), record[61] >> 4, name
            )
            for name, node, record, cookie in entries
        ]
    )
    return _header(16 + len(body), 0, unique) + body
