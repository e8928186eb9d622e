"""Copy-up: make an object of a lower layer writable by giving the upper its own copy.

A file is built in the work directory (data with its holes, owner, mode, xattrs, times, in that order, since each
step may disturb the ones before) and gets its name by one rename, so a reader or a crash sees the lower file or the
whole copy, never a part. Parents are copied up first, each as an empty directory with its attributes.

Data is copied without `union.lock`; `union.copying(inode)` lets one thread do it. What other operations may do to the
inode meanwhile: rename it, link it, unlink its last name. The names are therefore looked at when the copy is done.
"""

from __future__ import annotations

import errno
import os
import stat

from unionfs.layers import whiteout
from unionfs.layers.layer import Layer, LayerFile, Path, WritableLayer
from unionfs.overlay import hardlink
from unionfs.overlay.inode import DirInode, FileInode, Inode, Listed, join
from unionfs.overlay.listing import listing
from unionfs.overlay.stack import IMPURE, NUMBER, ORIGIN, SLOT, UPPER
from unionfs.overlay.union import Union
from unionfs.vfs import DT_DIR

_CHUNK = 64 << 20
#: A file without holes of up to this size is copied by one read and one write.
_SMALL = 128 << 10
#: Mandatory xattrs that must not be lost silently; others the upper cannot hold are left behind, as cp -a does.
_MUST_COPY = (b"system.posix_acl_access", b"system.posix_acl_default", b"security.capability")


def copy_up(union: Union, inode: Inode, size: int | None = None) -> None:
    """Make sure the inode is in the upper. Idempotent; to be called without `union.lock`.

    `size`: only so many bytes of data are wanted, since the caller truncates to it next.
    """
    if isinstance(inode, DirInode):
        with union.lock:
            copy_up_directory(union, inode)
        return
    assert isinstance(inode, FileInode)
    union.check_writable()
    if inode.upper:
        return
    with union.copying(inode):
        with union.lock:
            if inode.upper:
                return
            staged = _Staged(union, inode)
        try:
            copied = staged.copy_data(size)
            with union.lock:
                staged.finish()
                _publish(union, inode, staged)
        except BaseException:
            union.work.discard(staged.path)
            raise
        finally:
            staged.close()
        union.counters["copy_ups"] += 1
        union.counters["copy_up_bytes"] += copied


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
    """A copy being built at `path` in the work directory. Only `copy_data` runs without the lock."""

    def __init__(self, union: Union, inode: FileInode) -> None:
        assert inode.lower is not None
        self._union = union
        self._number, self.source_path = inode.lower
        self.layer = union.stack.layer(self._number)
        self.st = self.layer.lstat(self.source_path)
        self.path = union.work.temporary()
        self._source: LayerFile | None = None
        self._target: LayerFile | None = None
        work, mode = union.stack.work, self.st.st_mode
        if stat.S_ISREG(mode):
            self._source = self.layer.open(self.source_path)
            try:
                self._target = work.create(self.path, stat.S_IMODE(mode))
            except BaseException:
                self._source.close()
                raise
        elif stat.S_ISLNK(mode):
            work.symlink(self.path, self.layer.readlink(self.source_path))
        else:
            work.mknod(self.path, mode, self.st.st_rdev)

    def copy_data(self, size: int | None) -> int:
        """Copy the first `size` bytes (None: all). The data is on disk before the name is (ovl_copy_up_data())."""
        if self._source is None or self._target is None:
            return 0
        end = self.st.st_size if size is None else min(size, self.st.st_size)
        if not end:
            return 0
        if end <= _SMALL and self.st.st_blocks * 512 >= self.st.st_size:
            copied = self._target.pwrite(self._source.pread(end, 0), 0)
        else:
            copied = copy_data(self._source, self._target, end)
            self._target.ftruncate(end)
        if not self._union.options.volatile:
            self._target.fsync(False)
        return copied

    def stored(self) -> os.stat_result:
        return self._target.fstat() if self._target is not None else self._union.stack.work.lstat(self.path)

    def finish(self) -> None:
        copy_metadata(self._union, self.layer, self.source_path, self.st, self.path)
        _set_origin(self._union, self._number, self.source_path, self.st, self.path)

    def close(self) -> None:
        for file in (self._source, self._target):
            if file is not None:
                file.close()


def copy_data(source: LayerFile, target: LayerFile, end: int) -> int:
    """Copy [0, end) keeping holes. Returns the bytes copied."""
    offset = copied = 0
    while offset < end:
        try:
            offset = source.seek_data(offset)
        except OSError as e:
            if e.errno == errno.ENXIO:
                break  # a hole up to the end
            raise
        stop = min(source.seek_hole(offset), end)
        while offset < stop:
            count = target.copy_range(source, offset, offset, min(stop - offset, _CHUNK))
            if count == 0:
                return copied  # the lower file shrank behind our back
            offset += count
            copied += count
    return copied


def copy_metadata(union: Union, layer: Layer, path: Path, st: os.stat_result, temporary: Path) -> None:
    """Owner, mode, xattrs, times of a stored object, put on a staged one that was made with the mode."""
    work = union.stack.work
    if (st.st_uid, st.st_gid) != (os.geteuid(), os.getegid()):
        work.chown(temporary, st.st_uid, st.st_gid)
        if st.st_mode & 0o6000 and not stat.S_ISLNK(st.st_mode):
            work.chmod(temporary, stat.S_IMODE(st.st_mode))  # chown(2) cleared them
    for name in layer.listxattr(path):
        if name.startswith(whiteout.PRIVATE_XATTRS) and union.stack.shown_xattr(name) is None:
            continue
        value = layer.getxattr(path, name)
        if value is None:
            continue
        try:
            work.setxattr(temporary, name, value)
        except OSError as e:
            if name in _MUST_COPY or e.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise
    work.utime(temporary, st.st_atime_ns, st.st_mtime_ns)


