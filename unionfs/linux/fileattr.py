"""The flags that chattr(1) sets and lsattr(1) shows (ioctl_iflags(2)), and what else FS_IOC_FSGETXATTR tells of a file.

A value is the bytes that the ioctl hands over; vfs.py has its two forms. `fd` may not be O_PATH. ENOTTY, EOPNOTSUPP or
EINVAL where the file system has none.
"""

from __future__ import annotations

import fcntl


def get(fd: int, request: int, size: int) -> bytes:
    # FS_IOC_GETFLAGS says "long" in its number, and some file systems write one.
    answer = bytearray(max(size, 8))
    fcntl.ioctl(fd, request, answer, True)
    return bytes(answer[:size])


def set(fd: int, request: int, value: bytes) -> None:
    fcntl.ioctl(fd, request, bytearray(value.ljust(8, b"\0")), True)
