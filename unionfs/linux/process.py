"""What concerns the process and its descriptors: file locks and the number of files it may open."""

from __future__ import annotations

import fcntl
import resource


def flock_exclusive(fd: int, blocking: bool = False) -> None:
    """flock(2), LOCK_EX, on the open file description of `fd` (not O_PATH). BlockingIOError (EWOULDBLOCK) where
    somebody else holds it and `blocking` is false. The lock goes with the last descriptor of that description."""
    fcntl.flock(fd, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))


def flock_release(fd: int) -> None:
    """Give a lock up before its descriptor is closed."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def raise_nofile_limit() -> int:
    """Raise the soft RLIMIT_NOFILE to the hard one; returns the limit now in force. Never fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        return soft
    return hard
