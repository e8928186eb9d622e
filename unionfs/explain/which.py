"""Which layer a path comes from, what each other layer has there, and what hides it.

    which          one path
    which_all      the names of a directory
    Walk           any number of them, by whoever goes through a tree (layer_tree.py)

Which layers a name is made of is never decided here: the path is walked with the engine's own lookup, and the inode
that comes out says it (`DirInode.upper` and `.lowers`; where a `FileInode` and its data are). Here is only looked up
what every layer has at the place where it would have to be, with the functions that the engine itself reads a stored
directory with (`stored.Views`, `redirect.marks`), and which of the marks and objects found is above what.

INVARIANT: what is hidden has a `Hider`, and below what ends the run nothing contributes but a metacopy's data.
           tests/unit/test_explain_which.py holds both against stacks that nobody thought of.

Layer 0 is the upper, 1… are the lowers, topmost first, as everywhere in the engine. Paths are relative to a root.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unionfs.changeset.change import TYPES
from unionfs.explain.stored import Views, link_below
from unionfs.layers import whiteout
from unionfs.layers.layer import Path
from unionfs.overlay import UnionFilesystem
from unionfs.overlay.inode import DirInode, FileInode, Inode, join
from unionfs.overlay.listing import listing
from unionfs.overlay.lookup import child
from unionfs.overlay.metacopy import is_metacopy
from unionfs.overlay.redirect import Marks, holds, marks
from unionfs.overlay.stack import UPPER
from unionfs.overlay.union import Union
from unionfs.vfs import DT_DIR, DT_REG

#: wins: the topmost of what is shown. merged: a directory that goes on here. data: of the metacopy that wins.
#: linked: a name of a file whose copy in the upper wins. hidden: not shown. whiteout: a mark, not shown either.
Role = Literal["wins", "merged", "data", "linked", "hidden", "whiteout"]
#: whiteout, opaque: the mark. file: something that is no directory, above. directory: one, above what is none.
#: redirect: the directory above goes on elsewhere. link: a copy of another name of the file.
Rule = Literal["whiteout", "opaque", "file", "directory", "redirect", "link"]


@dataclass(frozen=True, slots=True)
class Place:
    """`in_work`: in the work directory, not in the layer itself."""

    layer: int
    path: Path
    in_work: bool = False


@dataclass(frozen=True, slots=True)
class Hider:
    """What hides something: the mark or object, where it is."""

    rule: Rule
    place: Place


@dataclass(frozen=True, slots=True)
class Part:
    """What one layer has. `kind`: dir, file, symlink, fifo, char, block, socket or whiteout. `links`: stored names of
    a file. `hidden_by`: of roles hidden, linked and whiteout (where it hides nothing itself). `redirect`: where a
    directory or metacopy goes on below. `link_below`: what only a layer below has, and a tar's hard link leads to."""

    place: Place
    role: Role
    kind: str
    hidden_by: Hider | None = None
    opaque: bool = False
    metacopy: bool = False
    redirect: bytes | None = None
    links: int = 1
    link_below: Path | None = None


@dataclass(frozen=True, slots=True)
class Which:
    """`kind` None: there is no such name. `parts` from the top. `data`: where a regular file's bytes are. `redirects`:
    of the directories on the way, and of this one."""

    path: Path
    kind: str | None
    parts: tuple[Part, ...]
    data: Place | None = None
    redirects: tuple[Part, ...] = ()

    @property
    def layers(self) -> tuple[int, ...]:
        """Those it is made of, topmost first."""
        return tuple(part.place.layer for part in self.parts if part.role in ("wins", "merged", "data"))

    @property
    def hider(self) -> Hider | None:
        """What keeps a name that is not there from being there."""
        return next((part.hidden_by for part in self.parts if part.hidden_by is not None), None)


def which(fs: UnionFilesystem, path: Path) -> Which:
    """FileNotFoundError where no layer has anything at `path`, not even a whiteout."""
    with fs._union.lock, Walk(fs._union) as walk:
        return walk.find(path)


