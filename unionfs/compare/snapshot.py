"""A tree written down as mtree(5), to be compared with later: `write` and `SnapshotView`.

What is read is held: a line of it takes a few hundred bytes of memory. Digests stand for data. Written is what a
comparison looks at, and nothing of when or where it was made, so that the same tree gives the same bytes.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from unionfs.changeset.content import Content, Digests, digest
from unionfs.changeset.difference import EVERY, Reason, Reasons
from unionfs.compare import mtree
from unionfs.compare.globs import Scope, Verdict
from unionfs.compare.mtree import Entry
from unionfs.compare.view import Item, join
from unionfs.compare.walk import OnFailure, Side, raise_failure
from unionfs.errors import SnapshotError
from unionfs.vfs import DT_BLK, DT_CHR, DT_DIR, DT_LNK, DT_REG, Attr, d_type


# writing --------------------------------------------------------------------------------------------------------------
def write(
    side: Side,
    out: BinaryIO,
    *,
    scope: Scope | None = None,
    on_failure: OnFailure = raise_failure,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write the tree to a file; how many objects there are. `progress` gets the bytes digested so far."""
    out.write(mtree.head())
    inodes: dict[tuple[int, int], tuple[int, dict[str, str]]] = {}
    count = done = 0
    for path, item in _walk(side, scope or Scope(), on_failure):
        try:
            entry = _entry(side, path, item, inodes)
        except OSError as error:
            on_failure(error)
            continue
        out.write(mtree.line(entry))
        count, done = count + 1, done + (entry.size or 0)
        if progress is not None:
            progress(done)
    return count


def _walk(side: Side, scope: Scope, on_failure: OnFailure) -> Iterator[tuple[bytes, Item]]:
    """Everything, a directory before what is in it, in order. Only what is above a part of the scope is there too."""
    todo: list[tuple[bytes, Item, Verdict]] = [(b"", side.root(), scope.of(b"", Verdict.IN))]
    while todo:
        path, item, verdict = todo.pop()
        side.at = path
        try:
            if verdict is Verdict.IN or (verdict is Verdict.ABOVE and item.attr.is_dir):
                yield path, item
            if item.attr.is_dir and verdict is not Verdict.OUT:
                side.at = path
                children = [(join(path, child.name), child) for child in side.children(item.ref)]
                todo += [(name, child, scope.of(name, verdict)) for name, child in reversed(children)]
        except OSError as error:
            on_failure(error)
        finally:
            side.view.forget(item.ref)


def _entry(side: Side, path: bytes, item: Item, inodes: dict[tuple[int, int], tuple[int, dict[str, str]]]) -> Entry:
    attr, known = item.attr, item.known
    kind = d_type(attr.mode)
    linked = kind != DT_DIR and attr.nlink > 1 and Reason.HARDLINK in known
    inode = inodes.get((item.device, attr.ino)) if linked else None
    digests: dict[str, str] = {}
    if kind == DT_REG and Reason.CONTENT in known:
        digests = inode[1] if inode is not None else _digests(side, item)
    if linked and inode is None:
        inode = inodes[item.device, attr.ino] = (len(inodes) + 1, digests)
    time = Reason.DIRMTIME if kind == DT_DIR else Reason.MTIME
    return Entry(
        path,
        kind,
        permissions=attr.mode & 0o7777 if Reason.MODE in known else None,
        uid=attr.uid if Reason.OWNER in known else None,
        gid=attr.gid if Reason.OWNER in known else None,
        # A directory's is the file system's affair.
        nlink=attr.nlink if kind != DT_DIR and Reason.HARDLINK in known else None,
        size=attr.size if kind == DT_REG and Reason.SIZE in known else None,
        mtime_ns=attr.mtime_ns if time in known else None,
        link=side.readlink(item.ref) if kind == DT_LNK else None,
        device=attr.rdev if kind in (DT_BLK, DT_CHR) else None,
        inode=None if inode is None else inode[0],
        digests=digests,
        xattrs=side.xattrs(item.ref) if Reason.XATTR in known else {},
    )


def _digests(side: Side, item: Item) -> dict[str, str]:
    content = side.content(item.ref)
    try:
        return dict(content.digests) if isinstance(content, Digests) else {"sha256": digest(content)}
    finally:
        content.close()


# reading --------------------------------------------------------------------------------------------------------------
class _Node:
    __slots__ = ("children", "item")

    def __init__(self) -> None:
        self.item: tuple[Entry, Item] | None = None
        self.children: dict[bytes, _Node] | None = None


