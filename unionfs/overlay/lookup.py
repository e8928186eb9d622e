"""From a directory and a name to an inode: which layer wins, what goes on below, what hides what.

The rules are ovl_lookup()'s (fs/overlayfs/namei.c): the topmost entry wins; a whiteout hides the name in all layers
below; a directory merges with the directories below it until a file, a whiteout or an opaque directory ends the run;
a redirect makes the lookup go on under another name.

A name is resolved from the parent's merged listing (listing.py), never by asking each layer for it: which layers
have a directory, and that a name is nowhere, is known from reading each layer's directory once.

All functions expect `union.lock` to be held.
"""

from __future__ import annotations

import errno
import os
import re
import stat

from unionfs.layers.layer import OriginHandle, Path
from unionfs.overlay import hardlink, metacopy
from unionfs.overlay.inode import DirInode, FileInode, Inode, Listed, join, looked_up
from unionfs.overlay.listing import listing
from unionfs.overlay.redirect import find_in_layer, marks, single
from unionfs.overlay.stack import INNER_WHITEOUT, NUMBER, UPPER
from unionfs.overlay.union import NAME_MAX, Union, fail
from unionfs.vfs import DT_CHR, DT_DIR, DT_REG, d_type, pack_stat

#: `overlay.unionfs.number` (stack.py, `number_mark`): an inode number; any of so many digits fits into 64 bits.
_NUMBER = re.compile(rb"([0-9]{1,19})(\+)?")


def child(union: Union, directory: DirInode, name: bytes) -> Inode | None:
    """The inode of a name, or None. The caller adds to its lookup count or calls `release_unused` when done."""
    known = directory.children.get(name)
    if known is not None:
        return known
    if len(name) > NAME_MAX:
        fail(errno.ENAMETOOLONG)
    if directory.removed:
        return None
    listed = listing(union, directory).names.get(name)
    if listed is None:
        return None
    if listed.batch is not None:
        return listed.batch.take_name(union.table, name)
    union.counters["lookups"] += 1
    if listed.type == DT_DIR:
        return _directory(union, directory, name, listed)
    path = stored_path(directory, listed.layer)
    st = union.stack.layer(listed.layer).lstat(join(path, name))
    return file(union, directory, name, listed.layer, path, st)


def known_child(union: Union, directory: DirInode, name: bytes) -> Inode | None:
    """The inode of a name, if it is in use."""
    known = directory.children.get(name)
    if known is None and directory.batched and directory.listing is not None:
        listed = directory.listing.names.get(name)
        if listed is not None and listed.batch is not None:
            known = listed.batch.take_name(union.table, name)
    return known


def existing(union: Union, directory: DirInode, name: bytes) -> Inode:
    inode = child(union, directory, name)
    if inode is None:
        fail(errno.ENOENT)
    return inode


# directories ------------------------------------------------------------------------------------------------------
class _Merge:
    """Collects the layers of one directory, topmost first (struct ovl_lookup_data)."""

    def __init__(self, union: Union, parent: DirInode, name: bytes) -> None:
        self.union = union
        self.parent = parent
        self.lower_path = join(parent.lower_path, name) if parent.lowers else b""
        self.upper = False
        self.lowers: list[tuple[int, bytes]] = []
        self.xwhiteouts: list[int] = []
        self.redirect: bytes | None = None  # of the upper
        self.impure = False
        self.impure_lowers: list[int] = []
        self.original = name
        self.name = name  # in the parent's lowers, as changed by relative redirects
        self.absolute: bytes | None = None  # once an absolute redirect was met
        self.stop = False

    def add(self, number: int, path: Path) -> None:
        found = marks(self.union, number, path)
        if number == UPPER:
            self.upper, self.impure = True, found.impure
            self.redirect = found.redirect
        else:
            self.lowers.append((number, path))
            if found.impure:
                self.impure_lowers.append(number)
        if found.xwhiteouts:
            self.xwhiteouts.append(number)
        if found.opaque:
            self.stop = True
        elif found.redirect is not None:
            self._follow(found.redirect, number)

    def _follow(self, redirect: bytes, number: int) -> None:
        if redirect[:1] == b"/":
            self.absolute = redirect[1:]
        elif self.absolute is not None:
            self.absolute = join(self.absolute.rpartition(b"/")[0], redirect)
        else:
            self.name = redirect
        if number == UPPER:
            self.lower_path = self.absolute if self.absolute is not None else join(self.parent.lower_path, redirect)

    @property
    def redirected(self) -> bool:
        return self.absolute is not None or self.name != self.original


