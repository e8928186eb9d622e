"""`MemoryLayer`: a tree in memory, as a layer, an upper or a work directory. Nothing of Linux is needed.

    disk = MemoryDisk(clock)
    upper, work = MemoryLayer(disk, "upper"), MemoryLayer(disk, "work")     # one file system, as they have to be

A layer is a directory of its own on a `MemoryDisk`; several on one disk can rename and link into each other, and tell
their objects apart by inode number. It behaves as `WritableDirectory` does for root on a file system without ACLs:
tests/unit/test_memory_layer.py gives both the same operations. Handles hold the inode number, which is never used
again.

INVARIANT: `inode.links` is the number of entries, of all directories of the disk, that lead to a non-directory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from unionfs.layers.layer import LayerFile, OriginHandle, Path, ScanEntry, WritableLayer
from unionfs.layers.memory_disk import NAME_MAX, PAGE, MemoryDisk, MemoryFile, MemoryInode, fail
from unionfs.vfs import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, Now, StatFs, d_type

__all__ = ["MemoryDisk", "MemoryFile", "MemoryLayer"]

_HANDLE_TYPE = 0x75  # ours alone: no file system of Linux has this one
_HANDLE_BYTES = 8
_OPEN_REFUSAL = {stat.S_IFDIR: errno.EISDIR, stat.S_IFLNK: errno.ELOOP}


class MemoryLayer:
    """Implements `WritableLayer`."""

    def __init__(self, disk: MemoryDisk, name: str) -> None:
        self.name = name
        self.disk = disk
        self.root = disk.make(stat.S_IFDIR | 0o755)

    @property
    def new_owner(self) -> tuple[int, int]:
        return self.disk.owner

    # resolution ---------------------------------------------------------------------------------------------------
    def inode(self, path: Path) -> MemoryInode:
        inode = self.root
        for name in path.split(b"/") if path else ():
            inode = _entry(inode, name, path)
        return inode

    def _parent(self, path: Path) -> tuple[MemoryInode, bytes]:
        """The directory of a name, and the name."""
        head, _, name = path.rpartition(b"/")
        directory = self.inode(head)
        if not directory.is_dir:
            fail(errno.ENOTDIR, path)
        if len(name) > NAME_MAX:
            fail(errno.ENAMETOOLONG, path)
        return directory, name

    def _existing(self, path: Path) -> tuple[MemoryInode, bytes, MemoryInode]:
        directory, name = self._parent(path)
        return directory, name, _entry(directory, name, path)

    # reading ------------------------------------------------------------------------------------------------------
    def lstat(self, path: Path) -> os.stat_result:
        return self.disk.stat(self.inode(path))

    def stat_in(self, path: Path) -> Callable[[bytes], os.stat_result]:
        directory = self.inode(path)
        return lambda name: self.disk.stat(_entry(directory, name, name))

    def scan(self, path: Path) -> list[ScanEntry]:
        directory = self.inode(path)
        if not directory.is_dir:
            fail(errno.ENOTDIR, path)
        return [ScanEntry(name, d_type(inode.mode), inode.number) for name, inode in directory.entries.items()]

    def readlink(self, path: Path) -> bytes:
        inode = self.inode(path)
        if not stat.S_ISLNK(inode.mode):
            fail(errno.EINVAL, path)
        return inode.target

    def getxattr(self, path: Path, name: bytes) -> bytes | None:
        return self.inode(path).xattrs.get(name)

    def listxattr(self, path: Path) -> list[bytes]:
        return list(self.inode(path).xattrs)

    def open(self, path: Path, flags: int = os.O_RDONLY) -> MemoryFile:
        inode = self.inode(path)
        if inode.kind != stat.S_IFREG:
            fail(_OPEN_REFUSAL.get(inode.kind, errno.ENXIO), path)
        return self._opened(inode, flags)

    def _opened(self, inode: MemoryInode, flags: int) -> MemoryFile:
        return MemoryFile(self.disk, inode, flags)

    def handle(self, path: Path) -> OriginHandle | None:
        return OriginHandle(_HANDLE_TYPE, self.inode(path).number.to_bytes(_HANDLE_BYTES, "big"), self.disk.uuid)

    def stat_handle(self, handle: OriginHandle) -> os.stat_result:
        """Of the object that a handle of this disk is for; ESTALE where it has no name any more, and for others."""
        inode = self.disk.inodes.get(int.from_bytes(handle.handle, "big"))
        if (handle.type, handle.uuid) != (_HANDLE_TYPE, self.disk.uuid) or inode is None:
            fail(errno.ESTALE)
        if not (inode.is_dir or inode.links):
            fail(errno.ESTALE)
        return self.disk.stat(inode)

    def statfs(self) -> StatFs:
        return StatFs(PAGE, PAGE, 1 << 30, 1 << 30, 1 << 30, 1 << 30, 1 << 30, NAME_MAX)

    def close(self) -> None:
        """Nothing is held. The tree stays, as a directory does."""

    # names --------------------------------------------------------------------------------------------------------
    def create(self, path: Path, mode: int, flags: int = os.O_RDWR) -> MemoryFile:
        return self._opened(self._make(path, stat.S_IFREG | stat.S_IMODE(mode)), flags)

    def tmpfile(self, path: Path, mode: int) -> MemoryFile:
        directory = self.inode(path)
        if not directory.is_dir:
            fail(errno.ENOTDIR, path)
        inode = self.disk.make(stat.S_IFREG | stat.S_IMODE(mode))
        _inherit(directory, inode)
        return self._opened(inode, os.O_RDWR)

    def mkdir(self, path: Path, mode: int) -> None:
        inode = self._make(path, stat.S_IFDIR | stat.S_IMODE(mode))
        if mode & (stat.S_ISUID | stat.S_ISGID):
            inode.mode = stat.S_IFDIR | stat.S_IMODE(mode)  # exactly, as WritableDirectory sees to

    def mknod(self, path: Path, mode: int, rdev: int) -> None:
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
        if is_device and not self.disk.devices:
            fail(errno.EPERM, path)
        inode = self._make(path, kind | stat.S_IMODE(mode))
        inode.rdev = rdev if is_device else 0

    def symlink(self, path: Path, target: bytes) -> None:
        self._make(path, stat.S_IFLNK | 0o777).target = target

    def link(self, path: Path, to: WritableLayer, to_path: Path) -> None:
        other = self._same_disk(to, to_path)
        (source, source_name), (directory, name) = self._parent(path), other._parent(to_path)
        inode = _entry(source, source_name, path)
        if name in directory.entries:
            fail(errno.EEXIST, to_path)
        if inode.is_dir:
            fail(errno.EPERM, path)
        other._enter(directory, name, inode)
        inode.ctime = self.disk.clock()

    def link_file(self, file: LayerFile, path: Path) -> None:
        directory, name = self._parent(path)
        if name in directory.entries:
            fail(errno.EEXIST, path)
        if not isinstance(file, MemoryFile) or self.disk.inodes.get(file.inode.number) is not file.inode:
            fail(errno.EXDEV, path)
        self._enter(directory, name, file.inode)
        file.inode.ctime = self.disk.clock()

    def unlink(self, path: Path) -> None:
        directory, name, inode = self._existing(path)
        if inode.is_dir:
            fail(errno.EISDIR, path)
        self._leave(directory, name)

    def rmdir(self, path: Path) -> None:
        directory, name, inode = self._existing(path)
        if not inode.is_dir:
            fail(errno.ENOTDIR, path)
        if inode.entries:
            fail(errno.ENOTEMPTY, path)
        self._leave(directory, name)

    def rename(self, path: Path, to: WritableLayer, to_path: Path, flags: int = 0) -> None:
        """In the order of do_renameat2() and vfs_rename() of fs/namei.c."""
        other = self._same_disk(to, to_path)
        (old, name), (new, new_name) = self._parent(path), other._parent(to_path)
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT):
            fail(errno.EINVAL, path)
        if flags & RENAME_EXCHANGE and flags & (RENAME_NOREPLACE | RENAME_WHITEOUT):
            fail(errno.EINVAL, path)
        inode = _entry(old, name, path)
        victim = new.entries.get(new_name)
        _check_rename(inode, new, victim, old, flags)
        if inode is victim:
            return
        if flags & RENAME_EXCHANGE:
            assert victim is not None
            self._leave(old, name)
            other._leave(new, new_name)
            self._enter(old, name, victim)
            victim.ctime = self.disk.clock()
        else:
            self._leave(old, name)
            if victim is not None:
                other._leave(new, new_name)
            if flags & RENAME_WHITEOUT:
                self._enter(old, name, self.disk.make(stat.S_IFCHR))
        other._enter(new, new_name, inode)
        inode.ctime = self.disk.clock()

    def _same_disk(self, to: WritableLayer, path: Path) -> MemoryLayer:
        if not isinstance(to, MemoryLayer) or to.disk is not self.disk:
            fail(errno.EXDEV, path)
        return to

    def _make(self, path: Path, mode: int) -> MemoryInode:
        directory, name = self._parent(path)
        if name in directory.entries:
            fail(errno.EEXIST, path)
        inode = self.disk.make(mode)
        _inherit(directory, inode)
        self._enter(directory, name, inode)
        return inode

    def _enter(self, directory: MemoryInode, name: bytes, inode: MemoryInode) -> None:
        directory.entries[name] = inode
        inode.links += not inode.is_dir
        directory.changed(self.disk.clock())

    def _leave(self, directory: MemoryInode, name: bytes) -> None:
        inode = directory.entries.pop(name)
        inode.links -= not inode.is_dir
        inode.ctime = self.disk.clock()
        directory.changed(self.disk.clock())

    # attributes ---------------------------------------------------------------------------------------------------
    def chmod(self, path: Path, mode: int) -> None:
        self.disk.chmod(self.inode(path), mode)

    def chown(self, path: Path, uid: int, gid: int) -> None:
        self.disk.chown(self.inode(path), uid, gid)

    def utime(self, path: Path, atime_ns: int | Now | None, mtime_ns: int | Now | None) -> None:
        self.disk.utime(self.inode(path), atime_ns, mtime_ns)

    def truncate(self, path: Path, size: int) -> None:
        self.open(path, os.O_WRONLY).ftruncate(size)

    def setxattr(self, path: Path, name: bytes, value: bytes, flags: int = 0) -> None:
        self.disk.setxattr(self.inode(path), name, value, flags)

    def removexattr(self, path: Path, name: bytes) -> None:
        self.disk.removexattr(self.inode(path), name)

    # durability ---------------------------------------------------------------------------------------------------
    def sync(self) -> None:
        """There is nothing that memory could be flushed to."""

    def fsync_dir(self, path: Path) -> Callable[[], None]:
        if not self.inode(path).is_dir:
            fail(errno.ENOTDIR, path)
        return self.sync


def _entry(directory: MemoryInode, name: bytes, path: Path) -> MemoryInode:
    if not directory.is_dir:
        fail(errno.ENOTDIR, path)
    if len(name) > NAME_MAX:
        fail(errno.ENAMETOOLONG, path)
    inode = directory.entries.get(name)
    if inode is None:
        fail(errno.ENOENT, path)
    return inode


def _inherit(directory: MemoryInode, inode: MemoryInode) -> None:
    """A set-group-ID directory gives its group on (inode_init_owner() of fs/inode.c)."""
    if directory.mode & stat.S_ISGID:
        inode.gid = directory.gid
        if inode.is_dir:
            inode.mode |= stat.S_ISGID


def _is_above(inode: MemoryInode, directory: MemoryInode) -> bool:
    """Is a directory the other, or in a path to it?"""
    todo = [inode] if inode.is_dir else []
    while todo:
        one = todo.pop()
        if one is directory:
            return True
        todo.extend(entry for entry in one.entries.values() if entry.is_dir)
    return False


def _check_rename(
    inode: MemoryInode, new: MemoryInode, victim: MemoryInode | None, old: MemoryInode, flags: int
) -> None:
    exchange = flags & RENAME_EXCHANGE
    if victim is None:
        if exchange:
            fail(errno.ENOENT)
    elif flags & RENAME_NOREPLACE:
        fail(errno.EEXIST)
    if _is_above(inode, new):
        fail(errno.EINVAL)
    if victim is None:
        return
    if _is_above(victim, old):
        fail(errno.EINVAL if exchange else errno.ENOTEMPTY)
    if exchange or inode is victim:
        return
    if inode.is_dir and not victim.is_dir:
        fail(errno.ENOTDIR)
    if victim.is_dir:
        if not inode.is_dir:
            fail(errno.EISDIR)
        if victim.entries:
            fail(errno.ENOTEMPTY)
