"""`TarIndexer`: the tree that a layer tar says, made while its members go by, and written as a `layers.tar_index`.

What apply makes of a tar on an empty directory is what the index shows, but that whiteouts and opaque marks stand in it
by their names, for the union to judge. So: what comes last wins, a directory stays a directory and takes the last
attributes, symbolic links in parents are followed within the tree, hard links are one object. A directory that the tar
needs but does not describe is marked so, and the one below it shows through; where there is none it has mode 0755, root
as owner, and the time of the member that first needs it. If only whiteouts need it, and it is whited out itself, it is
not there (`.wh.d` beside `d/.wh.f`, which writers make of a directory that was emptied and then removed).

The result depends on the tar alone: inode numbers count from 1, the root, level by level in the order of names.
Memory: some 300 bytes an object, for as long as the tar is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, Final

from unionfs.changeset import tar_format as tar
from unionfs.changeset.member import Member, Parts, check_owner, components, device_of, member_of, refuse
from unionfs.changeset.tar_reader import Extents, TarEntry
from unionfs.changeset.tree import is_carried
from unionfs.layers import whiteout
from unionfs.layers.tar_index import NO_EXTRA, BlockRef, Extra, IndexHeader, IndexWriter, Item
from unionfs.vfs import ATTR_RECORD, AttrRecord

_KINDS: Final = {
    tar.REG: stat.S_IFREG,
    tar.SYMLINK: stat.S_IFLNK,
    tar.CHR: stat.S_IFCHR,
    tar.BLK: stat.S_IFBLK,
    tar.DIR: stat.S_IFDIR,
    tar.FIFO: stat.S_IFIFO,
}
_MAX_LINKS: Final = 40  # as the kernel (MAXSYMLINKS)
_BLOCK: Final = 4096
_SECOND: Final = 1_000_000_000
_DIRECTORY_MODE: Final = stat.S_IFDIR | 0o755


class _Leaf:
    """Anything but a directory. `record` lacks inode number and link count."""

    __slots__ = ("extra", "ino", "links", "place", "record")

    def __init__(self, record: AttrRecord, place: int, extra: Extra) -> None:
        self.record, self.place, self.extra = record, place, extra
        self.links, self.ino = 1, 0


class _Dir:
    """`links`: counted when it is written."""

    __slots__ = ("children", "extra", "ino", "links", "record")

    def __init__(self, mtime_ns: int = 0) -> None:
        self.record = _record(_DIRECTORY_MODE, 0, 0, _BLOCK, mtime_ns)
        self.extra, self.ino, self.links = Extra(implied=True), 0, 0
        self.children: dict[bytes, _Leaf | _Dir] = {}


class TarIndexer:
    """Give `add` each member in order, then `write` the index. TarError for what apply would refuse. `hidden`: names
    in the root that the index does not show, though they are counted."""

    def __init__(self, hidden: frozenset[bytes] = frozenset()) -> None:
        self._hidden = hidden
        self._root = _Dir()
        self._known: dict[Parts, _Dir] = {}  # parents as named in the tar, resolved
        self._marked = False  # has it any marks?

    # building -------------------------------------------------------------------------------------------------------
    def add(self, entry: TarEntry) -> None:
        member = member_of(entry)
        if member is None:
            return
        if member.kind == "object":
            self._object(member, entry)
        elif member.kind == "root":
            if entry.type != tar.DIR:
                refuse(entry, "only a directory can be the root")
            self._describe(self._root, entry)
        else:
            self._mark(member, entry)

    def _mark(self, member: Member, entry: TarEntry) -> None:
        parent = self._walk(member.parents, entry, create=True, strict=False)
        if parent is not None:
            self._put(parent, member.name, _mark(entry))
            self._marked = True

    def _object(self, member: Member, entry: TarEntry) -> None:
        parent, name = self._directory(member.parents, entry), member.name
        there = parent.children.get(name)
        if entry.type == tar.DIR:
            if not isinstance(there, _Dir):
                made = _Dir()
                if there is not None:
                    # What it replaces has replaced what layers below have: they do not go on in it.
                    self._put(made, whiteout.OPAQUE, _mark(entry))
                self._put(parent, name, made)
                there = made
            self._describe(there, entry)
        elif entry.type == tar.LINK:
            leaf = self._link_target(member, entry)
            if leaf is not there:
                leaf.links += 1
                self._put(parent, name, leaf)
        else:
            self._put(parent, name, _leaf(entry))

    def _put(self, parent: _Dir, name: bytes, new: _Leaf | _Dir) -> None:
        old = parent.children.get(name)
        if old is not None:
            del parent.children[name]  # so that the order of names is that of the tar
            self._drop(old)
        parent.children[name] = new

    def _drop(self, old: _Leaf | _Dir) -> None:
        """It has lost its name; so has all below it."""
        todo = [old]
        while todo:
            one = todo.pop()
            if isinstance(one, _Dir):
                todo.extend(one.children.values())
                self._known.clear()
            else:
                one.links -= 1
                if one.extra.target:
                    self._known.clear()

    def _link_target(self, member: Member, entry: TarEntry) -> _Leaf:
        parts = components(entry, entry.linkname)
        parent = self._walk(parts[:-1], entry, create=False) if parts else None
        found = self._root if not parts else parent.children.get(parts[-1]) if parent is not None else None
        if isinstance(found, _Dir):
            refuse(entry, "a hard link to a directory")
        if found is None:
            # Its own attributes are its target's, and that is in a layer below.
            leaf = _Leaf(bytes(ATTR_RECORD.size), 0, Extra(lower_link=b"/".join(parts)))
            leaf.links = 0
            return leaf
        here = (*member.parents, member.name)
        if len(parts) > len(here) and parts[: len(here)] == here:
            refuse(entry, f"a hard link to {os.fsdecode(entry.linkname)}, which it replaces")
        return found

    def _describe(self, directory: _Dir, entry: TarEntry) -> None:
        directory.record = _record_of(entry, _BLOCK)
        directory.extra = _extra(entry)

    # paths ----------------------------------------------------------------------------------------------------------
    def _directory(self, parts: Parts, entry: TarEntry) -> _Dir:
        known = self._known.get(parts)
        if known is None:
            if len(self._known) > 1000:
                self._known.clear()
            known = self._walk(parts, entry, create=True)
            assert known is not None
            self._known[parts] = known
        return known

    def _walk(self, parts: Parts, entry: TarEntry, *, create: bool, strict: bool = True) -> _Dir | None:
        """A directory, symbolic links followed as in scoped.ScopedRoot. None where it is missing, unless `create`, or
        not `strict` and something else is in its place."""
        chain = [self._root]
        todo, links = list(reversed(parts)), 0
        while todo:
            name = todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                if len(chain) > 1:
                    chain.pop()
                continue
            child = chain[-1].children.get(name)
            if child is None:
                if not create:
                    return None
                if len(name) > 255:
                    refuse(entry, "it lies behind a symbolic link that no path can follow")
                child = chain[-1].children[name] = _Dir(entry.mtime_ns)
            if isinstance(child, _Dir):
                chain.append(child)
                continue
            if not child.extra.target:
                if not strict:
                    return None
                refuse(entry, "a part of its path is no directory")
            links += 1
            if links > _MAX_LINKS:
                refuse(entry, "too many symbolic links in its path")
            if child.extra.target.startswith(b"/"):
                del chain[1:]
            todo.extend(reversed(child.extra.target.split(b"/")))
        return chain[-1]

    def _prune(self) -> None:
        """Remove what only whiteouts need and that is whited out itself."""
        order, todo = [], [self._root]
        while todo:
            directory = todo.pop()
            order.append(directory)
            todo += [child for child in directory.children.values() if isinstance(child, _Dir)]
        hollow: set[_Dir] = set()
        for directory in reversed(order):  # children first
            children = directory.children
            for name, child in list(children.items()):
                if child in hollow and (whiteout.OPAQUE in children or whiteout.PREFIX + name in children):
                    del children[name]
            if directory.extra.implied and all(
                name.startswith(whiteout.PREFIX) or child in hollow for name, child in children.items()
            ):
                hollow.add(directory)

    # writing --------------------------------------------------------------------------------------------------------
    def write(self, file: BinaryIO, diff_id: bytes, tar_size: int) -> IndexHeader:
        """Write the index to `file`, which is empty and can seek. `diff_id`: 32 bytes. To be called once."""
        if self._marked:
            self._prune()
        writer = IndexWriter(file)
        self._root.ino, last = 1, 1
        refs: dict[int, BlockRef] = {}  # of directories by inode number, until their parents have them
        todo: list[tuple[_Dir, bool]] = [(self._root, False)]
        while todo:
            directory, numbered = todo.pop()
            if numbered:
                shown = _items(directory, refs)
                if self._hidden and directory is self._root:
                    shown = (item for item in shown if item.name not in self._hidden)
                refs[directory.ino] = writer.block(shown)
                directory.links = 2 + sum(isinstance(child, _Dir) for child in directory.children.values())
                directory.children = {}
                continue
            directory.children = dict(sorted(directory.children.items()))
            todo.append((directory, True))
            for child in directory.children.values():
                if not child.ino:
                    child.ino = last = last + 1
                if isinstance(child, _Dir):
                    todo.append((child, False))
        root = Item(b"", _numbered(self._root), 0, refs[1], self._root.extra)
        return writer.finish(writer.block([root]), diff_id, tar_size)


def _items(directory: _Dir, refs: dict[int, BlockRef]) -> Iterator[Item]:
    for name, child in directory.children.items():
        if isinstance(child, _Dir):
            yield Item(name, _numbered(child), 0, refs.pop(child.ino), child.extra)
        else:
            yield Item(name, _numbered(child), child.place, None, child.extra)


# attributes -----------------------------------------------------------------------------------------------------------
def _leaf(entry: TarEntry) -> _Leaf:
    extra = _extra(entry)
    if entry.type == tar.SYMLINK:
        if not 0 < len(entry.linkname) < 4096:
            refuse(entry, "a symbolic link with a target that no link can have")
        return _Leaf(_record_of(entry, len(entry.linkname)), 0, extra._replace(target=entry.linkname))
    if entry.type != tar.REG:
        return _Leaf(_record_of(entry, 0), 0, extra)
    extents = entry.extents
    if extents is not None and extents != [(0, entry.size)]:
        return _Leaf(_record_of(entry, entry.size, extents), entry.data_offset, extra._replace(extents=tuple(extents)))
    return _Leaf(_record_of(entry, entry.size), entry.data_offset, extra)


def _mark(entry: TarEntry) -> _Leaf:
    """A whiteout or opaque mark, whatever type it has: AUFS made them hard links."""
    return _Leaf(_record(stat.S_IFREG, 0, 0, 0, entry.mtime_ns), 0, NO_EXTRA)


def _extra(entry: TarEntry) -> Extra:
    if not entry.xattrs:
        return NO_EXTRA
    xattrs = {name: value for name, value in entry.xattrs.items() if is_carried(name)}
    if any(len(name) > 255 or len(value) > 65536 for name, value in xattrs.items()):
        refuse(entry, "an xattr that no file can have")
    return Extra(xattrs=xattrs)


def _record_of(entry: TarEntry, size: int, extents: Extents | None = None) -> AttrRecord:
    check_owner(entry)
    rdev = device_of(entry) if entry.type in (tar.CHR, tar.BLK) else 0
    mode = _KINDS[entry.type] | (0o777 if entry.type == tar.SYMLINK else entry.mode)
    return _record(mode, entry.uid, entry.gid, size, entry.mtime_ns, rdev, extents)


def _record(
    mode: int, uid: int, gid: int, size: int, mtime_ns: int, rdev: int = 0, extents: Extents | None = None
) -> AttrRecord:
    """Without inode number and link count. Times are all the one that a tar has; blocks as a file system of 4 KiB
    blocks counts them, and of a sparse file so that it is seen to be one (less than its size)."""
    if extents is None:
        blocks = -(-size // _BLOCK) * (_BLOCK // 512)
    else:
        blocks = min(sum(-(-length // 512) for _, length in extents), max(0, size - 1) // 512)
    seconds, ns = divmod(mtime_ns, _SECOND)
    return ATTR_RECORD.pack(
        0, size, blocks, seconds, seconds, seconds, ns, ns, ns, mode, 0, uid, gid, rdev, _BLOCK, 0
    )  # fmt: skip


def _numbered(one: _Leaf | _Dir) -> AttrRecord:
    record = one.record
    return one.ino.to_bytes(8, "little") + record[8:64] + one.links.to_bytes(4, "little") + record[68:]
