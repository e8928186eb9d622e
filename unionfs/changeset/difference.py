"""`Reason`: in what two objects under one name differ; `differing` finds out, the cheap first, and reads data last.

Compared are what a layer carries. Nobody compares inode numbers, link counts (groups of hard links are another matter,
since two names never show them), access and change times, the size of directories, and the mode of symbolic links, that
means nothing on Linux.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final, Protocol

from unionfs.changeset.content import Content, Digests, same_content
from unionfs.vfs import DT_BLK, DT_CHR, DT_DIR, DT_LNK, DT_REG, Attr, d_type

_SECOND: Final = 1_000_000_000


class Reason(StrEnum):
    """In what they differ. In the order in which they are told."""

    TYPE = "type"  # nothing else is compared then
    MODE = "mode"  # permissions, set-ID bits, sticky
    OWNER = "owner"  # user or group
    SIZE = "size"  # of regular files; then the content differs too
    CONTENT = "content"
    LINK = "link"  # target of a symbolic link
    DEVICE = "device"  # number of a device
    XATTR = "xattr"
    HARDLINK = "hardlink"  # other names of the same file
    MTIME = "mtime"
    DIRMTIME = "dirmtime"  # mtime of a directory, which any change in it sets


Reasons = frozenset[Reason]
EVERY: Final[Reasons] = frozenset(Reason)


class Reader(Protocol):
    """What is asked for more than attributes, by a reference that is the reader's own affair."""

    def xattrs(self, ref: Any) -> dict[bytes, bytes]: ...
    def readlink(self, ref: Any) -> bytes: ...
    def content(self, ref: Any) -> Content | Digests: ...


def differing(
    one: Reader, ref: Any, attr: Attr, other: Reader, other_ref: Any, other_attr: Attr, wanted: Reasons, *, exact: bool
) -> Iterator[Reason]:
    """The reasons among `wanted` for which two objects differ, as they are found; CONTENT last.

    HARDLINK is never among them. A size of -1 is not known. `exact`: times in nanoseconds; else where one is of whole
    seconds, as tars mostly have them, only those count (moby's sameFsTimeSpec).
    """
    a, b = attr, other_attr
    kind = d_type(a.mode)
    if kind != d_type(b.mode):
        if Reason.TYPE in wanted:
            yield Reason.TYPE
        return
    if Reason.MODE in wanted and kind != DT_LNK and stat.S_IMODE(a.mode) != stat.S_IMODE(b.mode):
        yield Reason.MODE
    if Reason.OWNER in wanted and (a.uid != b.uid or a.gid != b.gid):
        yield Reason.OWNER
    time = Reason.DIRMTIME if kind == DT_DIR else Reason.MTIME
    if time in wanted and a.mtime_ns != b.mtime_ns and (exact or not _same_seconds(a.mtime_ns, b.mtime_ns)):
        yield time
    if Reason.DEVICE in wanted and kind in (DT_BLK, DT_CHR) and a.rdev != b.rdev:
        yield Reason.DEVICE
    other_size = kind == DT_REG and a.size != b.size and a.size >= 0 <= b.size
    if other_size and Reason.SIZE in wanted:
        yield Reason.SIZE
    if Reason.XATTR in wanted and one.xattrs(ref) != other.xattrs(other_ref):
        yield Reason.XATTR
    if Reason.LINK in wanted and kind == DT_LNK and one.readlink(ref) != other.readlink(other_ref):
        yield Reason.LINK
    if Reason.CONTENT in wanted and kind == DT_REG and (other_size or not same_data(one, ref, other, other_ref)):
        yield Reason.CONTENT


def _same_seconds(one: int, other: int) -> bool:
    return (not one % _SECOND or not other % _SECOND) and one // _SECOND == other // _SECOND


def same_data(one: Reader, ref: Any, other: Reader, other_ref: Any) -> bool:
    """Whether two regular files hold the same bytes."""
    content = one.content(ref)
    try:
        other_content = other.content(other_ref)
        try:
            return same_content(content, other_content)
        finally:
            other_content.close()
    finally:
        content.close()
