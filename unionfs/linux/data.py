"""Moving file data inside the kernel: reflinks, range copies, allocation and holes, syncfs."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

from unionfs.linux import syscalls
from unionfs.linux.syscalls import c_int, c_int64, call

FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_COLLAPSE_RANGE = 0x01, 0x02, 0x08
FALLOC_FL_ZERO_RANGE, FALLOC_FL_INSERT_RANGE, FALLOC_FL_UNSHARE_RANGE = 0x10, 0x20, 0x40

_FICLONE: Final = 0x40049409  # _IOW(0x94, 9, int), <linux/fs.h>
_CHUNK: Final = 1 << 20
_HOLE: Final = bytes(1 << 16)
#: copy_file_range(2) cannot, but reading and writing might: other file systems, special files, old kernels, filters
_COPY_BY_HAND: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})

_fallocate = syscalls.declare("fallocate", c_int, c_int, c_int64, c_int64)
_syncfs = syscalls.declare("syncfs", c_int)


def ficlone(dst_fd: int, src_fd: int) -> None:
    """Make the whole of `dst_fd` share the data of `src_fd`. EOPNOTSUPP, ENOTTY, EINVAL or EXDEV where the file
    systems cannot."""
    fcntl.ioctl(dst_fd, _FICLONE, src_fd)


def copy_range(src_fd: int, src_off: int, dst_fd: int, dst_off: int, length: int) -> int:
    """Copy up to `length` bytes; returns how many, which may be fewer, and is 0 only at the end of the source.

    Done in the kernel where possible, else by reading and writing at most 1 MiB.
    """
    if length <= 0:
        return 0
    try:
        copied = os.copy_file_range(src_fd, dst_fd, length, src_off, dst_off)
    except OSError as e:
        if e.errno not in _COPY_BY_HAND:
            raise
    else:
        if copied:
            return copied
        # 0 should be the end, but is also what files without a true size answer (copy_file_range(2), BUGS).
    data = os.pread(src_fd, min(length, _CHUNK), src_off)
    return os.pwrite(dst_fd, data, dst_off) if data else 0


def pwrite_sparse(fd: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset` of a file that has nothing there; whole 64 KiB of zeros are left as holes."""
    run = 0
    for at in range(0, len(data) - len(_HOLE) + 1, len(_HOLE)):
        end = at + len(_HOLE)
        if not data[at] and not data[end - 1] and bytes(data[at:end]) == _HOLE:
            _pwrite_all(fd, data[run:at], offset + run)
            run = end
    _pwrite_all(fd, data[run:], offset + run)


def _pwrite_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2) with any FALLOC_FL_* in `mode`. EOPNOTSUPP where the file system lacks that mode."""
    call(_fallocate, fd, mode, offset, length)


def syncfs(fd: int) -> None:
    """Write back the file system that holds `fd`, which may not be O_PATH (EBADF)."""
    call(_syncfs, fd)
