"""Emptying directories that somebody else may be changing, sparing some names: what whiteouts need.

One descriptor is open at a time, however deep the tree: the way up is "..", checked to be the directory that we came
from. Nothing is followed; no path of more than one component is given to the kernel.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: st_dev and st_ino of a directory
Identity = tuple[int, int]
#: by directory: names in it that are spared
Names = Mapping[Identity, set[bytes]]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def identity(fd: int) -> Identity:
    st = os.fstat(fd)
    return st.st_dev, st.st_ino


@dataclass(slots=True)
class _Frame:
    name: bytes
    identity: Identity
    pending: list[bytes]
    kept: bool = False


def clear_directory(dir_fd: int, spare: Names | None = None) -> bool:
    """Remove everything in the directory (`dir_fd` may be O_PATH), and keep names that `spare` holds.

    A directory that is spared, or has something spared in it, stays; the rest of its contents goes. Returns whether
    anything is left. EAGAIN where another process moves directories meanwhile.
    """
    spare = spare or {}
    at = os.open(b".", _DIRECTORY, dir_fd=dir_fd)
    try:
        above: list[_Frame] = []
        frame = _frame(b"", at)
        while True:
            child = _clear_until_directory(at, frame, spare)
            if child is not None:
                above.append(frame)
                at = _replace(at, os.open(child, _DIRECTORY, dir_fd=at))
                frame = _frame(child, at)
                continue
            if not above:
                return frame.kept
            done, frame = frame, above.pop()
            at = _replace(at, os.open(b"..", _DIRECTORY, dir_fd=at))
            if identity(at) != frame.identity:
                raise OSError(errno.EAGAIN, "a directory was moved while it was being removed", done.name)
            if done.kept or done.name in spare.get(frame.identity, ()):
                frame.kept = True
            else:
                os.rmdir(done.name, dir_fd=at)
    finally:
        os.close(at)


def _frame(name: bytes, fd: int) -> _Frame:
    return _Frame(name, identity(fd), [os.fsencode(entry) for entry in os.listdir(fd)])


def _replace(old: int, new: int) -> int:
    os.close(old)
    return new


def _clear_until_directory(at: int, frame: _Frame, spare: Names) -> bytes | None:
    """Work off `pending` up to the next directory, which is returned; None at the end."""
    spared = spare.get(frame.identity, ())
    while frame.pending:
        name = frame.pending.pop()
        if stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            return name
        if name in spared:
            frame.kept = True
        else:
            os.unlink(name, dir_fd=at)
    return None
