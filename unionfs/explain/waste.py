"""What layers store that nobody sees: the bytes that upper layers hide, and the score that `dive` gives a stack.

A regular file's bytes are *wasted* where no name of the union leads to them: not by its own path, by a redirect, as
the data of a metacopy, nor by a hard link. Which names lead where is asked of the engine (`DirInode.lowers`, the merged
listing); what is stored besides is what is wasted. A hard-linked file counts once in each layer, under its first path.

`Score` is dive's definition (wagoodman/dive, dive/filetree/efficiency.go and dive/image/analysis.go), which judges by
names in each layer alone: of each path the smallest size that any layer has for it, over the sum of all. A whiteout is
an occurrence of its path of 0 bytes, or where it hides a directory, of all that is in that; a directory counts only
where a layer has it empty. So a removed directory costs an image nothing there, and a file that is replaced counts as
wasted with both sizes. Opaque marks mean nothing to it. Unlike dive, a whiteout that hides nothing does not end
the reading of its layer, and a hard link's bytes are those of its first path, not of the first in the tar.

Memory: what is wasted; of the directories those on the way to one, and a bounded number of others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from unionfs.explain.borrowed import borrowed, held
from unionfs.explain.stored import Views, link_below
from unionfs.layers.layer import Path
from unionfs.overlay import UnionFilesystem
from unionfs.overlay.inode import DirInode, FileInode, join
from unionfs.overlay.listing import listing
from unionfs.overlay.lookup import child
from unionfs.overlay.metacopy import is_metacopy
from unionfs.overlay.stack import UPPER
from unionfs.overlay.union import Union
from unionfs.vfs import DT_DIR, DT_REG


@dataclass(frozen=True, slots=True)
class LayerWaste:
    """Bytes of the regular files that a layer has, and of those that are hidden. `number` as in `which`."""

    number: int
    stored: int
    wasted: int


@dataclass(frozen=True, slots=True)
class WastedPath:
    """Bytes wasted at a path, in so many files of `layers` (topmost first). `removed`: the union has nothing there,
    so that what it was, perhaps a directory with all in it, is gone; else something stands in its place."""

    path: Path
    wasted: int
    files: int
    layers: tuple[int, ...]
    removed: bool


@dataclass(frozen=True, slots=True)
class Score:
    """What dive says. `efficiency`, `user_wasted`: fractions, the second of all but the base layer's bytes. `wasted`:
    bytes of the paths that several layers have, what is seen of them included."""

    efficiency: float
    wasted: int
    user_wasted: float


@dataclass(frozen=True, slots=True)
class Waste:
    """`layers` from the top; `paths` by bytes, most first."""

    layers: tuple[LayerWaste, ...]
    paths: tuple[WastedPath, ...]
    score: Score

    @property
    def stored(self) -> int:
        return sum(layer.stored for layer in self.layers)

    @property
    def wasted(self) -> int:
        return sum(layer.wasted for layer in self.layers)

    @property
    def fraction(self) -> float:
        return self.wasted / self.stored if self.stored else 0.0


def waste(fs: UnionFilesystem) -> Waste:
    """Of a union that nobody changes meanwhile."""
    with fs._union.lock:
        return _Survey(fs._union, borrowed(fs)).run()


# the walk -------------------------------------------------------------------------------------------------------------
class _Directory:
    """A directory on the way, stored in `layers`. `inode`: what the union shows at its path, if that is a directory;
    `shown`: the layers whose directory of this very path that is made of. `removed`: the first on the way that the
    union does not show as a directory, and whether it shows nothing there. `resets`: the layers that remove it, or
    something above it.

    As dive sees it: `occurrences`, bytes each, of its path as what is no directory; `whiteouts`, the layers with one of
    it; `grown`, by how much each layer changes the bytes of all below it."""

    __slots__ = ("grown", "inode", "layers", "names", "occurrences", "path", "removed", "resets", "shown", "whiteouts")

    def __init__(self, path: Path, layers: tuple[int, ...], inode: DirInode | None, above: _Directory | None) -> None:
        self.path, self.layers, self.inode = path, layers, inode
        self.removed: tuple[Path, bool] | None = None if above is None else above.removed
        self.resets: frozenset[int] = frozenset()
        self.names: Iterator[bytes] = iter(())
        self.shown: frozenset[int] = frozenset()
        self.occurrences: list[int] = []
        self.whiteouts: list[int] = []
        self.grown: Counter[int] = Counter()


@dataclass(slots=True)
class _Group:
    """A hard-linked file of a layer; `at`: where it is wasted, if none of its names is `seen`."""

    at: tuple[Path, bool]
    layer: int
    size: int
    seen: bool = False


class _Survey:
    """All stored paths, in the order of names; of a directory first all that is in it."""

    def __init__(self, union: Union, borrowed: frozenset[tuple[int, Path]]) -> None:
        self._union, self._borrowed = union, borrowed
        self._views = Views(union)
        self._stored = dict.fromkeys(self._views.numbers, 0)
        #: By path, and whether that is removed: of each layer the bytes and the number of the files.
        self._wasted: dict[tuple[Path, bool], dict[int, tuple[int, int]]] = {}
        self._groups: dict[tuple[int, int, int], _Group] = {}
        self._score = _Scoring()

    def run(self) -> Waste:
        todo = [_Directory(b"", tuple(self._views.numbers), self._union.root, None)]
        self._enter(todo[0])
        while todo:
            directory = todo[-1]
            name = next(directory.names, None)
            below = None if name is None else self._name(directory, name)
            if below is not None:
                self._enter(below)
                todo.append(below)
            elif name is None:
                todo.pop()
                self._leave(directory, todo[-1] if todo else None)
        for group in self._groups.values():
            if not group.seen:
                self._waste(group.at, group.layer, group.size)
        return self._result()

    def _result(self) -> Waste:
        wasted = dict.fromkeys(self._views.numbers, 0)
        paths = []
        for (path, removed), by_layer in self._wasted.items():
            for number, (size, _) in by_layer.items():
                wasted[number] += size
            size, files = (sum(column) for column in zip(*by_layer.values(), strict=True))
            paths.append(WastedPath(path, size, files, tuple(sorted(by_layer)), removed))
        paths.sort(key=lambda one: (-one.wasted, one.path))
        layers = tuple(LayerWaste(number, self._stored[number], wasted[number]) for number in self._views.numbers)
        return Waste(layers, tuple(paths), self._score.result(sum(layer.stored for layer in layers[:-1])))

    def _enter(self, directory: _Directory) -> None:
        path, inode = directory.path, directory.inode
        names: set[bytes] = set()
        for number in directory.layers:
            view = self._views.of(number, path)
            names.update(view.types, view.hidden)
            if not (view.types or view.hidden):
                directory.occurrences.append(0)
        directory.names = iter(sorted(names))
        if inode is None:
            return
        inode.opens += 1
        listing(self._union, inode)  # which ends the run where a layer says so by a file
        shown = {number for number, place in inode.lowers if place == path}
        directory.shown = frozenset(shown | {UPPER} if inode.upper else shown)

    def _leave(self, directory: _Directory, above: _Directory | None) -> None:
        inode = directory.inode
        if inode is not None:
            inode.opens -= 1
            self._union.release_unused(inode)
        if above is None:
            return
        for layer in directory.whiteouts:
            directory.occurrences.append(sum(size for number, size in directory.grown.items() if number > layer))
        self._score.add(directory.occurrences)
        above.grown.update(directory.grown)

    def _name(self, directory: _Directory, name: bytes) -> _Directory | None:
        """Count what all layers have under one name but directories; what they have as a directory."""
        path = join(directory.path, name)
        views = [(number, self._views.of(number, directory.path)) for number in directory.layers]
        types = {number: view.types[name] for number, view in views if name in view.types}
        whiteouts = [number for number, view in views if name in view.hidden]
        sizes = {number: self._file(directory, name, number, t) for number, t in types.items() if t != DT_DIR}
        layers = tuple(number for number, type_ in types.items() if type_ == DT_DIR)
        resets = directory.resets.union(whiteouts)
        _grow(directory.grown, sizes | dict.fromkeys(layers, 0), resets)
        if not layers:
            self._score.add([*sizes.values(), *(0 for _ in whiteouts)])
            return None
        inode = child(self._union, directory.inode, name) if directory.inode is not None else None
        if inode is not None and not isinstance(inode, DirInode):
            self._union.release_unused(inode)
            inode = None
        below = _Directory(path, layers, inode, directory)
        if below.inode is None and below.removed is None:
            below.removed = path, not _shows(self._union, directory, name)
        below.resets, below.whiteouts, below.occurrences = resets.union(sizes), whiteouts, [*sizes.values()]
        return below

    def _file(self, directory: _Directory, name: bytes, number: int, type_: int) -> int:
        """The bytes that a layer has under a name, unless it has counted them under another."""
        if type_ != DT_REG:
            return 0
        path = join(directory.path, name)
        layer = self._union.stack.layer(number)
        if link_below(layer, path) is not None:
            return 0
        if not hasattr(layer, "lower_links") and is_metacopy(self._union, number, path):
            return 0
        st = layer.lstat(path)
        seen = self._is_seen(directory, name, number, linked=st.st_nlink > 1)
        at = directory.removed or (path, not _shows(self._union, directory, name))
        if st.st_nlink > 1:
            group = self._groups.get((number, st.st_dev, st.st_ino))
            if group is not None:
                group.seen |= seen
                return 0
            self._groups[number, st.st_dev, st.st_ino] = _Group(at, number, st.st_size, seen)
        elif not seen:
            self._waste(at, number, st.st_size)
        self._stored[number] += st.st_size
        return st.st_size

    def _is_seen(self, directory: _Directory, name: bytes, number: int, *, linked: bool) -> bool:
        if (number, join(directory.path, name)) in self._borrowed:
            return True
        if directory.inode is None or number not in directory.shown:
            return False
        listed = listing(self._union, directory.inode).names.get(name)
        if listed is None or listed.layer != number or listed.type == DT_DIR:
            return False
        if not linked or number == UPPER or not self._union.stack.has_upper:
            return True
        with held(self._union, child(self._union, directory.inode, name)) as inode:
            return not (isinstance(inode, FileInode) and inode.upper)  # copied up under another name

    def _waste(self, at: tuple[Path, bool], number: int, size: int) -> None:
        if size:
            by_layer = self._wasted.setdefault(at, {})
            bytes_, files = by_layer.get(number, (0, 0))
            by_layer[number] = (bytes_ + size, files + 1)


def _shows(union: Union, directory: _Directory, name: bytes) -> bool:
    return directory.inode is not None and name in listing(union, directory.inode).names


# dive -----------------------------------------------------------------------------------------------------------------
class _Scoring:
    """dive's sums over all paths."""

    def __init__(self) -> None:
        self._least = self._all = self._wasted = 0

    def add(self, occurrences: list[int]) -> None:
        """A path, with the bytes of each occurrence."""
        if not occurrences:
            return
        size = sum(occurrences)
        self._least += min(occurrences)
        self._all += size
        if len(occurrences) > 1:
            self._wasted += size

    def result(self, user: int) -> Score:
        """`user`: the bytes of all layers but the base."""
        efficiency = self._least / self._all if self._all else 1.0
        return Score(efficiency, self._wasted, self._wasted / user if user else 0.0)


def _grow(grown: Counter[int], sizes: dict[int, int], resets: frozenset[int]) -> None:
    """One name, of `sizes` bytes by layer and removed by `resets`: what each layer changes, from the base up."""
    last = 0
    for number in sorted({*sizes, *resets}, reverse=True):
        size = sizes.get(number, 0)
        grown[number] += size - last
        last = size
