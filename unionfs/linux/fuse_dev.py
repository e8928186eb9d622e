"""The ioctls of /dev/fuse (<linux/fuse.h>): backing files for passthrough, and cloning a channel."""

from __future__ import annotations

import fcntl
import struct
from typing import Final

_BACKING_OPEN: Final = 0x4010E501  # _IOW(229, 1, struct fuse_backing_map)
_BACKING_CLOSE: Final = 0x4004E502  # _IOW(229, 2, uint32_t)
_CLONE: Final = 0x8004E500  # _IOR(229, 0, uint32_t)

_BACKING_MAP: Final = struct.Struct("=iIQ")  # fd, flags, padding: the last two must be 0
_U32: Final = struct.Struct("=I")


def passthrough_open(dev_fd: int, fd: int) -> int:
    """Register the open file `fd` as a backing file with the connection of `dev_fd`; returns the backing id, > 0.

    The kernel holds its own reference: `fd` may be closed. EPERM without CAP_SYS_ADMIN in the initial user
    namespace or where passthrough was not negotiated, ELOOP where the backing file system is stacked too deep, EISDIR
    or EOPNOTSUPP where `fd` is no regular file.
    """
    # A mutable buffer makes fcntl.ioctl answer the call's result, not the buffer.
    return int(fcntl.ioctl(dev_fd, _BACKING_OPEN, bytearray(_BACKING_MAP.pack(fd, 0, 0)), True))


def passthrough_close(dev_fd: int, backing_id: int) -> None:
    """Forget a backing id; open files that use it go on. ENOENT for an unknown one."""
    fcntl.ioctl(dev_fd, _BACKING_CLOSE, bytearray(_U32.pack(backing_id)), True)


def dev_clone(new_fd: int, old_fd: int) -> None:
    """Join `new_fd`, a fresh open of /dev/fuse, to the connection of `old_fd` (FUSE_DEV_IOC_CLONE)."""
    fcntl.ioctl(new_fd, _CLONE, bytearray(_U32.pack(old_fd)), True)
