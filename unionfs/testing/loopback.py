"""`LoopbackFilesystem`: one directory, shown as it is. The simplest complete `vfs.Filesystem`.

It exists so that transports can be tested apart from the union: what fails here is the transport's fault. Nothing is
cached but the inode table (loopback_inodes.py); every answer comes from the directory itself, and the numbers people
see (`st_ino`) are its own. Unlike a union it lets a char device 0:0 be made.

Locking: one lock around everything that concerns names and attributes; data goes beside it.
The process umask must be 0: modes are worked out here. Knows nothing of layers or whiteouts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from unionfs import vfs
from unionfs.linux.data import copy_range, fallocate, syncfs
from unionfs.linux.path import UTIME_NOW, Time, futimens, linkat_fd, renameat2, utimensat
from unionfs.linux.syscalls import error
from unionfs.linux.xattr import find_xattr
from unionfs.testing.loopback_inodes import InodeTable, Node, Place
from unionfs.vfs import Caller, DirEntry, DirEntryPlus, Entry, OpenResult, SetAttr, StatFs

_DEFAULT_ACL = b"system.posix_acl_default"
_CAPABILITY = b"security.capability"


@dataclass(slots=True)
class _Handle:
    """An open file or directory. `listing` is the snapshot that a directory's cookies count in."""

    node: Node
    fd: int
    listing: list[tuple[bytes, int, int]] = field(default_factory=list)


def _record(st: os.stat_result) -> vfs.AttrRecord:
    return vfs.pack_stat(st, st.st_ino, st.st_nlink)


def _lstat(dir_fd: int, name: bytes) -> os.stat_result:
    return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)


def _time(value: int | vfs.Now | None) -> Time:
    return UTIME_NOW if isinstance(value, vfs.Now) else value


