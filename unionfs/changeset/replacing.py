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
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename == temporary:
            error.filename, error.filename2 = path, None  # as who asked for it knows it
        raise
    fsync_path(directory or b".")


def replace_file(path: bytes, data: bytes, mode: int = 0o666) -> None:
    """Write a small file: readers see the old or the new one, whatever happens. A crash may leave `.NAME.HEX`. `mode`
    is its permissions, less the umask's."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, b".%b.%b" % (name, secrets.token_hex(6).encode()))
    try:
        opener = lambda name, flags: os.open(name, flags, mode)  # noqa: E731
        with open(temporary, "xb", buffering=0, opener=opener) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    fsync_path(directory)


def fsync_path(path: bytes) -> None:
    """Flush a file's data, or the names in a directory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
