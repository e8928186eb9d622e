"""What each layer of a union did to a path: the history that its layers are.

    blame          one path, from the top: added, changed (in what), deleted, stored the same again
    blame_lines    of a text file, the layer that each line came with
    blame_tree     the files of a directory, and of all below it, with the layer that touched each last

A layer has done what makes the difference between the union of all below it and the union with it (`versions`); both
are the engine's, and here they are only compared. So a directory that is renamed by a redirect is added under its new
name and deleted under the old, with all that is in it, and what an opaque directory hides is deleted by that.
"""

from __future__ import annotations

import difflib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from unionfs.changeset.change import TYPES
from unionfs.changeset.difference import same_data
from unionfs.changeset.tree import Node, Tree
from unionfs.errors import LayerError
from unionfs.explain.versions import Versions
from unionfs.explain.which import Part, Place, which
from unionfs.layers.layer import Path
from unionfs.overlay import UnionFilesystem
from unionfs.overlay.inode import join
from unionfs.overlay.stack import UPPER
from unionfs.vfs import DT_REG, d_type

#: same: the layer has it, as it was.
Action = Literal["added", "changed", "deleted", "same"]
Aspect = Literal["type", "content", "link", "device", "mode", "owner", "xattr", "time"]

#: The largest version of a file whose lines are compared, in bytes.
MAX_TEXT: Final = 16 << 20
#: Where git looks for a NUL (buffer_is_binary() of xdiff-interface.c).
_FIRST_BYTES: Final = 8000
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Touch:
    """What one layer did. `what`: in what it is changed. `kind`: what it is since then, None where it is deleted.
    `opaque`: of a directory, what was below is not seen any more. `place`: where the layer has it, or the mark that
    deletes it; another layer's where a redirect brought it."""

    layer: int
    action: Action
    what: tuple[Aspect, ...]
    kind: str | None
    opaque: bool
    place: Place | None


