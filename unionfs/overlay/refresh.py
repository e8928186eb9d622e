"""Noticing that layers were changed behind our back: what was read from them is forgotten and read again.

    refresh(union) -> Refreshed     what has changed
    tell(notifier, refreshed)       so that whoever caches our answers drops them

A directory is its place in the merged tree: it stays the same inode while a directory stands there, and what it is
made of is looked up anew. A file stays the same while its layer has an object of the same number and type under its
name; where it is open, its number cannot have gone to another file meanwhile. Anything else loses that name, which the
next lookup resolves afresh, and with its last name its place: it is *lost*. Open files of it go on, as they hold the
object itself (or, opened again and not read since, what the kernel has cached of it: `file.open_later`); all else asked
of it is ESTALE, of a directory ENOENT.

Kept is what no layer can tell: node ids, what only this session knows (numbers, groups and link counts of an upper that
holds no xattrs), files without a name. The directories given as layers are not opened anew: one that was replaced as a
whole stays what it was at the mount, since its path may lead into the mount by now.

Holds `union.lock` throughout, so everybody sees a change as a whole: one reading of each directory in use, and no call
for each file. A directory that cannot be read is left as it is; whoever asks for it next hears why. Idempotent.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from unionfs.overlay import lookup, metacopy
from unionfs.overlay.inode import DirInode, FileInode, Inode, Listing, join, looked_up
from unionfs.overlay.listing import listing
from unionfs.overlay.stack import UPPER
from unionfs.overlay.union import Union
from unionfs.vfs import DT_DIR, NodeId, Notifier, d_type

Name = tuple[NodeId, bytes]


class Refreshed(NamedTuple):
    """`nodes`: those in use, whose attributes and data may have changed. `lost`: files in use that are open at most,
    and whose cached data may be all that is left. `gone`: names, by directory, that lead to
    nothing or to another object now. `come`: names that were known not to be there, and are. `dropped`: of how many
    names and inodes the kernel dropped what it had cached."""

    nodes: tuple[NodeId, ...]
    lost: tuple[NodeId, ...]
    gone: tuple[Name, ...]
    come: tuple[Name, ...]
    dropped: int = 0


def refresh(union: Union) -> Refreshed:
    """Lock held."""
    union.stack.trim()
    union.located.clear()
    try:
        union.read_root_marks()
    except OSError:
        pass  # the directory of a layer has been removed: it is empty from now on
    return _Refresh(union).run()


def tell(notifier: Notifier, found: Refreshed) -> int:
    """Returns of how many names and inodes something was dropped. Lock not held.

    Names first: what is looked up by them then has new attributes from the start.

    All inodes in use are told of, and not only those whose attributes have changed: pages do not show in attributes.
    """
    dropped = 0
    try:
        for parent, name in (*found.gone, *found.come):
            dropped += notifier.inval_entry(parent, name)
        for node in found.nodes:
            dropped += notifier.inval_inode(node)
        for node in found.lost:
            dropped += notifier.inval_inode(node, -1)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise  # else it is unmounted, and nothing is cached
    return dropped


class _Refresh:
    def __init__(self, union: Union) -> None:
        self._union = union
        self._gone: list[Name] = []
        self._come: list[Name] = []
        self._unused: list[Inode] = []  # perhaps

    def run(self) -> Refreshed:
        union = self._union
        union.table.take_all()
        todo = [union.root]
        while todo:
            directory = todo.pop()
            if self._directory(directory):
                todo.extend(child for child in directory.children.values() if isinstance(child, DirInode))
        for inode in set(union.table):
            self._forget(inode)
        for inode in self._unused:
            union.release_unused(inode)
        nodes: list[NodeId] = []
        lost: list[NodeId] = []
        for node, inode in union.table.nodes.items():
            (lost if isinstance(inode, FileInode) and inode.lost else nodes).append(node)
        return Refreshed(tuple(nodes), tuple(lost), tuple(self._gone), tuple(self._come))

    def _directory(self, directory: DirInode) -> bool:
        """Read a directory again and compare its known names. False where it could not be read."""
        old = directory.listing
        if old is None and not directory.children:
            return False  # nobody has looked into it yet
        directory.listing = None
        try:
            new = listing(self._union, directory)
        except OSError:
            return False
        before = directory.children if old is None else old.names
        self._come += [(directory.node, name) for name in new.names if name not in before]
        if old is not None:
            new.follow(old)
        for name, child in list(directory.children.items()):
            if not self._is_same(directory, name, child, new):
                self._gone.append((directory.node, name))
                self._unused.append(directory)
                self._lose(directory, name, child)
        return True

    # is it what it was? -----------------------------------------------------------------------------------------
    def _is_same(self, directory: DirInode, name: bytes, child: Inode, new: Listing) -> bool:
        listed = new.names.get(name)
        if listed is None:
            return False
        if isinstance(child, DirInode):
            try:
                return listed.type == DT_DIR and lookup.merge_again(self._union, child, listed)
            except OSError:
                return False  # it changes under our eyes
        assert isinstance(child, FileInode)
        if listed.layer == UPPER:
            same = self._is_same_in_upper(directory, name, child, listed.type)
        else:
            same = self._is_same_in_lower(directory, name, child, listed.layer, listed.type, listed.ino)
        if same:
            new.names[name] = looked_up(listed.layer, listed.type)
        return same

    def _is_same_in_upper(self, directory: DirInode, name: bytes, child: FileInode, type_: int) -> bool:
        if not child.is_stored_as(directory, name):
            return False
        if not child.handles:
            inner_whiteout = child.links is not None and child.links.inner_whiteout
            return inner_whiteout or child.type == type_
        try:
            stored, opened = self._union.stack.upper.lstat(join(directory.path, name)), child.handles[0].fstat()
        except OSError:
            return False
        return (stored.st_dev, stored.st_ino) == (opened.st_dev, opened.st_ino)

    def _is_same_in_lower(
        self, directory: DirInode, name: bytes, child: FileInode, number: int, type_: int, ino: int
    ) -> bool:
        if child.is_stored_as(directory, name) or child.type != type_:
            return False
        base = next(lower for lower in directory.lowers if lower[0] == number)
        if child.ino != self._union.stack.number(number, ino) and not self._is_at(
            child, number, join(base[1], name)
        ):  # on a file system mounted inside the layer, the number in a listing is another
            return False
        if not child.upper:
            if child.lower is None or child.lower[0] != number:
                return False
            child.found_at(base, name)
        return True

    def _is_at(self, inode: FileInode, number: int, path: bytes) -> bool:
        try:
            st = self._union.stack.layer(number).lstat(path)
        except OSError:
            return False
        shown = self._union.stack.number(number, st.st_ino, st.st_dev)
        return (shown, d_type(st.st_mode)) == (inode.ino, inode.type)

    # what is not --------------------------------------------------------------------------------------------------
    def _lose(self, directory: DirInode, name: bytes, child: Inode) -> None:
        if isinstance(child, FileInode):
            self._lose_name(directory, name, child)
            return
        todo = [child]
        while todo:
            one = todo.pop()
            assert isinstance(one, DirInode)
            for below, inode in list(one.children.items()):
                self._gone.append((one.node, below))
                if isinstance(inode, DirInode):
                    todo.append(inode)
                elif isinstance(inode, FileInode):
                    self._lose_name(one, below, inode)
            one.children.clear()
            # As after rmdir: who has it open still sees its last attributes.
            one.removed, one.listing = True, None
            one.attr = self._union.unlinked(one.attr) if one.attr is not None else None
            self._unused.append(one)
        del directory.children[name]

    def _lose_name(self, directory: DirInode, name: bytes, inode: FileInode) -> None:
        inode.forget_name(directory, name)
        self._unused.append(inode)
        if inode.nameless and inode.index is None:
            self._lose_place(inode)

    def _lose_place(self, inode: FileInode) -> None:
        links, table = inode.linked(), self._union.table
        links.lost = True
        for key in links.keys:
            if table.real.get(key) is inode:
                del table.real[key]
        links.keys = ()

    # what was read of it ------------------------------------------------------------------------------------------
    def _forget(self, inode: Inode) -> None:
        inode.bare = None
        if isinstance(inode, DirInode):
            if not inode.removed:
                inode.attr = inode.default_acl = inode.handed_down = None
            return
        assert isinstance(inode, FileInode)
        metacopy.look_again(self._union, inode)
        if not inode.nameless or inode.orphan is not None or inode.index is not None:
            inode.attr = None
        elif not inode.upper and not inode.lost:
            # Unlinked and in use, its data still in the lower layer, unless that went too.
            inode.attr = None
            if inode.lower is not None and not self._is_at(inode, *inode.lower):
                self._lose_place(inode)
        elif inode.handles or (inode.lost and not inode.opens):
            inode.attr = None
        # Else what is known of it can be asked nowhere: it was removed by us, or its data is in the kernel's cache only
        # (`file.open_later`).
