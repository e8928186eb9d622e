"""Open files and their data, and the attributes of any inode (fs/overlayfs/file.c, inode.c).

A handle holds one open file of a layer. One opened for reading on a lower file is switched to the copy when the file
is copied up, in place, so that it sees what is written from then on (unlike the kernel, where it keeps the old data).

Reading, writing and waiting for a flush need no lock; opening and changing attributes hold `union.lock`, after any
copy-up.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from unionfs.layers.layer import Changeable, LayerFile, PathIn
from unionfs.overlay import durability, metacopy
from unionfs.overlay.copy_up import change_attributes, copy_up
from unionfs.overlay.inode import DirInode, FileInode, Inode
from unionfs.overlay.union import Union, fail
from unionfs.vfs import (
    DT_LNK,
    DT_REG,
    NOW,
    O_ACCMODE,
    SEEK_DATA,
    SEEK_HOLE,
    Attr,
    AttrRecord,
    Extent,
    OpenResult,
    SetAttr,
    record_size,
)

_CAPABILITY = b"security.capability"
_DAY = 86_400_000_000_000


class Handle:
    """An open file. `writable` also says that attributes may change without our knowing (passthrough). `file` is None
    as long as nobody has used a handle of `open_later`."""

    __slots__ = ("file", "inode", "writable")

    def __init__(self, inode: FileInode, file: LayerFile | None, writable: bool) -> None:
        self.inode = inode
        self.file = file
        self.writable = writable


def handle(union: Union, fh: int) -> Handle:
    found = union.handles.get(fh)
    if not isinstance(found, Handle):
        fail(errno.EBADF)
    return found


def opened_file(union: Union, fh: int) -> LayerFile:
    """The file behind a handle, which is opened now if it was to be opened later."""
    opened = handle(union, fh)
    if opened.file is None:
        with union.lock:
            if opened.file is None:
                layer, path = union.data_place(opened.inode)
                opened.file = layer.open(path)
                _attach(opened.inode, opened.file)
    return opened.file


# opening --------------------------------------------------------------------------------------------------------------
def open_file(union: Union, inode: Inode, flags: int) -> OpenResult:
    """Open by inode. Copies up for writing; with O_TRUNC, none of the data."""
    if inode.is_dir:
        fail(errno.EISDIR)
    assert isinstance(inode, FileInode)
    if inode.type != DT_REG:
        fail(errno.ELOOP if inode.type == DT_LNK else errno.ENXIO)
    writable = flags & O_ACCMODE != os.O_RDONLY
    truncate = bool(flags & os.O_TRUNC)
    copied: list[LayerFile] = []
    if writable or truncate:
        copy_up(union, inode, 0 if truncate else None, kept=copied)
    with union.lock:
        if copied:
            (file,) = copied
        else:
            layer, path = union.data_place(inode)
            # Readable too: the kernel may have to read what a partial write surrounds.
            file = layer.open(path, os.O_RDWR if writable else os.O_RDONLY)
        try:
            if truncate:
                _truncate(union, inode, file if writable or copied else None, 0, bool(copied))
            return add(union, inode, file, writable)
        except BaseException:
            file.close()
            raise


def open_later(union: Union, inode: Inode) -> int | None:
    """A handle for reading whose file is opened when first read, or None where there is no file to open. Lock held."""
    if not isinstance(inode, FileInode) or inode.type != DT_REG:
        return None
    if inode.lost:
        fail(errno.ESTALE)
    inode.opens += 1
    return union.add_handle(Handle(inode, None, False))


def add(union: Union, inode: FileInode, file: LayerFile, writable: bool) -> OpenResult:
    """Register an open file. Lock held."""
    inode.opens += 1
    if writable:
        inode.writers += 1
        inode.attr = None
    _attach(inode, file)
    size = -1
    if not inode.writers:
        record = union.attributes(inode)
        if not (inode.upper and may_be_read(record)):
            size = record_size(record)[0]
    extent: Extent | None = getattr(file, "extent", None) if getattr(file, "in_one_piece", False) else None
    return OpenResult(union.add_handle(Handle(inode, file, writable)), file.fd, size, extent)


def _attach(inode: FileInode, file: LayerFile) -> None:
    if metacopy.attach(inode, file):
        return
    if inode.handles is None:
        inode.handles = [file]
    else:
        inode.handles.append(file)


def release(union: Union, fh: int) -> None:
    opened = handle(union, fh)
    with union.lock:
        del union.handles[fh]
        inode = opened.inode
        inode.opens -= 1
        if opened.writable:
            inode.writers -= 1
            inode.attr = None
        if opened.file is not None:
            _detach(union, inode, opened.file)
        if not (inode.nlookup or inode.opens):
            union.release_unused(inode)


def _detach(union: Union, inode: FileInode, file: LayerFile) -> None:
    if metacopy.detach(inode, file):
        file.close()
        return
    assert inode.handles is not None
    inode.handles.remove(file)
    if not inode.handles:
        if inode.nameless and inode.orphan is None and inode.index is None:
            # The last way to ask: what is known now is what stays known.
            inode.attr = union.set_attributes(inode, file.fstat())
        inode.handles = None
    file.close()


# attributes -----------------------------------------------------------------------------------------------------------
def setattr(union: Union, inode: Inode, changes: SetAttr, fh: int | None) -> AttrRecord:
    """Change attributes: size first, then owner, mode and times."""
    size, copied = changes.size, False
    if isinstance(inode, FileInode):
        if inode.upper and inode.handles and size is None and not changes.kill_priv and union.workdir is not None:
            with union.lock:
                if inode.handles:  # the most common case, by the shortest way
                    change_attributes(inode.handles[0], changes)
                    return union.set_attributes(inode, inode.handles[0].fstat())
        if size is not None and inode.type != DT_REG:
            fail(errno.EINVAL)
        if inode.type == DT_LNK and changes.mode is not None:
            fail(errno.EOPNOTSUPP)
        # A change of owner takes privileges away by itself.
        alone = changes.kill_priv and changes.uid is None and changes.gid is None
        with_copy = changes if size is None and not alone else None
        copied = copy_up(union, inode, size, with_copy, data=size is not None)
        if copied and with_copy is not None:
            with union.lock:
                return union.attributes(inode)
        union.check_writable()
    elif size is not None:
        fail(errno.EISDIR)
    elif not (inode.is_dir and _is_removed(inode)):
        copy_up(union, inode)
    with union.lock:
        if _is_removed(inode):
            return _set_remembered(union, inode, changes)
        if size is not None:
            assert isinstance(inode, FileInode)
            opened = union.handles.get(fh) if fh is not None else None
            file = opened.file if isinstance(opened, Handle) and opened.writable else None
            _truncate(union, inode, file, size, copied)
        if changes.kill_priv and changes.uid is None and changes.gid is None:
            kill_privileges(union, inode)
        change_attributes(_changeable(union, inode), changes)
        inode.attr = None
        if isinstance(inode, FileInode):
            metacopy.times_set(union, inode, changes)
        if isinstance(inode, DirInode):
            inode.handed_down = None
            inode.changed()
        return union.attributes(inode)


def _changeable(union: Union, inode: Inode) -> Changeable:
    """The stored object of an inode in the upper, by an open file where there is one: that is quicker."""
    if isinstance(inode, FileInode) and inode.handles:
        return inode.handles[0]
    return PathIn(*union.upper_place(inode))


def may_be_read(record: AttrRecord) -> bool:
    """Could a read have moved the access time of an upper file behind these attributes, as relatime does (mount(8))?
    Files of lower layers are read without a trace, as the kernel's overlayfs does (MNT_NOATIME)."""
    attr = Attr.unpack(record)
    return attr.atime_ns <= max(attr.mtime_ns, attr.ctime_ns) or attr.atime_ns < time.time_ns() - _DAY