class SnapshotView:
    """A tree that was written down. SnapshotError where it was not written so; EOPNOTSUPP for what is not in it."""

    def __init__(self, file: BinaryIO) -> None:
        self._root = _Node()
        self._lonely = 0  # inode numbers of files that have one name
        reading, xattrs = mtree.Reading(file), False
        for entry in reading.entries():
            xattrs = xattrs or bool(entry.xattrs)
            node = self._node(entry.path)
            node.item = entry, self._item(entry, node)
        # Who writes no xattrs at all, and does not say that there are none, may not have looked for any.
        self._xattrs = xattrs or b"xattr" in reading.keywords
        self._check(self._root)

    def _node(self, path: bytes) -> _Node:
        node = self._root
        for name in path.split(b"/") if path else []:
            if node.children is None:
                node.children = {}
            node = node.children.setdefault(name, _Node())
        return node

    @staticmethod
    def _check(root: _Node) -> None:
        """Only directories have something in them."""
        todo = [(b"", root)]
        while todo:
            path, node = todo.pop()
            if node.children is None:
                continue
            if node.item is not None and node.item[0].type != DT_DIR:
                raise SnapshotError(f"/{os.fsdecode(path)} has something in it, and is no directory")
            todo += [(join(path, name), child) for name, child in node.children.items()]

    def _item(self, entry: Entry, node: _Node) -> Item:
        if entry.inode is None:
            self._lonely -= 1
        attr = Attr(
            self._lonely if entry.inode is None else entry.inode,
            -1 if entry.size is None else entry.size,
            0,
            0,
            entry.mtime_ns or 0,
            0,
            entry.type << 12 | (entry.permissions or 0),
            1 if entry.inode is None else max(2, entry.nlink or 2),
            entry.uid or 0,
            entry.gid or 0,
            entry.device or 0,
            0,
        )
        return Item(entry.path.rpartition(b"/")[2], attr, node, 0, _known(entry), entry.second)

    def _of(self, name: bytes, node: _Node) -> Item:
        if node.item is None:  # what is in it is told of, and not the directory
            self._lonely -= 1
            attr = Attr(self._lonely, 0, 0, 0, 0, 0, DT_DIR << 12, 1, 0, 0, 0, 0)
            return Item(name, attr, node, 0, frozenset({Reason.TYPE}))
        item = node.item[1]
        return item if self._xattrs else item._replace(known=item.known - {Reason.XATTR})

    def root(self) -> Item:
        return self._of(b"", self._root)

    def children(self, ref: _Node) -> list[Item]:
        return [self._of(name, child) for name, child in sorted((ref.children or {}).items())]

    def find(self, path: bytes) -> Item | None:
        node = self._root
        for name in path.split(b"/") if path else []:
            found = (node.children or {}).get(name)
            if found is None:
                return None
            node = found
        return self._of(path.rpartition(b"/")[2], node)

    def forget(self, ref: _Node) -> None:
        """It is all there."""

    def xattrs(self, ref: _Node) -> dict[bytes, bytes]:
        return dict(ref.item[0].xattrs) if ref.item is not None else {}

    def readlink(self, ref: _Node) -> bytes:
        assert ref.item is not None and ref.item[0].link is not None
        return ref.item[0].link

    def content(self, ref: _Node) -> Content | Digests:
        assert ref.item is not None
        return Digests(ref.item[0].digests)

    def close(self) -> None:
        """There is nothing to close."""


def _known(entry: Entry) -> Reasons:
    return _reasons(
        entry.permissions is not None,
        entry.uid is not None and entry.gid is not None,
        entry.size is not None,
        bool(entry.digests),
        entry.link is not None,
        entry.device is not None,
        entry.inode is not None or entry.nlink == 1,
        entry.mtime_ns is not None,
    )


@functools.cache
def _reasons(*there: bool) -> Reasons:
    """One set for all entries that tell of the same."""
    told = (
        (Reason.MODE,),
        (Reason.OWNER,),
        (Reason.SIZE,),
        (Reason.CONTENT,),
        (Reason.LINK,),
        (Reason.DEVICE,),
        (Reason.HARDLINK,),
        (Reason.MTIME, Reason.DIRMTIME),
    )
    missing = {reason for reasons, known in zip(told, there, strict=True) if not known for reason in reasons}
    return EVERY - missing
