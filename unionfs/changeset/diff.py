"""What changed between the lowers alone and the union, in O(changes).

The walk goes where the upper has stored entries and nowhere else: a path that does not stand in the upper cannot have
changed. What a stored entry *means* is never decided here; both views are asked (`before`: a union of the lowers,
`after`: the union with the upper) and compared. Two things reach beyond the upper's own entries:

- an upper directory that is opaque or carries a redirect shows another lower directory, or none: from there on
  the complete listings of both views are compared;
- a hard-linked lower file copied up under one name changes under its other names too (overlayfs keeps the copy in the
  index of the work directory). If an inode of `after` has more names than were met, one complete walk of `after`
  finds the rest; see also links.py. If a lower inode has more names than were met, some of them removed or replaced,
  the copy may be left under names that do not stand in the upper: one complete walk of `before` finds those. For
  this, and only this, removed lower directories are listed.

Compared are type, mode, owner, size, device, mtime in nanoseconds, link target, xattrs, and hard-link groups; of
directories all but the size. Where all that is equal in a file that stands in the upper, the bytes are compared:
somebody may have written and set the mtime back, and a layer must lose nothing. (docker compares less: moby's
ChangesDirs leaves out directory mtimes and never reads contents.) The root counts as changed where its mode, owner or
xattrs differ or anything below it changed; its mtime alone is that of the upper directory's own making.

The walk is iterative: paths may be longer than any recursion limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from unionfs.changeset import links
from unionfs.changeset.change import Change, Kind, shown, sort_key
from unionfs.changeset.difference import EVERY, Reason, differing
from unionfs.changeset.tree import Node, Tree
from unionfs.layers import whiteout
from unionfs.layers.layer import Layer
from unionfs.vfs import DT_DIR, DT_UNKNOWN, Attr, Filesystem, NodeId, d_type

#: The root's mtime alone is that of the upper directory's own making.
_OF_ROOT = EVERY - {Reason.DIRMTIME}


class _Mode(Enum):
    UPPER = 1  # only names that the upper has stored can differ
    FULL = 2  # compare complete listings
    ADDED = 3  # nothing was here before


class _Directory(NamedTuple):
    """Work to do: a directory of `after`, with its counterpart (None in mode ADDED)."""

    path: bytes
    before: Node | None
    after: Node
    mode: _Mode
    hidden: bool  # below a directory that the layer declares opaque: everything must be written


def diff(before: Filesystem, after: Filesystem, upper: Layer) -> Iterator[Change]:
    """The changes as `docker diff` shows them, in order of path components.

    `before` is the union of the lowers alone, `after` the union with the upper, `upper` its stored tree, an
    object of its own where the union is in use (layers are not synchronised). For hard links to be right, `after` must
    see the index in the work directory. The `node`s of the changes are not valid any more. Fails with OSError as the
    three do. (Two trees with no stack in common: `unionfs.compare`.)
    """
    with Survey(before, after, upper) as survey:
        changes = shown(survey.changes)
    yield from changes


class Survey:
    """The complete difference, `=` and the root included, with handles on the union's objects while it is open.

    Making one walks and compares; `changes` is then a list in path order. Use as a context manager: closing gives the
    handles back.
    """

    def __init__(self, before: Filesystem, after: Filesystem, upper: Layer) -> None:
        self.before, self.after, self.upper = Tree(before), Tree(after), upper
        self._records: dict[bytes, Change] = {}
        self._merged: dict[bytes, Node] = {}  # directories on both sides: the possible parents of changes
        self._work: list[_Directory] = []
        self._members: dict[int, dict[bytes, links.Member]] = {}
        self._linked: dict[bytes, Node] = {}  # unchanged names of hard-linked inodes
        self._lower_links: dict[int, tuple[int, set[bytes]]] = {}  # by inode of `before`: link count, names met
        self._removed: list[tuple[bytes, Node]] = []  # directories of `before`, to be listed for hard links
        try:
            self._walk()
            self._find_lost_names()
            self._resolve_links()
            self._add_parents()
        except BaseException:
            self.close()
            raise
        self.before.close()
        self.changes = [self._records[path] for path in sorted(self._records, key=sort_key)]

    def __enter__(self) -> Survey:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back all handles. Idempotent."""
        self.before.close()
        self.after.close()

    # the walk -----------------------------------------------------------------------------------------------------
    def _walk(self) -> None:
        self._work.append(_Directory(b"", self.before.root(), self.after.root(), _Mode.UPPER, False))
        while self._work:
            directory = self._work.pop()
            if directory.before is None:
                self._added_directory(directory)
            else:
                self._merged_directory(directory, directory.before)

    def _added_directory(self, directory: _Directory) -> None:
        prefix = directory.path + b"/"
        for name, child in self.after.children(directory.after.node):
            self._pair(prefix + name, None, child, directory)

    def _merged_directory(self, directory: _Directory, before: Node) -> None:
        path, after = directory.path, directory.after
        self._merged[path] = after
        changed = not self._same(before, after, path)
        mode, hidden, opaque = directory.mode, directory.hidden, False
        names: set[bytes] | None = None
        marked_opaque, redirected, stored = self._stored(path)
        if mode is _Mode.UPPER and not (marked_opaque or redirected):
            names = stored
        else:
            mode = _Mode.FULL
            opaque = marked_opaque and not hidden and self._shines_through(before.node, after.node)
        if changed or opaque:
            kind = Kind.CHANGED
        elif hidden:
            kind = Kind.SAME
        else:
            kind = None
        if kind:
            self._records[path] = Change(path, kind, after.attr, DT_DIR, opaque, node=after.node)
        inside = _Directory(path, before, after, mode, hidden or opaque)
        self._named(inside, before, names) if names is not None else self._listed(inside, before)
        self.before.forget(before.node)

    def _named(self, directory: _Directory, before: Node, names: set[bytes]) -> None:
        prefix = directory.path + b"/" if directory.path else b""
        for name in sorted(names):
            old, new = self.before.lookup(before.node, name), self.after.lookup(directory.after.node, name)
            if old or new:
                self._pair(prefix + name, old, new, directory)

    def _listed(self, directory: _Directory, before: Node) -> None:
        prefix = directory.path + b"/" if directory.path else b""
        old = dict(self.before.children(before.node))
        for name, new in self.after.children(directory.after.node):
            self._pair(prefix + name, old.pop(name, None), new, directory)
        for name, gone in old.items():
            self._pair(prefix + name, gone, None, directory)

    def _pair(self, path: bytes, old: Node | None, new: Node | None, parent: _Directory) -> None:
        """Record what became of one name; takes over both handles."""
        if old is not None:
            self._note_lower_link(path, old.attr)
        if new is None:
            assert old is not None
            self._records[path] = Change(path, Kind.DELETED, None, d_type(old.attr.mode), covered=parent.hidden)
        elif new.attr.is_dir:
            if old is not None and old.attr.is_dir:
                self._work.append(_Directory(path, old, new, parent.mode, parent.hidden))
                return
            self._record_new(path, old, new)
            self._work.append(_Directory(path, None, new, _Mode.ADDED, False))
        elif old is None or not self._same(old, new, path):
            self._record_new(path, old, new)
            self._note_link(path, old, new, written=True)
        else:
            self._unchanged(path, old, new, parent.hidden)
        if old is not None and old.attr.is_dir:
            self._removed.append((path, old))
        elif old is not None:
            self.before.forget(old.node)

    def _record_new(self, path: bytes, old: Node | None, new: Node) -> None:
        kind = Kind.ADDED if old is None else Kind.CHANGED
        was = DT_UNKNOWN if old is None else d_type(old.attr.mode)
        self._records[path] = Change(path, kind, new.attr, was, node=new.node)

    def _unchanged(self, path: bytes, old: Node, new: Node, hidden: bool) -> None:
        if hidden:
            self._records[path] = Change(path, Kind.SAME, new.attr, d_type(old.attr.mode), node=new.node)
        linked = old.attr.nlink > 1 or new.attr.nlink > 1
        if linked:
            self._note_link(path, old, new, written=hidden)
            self._linked[path] = new
        if not (hidden or linked):
            self.after.forget(new.node)

    # comparison ---------------------------------------------------------------------------------------------------
    def _same(self, old: Node, new: Node, path: bytes) -> bool:
        found = differing(
            self.before, old.node, old.attr, self.after, new.node, new.attr, EVERY if path else _OF_ROOT, exact=True
        )
        return next(found, None) is None

    def _stored(self, path: bytes) -> tuple[bool, bool, set[bytes]]:
        """Of the upper's own directory at `path`: opaque? redirected? names that may differ. (False, False, none) where
        the upper stores no directory there."""
        upper = self.upper
        try:
            entries = upper.scan(path)
            marks = upper.listxattr(path)
        except (FileNotFoundError, NotADirectoryError):
            return False, False, set()
        names: set[bytes] = set()
        opaque = False
        for entry in entries:
            if entry.name == whiteout.OPAQUE:
                opaque = True
            elif not whiteout.is_reserved(entry.name):
                names.add(entry.name)
                hidden = whiteout.hidden_name(entry.name)
                if hidden is not None:
                    names.add(hidden)
        if any(mark in whiteout.OPAQUE_XATTRS for mark in marks):
            opaque = opaque or whiteout.opaque_value(lambda name: upper.getxattr(path, name)) == b"y"
        return opaque, any(mark in whiteout.REDIRECT_XATTRS for mark in marks), names

    def _shines_through(self, before: NodeId, after: NodeId) -> bool:
        """Whether the lowers have a name here that the union has not."""
        missing = False
        for name, old in self.before.children(before):
            self.before.forget(old.node)
            if not missing:
                new = self.after.lookup(after, name)
                if new is None:
                    missing = True
                else:
                    self.after.forget(new.node)
        return missing

    # hard links ---------------------------------------------------------------------------------------------------
    def _note_link(self, path: bytes, old: Node | None, new: Node, *, written: bool) -> None:
        ino, before_nlink = None, 0
        if old is not None and not old.attr.is_dir:
            ino, before_nlink = old.attr.ino, old.attr.nlink
        if new.attr.nlink > 1 or before_nlink > 1:
            member = links.Member(path, ino, before_nlink, new.attr.nlink, written)
            self._members.setdefault(new.attr.ino, {})[path] = member

    def _note_lower_link(self, path: bytes, attr: Attr) -> None:
        if attr.nlink > 1 and not attr.is_dir:
            self._lower_links.setdefault(attr.ino, (attr.nlink, set()))[1].add(path)

    def _find_lost_names(self) -> None:
        """Names of hard-linked inodes that changed without standing in the upper."""
        incomplete = {ino for ino, group in self._members.items() if len(group) < next(iter(group.values())).nlink}
        if incomplete:
            self._find_names(incomplete)
        while self._removed:
            path, directory = self._removed.pop()
            for name, child in self.before.children(directory.node):
                self._note_lower_link(path + b"/" + name, child.attr)
                if child.attr.is_dir:
                    self._removed.append((path + b"/" + name, child))
                else:
                    self.before.forget(child.node)
            self.before.forget(directory.node)
        suspects = {ino for ino, (nlink, names) in self._lower_links.items() if len(names) < nlink}
        if suspects:
            self._find_lower_names(suspects)

    def _resolve_links(self) -> None:
        for group in self._members.values():
            for verdict in links.resolve(group.values()):
                path = verdict.path
                record = self._records.get(path)
                if record is None:
                    new = self._linked[path]
                    record = Change(path, Kind.CHANGED, new.attr, d_type(new.attr.mode), node=new.node)
                self._records[path] = _with_link(record, verdict.link_to)

    def _find_names(self, inodes: set[int]) -> None:
        """One complete walk of `after` for the other names of `inodes`, compared as if they stood in the upper."""
        directories = [(b"", self.after.root())]
        while directories:
            path, directory = directories.pop()
            prefix = path + b"/" if path else b""
            for name, child in self.after.children(directory.node):
                child_path = prefix + name
                if child.attr.is_dir:
                    directories.append((child_path, child))
                elif child.attr.ino in inodes and child_path not in self._members[child.attr.ino]:
                    self._keep_parents(child_path)
                    parent = _Directory(path, None, directory, _Mode.UPPER, False)
                    self._pair(child_path, self.before.resolve(child_path), child, parent)
                else:
                    self.after.forget(child.node)
            self.after.forget(directory.node)

    def _find_lower_names(self, inodes: set[int]) -> None:
        """One complete walk of `before` for names of `inodes` that were not met, compared with `after`. Those that did
        not change are none of our business: they are still linked to each other."""
        directories = [(b"", self.before.root(), self.after.root())]
        while directories:
            path, old_directory, directory = directories.pop()
            prefix = path + b"/" if path else b""
            for name, old in self.before.children(old_directory.node):
                child_path = prefix + name
                wanted = old.attr.ino in inodes and child_path not in self._lower_links[old.attr.ino][1]
                new = self.after.lookup(directory.node, name) if wanted or old.attr.is_dir else None
                if old.attr.is_dir and new is not None and new.attr.is_dir:
                    directories.append((child_path, old, new))
                    continue
                if wanted and new is not None and not self._same(old, new, child_path):
                    self._keep_parents(child_path)
                    self._record_new(child_path, old, new)
                    self._note_link(child_path, old, new, written=True)
                elif new is not None:
                    self.after.forget(new.node)
                self.before.forget(old.node)
            self.before.forget(old_directory.node)
            self.after.forget(directory.node)

    # parents ------------------------------------------------------------------------------------------------------
    def _keep_parents(self, path: bytes) -> None:
        at, parent = self.after.root(), b""
        self._merged.setdefault(b"", at)
        for name in path.split(b"/")[:-1]:
            child = self.after.lookup(at.node, name)
            if child is None:
                return
            parent = parent + b"/" + name if parent else name
            at = self._merged.setdefault(parent, child)

    def _add_parents(self) -> None:
        """Every directory above a change is `C` (docker), and is written so that its times survive extraction."""
        for path in [p for p, record in self._records.items() if record.kind is not Kind.SAME and p]:
            while path:
                path = path.rpartition(b"/")[0]
                record = self._records.get(path)
                if record is not None and record.kind is not Kind.SAME:
                    break
                node = self._merged[path]
                self._records[path] = Change(path, Kind.CHANGED, node.attr, DT_DIR, node=node.node)


def _with_link(change: Change, link_to: bytes | None) -> Change:
    return Change(
        change.path, change.kind, change.attr, change.was, change.opaque, change.covered, link_to, change.node
    )
