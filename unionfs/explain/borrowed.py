"""Stored files that a union shows otherwise than under the path at which they are stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from unionfs.explain.stored import Views, link_below
from unionfs.explain.versions import Versions
from unionfs.explain.which import which
from unionfs.layers.layer import Path
from unionfs.overlay import UnionFilesystem
from unionfs.overlay.inode import DirInode, FileInode, Inode, join
from unionfs.overlay.listing import listing
from unionfs.overlay.lookup import child, stored_path
from unionfs.overlay.union import Union
from unionfs.vfs import DT_DIR, DT_REG


def borrowed(fs: UnionFilesystem) -> frozenset[tuple[int, Path]]:
    """As (layer, path there): in a directory that a redirect leads to, as a metacopy's data, through a hard link of a
    tar above. One walk over all that the union shows, unless its layers are tars that have nothing of the kind."""
    union = fs._union
    if not any(_may_lead_elsewhere(union, number) for number in Views(union).numbers):
        return frozenset()
    versions = Versions(fs)
    found: set[tuple[int, Path]] = set()
    todo: list[Path] = [b""]
    while todo:
        path = todo.pop()
        with _directory(union, path) as directory:
            for name, listed in list(listing(union, directory).names.items()):
                if listed.type == DT_DIR:
                    todo.append(join(path, name))
                    continue
                place = (listed.layer, join(stored_path(directory, listed.layer), name))
                if place[1] != join(path, name):
                    found.add(place)
                if listed.type == DT_REG and _may_lead_elsewhere(union, listed.layer):
                    found |= _data(versions, union, directory, name, place)
    return frozenset(found)


def _may_lead_elsewhere(union: Union, number: int) -> bool:
    """Has it attributes of the union's own? A tar has none, but may link to what lies below."""
    return bool(getattr(union.stack.layer(number), "lower_links", 1))


def _data(
    versions: Versions, union: Union, directory: DirInode, name: bytes, place: tuple[int, Path]
) -> set[tuple[int, Path]]:
    """Where the bytes are of a file of which a layer has the name alone."""
    number, path = place
    link = link_below(union.stack.layer(number), path)
    if link is not None:
        return _linked(versions, number, link)
    with held(union, child(union, directory, name)) as inode:
        data = inode.data if isinstance(inode, FileInode) else None
        return set() if data is None else {(data.layer, data.path)}


def _linked(versions: Versions, number: int, path: Path) -> set[tuple[int, Path]]:
    """What the layers below `number` have at `path`, with what that links to in turn."""
    below = versions.before(number)
    if below is None:
        return set()
    try:
        data = which(below, path).data
    except FileNotFoundError:
        return set()
    if data is None:
        return set()
    here = data.layer + versions.shift(number + 1)
    link = link_below(versions.layer(here), data.path)
    return {(here, data.path)} if link is None else _linked(versions, here, link)


@contextmanager
def held(union: Union, inode: Inode | None) -> Iterator[Inode | None]:
    """Keep an inode in use."""
    if inode is not None:
        inode.opens += 1
    try:
        yield inode
    finally:
        if inode is not None:
            inode.opens -= 1
            union.release_unused(inode)


@contextmanager
def _directory(union: Union, path: Path) -> Iterator[DirInode]:
    """A directory that the union shows. What is known below one keeps it in use, so those on the way stay."""
    inode: Inode | None = union.root
    for name in path.split(b"/") if path else ():
        assert isinstance(inode, DirInode)
        inode = child(union, inode, name)
    assert isinstance(inode, DirInode)
    with held(union, inode):
        yield inode
