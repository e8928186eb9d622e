"""rename(2) in the union (ovl_rename() of fs/overlayfs/dir.c), for every kind of object and every flag; never EXDEV.

One renameat2(2) in the upper does it. Before: both ends' directories are in the upper, so is what moves; a directory
that goes on in lower layers gets a redirect saying where, one that must not merge with what lies below its new place
becomes opaque. With it: the old name is whited out if the lowers would show something there. After: only tables.

The sequence holds for a crash too: a redirect or opaque mark set too early says what is true anyway.

All functions expect `union.lock` to be held, and what moves to be copied up (`prepare`).
"""

from __future__ import annotations

import contextlib
import errno
import stat

from unionfs.layers.layer import PathIn, WritableLayer
from unionfs.overlay import hardlink, lookup, metacopy
from unionfs.overlay.copy_up import copy_metadata, copy_up, copy_up_directory, copy_up_name, kept_times, mark_impure
from unionfs.overlay.dir import (
    check_new_name,
    hides_lower_link,
    is_empty,
    keep_in_group,
    lost_name,
    needs_orphan,
    removed,
)
from unionfs.overlay.inode import DirInode, FileInode, Inode, Listed, join
from unionfs.overlay.listing import listing
from unionfs.overlay.stack import REDIRECT, UPPER
from unionfs.overlay.step import Step
from unionfs.overlay.union import Union, fail
from unionfs.overlay.workdir import exists
from unionfs.vfs import DT_CHR, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT


class End:
    """One end of a rename: a name in a directory, and what is there (None: nothing)."""

    __slots__ = ("directory", "inode", "name")

    def __init__(self, directory: DirInode, name: bytes, inode: Inode | None) -> None:
        self.directory = directory
        self.name = name
        self.inode = inode

    @property
    def path(self) -> bytes:
        return join(self.directory.path, self.name)


def _to_copy_up(union: Union, source: Inode | None, target: Inode | None, flags: int) -> list[FileInode]:
    todo = [source] if isinstance(source, FileInode) and not source.upper else []
    if isinstance(target, FileInode) and not target.upper and target is not source:
        overwritten = not flags & RENAME_NOREPLACE and hides_lower_link(union, target)
        if flags & RENAME_EXCHANGE or overwritten:
            todo.append(target)
    return todo


def prepared(union: Union, old: DirInode, name: bytes, new: DirInode, new_name: bytes, flags: int) -> bool:
    """Are the files that must be in the upper there? Lock held, as for the rename that follows. Raises what that
    would raise: a rename that is refused copies nothing."""
    source = End(old, name, lookup.existing(union, old, name))
    target = End(new, new_name, None)
    try:
        target.inode = lookup.child(union, new, new_name)
        if not _to_copy_up(union, source.inode, target.inode, flags):
            return True
        _check(union, source, target, flags)
    finally:
        union.release_unused(source.inode)
        union.release_unused(target.inode)
    return False


def prepare(union: Union, old: DirInode, name: bytes, new: DirInode, new_name: bytes, flags: int) -> None:
    """Copy up the files concerned, whose data may be large. Without the lock, so look again afterwards."""
    ends: list[Inode] = []
    try:
        with union.lock:
            for inode in (lookup.existing(union, old, name), lookup.child(union, new, new_name)):
                if inode is not None:
                    inode.nlookup += 1  # keeps it while we are without the lock
                    ends.append(inode)
            todo = _to_copy_up(union, ends[0], ends[-1], flags)
        for inode in todo:
            copy_up(union, inode, data=False)
    finally:
        with union.lock:
            for inode in ends:
                inode.nlookup -= 1
                union.release_unused(inode)


def rename(union: Union, old: DirInode, name: bytes, new: DirInode, new_name: bytes, flags: int) -> None:
    source = End(old, name, lookup.existing(union, old, name))
    target = End(new, new_name, None)
    try:
        target.inode = lookup.child(union, new, new_name)
        _check(union, source, target, flags)
        if source.inode is target.inode:
            return  # two names of one file: "rename() shall … perform no other action"
        for end in (source, target):
            copy_up_directory(union, end.directory)
        if flags & RENAME_EXCHANGE:
            _exchange(union, source, target)
        else:
            _move(union, source, target, visible_whiteout=bool(flags & RENAME_WHITEOUT))
    finally:
        union.release_unused(source.inode)
        union.release_unused(target.inode)


