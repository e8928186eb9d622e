"""What kind of file system an open file lies on: fstatfs(2), of which `os` has only the POSIX part."""

from __future__ import annotations

import ctypes
import struct
from typing import Final

from unionfs.linux import syscalls
from unionfs.linux.syscalls import c_int, call

#: <linux/magic.h>
TMPFS_MAGIC, RAMFS_MAGIC, HUGETLBFS_MAGIC = 0x01021994, 0x858458F6, 0x958458F6
FUSE_MAGIC: Final = 0x65735546
_IN_MEMORY: Final = frozenset((TMPFS_MAGIC, RAMFS_MAGIC, HUGETLBFS_MAGIC))

_fstatfs = syscalls.declare("fstatfs", c_int, ctypes.c_char_p)
_SIZE: Final = 256  # struct statfs has 120 bytes on 64-bit machines


def magic(fd: int) -> int:
    """`f_type`."""
    buffer = ctypes.create_string_buffer(_SIZE)
    call(_fstatfs, fd, buffer)
    (found,) = struct.unpack_from("@l", buffer)
    return int(found) & 0xFFFFFFFF


def is_in_memory(fd: int) -> bool:
    """Does the file system have no store but memory, so that a read of it never waits?"""
    return magic(fd) in _IN_MEMORY