def _directory(union: Union, parent: DirInode, name: bytes, listed: Listed) -> DirInode:
    merge = _merged(union, parent, name, listed)
    inode = DirInode(union.table.allocate(), 0, parent, name)
    _set_sources(union, inode, merge, listed)
    parent.children[name] = inode
    union.table.add(inode)
    return inode


def merge_again(union: Union, inode: DirInode, listed: Listed) -> bool:
    """Find out anew what a known directory is made of. False where the upper does not have it any more."""
    assert inode.parent is not None
    merge = _merged(union, inode.parent, inode.name, listed)
    if inode.upper and not merge.upper:
        return False
    merge.impure = merge.impure or inode.impure  # which not every upper can hold
    shown, had_lowers = inode.ino, bool(inode.lowers)
    _set_sources(union, inode, merge, listed)
    if not had_lowers or not inode.lowers:
        inode.ino = shown  # it may come from a lower that it goes on in no more
    return True


def _merged(union: Union, parent: DirInode, name: bytes, listed: Listed) -> _Merge:
    merge = _Merge(union, parent, name)
    paths = dict(parent.lowers)
    for number in (listed.layer, *listed.more):
        if merge.stop or merge.redirected:
            break
        merge.add(number, join(parent.path if number == UPPER else paths[number], name))
    if merge.redirected and not merge.stop:
        _follow_redirect(union, merge, listed.layer)
    return merge


def _set_sources(union: Union, inode: DirInode, merge: _Merge, listed: Listed) -> None:
    inode.upper, inode.lowers = merge.upper, tuple(merge.lowers)
    inode.described = union.stack.described(inode.lowers)
    inode.lower_path = merge.lower_path if merge.lowers else b""
    inode.redirect, inode.impure = merge.redirect, merge.impure
    inode.xwhiteouts, inode.impure_lowers = tuple(merge.xwhiteouts), tuple(merge.impure_lowers)
    # The number of the topmost lower is what the directory showed before it was copied up.
    top, path = merge.lowers[0] if merge.lowers else (UPPER, inode.path)
    listed_there = (top, path.rpartition(b"/")[2]) == (listed.layer, inode.name) and not merge.redirected
    if listed_there and not (top == UPPER and union.origins):
        inode.ino = union.stack.number(top, listed.ino)
    else:
        st = union.stack.layer(top).lstat(path)
        shown = union.origins.get((st.st_dev, st.st_ino)) if top == UPPER else None
        inode.ino = union.stack.number(top, st.st_ino, st.st_dev) if shown is None else shown


def _follow_redirect(union: Union, merge: _Merge, first: int) -> None:
    """Go on in the layers below the last one found, under the redirected name."""
    last = merge.lowers[-1][0] if merge.lowers else first
    paths = dict(merge.parent.lowers)
    for number in range(last + 1, len(union.stack.lowers) + 1):
        if merge.stop:
            return
        if merge.absolute is not None:
            found, merge.absolute, stop = find_in_layer(union, number, merge.absolute)
        elif number in paths:
            found, _, stop = single(union, number, paths[number], merge.name)
        else:
            continue
        if found is not None:
            merge.add(number, found)
        merge.stop = merge.stop or stop


# files ------------------------------------------------------------------------------------------------------------
def stored_path(parent: DirInode, number: int) -> Path:
    """Where a directory is in one of its layers."""
    if number == UPPER:
        return parent.path
    return next(path for layer, path in parent.lowers if layer == number)


def base_of(parent: DirInode, number: int) -> tuple[int, Path] | None:
    """A directory's place in one lower layer, the same object for all its files; None for the upper."""
    for lower in parent.lowers:
        if lower[0] == number:
            return lower
    return None