@dataclass(frozen=True, slots=True)
class Blame:
    """`kind` None: there is no such name now. `touches` from the top; the last is what came first."""

    path: Path
    kind: str | None
    touches: tuple[Touch, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """`text` without its newline."""

    layer: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Blamed:
    """Anything but a directory, and the layer that touched it last."""

    path: Path
    kind: str
    layer: int
    size: int
    mtime_ns: int


def blame(fs: UnionFilesystem, path: Path) -> Blame:
    """FileNotFoundError where no layer ever had anything at `path`."""
    which(fs, path)
    with _History(fs, path) as history:
        touches = [touch for touch, _ in history.touches()]
        if not touches:  # whiteouts of nothing
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return Blame(path, history.kind, tuple(reversed(touches)))


def blame_lines(fs: UnionFilesystem, path: Path) -> tuple[Line, ...]:
    """LayerError where a version of it is binary or too large; FileNotFoundError, or an OSError for what is no regular
    file now."""
    lines: list[Line] = []
    with _History(fs, path) as history:
        for touch, node in history.touches():
            if node is None or d_type(node.attr.mode) != DT_REG:
                lines = []
            elif touch.action == "added" or not {"type", "content"}.isdisjoint(touch.what):
                lines = _follow(lines, _text(history.tree, node, touch.layer), touch.layer)
        if history.kind is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if history.kind != "file":
            raise LayerError(f"/{os.fsdecode(path)} is no file but a {history.kind}", hint="leave --lines out")
    return tuple(lines)


def blame_tree(fs: UnionFilesystem, path: Path) -> Iterator[Blamed]:
    """In the order of paths. FileNotFoundError, NotADirectoryError where `path` is no directory now."""
    versions = Versions(fs)
    numbers = {id(versions.layer(number)): number for number in versions.numbers}
    with Tree(fs) as tree:
        top = tree.resolve(path)
        if top is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if not top.attr.is_dir:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        todo = [(path, top)]
        while todo:
            at, node = todo.pop()
            if node.attr.is_dir:
                children = sorted(tree.children(node.node), reverse=True)
                todo += [(join(at, name), child) for name, child in children]
            else:
                layer, stored = fs.stored(node.node)
                number = numbers.get(id(layer), UPPER)  # the work directory's is the upper's
                if stored != at and number != UPPER:
                    number = min([number, *(part.place.layer for part in which(fs, at).redirects)])
                yield Blamed(at, TYPES[d_type(node.attr.mode)], number, node.attr.size, node.attr.mtime_ns)
            tree.forget(node.node)


# one path -------------------------------------------------------------------------------------------------------------
class _History:
    """A path in each version of a union, from the base up. `kind`: in the last one that was come to; `tree`: that."""

    def __init__(self, fs: UnionFilesystem, path: Path) -> None:
        self._versions, self._path = Versions(fs), path
        self._open: list[Tree] = []
        self.kind: str | None = None

    def __enter__(self) -> _History:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for tree in self._open:
            tree.close()

    @property
    def tree(self) -> Tree:
        return self._open[-1]

    def touches(self) -> Iterator[tuple[Touch, Node | None]]:
        """Each with what stands there since then."""
        old: Node | None = None
        for number in reversed(self._versions.numbers):
            self._open.append(Tree(self._versions.at(number)))
            new = self.tree.resolve(self._path)
            self.kind = None if new is None else TYPES[d_type(new.attr.mode)]
            touch = self._touch(number, old, new)
            if touch is not None:
                yield touch, new
            if len(self._open) > 1:
                self._open.pop(0).close()
            old = new

    def _touch(self, number: int, old: Node | None, new: Node | None) -> Touch | None:
        if old is None and new is None:
            return None
        found = which(self._versions.at(number), self._path)
        own = [part for part in found.parts if part.place.layer + self._versions.shift(number) == number]
        if new is None:
            hider = found.hider
            return Touch(
                number, "deleted", (), None, False, None if hider is None else self._placed(number, hider.place)
            )
        winner = next(part for part in found.parts if part.role == "wins")
        opaque = new.attr.is_dir and any(part.opaque or part.role == "whiteout" for part in own)
        place = self._placed(number, winner.place)
        if old is None:
            return Touch(number, "added", (), self.kind, opaque, place)
        what = tuple(self._aspects(old, new))
        if what or opaque:
            return Touch(number, "changed", what, self.kind, opaque, place)
        if any(self._describes(number, part) for part in own):
            return Touch(number, "same", (), self.kind, False, place)
        return None

    def _placed(self, number: int, place: Place) -> Place:
        """A place of a version, in the layers' own numbers."""
        return Place(place.layer + self._versions.shift(number), place.path, place.in_work)

    def _describes(self, number: int, part: Part) -> bool:
        """Has the layer the object itself, and not only what is in it?"""
        implied = getattr(self._versions.layer(number), "is_implied", None)
        return part.role in ("wins", "merged") and not (part.kind == "dir" and implied and implied(part.place.path))

    def _aspects(self, old: Node, new: Node) -> Iterator[Aspect]:
        a, b = old.attr, new.attr
        before, after = self._open[-2], self._open[-1]
        kind = d_type(b.mode)
        if d_type(a.mode) != kind:
            yield "type"
        elif kind == DT_REG and (a.size != b.size or not same_data(before, old.node, after, new.node)):
            yield "content"
        elif stat.S_ISLNK(b.mode) and before.fs.readlink(old.node) != after.fs.readlink(new.node):
            yield "link"
        elif a.rdev != b.rdev:
            yield "device"
        if stat.S_IMODE(a.mode) != stat.S_IMODE(b.mode):
            yield "mode"
        if (a.uid, a.gid) != (b.uid, b.gid):
            yield "owner"
        if before.xattrs(old.node) != after.xattrs(new.node):
            yield "xattr"
        if a.mtime_ns != b.mtime_ns and self._path:  # the root's is that of the layer's own making
            yield "time"


# lines ----------------------------------------------------------------------------------------------------------------
def _text(tree: Tree, node: Node, layer: int) -> list[bytes]:
    if node.attr.size > MAX_TEXT:
        raise LayerError(
            f"its version of layer {layer} has {node.attr.size} bytes; lines are told of up to {MAX_TEXT}",
            hint="leave --lines out",
        )
    opened = tree.fs.open(node.node, os.O_RDONLY)
    try:
        pieces = range(0, node.attr.size, _PIECE)
        if opened.fd >= 0:
            data = b"".join(os.pread(opened.fd, _PIECE, at) for at in pieces)
        else:
            data = b"".join(bytes(tree.fs.read(opened.fh, at, _PIECE)) for at in pieces)
    finally:
        tree.fs.release(opened.fh)
    if b"\0" in data[:_FIRST_BYTES]:
        raise LayerError(f"its version of layer {layer} is binary", hint="leave --lines out")
    return data.split(b"\n")[:-1] if data.endswith(b"\n") else data.split(b"\n") if data else []


def _follow(old: Sequence[Line], new: Sequence[bytes], layer: int) -> list[Line]:
    """Lines of a version: those that it has in common with the one before keep the layer they came with."""
    texts = [line.text for line in old]
    matcher = difflib.SequenceMatcher(None, texts, new)
    lines: list[Line] = []
    for tag, first, end, new_first, new_end in matcher.get_opcodes():
        lines += old[first:end] if tag == "equal" else [Line(layer, text) for text in new[new_first:new_end]]
    return lines
