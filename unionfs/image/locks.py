"""The locks of a layout (`unionfs.image.layout` says what they are for): files in its directory `.unionfs`.

    .unionfs/content, .unionfs/index     `locked`, `reading`
    .unionfs/staging/RANDOM/alive        `come_alive`, `is_alive`

All are flock(2), so that they go with their process, however it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from unionfs.linux.process import flock_exclusive, flock_shared

#: Our own directory in a layout.
OWN: Final = b".unionfs"
CONTENT: Final = b"content"
INDEX: Final = b"index"
#: A file of a workspace.
ALIVE: Final = b"alive"
#: Seconds after which who waits for a lock is told so.
PATIENCE: Final = 1.0

#: Called, by another thread, when a lock is waited for.
Waiting = Callable[[], None]
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


@contextmanager
def locked(
    directory: bytes, name: bytes, *, exclusive: bool, blocking: bool = True, waiting: Waiting | None = None
) -> Iterator[None]:
    """Hold the lock `name` of the layout in `directory`. BlockingIOError, without `blocking`, where somebody has it."""
    own = os.path.join(directory, OWN)
    os.makedirs(own, mode=0o700, exist_ok=True)
    fd = os.open(os.path.join(own, name), _FLAGS, 0o600)
    try:
        take = flock_exclusive if exclusive else flock_shared
        try:
            take(fd)
        except BlockingIOError:
            if not blocking:
                raise
            with _told(waiting):
                take(fd, True)
        yield
    finally:
        os.close(fd)


@contextmanager
def reading(directory: bytes, waiting: Waiting | None = None) -> Iterator[None]:
    """While blobs are read: nobody removes any. Where the store may not be written, nothing can be locked."""
    if not os.access(os.path.join(directory, OWN), os.W_OK):
        yield
        return
    with locked(directory, CONTENT, exclusive=False, waiting=waiting):
        yield


@contextmanager
def _told(waiting: Waiting | None) -> Iterator[None]:
    """Call `waiting` if the block takes long. The thread that does has ended after it: who forks may."""
    if waiting is None:
        yield
        return
    from threading import Timer  # few ever wait

    timer = Timer(PATIENCE, waiting)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


# workspaces -----------------------------------------------------------------------------------------------------------
def come_alive(workspace: bytes) -> int:
    """Lock a new workspace; it lives until the descriptor is closed, or its process ends. Hold `reading`, so that
    nobody sweeps it before it is locked.

    A file of its own, not the directory: NFS tells other machines of locks on files only.
    """
    fd = os.open(os.path.join(workspace, ALIVE), _FLAGS | os.O_EXCL, 0o600)
    try:
        flock_exclusive(fd, blocking=True)  # `is_alive` may be looking
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_alive(workspace: bytes) -> bool:
    """Is its process at work? Without `Layout.removing` that may be old, or about one that has not come alive yet."""
    try:
        fd = os.open(os.path.join(workspace, ALIVE), os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        flock_shared(fd)  # shared, since two who look are no life
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