def _check(union: Union, source: End, target: End, flags: int) -> None:
    """Every refusal, in the order of vfs_rename() and ovl_rename()."""
    inode, victim = source.inode, target.inode
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT):
        fail(errno.EINVAL)
    if flags & RENAME_EXCHANGE and flags & (RENAME_NOREPLACE | RENAME_WHITEOUT):
        fail(errno.EINVAL)
    if flags & RENAME_EXCHANGE and victim is None:
        fail(errno.ENOENT)
    if flags & RENAME_NOREPLACE and victim is not None:
        fail(errno.EEXIST)
    if _is_above(inode, target.directory):
        fail(errno.EINVAL)
    if _is_above(victim, source.directory):
        fail(errno.EINVAL if flags & RENAME_EXCHANGE else errno.ENOTEMPTY)
    if victim is None:
        check_new_name(union, target.directory, target.name)
        return
    if flags & RENAME_EXCHANGE or inode is victim:
        return
    if isinstance(inode, DirInode) and not isinstance(victim, DirInode):
        fail(errno.ENOTDIR)
    if isinstance(victim, DirInode):
        if not isinstance(inode, DirInode):
            fail(errno.EISDIR)
        if not is_empty(union, victim):
            fail(errno.ENOTEMPTY)


def _is_above(inode: Inode | None, directory: DirInode | None) -> bool:
    while directory is not None:
        if directory is inode:
            return True
        directory = directory.parent
    return False


# marks ----------------------------------------------------------------------------------------------------------------
def _bring_up(union: Union, end: End, to: End) -> None:
    """Have what moves from `end` stored under its name in the upper, marked for its new place."""
    inode = end.inode
    if isinstance(inode, DirInode):
        copy_up_directory(union, inode)
        if inode.lowers:
            _set_redirect(union, inode, end, to)
        elif listing(union, to.directory).lower_positive(to.name):
            union.work.set_opaque(union.stack.upper, inode.path)
    elif isinstance(inode, FileInode):
        copy_up_name(union, inode, end.directory, end.name)
        if not metacopy.set_redirect(union, inode, end.directory if end.directory is to.directory else None):
            inode.nlookup += 1
            raise RedirectImpossible(inode)
    has_lower = inode.lowers if isinstance(inode, DirInode) else isinstance(inode, FileInode) and inode.data
    if end.directory.impure or has_lower:
        mark_impure(union, to.directory)


def _set_redirect(union: Union, inode: DirInode, end: End, to: End) -> None:
    """Say where the directory goes on in the lowers (ovl_set_redirect()): by name if it stays in its parent, else
    from the root. Unlike the kernel, of any length the file system holds."""
    parent, _, base = inode.lower_path.rpartition(b"/")
    same = end.directory is to.directory and bool(to.directory.lowers) and parent == to.directory.lower_path
    redirect = base if same else b"/" + inode.lower_path
    if inode.redirect == redirect or (inode.redirect is not None and inode.redirect[:1] == b"/"):
        return
    try:
        if not union.options.redirect_dir:
            fail(errno.EOPNOTSUPP)
        union.work.set_mark(inode.path, REDIRECT, redirect)
    except OSError as e:
        if e.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.ENOSPC, errno.E2BIG, errno.ERANGE):
            raise
        inode.nlookup += 1
        raise RedirectImpossible(inode) from e
    inode.redirect = redirect


class RedirectImpossible(Exception):
    """The upper cannot hold the redirect this directory or metacopy needs: `copy_up_tree(inode)`, then rename again.

    A lookup of the inode is counted for whoever catches this, so that it stays; `copy_up_tree` gives it back."""

    def __init__(self, inode: DirInode | FileInode) -> None:
        super().__init__(inode.ino)
        self.inode = inode


def copy_up_tree(union: Union, top: DirInode | FileInode) -> None:
    """Copy up an inode with its data or with everything below it, so that it needs its lowers no more. Without the
    lock."""
    held: list[Inode] = [top]  # parents before their children
    try:
        if isinstance(top, FileInode):
            copy_up(union, top)
            return
        directories = _copy_up_below(union, top, held)
        with union.lock:
            with kept_times(union, top):
                union.work.set_opaque(union.stack.upper, top.path)
            # POINT OF NO RETURN: nothing below goes on in the lowers any more, marked or not.
            for directory in directories:
                _end_in_upper(union, directory)
    finally:
        with union.lock:
            for inode in reversed(held):
                inode.nlookup -= 1
                union.release_unused(inode)


def _end_in_upper(union: Union, directory: DirInode) -> None:
    """The directory has become opaque. It goes on showing the number of its topmost lower, for this session."""
    with contextlib.suppress(OSError):
        st = union.stack.upper.lstat(directory.path)
        union.origins[st.st_dev, st.st_ino] = directory.ino
    directory.lowers, directory.listing = (), None
    directory.changed()


