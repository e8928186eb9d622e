"""Open directories and what reading them returns.

A cookie is a position that a name keeps as long as it stands in the directory, whoever reads (`Listing.order`): what
was there throughout is returned once, what came or went in between may be or not (POSIX readdir()).

INVARIANT: the d_ino of an entry is the st_ino that looking it up would show.

All functions expect `union.lock` to be held.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Mapping
from itertools import chain, islice

from unionfs.layers.layer import Path
from unionfs.overlay import lookup, metacopy
from unionfs.overlay.batch import Gathering
from unionfs.overlay.inode import DirInode, Listed, join
from unionfs.overlay.listing import listing
from unionfs.overlay.stack import UPPER
from unionfs.overlay.union import Union, fail
from unionfs.vfs import DT_DIR, AttrRecord, DirEntry, DirEntryPlus, pack_stat, record_ino

_DOTS: tuple[bytes, ...] = (b".", b"..")
_NO_RECORDS: Mapping[bytes, AttrRecord] = {}
#: The link count in an attribute record.
_ONE_LINK = (1).to_bytes(4, "little")


class DirHandle:
    __slots__ = ("directory",)

    def __init__(self, directory: DirInode) -> None:
        self.directory = directory


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


class _Reading:
    """The names from one offset on, as many as fit a budget. Offsets 0 and 1 are "." and "..", then come positions in
    the listing's order. After the iteration, `half_read` is noted."""

    def __init__(self, union: Union, directory: DirInode, offset: int, budget: int, overhead: int) -> None:
        self.entries = listing(union, directory)
        self._order = self.entries.order()
        self._offset, self._budget, self._overhead = offset, budget, overhead

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """(cookie of what follows, name)"""
        budget, overhead, position = self._budget, self._overhead + 7, self._offset
        for name in chain(_DOTS[position:], islice(self._order, max(0, position - 2), None)):
            position += 1
            if name is None:
                continue
            budget -= (overhead + len(name)) & ~7
            if budget < 0:
                self.entries.half_read = True
                return
            yield position, name
        self.entries.half_read = False


def _dot(union: Union, directory: DirInode, name: bytes) -> DirInode:
    """The directory that "." or ".." names; the root is its own parent."""
    return directory if name == b"." or directory.parent is None else directory.parent


def readdir(union: Union, fh: int, offset: int, budget: int, overhead: int) -> list[DirEntry]:
    directory = handle(union, fh).directory
    if directory.removed:
        return []
    reading = _Reading(union, directory, offset, budget, overhead)
    names, result = reading.entries.names, []
    for cookie, name in reading:
        if cookie <= 2:
            result.append(DirEntry(name, _dot(union, directory, name).ino, DT_DIR, cookie))
        else:
            result.append(_entry(union, directory, name, names[name], cookie))
    return result


def _entry(union: Union, directory: DirInode, name: bytes, listed: Listed, cookie: int) -> DirEntry:
    known = directory.children.get(name)
    if known is not None:
        return DirEntry(name, known.ino, getattr(known, "type", DT_DIR), cookie)
    if listed.batch is not None:
        return DirEntry(name, record_ino(listed.batch.record(name))[0], listed.type, cookie)
    plain = listed.layer != UPPER or not (directory.impure or listed.more or union.origins)
    if plain and listed.ino:
        return DirEntry(name, union.stack.number(listed.layer, listed.ino), listed.type, cookie)
    # Copied-up objects show the number they had below, which only looking them up tells.
    try:
        inode = lookup.child(union, directory, name)
    except OSError:
        inode = None  # a lower that has changed; whoever looks the name up hears of it
    if inode is None:
        return DirEntry(name, union.stack.number(listed.layer, listed.ino), listed.type, cookie)
    entry = DirEntry(name, inode.ino, getattr(inode, "type", DT_DIR), cookie)
    union.release_unused(inode)
    return entry


def _marked(union: Union, directory: DirInode) -> list[int]:
    """The layers of whose files in the directory a stat does not tell everything: objects of the upper may show another
    number than their own, and files be metacopies. Looking them up tells."""
    layers = [number for number, _ in directory.lowers if metacopy.may_be_in(union, directory, number)]
    if directory.impure or union.origins or union.options.metacopy:
        layers.append(UPPER)
    return layers


class _Source:
    """Where the files that a directory has from one layer get their attributes: `path` is the directory there."""

    __slots__ = ("lstat", "path", "records")

    def __init__(self, union: Union, number: int, path: Path) -> None:
        self.path = path
        self.lstat = union.stack.layer(number).stat_in(path)
        records = union.stack.records(number, path) if number != UPPER else None
        self.records: Mapping[bytes, AttrRecord] = records if records is not None else _NO_RECORDS


def readdirplus(union: Union, fh: int, offset: int, budget: int, overhead: int) -> list[DirEntryPlus]:
    directory = handle(union, fh).directory
    if directory.removed:
        return []
    reading = _Reading(union, directory, offset, budget, overhead)
    names, children = reading.entries.names, directory.children
    sources: dict[int, _Source] = {}
    places = {UPPER: directory.path, **dict(directory.lowers)}
    files = Gathering(union.table, directory)
    marked = _marked(union, directory)
    result: list[DirEntryPlus] = []
    append, new = result.append, tuple.__new__  # half the time of the NamedTuple's own constructor
    for cookie, name in reading:
        if cookie <= 2:
            result.append(DirEntryPlus(name, 0, union.attributes(_dot(union, directory, name)), cookie))
            continue
        inode = children.get(name)
        try:
            if inode is None:
                number, type_, _, _, batch = names[name]
                if batch is not None:
                    append(new(DirEntryPlus, (name, *batch.again(union.table, name), cookie)))
                    continue
                if type_ == DT_DIR:
                    inode = lookup.existing(union, directory, name)
                    sources.clear()  # other calls on the layers end what `stat_in` gave
                else:
                    source = sources.get(number)
                    if source is None:
                        source = sources[number] = _Source(union, number, places[number])
                    record = source.records.get(name)
                    if record is None or record[64:68] != _ONE_LINK:
                        st = source.lstat(name)
                        if st.st_nlink > 1 or number in marked or stat.S_ISDIR(st.st_mode):
                            record = None
                        else:
                            record = pack_stat(st, union.stack.number(number, st.st_ino, st.st_dev), 1)
                    if record is not None:
                        append(new(DirEntryPlus, (name, files.add(name, number, record), record, cookie)))
                        continue
                    inode = lookup.file(union, directory, name, number, source.path, st)
                    if inode.links is not None:
                        sources.clear()
            record = inode.attr or union.attributes(inode)
        except OSError as e:
            if inode is not None:
                union.release_unused(inode)
            if inode is None and e.errno == errno.EIO:
                sources.clear()
                result += _unusable(union, directory, name, names[name], cookie)
            continue
        inode.nlookup += 1
        append(new(DirEntryPlus, (name, inode.node, record, cookie)))
    files.finish(names)
    return result


def _unusable(union: Union, directory: DirInode, name: bytes, listed: Listed, cookie: int) -> list[DirEntryPlus]:
    """The entry of a metacopy without data: the name stands there, and whoever looks it up hears of it."""
    layer = union.stack.layer(listed.layer)
    try:
        st = layer.lstat(join(lookup.stored_path(directory, listed.layer), name))
    except OSError:
        return []
    number = union.stack.number(listed.layer, st.st_ino, st.st_dev)
    return [DirEntryPlus(name, 0, pack_stat(st, number, st.st_nlink), cookie)]
