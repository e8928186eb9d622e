"""`WritableDirectory`: a directory of the host that may be changed: the upper, or the work directory beside it.

Modes and owners come out as given because the process umask is taken to be 0: whoever serves a union sets it (os.umask
is a property of the whole process, so it is not set here). A default ACL or a set-group-ID bit of the parent still has
its effect, as the storage has it; who wants none of that creates in a directory without them and renames.

No call follows a symbolic link. Each call but `mkdir` with set-ID bits is one system call, thus atomic for readers and
in a crash; nothing is flushed before `sync`, `fsync_dir` or a file's own `fsync`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from unionfs.layers.directory import _DIRECTORY, DirectoryLayer
from unionfs.layers.fd_file import FdFile, to_linux_time
from unionfs.layers.layer import LayerFile, Path, WritableLayer
from unionfs.linux import data as linux_data
from unionfs.linux import fileattr as linux_fileattr
from unionfs.linux import path as linux_path
from unionfs.linux import xattr as linux_xattr
from unionfs.vfs import RENAME_EXCHANGE, FlagsForm, Now


class WritableDirectory(DirectoryLayer):
    """Implements `WritableLayer`. `root_fd` is an ordinary descriptor, good for flock(2), fsync(2) and ioctl(2)."""

    _ROOT_FLAGS = os.O_RDONLY
    _FILE_FLAGS = 0

    @property
    def new_owner(self) -> tuple[int, int]:
        return os.geteuid(), os.getegid()

    # files ------------------------------------------------------------------------------------------------------

    def create(self, path: Path, mode: int, flags: int = os.O_RDWR) -> FdFile:
        dir_fd, name = self._at(path)
        flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return FdFile(os.open(name, flags, stat.S_IMODE(mode), dir_fd=dir_fd))

    def tmpfile(self, path: Path, mode: int) -> FdFile:
        dir_fd = self.dir_fd(path)
        try:
            return FdFile(os.open(b".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, stat.S_IMODE(mode), dir_fd=dir_fd))
        except OSError as e:
            if not os.fstat(dir_fd).st_nlink:
                # Removed behind our back. ext4 says EPERM (ext4_new_inode), others ENOENT or nothing at all.
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
            # open(2), O_TMPFILE: kernels and file systems without it read the flags as an odd way to open a
            # directory, or to create a file in it, and answer with these.
            if e.errno in (errno.EISDIR, errno.EINVAL, errno.ENOENT):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path) from None
            raise

    def truncate(self, path: Path, size: int) -> None:
        file = self.open(path, os.O_WRONLY)
        try:
            file.ftruncate(size)
        finally:
            file.close()

    # names ------------------------------------------------------------------------------------------------------

    def mkdir(self, path: Path, mode: int) -> None:
        dir_fd, name = self._at(path)
        os.mkdir(name, stat.S_IMODE(mode), dir_fd=dir_fd)
        if mode & (stat.S_ISUID | stat.S_ISGID):
            # mkdir(2) leaves these two out of the mode (fs/namei.c, vfs_mkdir).
            linux_path.fchmodat_nofollow(dir_fd, name, mode)

    def mknod(self, path: Path, mode: int, rdev: int) -> None:
        dir_fd, name = self._at(path)
        os.mknod(name, mode, rdev, dir_fd=dir_fd)

    def symlink(self, path: Path, target: bytes) -> None:
        dir_fd, name = self._at(path)
        os.symlink(target, name, dir_fd=dir_fd)

    def link(self, path: Path, to: WritableLayer, to_path: Path) -> None:
        other = _same_kind(to, to_path)
        dir_fd, name = self._at(path)
        to_fd, to_name = other._at(to_path)
        os.link(name, to_name, src_dir_fd=dir_fd, dst_dir_fd=to_fd, follow_symlinks=False)

    def link_file(self, file: LayerFile, path: Path) -> None:
        dir_fd, name = self._at(path)
        linux_path.linkat_fd(file.fd, dir_fd, name)

    def unlink(self, path: Path) -> None:
        dir_fd, name = self._at(path)
        os.unlink(name, dir_fd=dir_fd)

    def rmdir(self, path: Path) -> None:
        dir_fd, name = self._at(path)
        os.rmdir(name, dir_fd=dir_fd)
        self._forget(path)

    def rename(self, path: Path, to: WritableLayer, to_path: Path, flags: int = 0) -> None:
        other = _same_kind(to, to_path)
        dir_fd, name = self._at(path)
        # Descriptors of a directory that moves would go on under its old path. It has one itself if anything below it
        # has (`_open_dir`), unless that was evicted: then ask what it is.
        moves_dir = path in self._dirs or (
            self._evicted and stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)
        )
        to_fd, to_name = other._at(to_path)
        linux_path.renameat2(dir_fd, name, to_fd, to_name, flags)
        if moves_dir:
            self.invalidate(path)
        if flags & RENAME_EXCHANGE:
            other.invalidate(to_path)
        else:
            other._forget(to_path)  # an empty directory, replaced

    def _forget(self, path: Path) -> None:
        """Close the descriptor of one directory, which was empty and is gone."""
        fd = self._dirs.pop(path, None) if path else None
        if fd is not None:
            os.close(fd)

    # attributes -------------------------------------------------------------------------------------------------

    def chmod(self, path: Path, mode: int) -> None:
        """EOPNOTSUPP for a symbolic link."""
        dir_fd, name = self._at(path)
        linux_path.fchmodat_nofollow(dir_fd, name, mode)

    def chown(self, path: Path, uid: int, gid: int) -> None:
        dir_fd, name = self._at(path)
        os.chown(name, uid, gid, dir_fd=dir_fd, follow_symlinks=False)

    def utime(self, path: Path, atime_ns: int | Now | None, mtime_ns: int | Now | None) -> None:
        dir_fd, name = self._at(path)
        linux_path.utimensat(dir_fd, name, to_linux_time(atime_ns), to_linux_time(mtime_ns))

    def setxattr(self, path: Path, name: bytes, value: bytes, flags: int = 0) -> None:
        dir_fd, last = self._at(path)
        linux_xattr.lsetxattr(dir_fd, last, name, value, flags)

    def removexattr(self, path: Path, name: bytes) -> None:
        dir_fd, last = self._at(path)
        linux_xattr.lremovexattr(dir_fd, last, name)

    def set_fileattr(self, path: Path, form: FlagsForm, value: bytes) -> None:
        """Append-only and immutable stay as they are, whatever `value` says of them."""
        with self._opened(path) as fd:
            kept = form.flags(linux_fileattr.get(fd, form.get, form.size)) & form.protecting
            linux_fileattr.set(fd, form.set, form.with_flags(value, form.flags(value) & ~form.protecting | kept))

    # durability -------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        linux_data.syncfs(self.root_fd)

    def fsync_dir(self, path: Path) -> Callable[[], None]:
        dir_fd, name = self._at(path)
        fd = os.open(name, os.O_RDONLY | _DIRECTORY, dir_fd=dir_fd)

        def flush() -> None:
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

        return flush


def _same_kind(to: WritableLayer, path: Path) -> WritableDirectory:
    """`to`, if it is a directory of the host; EXDEV where no one system call can reach both trees."""
    if not isinstance(to, WritableDirectory):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    return to
