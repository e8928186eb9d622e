"""The tree of a union at each of its layers, a directory at a time, with what the layer changed there.

Nothing is read that is not asked for. The engine says what each version shows (`versions`); here two of them are
compared, name by name.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Literal

from unionfs.changeset.change import TYPES
from unionfs.changeset.tree import Node, Tree
from unionfs.explain.versions import Versions
from unionfs.layers.layer import Path
from unionfs.overlay import UnionFilesystem
from unionfs.overlay.inode import join
from unionfs.overlay.stack import UPPER
from unionfs.vfs import DT_REG, Attr, d_type

#: By the layer that is looked at. changed: it has the name itself, and those below it show one too.
State = Literal["added", "changed", "removed", "kept"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A name. `attr`: of what is shown, of what was shown where it is removed. `target`: of a symbolic link."""

    name: bytes
    kind: str
    state: State
    attr: Attr
    target: bytes = b""


class Browser:
    """Of a union that nobody changes meanwhile; closed before it. Layers are numbered as in `which`."""

    def __init__(self, fs: UnionFilesystem) -> None:
        self.versions = Versions(fs)
        self._numbers = {id(self.versions.layer(number)): number for number in self.versions.numbers}

    def entries(self, number: int, path: Path) -> list[Entry]:
        """The names in a directory of what layer `number` and those below show, and those that it removed, in order.
        Empty where there is no directory now."""
        below, now = self.versions.before(number), _entries(self.versions.at(number), path)
        if now is None:
            return []
        old = (None if below is None else _entries(below, path)) or {}
        found = []
        with Tree(self.versions.at(number)) as tree:
            for name, (node, target) in now.items():
                state: State = "kept"
                if name not in old:
                    state = "added"
                elif self._has(tree, number, join(path, name), node.attr):
                    state = "changed"
                old.pop(name, None)
                found.append(_entry(name, node, target, state))
        found += [_entry(name, node, target, "removed") for name, (node, target) in old.items()]
        return sorted(found, key=lambda entry: entry.name)

    def read(self, number: int, path: Path, size: int, offset: int = 0) -> bytes:
        """Up to `size` bytes of a regular file that layer `number` and those below show. OSError if there is none."""
        with Tree(self.versions.at(number)) as tree:
            node = tree.resolve(path)
            if node is None:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            if d_type(node.attr.mode) != DT_REG:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
            opened = tree.fs.open(node.node, os.O_RDONLY)
            try:
                if opened.fd >= 0:
                    return os.pread(opened.fd, size, offset)
                return bytes(tree.fs.read(opened.fh, offset, size))
            finally:
                tree.fs.release(opened.fh)

    def _has(self, tree: Tree, number: int, path: Path, attr: Attr) -> bool:
        """Has the layer itself what is shown? A directory that it has is one in which it changed something."""
        if attr.is_dir:
            try:
                self.versions.layer(number).lstat(path)
            except OSError:
                return False
            return True
        node = tree.resolve(path)
        if node is None:
            return False
        stored, _ = tree.fs.stored(node.node)  # type: ignore[attr-defined]  # a UnionFilesystem
        tree.forget(node.node)
        return self._numbers.get(id(stored), UPPER) == number  # the work directory's is the upper's


def _entries(fs: UnionFilesystem, path: Path) -> dict[bytes, tuple[Node, bytes]] | None:
    """None where there is no directory."""
    with Tree(fs) as tree:
        directory = tree.resolve(path)
        if directory is None or not directory.attr.is_dir:
            return None
        return {
            name: (node, fs.readlink(node.node) if TYPES[d_type(node.attr.mode)] == "symlink" else b"")
            for name, node in tree.children(directory.node)
        }


def _entry(name: bytes, node: Node, target: bytes, state: State) -> Entry:
    return Entry(name, TYPES[d_type(node.attr.mode)], state, node.attr, target)