def which_all(fs: UnionFilesystem, path: Path) -> list[Which]:
    """The names that a directory shows, in order. FileNotFoundError, NotADirectoryError where it shows none."""
    with fs._union.lock, Walk(fs._union) as walk:
        return walk.entries(path)


def redirects(parts: Sequence[Part]) -> list[Part]:
    """Those that go on elsewhere below."""
    return [part for part in parts if part.role in ("wins", "merged") and part.redirect]


@dataclass(frozen=True, slots=True)
class Here:
    """A path that a `Walk` has reached. `inode` None: the union has no such name. By layer: `places`, where it has the
    path or would have it; `hiders`, what keeps the layer from being asked there."""

    inode: Inode | None
    places: tuple[Path, ...]
    hiders: tuple[Hider | None, ...]
    parts: tuple[Part, ...]
    data: Place | None = None


def which_of(path: Path, here: Here, redirects: tuple[Part, ...]) -> Which:
    kind = None
    if isinstance(here.inode, DirInode):
        kind = "dir"
    elif isinstance(here.inode, FileInode):
        kind = TYPES[here.inode.type]
    return Which(path, kind, here.parts, here.data, redirects)


class Walk:
    """A path, component by component. Expects `union.lock` to be held. What is on the way is kept in use until the end,
    or a `release`."""

    def __init__(self, union: Union) -> None:
        self._union = union
        self._views = Views(union)
        self._held: list[Inode] = []
        #: Those on the way that was gone.
        self.redirects: list[Part] = []

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release(0)

    @property
    def held(self) -> int:
        """How many are in use, for `release`."""
        return len(self._held)

    def release(self, held: int) -> None:
        """Let go of what was reached since `held` was that."""
        while len(self._held) > held:
            inode = self._held.pop()
            inode.opens -= 1
            self._union.release_unused(inode)

    def find(self, path: Path) -> Which:
        here = self.way(path)
        if here.inode is None and not here.parts:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return self._which(path, here)

    def way(self, path: Path) -> Here:
        """The path itself, whether the union has it or not."""
        here = self.root()
        for name in path.split(b"/") if path else ():
            here = self.step(here, name)
            self.redirects += redirects(here.parts)
        return here

    def entries(self, path: Path) -> list[Which]:
        here = self.way(path)
        if here.inode is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        if not isinstance(here.inode, DirInode):
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", path)
        names = sorted(listing(self._union, here.inode).names)
        return [self._which(join(path, name), self.step(here, name)) for name in names]

    def names(self, here: Here) -> dict[bytes, list[int]]:
        """All that any layer has in a directory or whites out there, each with the numbers of these layers."""
        found: dict[bytes, list[int]] = {}
        for number in self._views.numbers:
            view = self._views.of(number, here.places[number])
            for name in view.types.keys() | view.hidden:
                found.setdefault(name, []).append(number)
        return found

    def _which(self, path: Path, here: Here) -> Which:
        return which_of(path, here, tuple(self.redirects))

    # one step -------------------------------------------------------------------------------------------------------
    def root(self) -> Here:
        root = self._union.root
        listing(self._union, root)  # which ends the run where a layer says so by a file
        shown = self._shown(root)
        parts: list[Part] = []
        hiders: list[Hider | None] = [None] * (self._views.numbers.stop)
        ended: Hider | None = None
        for number in self._views.numbers:
            place = Place(number, b"")
            opaque = self._views.of(number, b"").opaque
            if number not in shown:
                hiders[number] = ended
            role: Role = "hidden" if number not in shown else "merged" if parts else "wins"
            parts.append(Part(place, role, "dir", hiders[number], opaque))
            ended = ended or (Hider("opaque", place) if opaque else None)
        return Here(root, (b"",) * self._views.numbers.stop, tuple(hiders), tuple(parts))

    def step(self, here: Here, name: bytes, numbers: Sequence[int] | None = None) -> Here:
        """One name further. Which layers have it is the engine's word; the rest is what is there besides.

        `numbers`: what `names` says of it, where that is known. Where none of these layers has a directory, only they
        are asked, and there is no step further.
        """
        inode = child(self._union, here.inode, name) if isinstance(here.inode, DirInode) else None
        if inode is not None:
            inode.opens += 1
            self._held.append(inode)
        if isinstance(inode, DirInode):
            listing(self._union, inode)
        shown = self._shown(inode)
        run = _Run(self, inode, here, name, shown, self._group(inode, here.inode, name))
        if numbers is None or any(self.type_at(n, join(here.places[n], name)) == DT_DIR for n in numbers):
            numbers = self._views.numbers
        elif not shown.keys() <= set(numbers):  # the upper, for a file that was copied up by another name
            numbers = sorted({*numbers, *shown})
        for number in numbers:
            run.add(number)
        return run.result()

    def _shown(self, inode: Inode | None) -> dict[int, Place]:
        """What the engine made an inode of, by layer; a file's copy in the index first."""
        if isinstance(inode, DirInode):
            upper = {UPPER: Place(UPPER, inode.path)} if inode.upper else {}
            return upper | {number: Place(number, path) for number, path in inode.lowers}
        if not isinstance(inode, FileInode):
            return {}
        if inode.upper:
            tree, path = self._union.upper_place(inode)
            return {UPPER: Place(UPPER, path, in_work=tree is not self._union.stack.upper)}
        assert inode.lower is not None
        return {inode.lower[0]: Place(*inode.lower)}

    def _group(self, inode: Inode | None, parent: Inode | None, name: bytes) -> int | None:
        """The layer in which a file has the name, if it was copied up by another one."""
        if not isinstance(inode, FileInode) or not inode.upper:
            return None
        assert isinstance(parent, DirInode)
        return listing(self._union, parent).names[name].layer or None

    # what is stored -------------------------------------------------------------------------------------------------
    def marks(self, number: int, path: Path) -> Marks:
        return marks(self._union, number, path)

    def whiteout_at(self, number: int, path: Path) -> Path | None:
        """The mark by which a layer whites out a path, if it does."""
        directory, _, name = path.rpartition(b"/")
        if name not in self._views.of(number, directory).hidden:
            return None
        stack, named = self._union.stack, join(directory, whiteout.PREFIX + name)
        aufs = (number != UPPER or stack.aufs) and holds(stack.layer(number), named)
        return named if aufs else path

    def type_at(self, number: int, path: Path) -> int | None:
        directory, _, name = path.rpartition(b"/")
        return self._views.of(number, directory).types.get(name)

    def part(self, place: Place, role: Role, type_: int, hider: Hider | None = None) -> Part:
        number, path = place.layer, place.path
        part = Part(place, role, TYPES[type_], hider)
        if type_ == DT_DIR:
            mark = self.marks(number, path)
            return replace(part, opaque=mark.opaque or self._views.of(number, path).opaque, redirect=mark.redirect)
        layer = self._union.stack.work if place.in_work else self._union.stack.layer(number)
        below = None if place.in_work else link_below(layer, path)
        part = replace(part, links=layer.lstat(path).st_nlink, link_below=below)
        if type_ == DT_REG and not place.in_work and is_metacopy(self._union, number, path):
            values = [layer.getxattr(path, name) for name in self._union.stack.marks_of(number).redirect]
            return replace(part, metacopy=True, redirect=next((value for value in values if value is not None), None))
        return part