class LoopbackFilesystem:
    """The tree at `root`. See `vfs.Filesystem` for the contract of each method."""

    def __init__(self, root: bytes | str) -> None:
        self._root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._inodes = InodeTable(self._root_fd)
        self._handles: dict[vfs.FileHandle, _Handle] = {}
        self._next_fh = 1
        self._lock = threading.RLock()

    # names ------------------------------------------------------------------------------------------------------
    def lookup(self, parent: vfs.NodeId, name: bytes) -> Entry:
        with self._lock, self._inodes.directory(self._inodes.get(parent)) as dir_fd:
            return self._entry(parent, name, _lstat(dir_fd, name))

    def _entry(self, parent: vfs.NodeId, name: bytes, st: os.stat_result) -> Entry:
        # "." and ".." are asked for by NFS export; they are no names of the node.
        holder = None if name in (b".", b"..") else self._inodes.get(parent)
        return Entry(self._inodes.look_up(holder, name, st).id, _record(st))

    def forget(self, node: vfs.NodeId, count: int) -> None:
        with self._lock:
            self._inodes.forget(node, count)

    def mknod(self, parent: vfs.NodeId, name: bytes, mode: int, rdev: int, caller: Caller) -> Entry:
        return self._make(parent, name, mode, caller, lambda fd, bits: os.mknod(name, bits, rdev, dir_fd=fd))

    def mkdir(self, parent: vfs.NodeId, name: bytes, mode: int, caller: Caller) -> Entry:
        return self._make(parent, name, mode, caller, lambda fd, bits: os.mkdir(name, bits, dir_fd=fd), os.rmdir)

    def symlink(self, parent: vfs.NodeId, name: bytes, target: bytes, caller: Caller) -> Entry:
        return self._make(parent, name, 0o777, caller, lambda fd, _: os.symlink(target, name, dir_fd=fd))

    def _make(
        self,
        parent: vfs.NodeId,
        name: bytes,
        mode: int,
        caller: Caller,
        make: Callable[[int, int], None],
        undo: Callable[..., None] = os.unlink,
    ) -> Entry:
        """Create `name` with `make(dir_fd, mode)` and give it to the caller; nothing is left if that fails."""
        with self._lock, self._inodes.directory(self._inodes.get(parent)) as dir_fd:
            make(dir_fd, _masked(dir_fd, mode, caller))
            with _undone_by(undo, dir_fd, name):
                uid, gid = _owner(dir_fd, caller)
                made = _lstat(dir_fd, name)
                if (made.st_uid, made.st_gid) != (uid, gid):
                    os.chown(name, uid, gid, dir_fd=dir_fd, follow_symlinks=False)
                    if made.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(made.st_mode):
                        os.chmod(name, stat.S_IMODE(made.st_mode), dir_fd=dir_fd)  # chown(2) has taken them
            return self._entry(parent, name, _lstat(dir_fd, name))

    def link(self, node: vfs.NodeId, parent: vfs.NodeId, name: bytes, caller: Caller) -> Entry:
        target, holder = self._inodes.get(node), self._inodes.get(parent)
        with self._lock, self._inodes.reach(target) as place, self._inodes.directory(holder) as dir_fd:
            linkat_fd(place.fd, dir_fd, name)
            return self._entry(parent, name, _lstat(dir_fd, name))

    def unlink(self, parent: vfs.NodeId, name: bytes) -> None:
        self._remove(parent, name, os.unlink)

    def rmdir(self, parent: vfs.NodeId, name: bytes) -> None:
        self._remove(parent, name, os.rmdir)

    def _remove(self, parent: vfs.NodeId, name: bytes, remove: Callable[..., None]) -> None:
        holder = self._inodes.get(parent)
        with self._lock, self._inodes.directory(holder) as dir_fd:
            st = _lstat(dir_fd, name)
            remove(name, dir_fd=dir_fd)
            self._inodes.unlinked(holder, name, st)

    def rename(self, parent: vfs.NodeId, name: bytes, new_parent: vfs.NodeId, new_name: bytes, flags: int) -> None:
        old, new = (self._inodes.get(parent), name), (self._inodes.get(new_parent), new_name)
        with self._lock, self._inodes.directory(old[0]) as old_fd, self._inodes.directory(new[0]) as new_fd:
            st = _lstat(old_fd, name)
            replaced = None
            with contextlib.suppress(FileNotFoundError):
                replaced = _lstat(new_fd, new_name)
            renameat2(old_fd, name, new_fd, new_name, flags)
            if replaced is not None and (st.st_dev, st.st_ino) == (replaced.st_dev, replaced.st_ino):
                return  # two names of one file: rename(2) does nothing
            if replaced is not None and flags & vfs.RENAME_EXCHANGE:
                self._inodes.moved(new, old, replaced)
            elif replaced is not None:
                self._inodes.unlinked(*new, replaced)
            self._inodes.moved(old, new, st)

    # inodes -----------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _reach(self, node: vfs.NodeId) -> Iterator[Place]:
        with self._lock, self._inodes.reach(self._inodes.get(node)) as place:
            yield place

    def getattr(self, node: vfs.NodeId, fh: vfs.FileHandle | None = None) -> vfs.AttrRecord:
        if fh is not None:
            return _record(os.fstat(self._handle(fh).fd))
        with self._reach(node) as place:
            return _record(os.fstat(place.fd))

    def setattr(
        self, node: vfs.NodeId, changes: SetAttr, caller: Caller, fh: vfs.FileHandle | None = None
    ) -> vfs.AttrRecord:
        with self._reach(node) as place:
            if changes.size is not None:
                if fh is not None:
                    os.ftruncate(self._handle(fh).fd, changes.size)
                else:
                    os.truncate(place.path, changes.size)
            if changes.uid is not None or changes.gid is not None:
                unset = -1
                uid = unset if changes.uid is None else changes.uid
                os.chown(place.path, uid, unset if changes.gid is None else changes.gid)
            if changes.kill_priv:
                _kill_priv(place.path, os.fstat(place.fd))
            # After chown and kill_priv, which change the mode themselves.
            if changes.mode is not None:
                os.chmod(place.path, stat.S_IMODE(changes.mode))
            if changes.atime_ns is not None or changes.mtime_ns is not None:
                atime, mtime = _time(changes.atime_ns), _time(changes.mtime_ns)
                if place.name is not None:
                    utimensat(place.dir_fd, place.name, atime, mtime)
                else:
                    futimens(place.fd, atime, mtime)
            return _record(os.fstat(place.fd))

    def readlink(self, node: vfs.NodeId) -> bytes:
        with self._reach(node) as place:
            # The text of the magic link itself would be the path of the link; "" is the link (readlinkat(2)).
            return os.readlink(b"", dir_fd=place.fd)

    def getxattr(self, node: vfs.NodeId, name: bytes) -> bytes:
        with self._reach(node) as place:
            return os.getxattr(place.path, name)

    def listxattr(self, node: vfs.NodeId) -> list[bytes]:
        with self._reach(node) as place:
            return [os.fsencode(name) for name in os.listxattr(place.path)]

    def setxattr(self, node: vfs.NodeId, name: bytes, value: bytes, flags: int) -> None:
        with self._reach(node) as place:
            os.setxattr(place.path, name, value, flags)

    def removexattr(self, node: vfs.NodeId, name: bytes) -> None:
        with self._reach(node) as place:
            os.removexattr(place.path, name)

    def statfs(self, node: vfs.NodeId) -> StatFs:
        st = os.fstatvfs(self._root_fd)
        return StatFs(
            st.f_bsize, st.f_frsize, st.f_blocks, st.f_bfree, st.f_bavail, st.f_files, st.f_ffree, st.f_namemax
        )

    # files ------------------------------------------------------------------------------------------------------
    def _handle(self, fh: vfs.FileHandle) -> _Handle:
        handle = self._handles.get(fh)
        if handle is None:
            raise error(errno.EBADF)
        return handle

    def _opened(self, node: Node, fd: int) -> OpenResult:
        fh = self._next_fh
        self._next_fh += 1
        self._handles[fh] = _Handle(node, fd)
        self._inodes.opened(node, fd)
        return OpenResult(fh, fd)

    def open(self, node: vfs.NodeId, flags: int) -> OpenResult:
        with self._reach(node) as place:
            wanted = flags & (os.O_ACCMODE | os.O_TRUNC) | os.O_CLOEXEC
            return self._opened(self._inodes.get(node), _open_readable(place.path, wanted))

    def create(
        self, parent: vfs.NodeId, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Entry, OpenResult]:
        made: list[int] = []

        def make(dir_fd: int, bits: int) -> None:
            # Opened as it is made: whatever the mode says, its creator may write it.
            made.append(os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, bits, dir_fd=dir_fd))

        with self._lock:
            try:
                entry = self._make(parent, name, stat.S_IMODE(mode), caller, make)
            except FileExistsError:
                if flags & os.O_EXCL:
                    raise
                return self._open_existing(parent, name, flags)
            except OSError:
                for fd in made:
                    os.close(fd)
                raise
            return entry, self._opened(self._inodes.get(entry.node), made[0])

    def _open_existing(self, parent: vfs.NodeId, name: bytes, flags: int) -> tuple[Entry, OpenResult]:
        entry = self.lookup(parent, name)
        try:
            return entry, self.open(entry.node, flags)
        except OSError:
            self.forget(entry.node, 1)
            raise

    def tmpfile(self, parent: vfs.NodeId, mode: int, flags: int, caller: Caller) -> tuple[Entry, OpenResult]:
        with self._lock, self._inodes.directory(self._inodes.get(parent)) as dir_fd:
            wanted = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC | flags & os.O_EXCL
            fd = os.open(b".", wanted, _masked(dir_fd, stat.S_IMODE(mode), caller), dir_fd=dir_fd)
            try:
                made = os.fstat(fd)
                os.fchown(fd, *_owner(dir_fd, caller))
                os.fchmod(fd, stat.S_IMODE(made.st_mode))
                st = os.fstat(fd)
            except OSError:
                os.close(fd)
                raise
            node = self._inodes.look_up(None, b"", st)
            return Entry(node.id, _record(st)), self._opened(node, fd)

    def read(self, fh: vfs.FileHandle, offset: int, size: int) -> bytes:
        return os.pread(self._handle(fh).fd, size, offset)

    def write(self, fh: vfs.FileHandle, offset: int, data: bytes | memoryview, kill_priv: bool = False) -> int:
        fd = self._handle(fh).fd
        if kill_priv:
            _kill_priv(fd, os.fstat(fd))
        return os.pwrite(fd, data, offset)

    def flush(self, fh: vfs.FileHandle) -> None:
        os.close(os.dup(self._handle(fh).fd))

    def release(self, fh: vfs.FileHandle) -> None:
        with self._lock:
            handle = self._handles.pop(fh, None)
            if handle is not None:
                self._inodes.closed(handle.node, handle.fd)
                os.close(handle.fd)

    def fsync(self, fh: vfs.FileHandle, datasync: bool) -> None:
        (os.fdatasync if datasync else os.fsync)(self._handle(fh).fd)

    def fallocate(self, fh: vfs.FileHandle, mode: int, offset: int, length: int) -> None:
        fallocate(self._handle(fh).fd, mode, offset, length)

    def lseek(self, fh: vfs.FileHandle, offset: int, whence: int) -> int:
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise error(errno.EINVAL)
        return os.lseek(self._handle(fh).fd, offset, whence)

    def copy_file_range(
        self, fh_in: vfs.FileHandle, offset_in: int, fh_out: vfs.FileHandle, offset_out: int, length: int
    ) -> int:
        return copy_range(self._handle(fh_in).fd, offset_in, self._handle(fh_out).fd, offset_out, length)

    # directories ------------------------------------------------------------------------------------------------
    def opendir(self, node: vfs.NodeId) -> vfs.FileHandle:
        with self._lock, self._inodes.directory(self._inodes.get(node)) as dir_fd:
            fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
            return self._opened(self._inodes.get(node), fd).fh

    def readdir(self, fh: vfs.FileHandle, offset: int, budget: int, overhead: int) -> Sequence[DirEntry]:
        with self._lock:
            handle = self._handle(fh)
            window = self._window(handle, offset, budget, overhead)
            return [DirEntry(*handle.listing[i], i + 1) for i in window]

    def readdirplus(self, fh: vfs.FileHandle, offset: int, budget: int, overhead: int) -> Sequence[DirEntryPlus]:
        with self._lock:
            handle = self._handle(fh)
            found = []
            for i in self._window(handle, offset, budget, overhead):
                name = handle.listing[i][0]
                try:
                    st = _lstat(handle.fd, name)
                except FileNotFoundError:
                    continue
                dots = name in (b".", b"..")
                node = 0 if dots else self._inodes.look_up(handle.node, name, st).id
                found.append(DirEntryPlus(name, node, _record(st), i + 1))
            return found

    def _window(self, handle: _Handle, offset: int, budget: int, overhead: int) -> range:
        """The indices into the listing, taken anew at offset 0, of the entries that fit."""
        if offset == 0:
            handle.listing = self._scan(handle)
        end = offset
        while end < len(handle.listing):
            budget -= (overhead + len(handle.listing[end][0]) + 7) & ~7
            if budget < 0:
                break
            end += 1
        return range(offset, end)

    def _scan(self, handle: _Handle) -> list[tuple[bytes, int, int]]:
        up = b"." if handle.node is self._inodes.root else b".."
        listing = [
            (b".", os.fstat(handle.fd).st_ino, vfs.DT_DIR),
            (b"..", _lstat(handle.fd, up).st_ino, vfs.DT_DIR),
        ]
        with os.scandir(handle.fd) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    listing.append((os.fsencode(entry.name), entry.inode(), _entry_type(entry)))
        return listing

    def releasedir(self, fh: vfs.FileHandle) -> None:
        self.release(fh)

    def fsyncdir(self, fh: vfs.FileHandle, datasync: bool) -> None:
        self.fsync(fh, datasync)

    # the whole --------------------------------------------------------------------------------------------------
    def syncfs(self) -> None:
        syncfs(self._root_fd)

    def statistics(self) -> dict[str, int]:
        return {"nodes": len(self._inodes), "open_handles": len(self._handles)}

    def close(self) -> None:
        for fh in list(self._handles):
            self.release(fh)
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1