def _copy_up_below(union: Union, top: DirInode, held: list[Inode]) -> list[DirInode]:
    """All directories from `top` down, copied up with what is in them. Each inode below goes into `held`, with a
    lookup counted."""
    todo, seen = [top], []
    while todo:
        directory = todo.pop()
        with union.lock:
            copy_up_directory(union, directory)
            seen.append(directory)
            children = []
            for name in list(listing(union, directory).names):
                inode = lookup.existing(union, directory, name)
                inode.nlookup += 1
                held.append(inode)
                children.append((name, inode))
        for name, inode in children:
            if isinstance(inode, FileInode):
                copy_up(union, inode)
                with union.lock:
                    copy_up_name(union, inode, directory, name)
            elif isinstance(inode, DirInode):
                todo.append(inode)
    return seen


# moving ---------------------------------------------------------------------------------------------------------------
def _move(union: Union, source: End, target: End, *, visible_whiteout: bool) -> None:
    _bring_up(union, source, target)
    upper, work = union.stack.upper, union.work
    is_dir = isinstance(source.inode, DirInode)
    positive = listing(union, source.directory).lower_positive(source.name)
    over_whiteout = target.name in listing(union, target.directory).whiteouts
    if visible_whiteout:
        mark_impure(union, source.directory)
    inner = work.stage_inner_whiteout() if visible_whiteout else None
    leave_whiteout = positive or (visible_whiteout and work.devices)
    victim = _Victim(union, target)
    try:
        victim.make_way(union)
        if over_whiteout and is_dir and work.in_the_way(target.path):
            # The whiteout changes places with the directory, and is what the old name needs or is removed.
            upper.rename(source.path, upper, target.path, RENAME_EXCHANGE)
            if not leave_whiteout:
                leave_whiteout = not _unlinked(upper, source.path)
        else:
            if leave_whiteout and not work.rename_whiteout:
                _rename_then_whiteout(union, source, target)
            else:
                upper.rename(source.path, upper, target.path, RENAME_WHITEOUT if leave_whiteout else 0)
            if over_whiteout:
                work.drop_whiteout(target.directory.path, target.name)
    except BaseException:
        victim.stays(union)
        if inner is not None:
            work.discard(inner)
        raise
    # POINT OF NO RETURN.
    if union.stack.trace is not None:
        union.stack.trace(Step("renamed", path=target.path, other=source.path))
        if leave_whiteout and work.rename_whiteout:
            union.stack.trace(Step("whiteout", path=source.path))
    victim.displaced(union)
    _moved(union, source, target)
    entries = listing(union, source.directory)
    if positive:
        entries.covered.add(source.name)
    if leave_whiteout:
        entries.whiteouts.add(source.name)
    if inner is not None:
        _place_inner_whiteout(union, source, inner)


def _unlinked(upper: WritableLayer, path: bytes) -> bool:
    """Remove a whiteout that hides nothing. If that fails it stays: the rename is made, and it does no harm."""
    try:
        upper.unlink(path)
    except OSError:
        return False
    return True


def _rename_then_whiteout(union: Union, source: End, target: End) -> None:
    """Where the file system has no RENAME_WHITEOUT. AUFS whiteouts may stand beside the name they hide, so they are
    made first; a device takes the name's own place, so it waits in the work directory and changes places twice."""
    upper, work = union.stack.upper, union.work
    if not work.devices:
        work.add_whiteout(source.directory.path, source.name)
        upper.rename(source.path, upper, target.path)
        return
    if not exists(upper, target.path):
        work.add_whiteout(target.directory.path, target.name)
    upper.rename(source.path, upper, target.path, RENAME_EXCHANGE)
    taken = work.take_out(source.directory.path, source.name, leave_whiteout=True)
    work.discard(taken)


class _Victim:
    """What is at the target of a rename and loses its name by it; or nothing."""

    __slots__ = ("_end", "_orphan", "_record")

    def __init__(self, union: Union, end: End) -> None:
        self._end = end
        self._record = union.attributes(end.inode) if end.inode is not None else b""
        self._orphan: bytes | None = None

    def make_way(self, union: Union) -> None:
        """A directory has to be empty in the upper too, an open file needs a place to live on."""
        inode, end = self._end.inode, self._end
        if isinstance(inode, DirInode):
            # One that is only in the lowers is covered: the moved directory carries a redirect, or is opaque.
            if inode.upper and union.stack.upper.scan(inode.path):
                _clear(union, inode)
        elif isinstance(inode, FileInode):
            keep_in_group(union, inode, end.directory, end.name)
            hardlink.save_nlink(union, inode)
            if inode.upper and needs_orphan(union, inode):
                orphan = union.work.temporary()
                union.stack.upper.link(end.path, union.stack.work, orphan)
                if union.stack.trace is not None:
                    union.stack.trace(Step("kept", path=orphan))
                self._orphan = orphan

    def stays(self, union: Union) -> None:
        """The rename was refused."""
        if self._orphan is not None:
            union.work.discard(self._orphan)
        if isinstance(self._end.inode, FileInode):
            hardlink.restore_nlink(union, self._end.inode)

    def displaced(self, union: Union) -> None:
        """Tables: it has lost its name."""
        inode, end = self._end.inode, self._end
        if isinstance(inode, DirInode):
            removed(union, inode, self._record)
        elif isinstance(inode, FileInode):
            if self._orphan is not None:
                inode.linked().orphan = self._orphan
            lost_name(union, inode, end.directory, end.name, self._record)


