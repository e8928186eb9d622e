"""Copies between a container's tree and the host's: files, directories with all below them, links, fifos, devices.

Every name is opened by itself, in a directory that is open, and never followed: who puts a link in the place of a
directory meanwhile, as a container's processes can, leads nobody anywhere (CVE-2018-15664, CVE-2019-14271). Paths are
resolved before (`root_path`).

Kept are type, mode, times of modification, hard links within what is copied, and file capabilities; owners as asked.
A socket is left out. What is there already is replaced: a directory is added to, and nothing but one is put over one.
A failure leaves what was copied so far.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from typing import BinaryIO, Final

from unionfs.linux.path import fchmodat_nofollow, openat2
from unionfs.linux.xattr import find_xattr, lsetxattr

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: O_NONBLOCK: what was a file when it was looked at may be a fifo now.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CAPABILITY: Final = b"security.capability"


class Copy:
    """One copy: `owner` (uid, gid) of everything; None: as it is. What is below `target_fd` is made."""

    def __init__(self, target_fd: int, owner: tuple[int, int] | None) -> None:
        self._top = target_fd
        self._owner = owner
        self._links: dict[tuple[int, int], bytes] = {}

    def tree(self, source_fd: int, source: bytes, target: bytes) -> None:
        """`source` of the directory `source_fd` as `target` (one name) of the target."""
        self._one(source_fd, source, self._top, target, target)

    def contents(self, source_fd: int) -> None:
        """All that is in the directory `source_fd`."""
        for name in sorted(os.listdir(source_fd)):
            self._one(source_fd, os.fsencode(name), self._top, os.fsencode(name), os.fsencode(name))

    def _one(self, source_fd: int, name: bytes, target_fd: int, new: bytes, path: bytes) -> None:
        info = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            self._directory(source_fd, name, target_fd, new, path)
        elif not stat.S_ISSOCK(info.st_mode):
            make_room(target_fd, new, path)
            if not self._linked(info, target_fd, new, path):
                self._other(info, source_fd, name, target_fd, new)
        else:
            return
        owner = (info.st_uid, info.st_gid) if self._owner is None else self._owner
        set_metadata(target_fd, new, info.st_mode, owner, info.st_mtime_ns)
        if stat.S_ISREG(info.st_mode) and os.geteuid() == 0:
            # After the owner: chown(2) takes them away, as it does with set-user-ID.
            capability = find_xattr(source_fd, name, _CAPABILITY)
            if capability is not None:
                lsetxattr(target_fd, new, _CAPABILITY, capability)

    def _directory(self, source_fd: int, name: bytes, target_fd: int, new: bytes, path: bytes) -> None:
        inside = os.open(name, _DIRECTORY, dir_fd=source_fd)
        try:
            make_directory_in(target_fd, new, path)
            below = os.open(new, _DIRECTORY, dir_fd=target_fd)
            try:
                for child in sorted(map(os.fsencode, os.listdir(inside))):
                    self._one(inside, child, below, child, path + b"/" + child)
            finally:
                os.close(below)
        finally:
            os.close(inside)

    def _linked(self, info: os.stat_result, target_fd: int, new: bytes, path: bytes) -> bool:
        """Made as another name of what was copied before."""
        if info.st_nlink < 2:
            return False
        first = self._links.setdefault((info.st_dev, info.st_ino), path)
        if first == path:
            return False
        directory, _, name = first.rpartition(b"/")
        parent = openat2(self._top, directory or b".", os.O_PATH | os.O_DIRECTORY)
        try:
            os.link(name, new, src_dir_fd=parent, dst_dir_fd=target_fd, follow_symlinks=False)
        finally:
            os.close(parent)
        return True

    def _other(self, info: os.stat_result, source_fd: int, name: bytes, target_fd: int, new: bytes) -> None:
        if stat.S_ISREG(info.st_mode):
            source = os.open(name, _READ, dir_fd=source_fd)
            with open(source, "rb") as reader, create(target_fd, new) as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)
        elif stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source_fd), new, dir_fd=target_fd)
        else:
            os.mknod(new, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev, dir_fd=target_fd)


def make_directory_in(parent_fd: int, name: bytes, path: bytes) -> None:
    """A directory, unless one is there."""
    try:
        os.mkdir(name, 0o700, dir_fd=parent_fd)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
            raise OSError(errno.ENOTDIR, "cannot overwrite non-directory with directory", os.fsdecode(path)) from None


def make_room(parent_fd: int, name: bytes, path: bytes) -> None:
    """Remove what is there, unless it is a directory."""
    try:
        os.unlink(name, dir_fd=parent_fd)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        raise OSError(errno.EISDIR, "cannot overwrite directory with non-directory", os.fsdecode(path)) from None


def create(parent_fd: int, name: bytes) -> BinaryIO:
    """A new file, to be written."""
    return open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent_fd), "wb")


def set_metadata(parent_fd: int, name: bytes, mode: int, owner: tuple[int, int], mtime_ns: int) -> None:
    """Owner first: chown(2) takes set-user-ID away."""
    if os.geteuid() == 0:
        os.chown(name, *owner, dir_fd=parent_fd, follow_symlinks=False)
    if not stat.S_ISLNK(mode):
        fchmodat_nofollow(parent_fd, name, mode)
    os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent_fd, follow_symlinks=False)