# Creation and privileges ---------------------------------------------------------------------------------------------
def _masked(dir_fd: int, mode: int, caller: Caller) -> int:
    """`mode` less the umask, unless the parent has a default ACL, which then takes its place (acl(5))."""
    return mode & ~caller.umask if find_xattr(dir_fd, b".", _DEFAULT_ACL) is None else mode


def _owner(dir_fd: int, caller: Caller) -> tuple[int, int]:
    """The owner of what `caller` creates in this directory: a set-group-ID directory hands down its group."""
    st = os.fstat(dir_fd)
    return caller.uid, st.st_gid if st.st_mode & stat.S_ISGID else caller.gid


@contextlib.contextmanager
def _undone_by(undo: Callable[..., None], dir_fd: int, name: bytes) -> Iterator[None]:
    try:
        yield
    except OSError:
        with contextlib.suppress(OSError):
            undo(name, dir_fd=dir_fd)
        raise


def _open_readable(path: bytes, flags: int) -> int:
    """Open for reading too where the caller only writes: the page cache reads what it writes in part."""
    if flags & os.O_ACCMODE == os.O_WRONLY:
        with contextlib.suppress(PermissionError):
            return os.open(path, flags & ~os.O_ACCMODE | os.O_RDWR)
    return os.open(path, flags)


def _kill_priv(target: int | bytes, st: os.stat_result) -> None:
    """Clear set-user-ID, set-group-ID of executables, and file capabilities (setattr_should_drop_suidgid)."""
    dropped = stat.S_ISUID | (stat.S_ISGID if st.st_mode & stat.S_IXGRP else 0)
    if st.st_mode & dropped and not stat.S_ISDIR(st.st_mode):
        os.chmod(target, stat.S_IMODE(st.st_mode) & ~dropped)
    try:
        os.removexattr(target, _CAPABILITY)
    except OSError as e:
        if e.errno not in (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM):
            raise


def _entry_type(entry: os.DirEntry[str]) -> int:
    """The DT_* of an entry; d_type answers for the three common ones, the rest costs a stat."""
    if entry.is_dir(follow_symlinks=False):
        return vfs.DT_DIR
    if entry.is_symlink():
        return vfs.DT_LNK
    if entry.is_file(follow_symlinks=False):
        return vfs.DT_REG
    return vfs.d_type(entry.stat(follow_symlinks=False).st_mode)