def file(union: Union, parent: DirInode, name: bytes, number: int, directory: Path, st: os.stat_result) -> FileInode:
    """The inode of a name that layer `number` has, in `directory` there, as anything but a directory."""
    if stat.S_ISDIR(st.st_mode):
        fail(errno.ESTALE)  # put in the place of a file behind our back
    linked = st.st_nlink > 1
    if linked:
        known = _known_link(union, number, join(directory, name), st)
        if known is not None:
            metacopy.note_group(union, known, parent, name, number)
            # A lower name of a group that was copied up by another name is not stored in the upper.
            known.names.append((parent, name, number == UPPER))
            parent.children[name] = known
            return known
    table = union.table
    shown = union.stack.number(number, st.st_ino, st.st_dev)
    type_ = d_type(st.st_mode)
    inode = FileInode(table.allocate(), shown, type_, parent, name, base_of(parent, number))
    if number == UPPER and (parent.impure or union.origins):
        path = join(directory, name)
        _origin(union, parent, name, inode, path, st)
        if parent.impure and st.st_size == 0 and stat.S_ISREG(st.st_mode):
            _inner_whiteout(union, inode, path)
    if type_ == DT_REG and metacopy.may_be_in(union, parent, number):
        metacopy.note(union, inode, parent, name, number, join(directory, name))
    parent.children[name] = inode
    if parent.listing is not None and name in parent.listing.names:
        parent.listing.names[name] = looked_up(number, type_)
    table.nodes[inode.node] = inode
    if linked:
        table.remember_real((number, st.st_dev, st.st_ino), inode)
    if inode.links is None:
        inode.attr = pack_stat(st, inode.ino, st.st_nlink)
    else:
        union.set_attributes(inode, st)
    return inode


def _known_link(union: Union, number: int, path: Path, st: os.stat_result) -> FileInode | None:
    """The inode that another name of the same stored file, or of its copied-up group, has led to."""
    known = union.table.real.get((number, st.st_dev, st.st_ino))
    if known is None and number != UPPER:
        known = hardlink.by_index(union, number, path, st)
    return known


def _inner_whiteout(union: Union, inode: FileInode, path: Path) -> None:
    if union.stack.upper.getxattr(path, union.stack.private(INNER_WHITEOUT)) is not None:
        inode.type = DT_CHR
        inode.linked().inner_whiteout = True


def _origin(union: Union, parent: DirInode, name: bytes, inode: FileInode, path: Path, st: os.stat_result) -> None:
    """Show a copied-up file under the number it had below (ovl_check_origin())."""
    key = (st.st_dev, st.st_ino)
    shown, linked = union.origins.get(key), False
    origin = None
    if parent.impure and (shown is None or st.st_nlink > 1):
        origin = hardlink.origin_of(union, union.stack.upper, path)
    if shown is None and origin is not None:
        shown, linked = _number_of_origin(union, parent, name, path, origin)
    if st.st_nlink > 1:
        hardlink.attach_index(union, inode, origin, path, st)
    if shown is None or (linked and inode.index is None):
        # "Lower hardlinks may be broken on copy up to different upper files, so we cannot use the lower origin st_ino"
        # unless the index has the group (ovl_getattr()): other names may still be the old file, with that number.
        return
    union.origins[key] = inode.ino = shown


def _number_of_origin(
    union: Union, parent: DirInode, name: bytes, stored: Path, origin: OriginHandle
) -> tuple[int | None, bool]:
    """(the number of the lower object that `origin` names, whether that has several links): of the one under the same
    name if it is that, else found by its handle where the system lets us (CAP_DAC_READ_SEARCH)."""
    mark = _NUMBER.fullmatch(union.stack.upper.getxattr(stored, union.stack.private(NUMBER)) or b"")
    if mark is not None:
        return int(mark[1]), bool(mark[2])
    for number, base in parent.lowers:
        layer = union.stack.layer(number)
        path = join(base, name)
        try:
            st = layer.lstat(path)
        except OSError:
            continue
        if layer.handle(path) == origin:
            return union.stack.number(number, st.st_ino, st.st_dev), st.st_nlink > 1
        if not stat.S_ISDIR(st.st_mode):
            break
    found = hardlink.find_origin(union, origin, stored)
    if found is None:
        return None, False
    return union.stack.number(found[0], found[1].st_ino, found[1].st_dev), found[1].st_nlink > 1