class _Run:
    """One name in each layer from the top: what is there, and what is above it."""

    def __init__(
        self, walk: Walk, inode: Inode | None, here: Here, name: bytes, shown: dict[int, Place], group: int | None
    ) -> None:
        """`shown`, `group`: what `Walk._shown` and `_group` say of the inode."""
        self._walk, self._inode, self._here, self._shown, self._group = walk, inode, here, shown, group
        self._name, self._plain = name, name
        self._absolute: Path | None = None  # as a redirect says, for the layers below it
        self._redirected: Hider | None = None
        self._ended: Hider | None = None
        self._first: Place | None = None
        self._places = list(here.places)
        self._hiders = list(here.hiders)
        self._parts: list[Part] = []

    def add(self, number: int) -> None:
        walk, place = self._walk, self._shown.get(number)
        path = self._absolute if self._absolute is not None else join(self._here.places[number], self._name)
        if place is not None and not place.in_work:
            path = place.path
        self._places[number] = path
        hider = self._here.hiders[number] or self._ended
        if place is not None:
            self._add_shown(place)
        else:
            self._hiders[number] = hider
        type_ = walk.type_at(number, path)
        if type_ is not None and (place is None or place.in_work):
            self._add_hidden(Place(number, path), type_, hider)
        mark = walk.whiteout_at(number, path)
        if mark is not None:
            self._parts.append(Part(Place(number, mark), "whiteout", "whiteout", hider))
            self._end(Hider("whiteout", Place(number, mark)), hider)
        self._add_plain(number, path)

    def _end(self, what: Hider, hider: Hider | None = None) -> None:
        """The run ends here, unless the layer is not asked anyway."""
        if hider is None:
            self._ended = self._ended or what

    def _add_shown(self, place: Place) -> None:
        inode = self._inode
        type_ = inode.type if isinstance(inode, FileInode) else DT_DIR
        part = self._walk.part(place, "merged" if self._first else "wins", type_)
        self._parts.append(part)
        self._first = self._first or place
        if type_ != DT_DIR:
            self._end(Hider("file" if self._group is None else "link", place))
        elif part.opaque:
            self._end(Hider("opaque", place))
        elif part.redirect is not None:
            self._follow(part.redirect, place)

    def _follow(self, redirect: bytes, place: Place) -> None:
        self._redirected = Hider("redirect", place)
        if redirect[:1] == b"/":
            self._absolute = redirect[1:]
        elif self._absolute is not None:
            self._absolute = join(self._absolute.rpartition(b"/")[0], redirect)
        else:
            self._name = redirect

    def _add_hidden(self, place: Place, type_: int, hider: Hider | None) -> None:
        if hider is None and self._first is not None:
            hider = Hider("directory", self._first)
            self._hiders[place.layer] = hider
            self._end(Hider("file", place))
        role: Role = "linked" if place.layer == self._group else "hidden"
        self._parts.append(self._walk.part(place, role, type_, hider))

    def _add_plain(self, number: int, path: Path) -> None:
        """What the layer has under the name itself, where a redirect leads past it."""
        plain = join(self._here.places[number], self._plain)
        if self._redirected is None or plain == path or number <= self._redirected.place.layer:
            return
        type_ = self._walk.type_at(number, plain)
        if type_ is not None:
            hider = self._here.hiders[number] or self._redirected
            self._parts.append(self._walk.part(Place(number, plain), "hidden", type_, hider))

    def result(self) -> Here:
        inode = self._inode
        data: Place | None = None
        if isinstance(inode, FileInode) and inode.type == DT_REG and self._first is not None:
            data = self._first
            if inode.data is not None:
                data = Place(inode.data.layer, inode.data.path)
                self._parts = _with_data(self._walk, self._parts, data)
        return Here(inode, tuple(self._places), tuple(self._hiders), tuple(self._parts), data)


def _with_data(walk: Walk, parts: Sequence[Part], data: Place) -> list[Part]:
    """The parts, with that said of the one that has a metacopy's data."""
    kept = [part for part in parts if part.place != data]
    found = walk.part(data, "data", DT_REG)
    at = next((i for i, part in enumerate(kept) if part.place.layer > data.layer), len(kept))
    return [*kept[:at], found, *kept[at:]]
