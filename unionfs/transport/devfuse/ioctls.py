"""The ioctls that fs/fuse makes of what lsattr(1) and chattr(1) ask: fuse_fileattr_get() and fuse_fileattr_set().

All other ioctls are ENOTTY: what they mean to a layer's file is not known here. No I/O.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from unionfs.transport.devfuse import abi, replies
from unionfs.transport.devfuse.abi import IN_HEADER_SIZE
from unionfs.transport.devfuse.requests import Buffer
from unionfs.vfs import LONG_FLAGS, SHORT_FLAGS, Filesystem, FlagsForm

_BODY: Final = IN_HEADER_SIZE
_DATA: Final = _BODY + abi.IOCTL_IN.size
_GETS: Final = {form.get: form for form in (SHORT_FLAGS, LONG_FLAGS)}
_SETS: Final = {form.set: form for form in (SHORT_FLAGS, LONG_FLAGS)}


def answer(fs: Filesystem, buffer: Buffer, length: int, unique: int, node: int) -> bytes:
    _, _, command, _, size, room = abi.IOCTL_IN.unpack_from(buffer, _BODY)
    form = _GETS.get(command)
    get: Callable[[int, FlagsForm], bytes] | None = getattr(fs, "fileattr", None)
    if form is not None and get is not None and room == form.size:
        return replies.ioctl(unique, get(node, form))
    form = _SETS.get(command)
    put: Callable[[int, FlagsForm, bytes], None] | None = getattr(fs, "set_fileattr", None)
    if form is not None and put is not None and size == form.size and length >= _DATA + size:
        put(node, form, bytes(buffer[_DATA : _DATA + size]))
        return replies.ioctl(unique, b"")
    return replies.error(unique, errno.ENOTTY)


def may_change(buffer: Buffer) -> bool:
    return abi.IOCTL_IN.unpack_from(buffer, _BODY)[2] in _SETS
