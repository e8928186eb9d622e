"""All paths of a union with what each layer has there: the rows of a picture of its layers.

    layer_tree     one `TreeRow` for each path below one, each directory before what is in it
    TreeRow            what `which` says of the path, and of each part how it is stored
    LayerTree      the rows of a stack, and what its layers are called

Also what is whited out or hidden has its row: a path has one if any layer has something there that could be reached
under this name. Who decides is `which.Walk`, and so the engine's own lookup; nothing is decided here.

INVARIANT: `TreeRow.which` is what `which.which` says of the path. tests/unit/test_explain_layer_tree.py holds one
           against the other on stacks that nobody thought of.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal

from unionfs.explain.location import Stored
from unionfs.explain.which import Here, Part, Place, Walk, Which, redirects, which_of
from unionfs.layers.layer import Path
from unionfs.overlay import UnionFilesystem
from unionfs.overlay.hardlink import find_origin, origin_of
from unionfs.overlay.inode import join
from unionfs.overlay.stack import UPPER
from unionfs.overlay.union import Union

#: deleted: no longer there. changed: the upper has it in the place of a layer's. moved: a directory or file of a layer
#: under another name. overridden: a layer has it in the place of a lower one's. added: only the upper has it. merged: a
#: directory of several. single: one layer has it, and nobody else does. broken: it cannot be looked up.
State = Literal["deleted", "changed", "moved", "overridden", "added", "merged", "single", "broken"]

#: Whoever looks at a picture looks for these.
NOTABLE: Final[frozenset[State]] = frozenset({"deleted", "changed", "moved", "overridden", "broken"})


#: Of a name that was there when its directory was read, in a layer that is being changed.
_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part as it is stored. `mode`: permissions. `target` of a symbolic link. All 0 for a whiteout."""

    part: Part
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    target: bytes | None = None


@dataclass(frozen=True, slots=True)
class TreeRow:
    """`depth` 0 for the path that was asked for. `origin`: of what the upper has, where that was copied up from, if
    that is known. `data`: where a file's bytes are. `below`: how many rows that follow belong to what is in it. `cut`:
    there is more in it, which was not looked at. `failure`: why it is broken; then nothing else is known of it."""

    which: Which
    depth: int
    items: tuple[StoredPart, ...]
    state: State
    origin: Place | None = None
    data: Stored | None = None
    below: int = 0
    cut: bool = False
    failure: str = ""

    @property
    def path(self) -> Path:
        return self.which.path

    @property
    def name(self) -> bytes:
        return self.which.path.rpartition(b"/")[2]

    @property
    def is_dir(self) -> bool:
        """Whether any layer may have something in it: also of a directory that is deleted, or that a file hides."""
        return any(part.kind == "dir" for part in self.which.parts)

    @property
    def shown(self) -> StoredPart | None:
        """What people see: None where there is nothing."""
        return next((item for item in self.items if item.part.role == "wins"), None)

    @property
    def ways(self) -> list[tuple[Place, Place, bool]]:
        """Where it has come from under another name: (new, old, whether it was copied up rather than redirected)."""
        parts = self.which.parts
        found = []
        if self.origin is not None and self.origin.path != self.path:
            found.append((parts[0].place, self.origin, True))
        for above, below in pairwise(parts):
            if above.redirect is not None and below.role in ("merged", "data") and below.place != self.origin:
                found.append((above.place, below.place, False))
        return found


@dataclass(frozen=True, slots=True)
class LayerHeading:
    """One layer. `number` 0: the upper. `name`: short, and no other layer's. `about`: how it came to be, if that is
    known. Both are other people's text."""

    number: int
    name: str
    path: bytes | None = None
    about: str = ""


@dataclass(frozen=True, slots=True)
class LayerTree:
    """What a picture is made of. `layers`: topmost first, beginning with the upper, if there is one. `title`: what the
    stack is called, other people's text. `rows` begins with the path that was asked for."""

    title: str
    layers: tuple[LayerHeading, ...]
    rows: tuple[TreeRow, ...]

    @property
    def path(self) -> Path:
        return self.rows[0].path


def layer_tree(
    fs: UnionFilesystem,
    path: Path = b"",
    depth: int | None = None,
    locate: Callable[[Place | None], Stored | None] = lambda place: None,
) -> list[TreeRow]:
    """`path`, and what is below it to a depth of `depth` (0: it alone). `locate` says where bytes are.

    FileNotFoundError where no layer has anything at `path`.
    """
    with fs._union.lock, Walk(fs._union) as walk:
        return _Growing(fs._union, walk, depth, locate).grow(path)


@dataclass(slots=True)
class _Open:
    """A directory on the way: its row's number, the names still to come (the last one first), what to let go after
    it."""

    row: int
    here: Here
    redirects: tuple[Part, ...]
    names: list[tuple[bytes, list[int]]]
    held: int