def _set_origin(union: Union, number: int, source: Path, st: os.stat_result, path: Path) -> None:
    """Note on a staged copy what it was copied from; empty where the layer cannot say (ovl_set_origin_fh())."""
    is_dir = stat.S_ISDIR(st.st_mode)
    if not union.work.xattrs:
        return
    handle = union.stack.layer(number).handle(source)
    slot = None if is_dir else union.stack.slot_mark(number)
    shown = None if is_dir else union.stack.number_mark(number, st)
    work = union.stack.work
    try:
        work.setxattr(path, union.stack.private(ORIGIN), b"" if handle is None else hardlink.encode_origin(handle))
        if slot is not None:
            work.setxattr(path, union.stack.private(SLOT), slot)
        if shown is not None:
            work.setxattr(path, union.stack.private(NUMBER), shown)
    except OSError as e:
        # user.* is not allowed on symlinks and special files; the origin only keeps their number over a remount.
        if e.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise


# publishing -----------------------------------------------------------------------------------------------------------
def _publish(union: Union, inode: FileInode, staged: _Staged) -> None:
    """The copy becomes the file. Lock held."""
    assert inode.lower is not None
    st, temporary = staged.st, staged.path
    stored = staged.stored()
    key = (UPPER, stored.st_dev, stored.st_ino)
    if not inode.names:
        # Unlinked while we copied, and still open: a copy with no name.
        inode.linked().orphan = temporary
    else:
        parent, name, _ = inode.names[0]
        copy_up_directory(union, parent)
        with kept_times(union, parent):
            mark_impure(union, parent)
            if st.st_nlink > 1:
                entry = hardlink.index_path(union, inode.lower[0], staged.source_path, st)
                hardlink.add_to_index(union, inode, temporary, entry, st.st_nlink)
                hardlink.store_name(union, inode, parent.path, name)
                union.table.remember_real(key, inode)
            else:
                union.stack.work.rename(temporary, union.stack.upper, join(parent.path, name))
        # POINT OF NO RETURN: the upper has the file.
        inode.names[0] = (parent, name, True)
        _listed_in_upper(union, inode, parent, name, stored.st_ino)
    union.origins[stored.st_dev, stored.st_ino] = inode.ino
    inode.upper = True
    inode.attr = None
    if inode.handles:
        _switch_handles(union, inode)


def _switch_handles(union: Union, inode: FileInode) -> None:
    """Files open for reading go on in the copy, so that they see what is written from now on."""
    layer, path = union.upper_place(inode)
    for handle in inode.handles or ():
        handle.replace(layer.open(path))


def _listed_in_upper(union: Union, inode: FileInode, parent: DirInode, name: bytes, ino: int | None = None) -> None:
    entries = listing(union, parent)
    entries.covered.add(name)
    if ino is None:
        layer, path = union.upper_place(inode)
        ino = layer.lstat(path).st_ino
    entries.put(name, Listed(UPPER, inode.type, ino))


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
    number, path = directory.lowers[0]
    layer = union.stack.layer(number)
    st = layer.lstat(path)
    temporary = union.work.temporary()
    work, parent = union.stack.work, directory.parent
    listing(union, parent)
    work.mkdir(temporary, stat.S_IMODE(st.st_mode))
    try:
        copy_metadata(union, layer, path, st, temporary)
        _set_origin(union, number, path, st, temporary)
        with kept_times(union, parent):
            mark_impure(union, parent)
            work.rename(temporary, union.stack.upper, directory.path)
    except BaseException:
        union.work.discard(temporary)
        raise
    stored = union.stack.upper.lstat(directory.path)
    directory.upper = True
    directory.attr = None
    if directory.listing is not None:
        # Nothing is in the upper's copy yet, so what is visible stays where it is.
        directory.listing.covered.clear()
    entries = listing(union, parent)
    before = entries.names.get(directory.name)
    more = (before.layer, *before.more) if before is not None else ()
    entries.put(directory.name, Listed(UPPER, DT_DIR, stored.st_ino, more))
    entries.covered.add(directory.name)
    union.counters["copy_ups"] += 1


def mark_impure(union: Union, parent: DirInode) -> None:
    """Note that the directory holds objects with an origin below (ovl_set_impure()). Lock held."""
    if parent.impure:
        return
    parent.impure = True
    if union.work.xattrs:
        union.work.set_mark(parent.path, IMPURE, b"y")


class kept_times:
    """Put a directory's times back after a copy changed what is stored in it but not what people see
    (ovl_copy_up_one(): "Restore timestamps on parent")."""

    def __init__(self, union: Union, directory: DirInode) -> None:
        self._layer: WritableLayer = union.stack.upper
        self._path = directory.path
        self._directory = directory

    def __enter__(self) -> None:
        self._st = self._layer.lstat(self._path)

    def __exit__(self, *_: object) -> None:
        self._layer.utime(self._path, self._st.st_atime_ns, self._st.st_mtime_ns)
        self._directory.attr = None