def _clear(union: Union, directory: DirInode) -> None:
    """Replace a directory that holds only whiteouts by an empty opaque one (ovl_clear_empty())."""
    upper, work = union.stack.upper, union.work
    st = upper.lstat(directory.path)
    staged = work.temporary()
    union.stack.work.mkdir(staged, stat.S_IMODE(st.st_mode))
    try:
        copy_metadata(union, upper, directory.path, st, PathIn(union.stack.work, staged))
        if work.xattrs:
            work.set_opaque(union.stack.work, staged)
        assert directory.parent is not None
        with kept_times(union, directory.parent):
            union.stack.work.rename(staged, upper, directory.path, RENAME_EXCHANGE)
    finally:
        work.discard(staged)
    if work.xattrs:
        # It has no whiteouts and no lowers any more, even if the rename to come is refused.
        _end_in_upper(union, directory)


def _moved(union: Union, source: End, target: End) -> None:
    """Tables: the source has the target's name."""
    inode = source.inode
    assert inode is not None
    old, new = listing(union, source.directory), listing(union, target.directory)
    listed = old.drop(source.name)
    _enter(union, inode, source, target)
    if new.lower_positive(target.name):
        new.covered.add(target.name)
    more = tuple(number for number, _ in inode.lowers) if isinstance(inode, DirInode) else ()
    new.put(target.name, Listed(UPPER, listed.type, listed.ino, more))
    new.whiteouts.discard(target.name)
    inode.attr = None
    for changed in (source.directory, target.directory, inode):
        if isinstance(changed, DirInode):
            changed.changed()


def _enter(union: Union, inode: Inode, source: End, target: End) -> None:
    if isinstance(inode, DirInode):
        if source.directory.children.get(source.name) is inode:
            del source.directory.children[source.name]
        target.directory.children[target.name] = inode
        inode.rebase(target.directory, target.name)
        if source.directory is not target.directory:
            union.release_unused(source.directory)
    elif isinstance(inode, FileInode):
        if source.directory.children.get(source.name) is inode:
            inode.forget_name(source.directory, source.name)
        else:
            inode.names = [known for known in inode.names if known[:2] != (source.directory, source.name)]
        target.directory.children[target.name] = inode
        inode.names.insert(0, (target.directory, target.name, True))


def _exchange(union: Union, source: End, target: End) -> None:
    _bring_up(union, source, target)
    _bring_up(union, target, source)
    union.stack.upper.rename(source.path, union.stack.upper, target.path, RENAME_EXCHANGE)
    # POINT OF NO RETURN.
    if union.stack.trace is not None:
        union.stack.trace(Step("exchanged", path=target.path, other=source.path))
    old, new = listing(union, source.directory), listing(union, target.directory)
    first, second = source.inode, target.inode
    assert first is not None and second is not None
    old.covered |= {source.name} if old.lower_positive(source.name) else set()
    new.covered |= {target.name} if new.lower_positive(target.name) else set()
    here, there = old.names[source.name], new.names[target.name]
    for inode, end in ((first, source), (second, target)):
        if isinstance(inode, FileInode):
            inode.forget_name(end.directory, end.name)
        else:
            del end.directory.children[end.name]
    _enter(union, first, source, target)
    _enter(union, second, target, source)
    new.put(target.name, here._replace(layer=UPPER))
    old.put(source.name, there._replace(layer=UPPER))
    for inode in (first, second, source.directory, target.directory):
        inode.attr = None
        if isinstance(inode, DirInode):
            inode.changed()


def _place_inner_whiteout(union: Union, source: End, staged: bytes) -> None:
    """Leave a whiteout that a mount on top of ours can see, in the place of our own. Between the two renames the
    name is simply gone, as after a plain rename."""
    union.work.put_in(staged, source.directory.path, source.name, is_dir=False, over_whiteout=union.work.devices)
    st = union.stack.upper.lstat(source.path)
    entries = listing(union, source.directory)
    entries.whiteouts.discard(source.name)
    entries.put(source.name, Listed(UPPER, DT_CHR, st.st_ino))