class _Growing:
    def __init__(
        self, union: Union, walk: Walk, depth: int | None, locate: Callable[[Place | None], Stored | None]
    ) -> None:
        self._union, self._walk, self._depth, self._locate = union, walk, depth, locate
        self._rows: list[TreeRow] = []
        #: Where each inode of a lower layer is that was met, by layer and st_ino: origins lead to these.
        self._met: dict[tuple[int, int], Place] = {}
        #: TreeRow -> the lower's inode that it was copied up from, whose place has not been met yet.
        self._origins: dict[int, tuple[int, int]] = {}

    def grow(self, path: Path) -> list[TreeRow]:
        here = self._walk.way(path)
        if here.inode is None and not here.parts:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        way = [self._add(path, here, (), 0, 0)]  # a stack, not a recursion: a tree may be deeper than Python goes
        while way:
            top = way[-1]
            if not top.names:
                way.pop()
                self._rows[top.row] = replace(self._rows[top.row], below=len(self._rows) - 1 - top.row)
                self._walk.release(top.held)
                continue
            held = self._walk.held
            opened = self._step(top, len(way), held)
            if opened is not None and opened.names:
                way.append(opened)
            else:
                self._walk.release(held)
        self._find_origins()
        return self._rows

    def _step(self, top: _Open, depth: int, held: int) -> _Open | None:
        """The next name of a directory. One that the engine fails for (a metacopy without data), or that this user may
        not look into, is no reason to show nothing of the others."""
        name, numbers = top.names.pop()
        path = join(self._rows[top.row].path, name)
        try:
            below = self._walk.step(top.here, name, numbers)
            if below.inode is None and not below.parts:
                return None  # it cannot be reached by this name
            return self._add(path, below, top.redirects, depth, held)
        except OSError as e:
            self._origins.pop(len(self._rows), None)
            if e.errno not in _GONE:
                found = Which(path, None, (), redirects=top.redirects)
                self._rows.append(TreeRow(found, depth, (), "broken", failure=e.strerror or str(e)))
            return None

    def _add(self, path: Path, here: Here, above: tuple[Part, ...], depth: int, held: int) -> _Open:
        """A row, and what is to be done with it next."""
        if not depth:
            above = tuple(self._walk.redirects)
            told = above
        else:
            told = (*above, *redirects(here.parts))
        found = which_of(path, here, told)
        number = len(self._rows)
        items = tuple(self._item(part) for part in here.parts)
        origin = self._origin(number, found)
        row = TreeRow(
            found, depth, items, _state(found, origin, number in self._origins), origin, self._locate(here.data)
        )
        names = sorted(self._walk.names(here).items(), reverse=True) if row.is_dir else []
        if names and self._depth is not None and depth >= self._depth:
            row, names = replace(row, cut=True), []
        self._rows.append(row)
        return _Open(number, here, told, names, held)

    def _item(self, part: Part) -> StoredPart:
        if part.role == "whiteout":
            return StoredPart(part)
        place, stack = part.place, self._union.stack
        layer = stack.work if place.in_work else stack.layer(place.layer)
        st = layer.lstat(place.path)
        if place.layer != UPPER and part.kind != "dir":
            self._met[place.layer, st.st_ino] = place
        target = layer.readlink(place.path) if part.kind == "symlink" else None
        return StoredPart(part, st.st_mode & 0o7777, st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns, target)

    # where it was copied up from ----------------------------------------------------------------------------------
    def _origin(self, row: int, found: Which) -> Place | None:
        """What `overlay.origin` of the upper's file says (ovl_check_origin()), if it is one of the parts below."""
        top = found.parts[0] if found.parts else None
        if top is None or top.role != "wins" or top.kind == "dir" or top.place.layer != UPPER or top.place.in_work:
            return None
        union = self._union
        origin = origin_of(union, union.stack.upper, top.place.path)
        if origin is None:
            return None
        for part in found.parts[1:]:
            place = part.place
            if part.role != "whiteout" and union.stack.layer(place.layer).handle(place.path) == origin:
                return place
        lower = find_origin(union, origin, top.place.path)
        if lower is not None:
            self._origins[row] = (lower[0], lower[1].st_ino)
        return None

    def _find_origins(self) -> None:
        for number, inode in self._origins.items():
            place = self._met.get(inode)
            if place is not None:
                self._rows[number] = replace(self._rows[number], origin=place)


def _state(found: Which, origin: Place | None, from_elsewhere: bool) -> State:
    """`from_elsewhere`: it was copied up from another name."""
    if found.kind is None:
        return "deleted"
    shown = [part for part in found.parts if part.role in ("wins", "merged", "data", "linked")]
    hides = any(part.role == "hidden" for part in found.parts)
    top = shown[0]
    if top.place.layer == UPPER:
        if from_elsewhere or any(part.redirect is not None for part in shown):
            return "moved"
        if hides or origin is not None or (len(shown) > 1 and top.kind != "dir"):
            return "changed"
        return "merged" if len(shown) > 1 else "added"
    if hides or (len(shown) > 1 and top.kind != "dir"):
        return "overridden"
    return "merged" if len(shown) > 1 else "single"
