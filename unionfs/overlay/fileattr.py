"""Inode flags, as chattr(1) sets them (ovl_fileattr_get() and ovl_fileattr_set() of fs/overlayfs/inode.c).

They are those of the stored file: the lower's until it is copied up, and then the upper's, which begins without. Left
out are append-only and immutable, both ways: fs/fuse has no way to be told of them, so that they would be shown and
protect nothing. (The kernel's overlayfs keeps them in `overlay.protattr`, and obeys.)
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from unionfs.overlay.copy_up import copy_up
from unionfs.overlay.inode import Inode
from unionfs.overlay.union import Union, fail
from unionfs.vfs import FlagsForm


def get(union: Union, inode: Inode, form: FlagsForm) -> bytes:
    """ENOTTY where the layer has none, as one that is no directory."""
    with union.lock:
        layer, path = union.place(inode)
        read: Callable[[bytes, FlagsForm], bytes] | None = getattr(layer, "fileattr", None)
        if read is None:
            fail(errno.ENOTTY)
        value = read(path, form)
    return form.with_flags(value, form.flags(value) & ~form.protecting)


def set(union: Union, inode: Inode, form: FlagsForm, value: bytes) -> None:
    """EOPNOTSUPP for what we cannot keep to."""
    if form.flags(value) & form.protecting:
        fail(errno.EOPNOTSUPP)
    if get(union, inode, form) == value:
        return  # nothing to copy up for
    copy_up(union, inode)
    with union.lock:
        tree, path = union.upper_place(inode)
        write: Callable[[bytes, FlagsForm, bytes], None] | None = getattr(tree, "set_fileattr", None)
        if write is None:
            fail(errno.ENOTTY)
        write(path, form, value)
        inode.attr = None  # ctime
