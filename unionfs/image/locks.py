"""The locks of a layout (`unionfs.image.layout` says what they are for): files in its directory `.unionfs`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from unionfs.linux.process import flock_exclusive, flock_shared

#: Our own directory in a layout.
OWN: Final = b".unionfs"
CONTENT: Final = b"content"
INDEX: Final = b"index"


@contextmanager
def locked(directory: bytes, name: bytes, *, exclusive: bool, blocking: bool = True) -> Iterator[None]:
    """Hold the lock `name` of the layout in `directory`. BlockingIOError, without `blocking`, where somebody has it."""
    own = os.path.join(directory, OWN)
    os.makedirs(own, mode=0o700, exist_ok=True)
    fd = os.open(os.path.join(own, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        (flock_exclusive if exclusive else flock_shared)(fd, blocking)
        yield
    finally:
        os.close(fd)


@contextmanager
def reading(directory: bytes) -> Iterator[None]:
    """While blobs are read: nobody removes any. Where the store may not be written, nothing can be locked."""
    if not os.access(os.path.join(directory, OWN), os.W_OK):
        yield
        return
    with locked(directory, CONTENT, exclusive=False):
        yield
