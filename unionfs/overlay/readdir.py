"""Open directories and what reading them returns.

A handle takes a snapshot of the merged names when it is read from offset 0 (rewinddir(3)); a cookie is a position in
that snapshot, so it stays valid while entries come and go: what was there throughout is returned once, what came or
went in between may be or not (POSIX readdir()).

INVARIANT: the d_ino of an entry is the st_ino that looking it up would show.

All functions expect `union.lock` to be held.
"""

from __future__ import annotations

import errno

from unionfs.overlay import lookup
from unionfs.overlay.inode import DirInode, Listed
from unionfs.overlay.listing import listing
from unionfs.overlay.stack import UPPER
from unionfs.overlay.union import Union, fail
from unionfs.vfs import DT_DIR, DirEntry, DirEntryPlus

_DOTS = (b".", b"..")


class DirHandle:
    __slots__ = ("directory", "snapshot")

    def __init__(self, directory: DirInode) -> None:
        self.directory = directory
        self.snapshot: list[bytes] | None = None


def handle(union: Union, fh: int) -> DirHandle:
    found = union.handles.get(fh)
    if not isinstance(found, DirHandle):
        fail(errno.EBADF)
    return found


def opendir(union: Union, directory: DirInode) -> int:
    directory.opens += 1
    return union.add_handle(DirHandle(directory))


def releasedir(union: Union, fh: int) -> None:
    opened = handle(union, fh)
    del union.handles[fh]
    opened.directory.opens -= 1
    union.release_unused(opened.directory)


def _snapshot(union: Union, opened: DirHandle, offset: int) -> list[bytes]:
    if opened.snapshot is None or offset == 0:
        opened.snapshot = list(listing(union, opened.directory).names)
    return opened.snapshot


def _dot(union: Union, directory: DirInode, position: int) -> DirInode:
    """The directory that "." (0) or ".." (1) names; the root is its own parent."""
    return directory if position == 0 or directory.parent is None else directory.parent


def readdir(union: Union, fh: int, offset: int, budget: int, overhead: int) -> list[DirEntry]:
    opened = handle(union, fh)
    directory = opened.directory
    if directory.removed:
        return []
    names = _snapshot(union, opened, offset)
    entries = listing(union, directory).names
    result: list[DirEntry] = []
    position = offset
    while position < len(names) + 2:
        name = _DOTS[position] if position < 2 else names[position - 2]
        budget -= (overhead + len(name) + 7) & ~7
        if budget < 0:
            break
        if position < 2:
            result.append(DirEntry(name, _dot(union, directory, position).ino, DT_DIR, position + 1))
        else:
            listed = entries.get(name)
            if listed is not None:
                result.append(_entry(union, directory, name, listed, position + 1))
        position += 1
    return result


def _entry(union: Union, directory: DirInode, name: bytes, listed: Listed, cookie: int) -> DirEntry:
    known = directory.children.get(name)
    if known is not None:
        return DirEntry(name, known.ino, getattr(known, "type", DT_DIR), cookie)
    plain = listed.layer != UPPER or not (directory.impure or listed.more or union.origins)
    if plain:
        return DirEntry(name, union.stack.number(listed.layer, listed.ino), listed.type, cookie)
    # Copied-up objects show the number they had below, which only looking them up tells.
    inode = lookup.child(union, directory, name)
    if inode is None:
        return DirEntry(name, union.stack.number(listed.layer, listed.ino), listed.type, cookie)
    entry = DirEntry(name, inode.ino, getattr(inode, "type", DT_DIR), cookie)
    union.release_unused(inode)
    return entry


def readdirplus(union: Union, fh: int, offset: int, budget: int, overhead: int) -> list[DirEntryPlus]:
    opened = handle(union, fh)
    directory = opened.directory
    if directory.removed:
        return []
    names = _snapshot(union, opened, offset)
    result: list[DirEntryPlus] = []
    position = offset
    while position < len(names) + 2:
        name = _DOTS[position] if position < 2 else names[position - 2]
        budget -= (overhead + len(name) + 7) & ~7
        if budget < 0:
            break
        position += 1
        if position <= 2:
            result.append(DirEntryPlus(name, 0, union.attributes(_dot(union, directory, position - 1)), position))
            continue
        inode = lookup.child(union, directory, name)
        if inode is not None:
            try:
                record = union.attributes(inode)
            except OSError:
                union.release_unused(inode)
                continue
            inode.nlookup += 1
            result.append(DirEntryPlus(name, inode.node, record, position))
    return result
