"""The commands of the simulator that act on a file system, by path: what a shell and coreutils would do with it.

Paths are text, with or without a leading slash, from the root of the tree; `..` and symbolic links stay inside. Each
function makes the system calls of its namesake through `vfs.Filesystem` and answers with lines, or raises OSError.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

from unionfs.changeset.tree import Node, Tree
from unionfs.explain.picture import content
from unionfs.vfs import DT_LNK, NOW, RENAME_EXCHANGE, Attr, Caller, Filesystem, NodeId, SetAttr, d_type

#: MAXSYMLINKS, include/linux/namei.h
_MAX_SYMLINKS = 40
ROOT_USER = Caller(0, 0, 0, 0o022)


def fail(number: int, path: str) -> NoReturn:
    raise OSError(number, os.strerror(number), path)


class Place(NamedTuple):
    """Where a path leads: the directory, the last name (b"" for the root), and what is there."""

    parent: Node
    name: bytes
    found: Node | None


class Shell:
    """`seen` makes of an object's attributes those that people are to see."""

    def __init__(self, fs: Filesystem, seen: Callable[[Node], Attr]) -> None:
        self.fs = fs
        self._seen = seen

    # resolution ---------------------------------------------------------------------------------------------------
    @contextmanager
    def place(self, path: str, *, follow: bool = False) -> Iterator[tuple[Tree, Place]]:
        with Tree(self.fs) as tree:
            yield tree, _walk(tree, path, follow)

    @contextmanager
    def existing(self, path: str, *, follow: bool = True) -> Iterator[tuple[Tree, Node]]:
        with self.place(path, follow=follow) as (tree, place):
            if place.found is None:
                fail(errno.ENOENT, path)
            yield tree, place.found

    @contextmanager
    def _named(self, path: str) -> Iterator[tuple[Tree, Place, Node]]:
        """What can lose its name: EBUSY for the root."""
        with self.place(path) as (tree, place):
            if place.found is None:
                fail(errno.ENOENT, path)
            if not place.name:
                fail(errno.EBUSY, path)
            yield tree, place, place.found

    @contextmanager
    def _new(self, path: str) -> Iterator[tuple[Tree, NodeId, bytes]]:
        with self.place(path) as (tree, place):
            if place.found is not None:
                fail(errno.EEXIST, path)
            yield tree, place.parent.node, place.name

    # reading ------------------------------------------------------------------------------------------------------
    def ls(self, path: str = "", *, inodes: bool = False, long: bool = False) -> list[str]:
        with self.existing(path) as (tree, node):
            named = [(os.fsencode(path), node)]
            if node.attr.is_dir:
                named = sorted(tree.children(node.node))
            return [self._line(tree, os.fsdecode(name), child, inodes, long) for name, child in named]

    def _line(self, tree: Tree, name: str, node: Node, inodes: bool, long: bool) -> str:
        attr = self._seen(node)
        words = [str(attr.ino)] if inodes else []
        if long:
            words.append(f"{stat.filemode(attr.mode)} {attr.nlink} {attr.uid}:{attr.gid} {attr.size}")
            if d_type(attr.mode) == DT_LNK:
                name += " -> " + os.fsdecode(tree.fs.readlink(node.node))
        return " ".join([*words, name])

    def cat(self, path: str) -> list[str]:
        with self.existing(path) as (tree, node):
            if node.attr.is_dir:
                fail(errno.EISDIR, path)
            return content(tree, node).decode("utf-8", "replace").splitlines()

    def stat(self, path: str) -> list[str]:
        with self.existing(path, follow=False) as (_, node):
            attr = self._seen(node)
            words = [f"mode {stat.filemode(attr.mode)}", f"owner {attr.uid}:{attr.gid}"]
            if not attr.is_dir:
                words += [f"size {attr.size}", f"links {attr.nlink}"]
            return ["  ".join([*words, f"inode {attr.ino}"])]

    def find(self, path: str) -> list[str]:
        """All paths below one."""
        with self.existing(path) as (tree, node):
            return list(_below(tree, node, path.strip("/")))

    # changing -----------------------------------------------------------------------------------------------------
    def write(self, path: str, data: bytes, *, append: bool = False) -> None:
        with self.place(path, follow=True) as (_, place):
            if place.found is None:
                entry, opened = self.fs.create(place.parent.node, place.name, 0o666, os.O_WRONLY, ROOT_USER)
                self.fs.forget(entry.node, 1)
                end = 0
            else:
                opened = self.fs.open(place.found.node, os.O_WRONLY | (0 if append else os.O_TRUNC))
                end = place.found.attr.size if append else 0
            try:
                self.fs.write(opened.fh, end, data)
            finally:
                self.fs.release(opened.fh)

    def touch(self, path: str) -> None:
        with self.place(path, follow=True) as (_, place):
            if place.found is not None:
                self.fs.setattr(place.found.node, SetAttr(atime_ns=NOW, mtime_ns=NOW), ROOT_USER)
                return
        self.write(path, b"")

    def rm(self, path: str, *, recursive: bool = False) -> None:
        with self._named(path) as (tree, place, found):
            if recursive and found.attr.is_dir:
                self._remove_tree(tree, found)
                self.fs.rmdir(place.parent.node, place.name)
            else:
                self.fs.unlink(place.parent.node, place.name)

    def _remove_tree(self, tree: Tree, directory: Node) -> None:
        for name, child in list(tree.children(directory.node)):
            if child.attr.is_dir:
                self._remove_tree(tree, child)
                self.fs.rmdir(directory.node, name)
            else:
                self.fs.unlink(directory.node, name)

    def mkdir(self, path: str, *, parents: bool = False) -> list[str]:
        """Answers with the paths of the directories made."""
        made = []
        whole = [part for part in path.split("/") if part]
        for count in range(1 if parents else len(whole), len(whole) + 1):
            part = "/".join(whole[:count])
            with self.place(part, follow=True) as (_, place):
                if place.found is not None:
                    if parents and place.found.attr.is_dir:
                        continue
                    fail(errno.EEXIST, part)
                entry = self.fs.mkdir(place.parent.node, place.name, 0o777, ROOT_USER)
                self.fs.forget(entry.node, 1)
                made.append(part)
        return made

    def rmdir(self, path: str) -> None:
        with self._named(path) as (_, place, _found):
            self.fs.rmdir(place.parent.node, place.name)

    def mv(self, path: str, new: str, *, exchange: bool = False) -> None:
        """rename(2) alone: what it refuses is not copied. Into a directory if `new` is one."""
        new = new if exchange else self._inside(new, path)
        with self._named(path) as (_, old, _found), self.place(new) as (_, target):
            flags = RENAME_EXCHANGE if exchange else 0
            self.fs.rename(old.parent.node, old.name, target.parent.node, target.name, flags)

    def _inside(self, new: str, path: str) -> str:
        """Where mv and ln put something that goes to `new`."""
        with self.place(new, follow=True) as (_, place):
            is_dir = place.found is not None and place.found.attr.is_dir
        return f"{new.rstrip('/')}/{path.rstrip('/').rpartition('/')[2]}" if is_dir else new

    def ln(self, target: str, path: str) -> None:
        path = self._inside(path, target)
        with self.existing(target, follow=False) as (_, node), self._new(path) as (_, parent, name):
            self.fs.forget(self.fs.link(node.node, parent, name, ROOT_USER).node, 1)

    def symlink(self, target: str, path: str) -> None:
        with self._new(path) as (_, parent, name):
            self.fs.forget(self.fs.symlink(parent, name, os.fsencode(target), ROOT_USER).node, 1)

    def chmod(self, mode: int, path: str) -> None:
        self._setattr(path, SetAttr(mode=mode))

    def chown(self, uid: int, gid: int | None, path: str) -> None:
        self._setattr(path, SetAttr(uid=uid, gid=gid))

    def _setattr(self, path: str, changes: SetAttr) -> None:
        with self.existing(path) as (_, node):
            self.fs.setattr(node.node, changes, ROOT_USER)


