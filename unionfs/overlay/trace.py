"""What can be said of a union to somebody who watches it, besides the steps that it reports (step.py).

    looked         a name in each layer of a directory: what a lookup of it comes upon
    found          where an inode is now
    place_of       the path of a node
    in_use         the inode of a path, if it has one now

A lookup is decided by the directory's listing, which may have been made long ago; `looked` reads the layers once more
for the one name, by the very code that made the listing (listing.py).

Must not know: requests, transports, how a step is shown.

All functions expect `union.lock` to be held.
"""

from __future__ import annotations

from typing import NamedTuple

from unionfs.layers import whiteout
from unionfs.layers.layer import Layer, Path, ScanEntry
from unionfs.overlay.inode import DirInode, FileInode, Inode, join, path_of
from unionfs.overlay.listing import Reading
from unionfs.overlay.stack import UPPER
from unionfs.overlay.step import Step
from unionfs.overlay.union import NAME_MAX, Union
from unionfs.vfs import DT_DIR, TYPES, NodeId, d_type


class Found(NamedTuple):
    """Where an object is: layer and path there; `data`, where that of a metacopy is; `layers`, all that a directory is
    merged of. `kind`: its DT_*."""

    layer: int
    path: Path
    kind: int
    layers: tuple[int, ...]
    data: int | None = None


# what is where --------------------------------------------------------------------------------------------------------
def place_of(union: Union, node: NodeId) -> Path | None:
    """The path of a node in the tree that people see; None where it has none (any more). Nothing becomes of it: a file
    that was only listed stays that."""
    inode = union.table.nodes.get(node)
    if inode is None:
        listed = union.table.listed(node)
        return None if listed is None or listed[0].removed else join(listed[0].path, listed[1])
    return path_of(inode)


def in_use(union: Union, path: Path) -> Inode | None:
    """The inode at a path of the tree, if it and the directories on the way are in use."""
    inode: Inode | None = union.root
    for name in path.split(b"/") if path else ():
        if not isinstance(inode, DirInode):
            return None
        inode = inode.children.get(name)
    return inode


def found(union: Union, inode: Inode) -> Found | None:
    """None for what has no place any more."""
    if isinstance(inode, DirInode):
        if inode.removed:
            return None
        places = [*([(UPPER, inode.path)] if inode.upper else ()), *inode.lowers]
        (layer, path), *_ = places
        return Found(layer, path, DT_DIR, tuple(number for number, _ in places))
    assert isinstance(inode, FileInode)
    data = None if inode.data is None else inode.data.layer
    if inode.upper:
        try:
            path = union.upper_place(inode)[1]
        except OSError:
            return None
        return Found(UPPER, path, inode.type, (UPPER,), data)
    if inode.lower is None or inode.lost:
        return None
    layer, path = inode.lower
    return Found(layer, path, inode.type, (layer,), data)


# lookups --------------------------------------------------------------------------------------------------------------
class _OneName:
    """A layer in whose directories there is one name, and what marks or hides it: so that a directory of any size is
    asked about that alone."""

    def __init__(self, layer: Layer, name: bytes) -> None:
        self._layer = layer
        self.lstat, self.getxattr = layer.lstat, layer.getxattr
        self._names = [name, whiteout.OPAQUE]
        if len(name) + len(whiteout.PREFIX) <= NAME_MAX:
            self._names.append(whiteout.PREFIX + name)

    def scan(self, path: Path) -> list[ScanEntry]:
        entries = []
        for name in self._names:
            try:
                st = self._layer.lstat(join(path, name))
            except OSError:
                continue
            entries.append(ScanEntry(name, d_type(st.st_mode), st.st_ino))
        return entries


def looked(union: Union, directory: DirInode, name: bytes) -> list[Step]:
    """What each layer of a directory has under a name, from the top to where the run ends."""
    if directory.removed or len(name) > NAME_MAX:
        return []
    reading = Reading(union, directory, only=lambda layer: _OneName(layer, name))
    steps = []
    for number, path in reading.places():
        stored = reading.add(number, path)
        if stored is None:
            continue
        type_ = next((entry.type for entry in stored.entries if entry.name == name), None)
        what = "whiteout" if name in stored.hidden else "no"
        if type_ is not None:
            what = TYPES[type_]
        steps.append(Step("looked", number, join(path, name), what))
        if reading.is_over(name) or type_ is not None:
            break
        if stored.opaque:
            steps.append(Step("looked", number, path, "opaque"))
            break
    return steps
