"""The merged names of a directory, made by reading the directory once in each layer that has it.

Rules, per layer from the top (ovl_dir_read_merged() of fs/overlayfs/readdir.c, image-spec layer.md):

- a name seen higher up wins; two directories of one name merge, and the listing notes the layers;
- a whiteout hides its name in the layers below; an AUFS whiteout leaves the same layer's own entry alone;
- `.wh..wh..opq` ends the run for the whole directory; xattr opaqueness ended it when the directory was looked up.

The listing is kept up to date by those who change the upper (`Listing`'s own fields), so it is read once only. Reading
holds `union.lock`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Protocol

from unionfs.layers import whiteout
from unionfs.layers.layer import Layer, Path, ScanEntry
from unionfs.overlay.inode import DirInode, Listed, Listing, join
from unionfs.overlay.stack import UPPER
from unionfs.overlay.step import Step
from unionfs.overlay.union import Union
from unionfs.vfs import DT_CHR, DT_DIR, DT_REG


def listing(union: Union, directory: DirInode) -> Listing:
    """The directory's merged names. Raises what reading a layer raises."""
    if directory.listing is None:
        directory.listing = Reading(union, directory).read()
        union.counters["listings"] += 1
    return directory.listing


class Scanned(Protocol):
    """What of a layer reading a directory takes."""

    def scan(self, path: Path) -> list[ScanEntry]: ...
    def lstat(self, path: Path) -> os.stat_result: ...
    def getxattr(self, path: Path, name: bytes) -> bytes | None: ...


class _Stored:
    """One layer's directory, sorted into entries, names hidden below, and the end of the run."""

    __slots__ = ("entries", "hidden", "opaque")

    def __init__(self) -> None:
        self.entries: list[ScanEntry] = []
        self.hidden: set[bytes] = set()
        self.opaque = False


def read_stored(layer: Scanned, path: Path, *, aufs: bool, xwhiteouts: tuple[bytes, ...]) -> _Stored:
    """Read one stored directory. `aufs`: `.wh.` names are whiteouts and AUFS's own; else only the opaque file, which
    other writers leave beside the xattr, is left out. `xwhiteouts`: which xattrs make an empty file a whiteout."""
    stored = _Stored()
    for entry in layer.scan(path):
        name = entry.name
        if name.startswith(whiteout.PREFIX):
            if name == whiteout.OPAQUE or (aufs and whiteout.is_reserved(name)):
                stored.opaque = stored.opaque or (aufs and name == whiteout.OPAQUE)
                continue
            hidden = whiteout.hidden_name(name) if aufs else None
            if hidden is not None:
                stored.hidden.add(hidden)
                continue
        if (entry.type == DT_CHR and _is_device(layer, join(path, name))) or (
            xwhiteouts and entry.type == DT_REG and _is_marked(layer, join(path, name), xwhiteouts)
        ):
            stored.hidden.add(name)
            continue
        stored.entries.append(entry)
    return stored


def _is_device(layer: Scanned, path: Path) -> bool:
    st = layer.lstat(path)
    return whiteout.is_whiteout_device(st.st_mode, st.st_rdev)


def _is_marked(layer: Scanned, path: Path, marks: tuple[bytes, ...]) -> bool:
    """ovl_path_check_xwhiteout_xattr(): only an empty regular file can be one."""
    return layer.lstat(path).st_size == 0 and any(layer.getxattr(path, name) is not None for name in marks)


class Reading:
    """The reading of one directory, layer by layer from the top. `only`: of each layer just that view of it."""

    def __init__(self, union: Union, directory: DirInode, only: Callable[[Layer], Scanned] | None = None) -> None:
        self._union = union
        self._directory = directory
        self._only = only
        self._result = Listing()
        self._ended: set[bytes] = set()  # names that lower layers cannot contribute to
        self._pending: set[bytes] = set()  # names of the upper whose fate in the lowers is not known yet

    def read(self) -> Listing:
        directory, trace = self._directory, self._union.stack.trace
        if directory.removed:
            return self._result
        count = 0
        for number, path in self.places():
            stored = self.add(number, path)
            count += 1
            if stored is not None and stored.opaque:
                directory.lowers = tuple(lower for lower in directory.lowers if lower[0] <= number)
                break
        if trace is not None:
            trace(Step("listed", path=directory.path, size=count))
        return self._result

    def places(self) -> list[tuple[int, Path]]:
        """The layers that have the directory, and its path there."""
        directory = self._directory
        return [*([(UPPER, directory.path)] if directory.upper else ()), *directory.lowers]

    def add(self, number: int, path: Path) -> _Stored | None:
        """Read one layer's, after those above it. None for what is no directory there any more."""
        stack = self._union.stack
        xwhiteouts = stack.marks_of(number).whiteout if number in self._directory.xwhiteouts else ()
        layer: Scanned = stack.layer(number)
        if self._only is not None:
            layer = self._only(stack.layer(number))
        try:
            stored = read_stored(layer, path, aufs=number != UPPER or stack.aufs, xwhiteouts=xwhiteouts)
        except OSError as e:
            # A lower changed behind our back: what is no directory any more contributes nothing.
            if number == UPPER or e.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            return None
        if number == UPPER:
            self._add_upper(stored)
        else:
            self._add_lower(number, stored)
        return stored

    def is_over(self, name: bytes) -> bool:
        """Has the name been met by something that hides what is below?"""
        return name in self._ended

    def _add_upper(self, stored: _Stored) -> None:
        names = self._result.names
        for entry in stored.entries:
            names[entry.name] = Listed(UPPER, entry.type, entry.ino)
            if entry.type != DT_DIR:
                self._ended.add(entry.name)
        self._result.whiteouts = stored.hidden
        self._ended |= stored.hidden
        self._pending = set(names) | stored.hidden

    def _add_lower(self, number: int, stored: _Stored) -> None:
        names, ended, pending = self._result.names, self._ended, self._pending
        new = tuple.__new__  # a NamedTuple's own constructor takes twice the time, and this is done for every name
        fresh: list[bytes] = []
        for name, type_, ino in stored.entries:
            if name in pending:
                pending.discard(name)
                self._result.covered.add(name)
            if name in ended:
                continue
            above = names.get(name)
            if above is None:
                names[name] = new(Listed, (number, type_, ino, (), None))
                if type_ != DT_DIR:
                    fresh.append(name)
            elif type_ == DT_DIR:
                names[name] = above._replace(more=(*above.more, number))
            else:
                fresh.append(name)
        ended.update(fresh)
        if stored.hidden:
            ended |= stored.hidden
            pending -= stored.hidden
