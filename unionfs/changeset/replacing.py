"""Files that appear whole, or not at all, and are there after a crash of the machine."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO, cast


@contextlib.contextmanager
def replacing(path: bytes) -> Iterator[BinaryIO]:
    """A new file that takes the name `path` when the block ends well, and vanishes when it does not."""
    try:
        special = not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        special = False
    if special:
        with open(path, "wb", buffering=0) as out:
            yield cast(BinaryIO, out)
        return
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, b".%b.%b" % (name[:200], secrets.token_hex(6).encode()))
    try:
        with open(temporary, "xb", buffering=0) as out:
            yield cast(BinaryIO, out)
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    fsync_path(directory or b".")


def fsync_path(path: bytes) -> None:
    """Flush a file's data, or the names in a directory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
