"""Copy-up: make an object of a lower layer writable by giving the upper its own copy.

A file is built in the work directory (data with its holes, owner, mode, xattrs, times, in that order, since each
step may disturb the ones before) and gets its name by one rename, so a reader or a crash sees the lower file or the
whole copy, never a part. Parents are copied up first, each as an empty directory with its attributes.

Where only metadata is to change, a metacopy does (metacopy.py): all but the data. The data follows when that is to
change: in a copy of the whole that takes the metacopy's place, or, where that has several names, put into it (fill.py).

A little data is copied under `union.lock`, if flushing it is quick. More is copied without; `union.copying(inode)` then
lets one thread do it. What other operations may do to the inode meanwhile: rename it, link it, unlink its last name.
The names are therefore looked at when the copy is done.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from unionfs.layers import whiteout
from unionfs.layers.layer import Changeable, Layer, LayerFile, Path, PathIn, WritableLayer
from unionfs.overlay import hardlink, metacopy
from unionfs.overlay.copy_data import PART, SMALL, copy_data
from unionfs.overlay.fill import fill
from unionfs.overlay.inode import Data, DirInode, FileInode, Inode, Listed, join
from unionfs.overlay.listing import listing
from unionfs.overlay.stack import IMPURE, METACOPY, NUMBER, ORIGIN, SLOT, UPPER
from unionfs.overlay.step import Step
from unionfs.overlay.union import Union, fail
from unionfs.vfs import DT_DIR, DT_REG, NOW, TYPES, SetAttr, record_size

#: Seconds within which the flush of a copy keeps nobody waiting who counts.
_QUICK_FLUSH = 0.001
#: Mandatory xattrs that must not be lost silently; others the upper cannot hold are left behind, as cp -a does.
_MUST_COPY = (b"system.posix_acl_access", b"system.posix_acl_default", b"security.capability")


def copy_up(
    union: Union,
    inode: Inode,
    size: int | None = None,
    changes: SetAttr | None = None,
    kept: list[LayerFile] | None = None,
    *,
    data: bool = True,
) -> bool:
    """Make sure the inode is in the upper, with its data unless not `data`. Idempotent; to be called without
    `union.lock`.

    `size`: only so many bytes of data are wanted, since the caller truncates to it next. `changes` of owner, mode and
    times are made on the copy before it is seen. Whether they were: not if there was a copy already. `kept` gets the
    copy of a regular file, open for reading and writing: who truncates could find that it cannot be opened any more.
    """
    if isinstance(inode, DirInode):
        with union.lock:
            copy_up_directory(union, inode)
        return False
    assert isinstance(inode, FileInode)
    union.check_writable()
    if not _lacks(inode, data):
        return False
    if union.stack.fetches and size != 0 and inode.type == DT_REG and (data or not metacopy.wanted(union, inode)):
        _bring(union, inode, size)
    with union.lock:
        if _lacks(inode, data) and _is_quick(union, inode, data):
            return _copy_up_file(union, inode, size, changes, kept, data)
    with union.copying(inode):
        return _lacks(inode, data) and _copy_up_file(union, inode, size, changes, kept, data)


def _bring(union: Union, inode: FileInode, size: int | None) -> None:
    """Wait for data that is still to come (layers.lazy_tar), before any lock is taken that others need."""
    with union.lock:
        if inode.lost or not comes_later(union, inode):
            return
        layer, path = union.data_place(inode)
        file = layer.open(path)
    try:
        fetch = getattr(file, "fetch", None)
        end = file.stat_when_opened().st_size if size is None else size
        if fetch is None:
            return
        for offset in range(0, end, PART):
            fetch(min(PART, end - offset), offset, lambda: union.check_wanted(inode))
    finally:
        file.close()


def comes_later(union: Union, inode: FileInode) -> bool:
    """May the data still have to come from a network? Lock held."""
    return union.stack.fetches and getattr(union.data_place(inode)[0], "fetches", False)


def _lacks(inode: FileInode, data: bool) -> bool:
    """Is there anything to copy up?"""
    return not inode.upper or (data and inode.data is not None)


def _is_quick(union: Union, inode: FileInode, data: bool) -> bool:
    """May it be copied up at once, under the lock? Not where another thread is at it: it is without the lock."""
    if union.is_copying(inode):
        return False
    if not data and metacopy.wanted(union, inode):
        return True
    small = inode.type != DT_REG or record_size(union.attributes(inode))[0] <= SMALL
    return small and not union.flushes_slowly


def _copy_up_file(
    union: Union, inode: FileInode, size: int | None, changes: SetAttr | None, kept: list[LayerFile] | None, data: bool
) -> bool:
    """With `union.lock` held all the time, or else with `union.copying(inode)`. True."""
    with union.lock:
        linked = _has_links(union, inode)
    if linked or not _copy_whole(union, inode, size, changes, kept, data):
        fill(union, inode, size, kept)
    return True


def _has_links(union: Union, inode: FileInode) -> bool:
    """Are there several names of it in the upper, which are to stay those of one file?"""
    if not inode.upper or inode.index is not None:
        return inode.upper
    tree, path = union.upper_place(inode)
    return tree.lstat(path).st_nlink > 1


def _copy_whole(
    union: Union, inode: FileInode, size: int | None, changes: SetAttr | None, kept: list[LayerFile] | None, data: bool
) -> bool:
    """False, and nothing done, where the inode has got links meanwhile."""
    with union.lock:
        staged = _Staged(union, inode, meta=not data and metacopy.wanted(union, inode))
    try:
        copied = staged.copy_data(size)
        with union.lock:
            if _has_links(union, inode):
                union.work.discard(staged.path)
                return False
            if metacopy.opened(inode) and not staged.meta:
                staged.open_for_readers()
            staged.finish(changes)
            if union.stack.trace is not None:
                union.stack.trace(staged.step(copied))
            _publish(union, inode, staged)
            union.counters["copy_ups"] += 1
            union.counters["copy_up_bytes"] += copied
        if kept is not None:
            kept.extend(staged.take_target())
    except BaseException:
        union.work.discard(staged.path)
        raise
    finally:
        staged.close()
    return True


def copy_up_name(union: Union, inode: FileInode, parent: DirInode, name: bytes) -> None:
    """Make sure the file is stored in the upper under this very name. Lock held; the inode is copied up."""
    for i, known in enumerate(inode.names):
        if known == (parent, name, False):
            copy_up_directory(union, parent)
            with kept_times(union, parent):
                mark_impure(union, parent)
                hardlink.store_name(union, inode, parent.path, name)
            inode.names[i] = (parent, name, True)
            _listed_in_upper(union, inode, parent, name)


# staging ------------------------------------------------------------------------------------------------------------
class _Staged:
    """A copy being built at `path` in the work directory: of a lower object, or of a metacopy of the upper, now with
    its data. `meta`: to be a metacopy. Only `copy_data` may run without the lock."""

    def __init__(self, union: Union, inode: FileInode, *, meta: bool = False) -> None:
        if inode.lost:
            fail(errno.ESTALE)
        self._union = union
        self._inode = inode
        self._bare = bool(inode.bare)
        self.meta = meta
        self._from_upper = inode.upper
        self.layer: Layer
        if self._from_upper:
            self._number, (self.layer, self.source_path) = UPPER, union.upper_place(inode)
        else:
            assert inode.lower is not None
            self._number, self.source_path = inode.lower
            self.layer = union.stack.layer(self._number)
        self.path = union.work.temporary()
        self._source: LayerFile | None = None
        self._target: LayerFile | None = None
        self.reader: LayerFile | None = None
        self._cut = False
        work = union.stack.work
        if inode.type == DT_REG:
            self._open_data(work)
            return
        self.st = self.layer.lstat(self.source_path)
        if stat.S_ISLNK(self.st.st_mode):
            work.symlink(self.path, self.layer.readlink(self.source_path))
        else:
            work.mknod(self.path, self.st.st_mode, self.st.st_rdev)

    def _open_data(self, work: WritableLayer) -> None:
        if not self.meta:
            layer, path = self._union.data_place(self._inode)
            self._source = layer.open(path)
        try:
            if self._source is None or self._inode.data is not None:
                self.st = self.layer.lstat(self.source_path)
            else:
                self.st = self._source.stat_when_opened()
            self._target = work.create(self.path, stat.S_IMODE(self.st.st_mode))
        except BaseException:
            if self._source is not None:
                self._source.close()
            raise

    def copy_data(self, size: int | None) -> int:
        """Copy the first `size` bytes (None: all). The data is on disk before the name is (ovl_copy_up_data()).

        EINTR where everybody who wants it gives up meanwhile, which is noticed between parts and after the flush."""
        if self._source is None or self._target is None:
            return 0
        end = self.st.st_size if size is None else min(size, self.st.st_size)
        self._cut = end < self.st.st_size
        if not end:
            return 0
        dense = self.st.st_blocks * 512 >= self.st.st_size
        copied = copy_data(self._source, self._target, end, dense, lambda: self._union.check_wanted(self._inode))
        if not self._union.options.volatile:
            start = time.monotonic()
            self._target.fsync(False)
            self._union.flushes_slowly = time.monotonic() - start > _QUICK_FLUSH
            self._union.check_wanted(self._inode)
        return copied

    def step(self, copied: int) -> Step:
        """What it came to, `copied` bytes of data."""
        data = self._inode.data
        what = "metacopy" if self.meta else "data" if self._from_upper else TYPES[self._inode.type]
        if self._from_upper and data is not None:
            return Step("copied-up", data.layer, data.path, what, copied)
        return Step("copied-up", self._number, self.source_path, what, copied)

    @property
    def copy(self) -> Changeable:
        return self._target if self._target is not None else PathIn(self._union.stack.work, self.path)

    def stored(self, path: Path | None = None) -> os.stat_result:
        """What is stored, under the staged name unless it is open or has `path` by now."""
        if self._target is not None:
            return self._target.fstat()
        return self._union.stack.work.lstat(self.path) if path is None else self._union.stack.upper.lstat(path)

    def take_target(self) -> list[LayerFile]:
        """The copy's open file, if it has one: from now on the caller's."""
        target, self._target = self._target, None
        return [] if target is None else [target]

    def open_for_readers(self) -> None:
        """For those who have the lower file open. Now, while it may still fail."""
        self.reader = self._union.stack.work.open(self.path)

    def finish(self, changes: SetAttr | None) -> None:
        union, copy = self._union, self.copy
        if self._from_upper:  # which may have been changed, and moved, meanwhile
            self.layer, self.source_path = union.upper_place(self._inode)
            self.st = self.layer.lstat(self.source_path)
            copy.chmod(stat.S_IMODE(self.st.st_mode))
        copy_metadata(union, self.layer, self.source_path, self.st, copy, bare=self._bare)
        if self._from_upper:
            metacopy.copy_origin(union, self.layer, self.source_path, copy)
        else:
            _set_origin(union, self._number, self.source_path, self.st, copy)
        if self.meta:
            assert self._target is not None
            self._target.ftruncate(self.st.st_size)
            copy.setxattr(union.stack.private(METACOPY), b"")
            copy.utime(self.st.st_atime_ns, self.st.st_mtime_ns)
        if self._cut:
            self.copy.utime(None, NOW)  # it is seen truncated at once
        if changes is not None:
            change_attributes(self.copy, changes)

    def close(self) -> None:
        for file in (self._source, self._target, self.reader):
            if file is not None:
                file.close()


def change_attributes(target: Changeable, changes: SetAttr) -> None:
    """Owner, mode and times, in the order that lets none disturb another."""
    if changes.uid is not None or changes.gid is not None:
        # chown(2) takes set-ID bits and capabilities away by itself (chown_common() of fs/open.c).
        target.chown(-1 if changes.uid is None else changes.uid, -1 if changes.gid is None else changes.gid)
    if changes.mode is not None:
        target.chmod(stat.S_IMODE(changes.mode))
    if changes.atime_ns is not None or changes.mtime_ns is not None:
        target.utime(changes.atime_ns, changes.mtime_ns)


def copy_metadata(
    union: Union, layer: Layer, path: Path, st: os.stat_result, copy: Changeable, *, bare: bool = False
) -> None:
    """Owner, mode, xattrs, times of a stored object, put on a staged one that was made with the mode. `bare`: it is
    known to have no xattrs that are copied."""
    if (st.st_uid, st.st_gid) != union.owner:
        copy.chown(st.st_uid, st.st_gid)
        if st.st_mode & 0o6000 and not stat.S_ISLNK(st.st_mode):
            copy.chmod(stat.S_IMODE(st.st_mode))  # chown(2) cleared them
    for name in () if bare else layer.listxattr(path):
        if name.startswith(whiteout.PRIVATE_XATTRS) and union.stack.shown_xattr(name) is None:
            continue
        value = layer.getxattr(path, name)
        if value is None:
            continue
        try:
            union.work.set_apart(name)
            copy.setxattr(name, value)
        except OSError as e:
            if name in _MUST_COPY or e.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise
    copy.utime(st.st_atime_ns, st.st_mtime_ns)


def _set_origin(union: Union, number: int, source: Path, st: os.stat_result, copy: Changeable) -> None:
    """Note on a staged copy what it was copied from; empty where the layer cannot say (ovl_set_origin_fh())."""
    is_dir = stat.S_ISDIR(st.st_mode)
    if not union.work.xattrs:
        return
    handle = union.stack.layer(number).handle(source)
    slot = None if is_dir else union.stack.slot_mark(number)
    shown = None if is_dir else union.stack.number_mark(number, st)
    try:
        copy.setxattr(union.stack.private(ORIGIN), b"" if handle is None else hardlink.encode_origin(handle))
        if slot is not None:
            copy.setxattr(union.stack.private(SLOT), slot)
        if shown is not None:
            copy.setxattr(union.stack.private(NUMBER), shown)
    except OSError as e:
        # user.* is not allowed on symlinks and special files; the origin only keeps their number over a remount.
        if e.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise


# publishing -----------------------------------------------------------------------------------------------------------
def _publish(union: Union, inode: FileInode, staged: _Staged) -> None:
    """The copy becomes the file. Lock held."""
    data = metacopy.mark(union, inode) if staged.meta else None
    if inode.upper:
        stored = _replace(union, inode, staged)
    else:
        stored = _enter_upper(union, inode, staged)
    union.origins[stored.st_dev, stored.st_ino] = inode.ino
    inode.upper = True
    inode.attr = None
    _settle(union, inode, data, staged.reader)
    union.set_attributes(inode, stored)


def _settle(union: Union, inode: FileInode, data: Data | None, reader: LayerFile | None) -> None:
    """Tables: the inode is in the upper, a metacopy of `data` if that is not None. `reader`: open on the copy."""
    if data is not None:
        inode.linked().data = data
    elif inode.data is not None:
        metacopy.completed(inode)
    if inode.links is not None:
        metacopy.regroup(inode)
    if reader is not None:
        # Files open for reading go on in the copy, so that they see what is written from now on.
        for handle in inode.handles or ():
            handle.replace(reader)


def _replace(union: Union, inode: FileInode, staged: _Staged) -> os.stat_result:
    """Put the copy with the data in the place of a metacopy that has one name, or none. Lock held; what is stored."""
    tree, path = union.upper_place(inode)
    known = inode.stored_name() if inode.orphan is None else None
    if known is None:
        union.stack.work.rename(staged.path, tree, path)
    else:
        with kept_times(union, known[0]):
            union.stack.work.rename(staged.path, tree, path)
    # POINT OF NO RETURN.
    if union.stack.trace is not None:
        union.stack.trace(Step("placed", path=path))
    stored = staged.stored(path)
    old = staged.st
    union.origins.pop((old.st_dev, old.st_ino), None)
    union.table.forget_real((UPPER, old.st_dev, old.st_ino), inode)
    if known is not None:
        _listed_in_upper(union, inode, known[0], known[1], stored.st_ino)
    return stored


def _enter_upper(union: Union, inode: FileInode, staged: _Staged) -> os.stat_result:
    """Give the copy its name in the upper. Lock held; what is stored then."""
    assert inode.lower is not None
    st, temporary, path = staged.st, staged.path, None
    if not inode.names:
        # Unlinked while we copied, and still open: a copy with no name.
        inode.linked().orphan = temporary
        if union.stack.trace is not None:
            union.stack.trace(Step("kept", path=temporary))
        stored = staged.stored()
    else:
        parent, name, _ = inode.names[0]
        path = join(parent.path, name)
        copy_up_directory(union, parent)
        with kept_times(union, parent):
            mark_impure(union, parent)
            if st.st_nlink > 1:
                entry = hardlink.index_path(union, inode.lower[0], staged.source_path, st)
                hardlink.add_to_index(union, inode, temporary, entry, st.st_nlink)
                try:
                    hardlink.store_name(union, inode, parent.path, name)
                except BaseException:
                    hardlink.take_from_index(union, inode)
                    raise
            else:
                union.stack.work.rename(temporary, union.stack.upper, path)
        # POINT OF NO RETURN.
        if union.stack.trace is not None and st.st_nlink == 1:
            union.stack.trace(Step("placed", path=path))
        stored = staged.stored(path)
        if st.st_nlink > 1:
            union.table.remember_real((UPPER, stored.st_dev, stored.st_ino), inode)
        inode.names[0] = (parent, name, True)
        _listed_in_upper(union, inode, parent, name, stored.st_ino)
    return stored


def _listed_in_upper(union: Union, inode: FileInode, parent: DirInode, name: bytes, ino: int | None = None) -> None:
    entries = listing(union, parent)
    entries.covered.add(name)
    if ino is None:
        layer, path = union.upper_place(inode)
        ino = layer.lstat(path).st_ino
    entries.put(name, Listed(UPPER, inode.type, ino))
    union.placed(ino)


# directories ----------------------------------------------------------------------------------------------------------
def copy_up_directory(union: Union, directory: DirInode) -> None:
    """Make sure the directory is in the upper, its parents first. Lock held."""
    union.check_writable()
    todo = []
    ancestor: DirInode | None = directory
    while ancestor is not None and not ancestor.upper:
        todo.append(ancestor)
        ancestor = ancestor.parent
    for one in reversed(todo):
        _copy_up_one_directory(union, one)


def _copy_up_one_directory(union: Union, directory: DirInode) -> None:
    assert directory.parent is not None
    layer, path = union.place(directory)
    st = layer.lstat(path)
    temporary = union.work.temporary()
    work, parent = union.stack.work, directory.parent
    listing(union, parent)
    work.mkdir(temporary, stat.S_IMODE(st.st_mode))
    try:
        copy = PathIn(work, temporary)
        copy_metadata(union, layer, path, st, copy)
        number, path = directory.lowers[0]
        _set_origin(union, number, path, st, copy)
        with kept_times(union, parent):
            mark_impure(union, parent)
            work.rename(temporary, union.stack.upper, directory.path)
    except BaseException:
        union.work.discard(temporary)
        raise
    stored = union.stack.upper.lstat(directory.path)
    union.placed(stored.st_ino)
    directory.upper = True
    directory.changed()
    if directory.listing is not None:
        # Nothing is in the upper's copy yet, so what is visible stays where it is.
        directory.listing.covered.clear()
    entries = listing(union, parent)
    before = entries.names.get(directory.name)
    more = (before.layer, *before.more) if before is not None else ()
    entries.put(directory.name, Listed(UPPER, DT_DIR, stored.st_ino, more))
    entries.covered.add(directory.name)
    union.counters["copy_ups"] += 1
    if union.stack.trace is not None:
        union.stack.trace(Step("copied-up", *directory.lowers[0], "dir"))
        union.stack.trace(Step("placed", path=directory.path))


def mark_impure(union: Union, parent: DirInode) -> None:
    """Note that the directory holds objects with an origin below (ovl_set_impure()). Lock held."""
    if parent.impure:
        return
    if union.work.xattrs:
        union.work.set_mark(parent.path, IMPURE, b"y")
    parent.impure = True


class kept_times:
    """Put a directory's times back after a copy changed what is stored in it but not what people see
    (ovl_copy_up_one(): "Restore timestamps on parent (best effort)": there is no way back any more). One copy often
    follows another, so they are remembered."""

    def __init__(self, union: Union, directory: DirInode) -> None:
        self._layer: WritableLayer = union.stack.upper
        self._directory = directory

    def __enter__(self) -> None:
        directory = self._directory
        if directory.kept_times is None:
            st = self._layer.lstat(directory.path)
            directory.kept_times = st.st_atime_ns, st.st_mtime_ns

    def __exit__(self, *_: object) -> None:
        times = self._directory.kept_times
        assert times is not None
        try:
            self._layer.utime(self._directory.path, *times)
        except OSError:
            self._directory.changed()
        else:
            self._directory.changed(times)