def _is_removed(inode: Inode) -> bool:
    """Has it no place any more: a removed directory still open, a file whose every known name is gone?"""
    if isinstance(inode, FileInode):
        return inode.upper and inode.nameless and inode.orphan is None and inode.index is None
    return bool(getattr(inode, "removed", False))


def _set_remembered(union: Union, inode: Inode, changes: SetAttr) -> AttrRecord:
    """Change the last known attributes of an inode that lives in memory only."""
    attr = Attr.unpack(union.attributes(inode))
    if changes.mode is not None:
        attr = attr._replace(mode=stat.S_IFMT(attr.mode) | stat.S_IMODE(changes.mode))
    if changes.uid is not None:
        attr = attr._replace(uid=changes.uid)
    if changes.gid is not None:
        attr = attr._replace(gid=changes.gid)
    if isinstance(changes.atime_ns, int):
        attr = attr._replace(atime_ns=changes.atime_ns)
    if isinstance(changes.mtime_ns, int):
        attr = attr._replace(mtime_ns=changes.mtime_ns)
    inode.attr = attr.pack()
    return inode.attr


def _truncate(union: Union, inode: FileInode, file: LayerFile | None, size: int, copied: bool) -> None:
    """`copied`: for this call; then the file has the size already, unless the lower one was smaller, and must not
    fail now."""
    tree, path = union.upper_place(inode)
    try:
        if file is not None:
            file.ftruncate(size)
        else:
            tree.truncate(path, size)
    except OSError:
        if (file is not None and not copied) or tree.lstat(path).st_size != size:
            raise
        if not copied:
            tree.utime(path, None, NOW)
    inode.attr = None


