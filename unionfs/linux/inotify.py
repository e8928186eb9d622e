"""inotify(7): hearing of what happens at a path, instead of looking again and again."""

from __future__ import annotations

import os
from typing import Final

from unionfs.linux import syscalls
from unionfs.linux.syscalls import c_bytes, c_int, c_uint, call, checked

# <linux/inotify.h>; of a directory's files, but for SELF.
IN_MODIFY, IN_MOVED_TO, IN_MOVE_SELF = 0x0002, 0x0080, 0x0800
_FLAGS: Final = os.O_CLOEXEC | os.O_NONBLOCK  # IN_CLOEXEC | IN_NONBLOCK

_init1: Final = syscalls.declare("inotify_init1", c_int)
_add_watch: Final = syscalls.declare("inotify_add_watch", c_int, c_bytes, c_uint)


def watch(path: bytes, events: int) -> int:
    """A descriptor that can be read once one of `events` has happened at `path`, and does not block. OSError: ENOENT;
    EMFILE and ENOSPC where the user has too many (fs.inotify.*)."""
    fd = call(_init1, _FLAGS)
    try:
        call(_add_watch, fd, checked(path), events, name=path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def drain(fd: int) -> None:
    """Take what has happened so far off it: it can be read again when something more happens."""
    try:
        while os.read(fd, 1 << 16):
            pass
    except BlockingIOError:
        pass
