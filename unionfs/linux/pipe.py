"""Pipes as buffers for splice(2)."""

from __future__ import annotations

import fcntl
import os


def large_pipe(size: int) -> tuple[int, int, int]:
    """(read end, write end, capacity in bytes) of a pipe of `size` bytes, or of the default size where the limits of
    the user (pipe(7), /proc/sys/fs/pipe-user-pages-soft) allow no more. Both ends are close-on-exec."""
    read_end, write_end = os.pipe()
    try:
        capacity = fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, size)
    except OSError:
        capacity = fcntl.fcntl(write_end, fcntl.F_GETPIPE_SZ)
    return read_end, write_end, capacity