def kill_privileges(union: Union, inode: Inode) -> None:
    """Take set-user-ID, set-group-ID and file capabilities away, as a write by an unprivileged process does
    (setattr_should_drop_suidgid(), security_inode_killpriv()). Lock held; the inode is in the upper."""
    if inode.is_dir:
        return
    tree, path = union.upper_place(inode)
    mode = tree.lstat(path).st_mode
    drop = mode & stat.S_ISUID
    if mode & stat.S_IXGRP:
        drop |= mode & stat.S_ISGID
    if drop:
        tree.chmod(path, stat.S_IMODE(mode & ~drop))
    if tree.getxattr(path, _CAPABILITY) is not None:
        tree.removexattr(path, _CAPABILITY)
    inode.attr = None


# data -----------------------------------------------------------------------------------------------------------------
def read(union: Union, fh: int, offset: int, size: int) -> bytes:
    """EINTR where the caller gives up while data is waited for that is still to come (layers.lazy_tar)."""
    file = opened_file(union, fh)
    fetch = getattr(file, "fetch", None)
    if fetch is not None:
        fetch(size, offset, union.check_caller)
    return file.pread(size, offset)


def write(union: Union, fh: int, offset: int, data: bytes | memoryview, kill_priv: bool) -> int:
    file = _writable(union, fh)
    if kill_priv:
        inode = handle(union, fh).inode
        with union.lock:
            if not _is_removed(inode):
                kill_privileges(union, inode)
    return file.pwrite(data, offset)


def _writable(union: Union, fh: int) -> LayerFile:
    opened = handle(union, fh)
    if not opened.writable or opened.file is None:
        fail(errno.EBADF)
    return opened.file


def fsync(union: Union, fh: int, datasync: bool) -> None:
    inode = handle(union, fh).inode
    if not inode.upper or union.options.volatile:
        return
    file = opened_file(union, fh)
    if inode.data is None:
        durability.flush_file(union, inode, file, datasync)
        return
    with union.lock:  # the data is below, and was flushed long ago (ovl_fsync())
        tree, path = union.upper_place(inode)
        file = tree.open(path)
    try:
        durability.flush_file(union, inode, file, datasync)
    finally:
        file.close()


def fallocate(union: Union, fh: int, mode: int, offset: int, length: int) -> None:
    _writable(union, fh).fallocate(mode, offset, length)


def lseek(union: Union, fh: int, offset: int, whence: int) -> int:
    file = opened_file(union, fh)
    if whence == SEEK_DATA:
        return file.seek_data(offset)
    if whence == SEEK_HOLE:
        return file.seek_hole(offset)
    fail(errno.EINVAL)


def copy_file_range(union: Union, fh_in: int, offset_in: int, fh_out: int, offset_out: int, length: int) -> int:
    return _writable(union, fh_out).copy_range(opened_file(union, fh_in), offset_in, offset_out, length)