def _walk(tree: Tree, path: str, follow: bool) -> Place:
    """ENOENT for a missing directory on the way, ENOTDIR, ELOOP."""
    pending = [part for part in os.fsencode(path).split(b"/") if part not in (b"", b".")][::-1]
    trail, links = [tree.root()], 0
    place = Place(trail[0], b"", trail[0])
    while pending:
        name, here = pending.pop(), place.found
        if here is None:
            fail(errno.ENOENT, path)
        if not here.attr.is_dir:
            fail(errno.ENOTDIR, path)
        if name == b"..":
            if len(trail) > 1:
                trail.pop()
            place = Place(trail[-1], b"", trail[-1])
            continue
        found = tree.lookup(here.node, name)
        if found is not None and d_type(found.attr.mode) == DT_LNK and (pending or follow):
            links += 1
            if links > _MAX_SYMLINKS:
                fail(errno.ELOOP, path)
            target = tree.fs.readlink(found.node)
            if target.startswith(b"/"):
                del trail[1:]
            pending += [part for part in target.split(b"/") if part not in (b"", b".")][::-1]
            place = Place(trail[-1], b"", trail[-1])
            continue
        place = Place(trail[-1], name, found)
        if found is not None and found.attr.is_dir:
            trail.append(found)
    return place


def _below(tree: Tree, directory: Node, path: str) -> Iterator[str]:
    for name, child in sorted(tree.children(directory.node)):
        below = f"{path}/{os.fsdecode(name)}" if path else os.fsdecode(name)
        yield below
        if child.attr.is_dir:
            yield from _below(tree, child, below)
