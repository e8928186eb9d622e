"""`View`: what a comparison asks of a tree, and the two sources that trees come from.

    FilesystemView   a merged tree: of a union, by handles
    LayerView        a stored tree, literally: a directory, a layer tar

A view is read directory by directory. What an `Item` refers to is valid until it is forgotten, or the view is closed;
closing a view leaves what it reads from open.
"""

from __future__ import annotations

import os
from typing import Any, Final, NamedTuple, Protocol

from unionfs.changeset.content import Content, Digests, LayerContent, OpenContent
from unionfs.changeset.difference import EVERY, Reason, Reasons
from unionfs.changeset.tree import Tree, is_carried
from unionfs.layers.layer import Layer
from unionfs.vfs import ROOT, Attr, Filesystem, NodeId

#: Of a directory that a layer tar has something in, but does not describe.
_IMPLIED: Final[Reasons] = frozenset({Reason.TYPE})


class Item(NamedTuple):
    """One object. `ref` is the view's reference to it; `device` and `attr.ino` are its identity in the view; `known`:
    in what it can be compared; `coarse`: nobody knows fractions of the second of its mtime."""

    name: bytes
    attr: Attr
    ref: Any
    device: int = 0
    known: Reasons = EVERY
    coarse: bool = False


class View(Protocol):
    """A tree to be compared. Every failure is an OSError."""

    def root(self) -> Item: ...
    def children(self, ref: Any) -> list[Item]:
        """All that is in a directory, in the order of names. Each is to be forgotten."""
        ...

    def find(self, path: bytes) -> Item | None:
        """The object at a path, which is to be forgotten."""
        ...

    def forget(self, ref: Any) -> None: ...
    def xattrs(self, ref: Any) -> dict[bytes, bytes]: ...
    def readlink(self, ref: Any) -> bytes: ...
    def content(self, ref: Any) -> Content | Digests:
        """The data of a regular file, to be closed."""
        ...

    def close(self) -> None: ...


class FilesystemView:
    """A whole file system. References are its handles."""

    def __init__(self, fs: Filesystem) -> None:
        self._tree = Tree(fs)

    def root(self) -> Item:
        return Item(b"", self._tree.root().attr, ROOT)

    def children(self, ref: NodeId) -> list[Item]:
        return sorted(
            (Item(name, child.attr, child.node) for name, child in self._tree.children(ref)), key=lambda item: item.name
        )

    def find(self, path: bytes) -> Item | None:
        found = self._tree.resolve(path)
        return None if found is None else Item(path.rpartition(b"/")[2], found.attr, found.node)

    def forget(self, ref: NodeId) -> None:
        self._tree.forget(ref)

    def xattrs(self, ref: NodeId) -> dict[bytes, bytes]:
        return self._tree.xattrs(ref)

    def readlink(self, ref: NodeId) -> bytes:
        return self._tree.readlink(ref)

    def content(self, ref: NodeId) -> OpenContent:
        return self._tree.content(ref)

    def close(self) -> None:
        self._tree.close()


class LayerView:
    """What a layer has stored, whiteouts as the files and devices that they are. References are paths.

    Marks of overlay file systems and labels of the machine are no attributes here, as in `Tree`.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self._is_implied = getattr(layer, "is_implied", None)

    def root(self) -> Item:
        return self._item(b"", b"", self.layer.lstat(b""))

    def children(self, ref: bytes) -> list[Item]:
        lstat = self.layer.stat_in(ref) if (names := [entry.name for entry in self.layer.scan(ref)]) else None
        found: list[Item] = []
        for name in sorted(names):
            assert lstat is not None
            try:
                st = lstat(name)
            except FileNotFoundError:
                continue  # gone since the listing was read
            found.append(self._item(name, join(ref, name), st))
        return found

    def find(self, path: bytes) -> Item | None:
        try:
            return self._item(path.rpartition(b"/")[2], path, self.layer.lstat(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _item(self, name: bytes, path: bytes, st: os.stat_result) -> Item:
        attr = Attr.from_stat(st)
        if self._is_implied is not None and attr.is_dir and self._is_implied(path):
            return Item(name, attr, path, st.st_dev, _IMPLIED)
        return Item(name, attr, path, st.st_dev)

    def forget(self, ref: bytes) -> None:
        """Paths need no keeping."""

    def xattrs(self, ref: bytes) -> dict[bytes, bytes]:
        names = self.layer.listxattr(ref)
        if not names:
            return {}
        values = {name: self.layer.getxattr(ref, name) for name in sorted(names) if is_carried(name)}
        return {name: value for name, value in values.items() if value is not None}

    def readlink(self, ref: bytes) -> bytes:
        return self.layer.readlink(ref)

    def content(self, ref: bytes) -> LayerContent:
        return LayerContent(self.layer.open(ref))

    def close(self) -> None:
        """The layer stays open."""


def join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name
