"""Calls on names: openat2, renameat2, fchmodat2, linkat of a descriptor, utimensat.

A name is relative to `dir_fd`, which may be O_PATH. None of these follows a symbolic link in the last component, and
`openat2` follows none at all, unless the caller asks for other resolution.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
import struct
from typing import Final

from unionfs.linux import syscalls
from unionfs.linux.syscalls import AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, c_bytes, c_int, c_size_t, c_uint, call, checked

# openat2(2), struct open_how
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 0x01, 0x02, 0x04, 0x08
RESOLVE_IN_ROOT, RESOLVE_CACHED = 0x10, 0x20
#: stay in the tree, follow nothing
RESOLVE_SAFE: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4


class UtimeNow:
    """The type of `UTIME_NOW`: the file system's own current time."""

    __slots__ = ()


UTIME_NOW: Final = UtimeNow()
#: nanoseconds since the epoch, `UTIME_NOW`, or None for UTIME_OMIT
Time = int | UtimeNow | None

_OPEN_HOW: Final = struct.Struct("=QQQ")  # flags, mode, resolve
_TIMESPECS: Final = struct.Struct("=qqqq")  # atime s, ns; mtime s, ns
_NS_NOW: Final = 0x3FFFFFFF
_NS_OMIT: Final = 0x3FFFFFFE

_openat2 = syscalls.declare_syscall(437, c_int, c_bytes, c_bytes, c_size_t)
_fchmodat2 = syscalls.declare_syscall(452, c_int, c_bytes, c_uint, c_int)
_renameat2 = syscalls.declare("renameat2", c_int, c_bytes, c_int, c_bytes, c_uint)
_linkat = syscalls.declare("linkat", c_int, c_bytes, c_int, c_bytes, c_int)
_utimensat = syscalls.declare("utimensat", c_int, c_bytes, c_bytes, c_int)
_futimens = syscalls.declare("futimens", c_int, c_bytes)


@functools.cache
def has_openat2() -> bool:
    """Whether openat2(2) may be used: Linux 5.6, and no seccomp filter that answers EPERM for calls it knows not."""
    try:
        fd = call(_openat2, syscalls.AT_FDCWD, b"/", _OPEN_HOW.pack(os.O_PATH | os.O_CLOEXEC, 0, 0), _OPEN_HOW.size)
    except OSError:
        return False
    os.close(fd)
    return True


def openat2(dir_fd: int, path: bytes, flags: int, mode: int = 0, resolve: int = RESOLVE_SAFE) -> int:
    """Open `path`, of any number of components, below `dir_fd`. Returns a new close-on-exec descriptor.

    With the default `resolve`: a symbolic link on the way is ELOOP (a last one with O_PATH|O_NOFOLLOW is opened
    itself), a path that leaves the tree, or an absolute one, EXDEV. Where the kernel lacks openat2, a walk with
    O_NOFOLLOW does the same for the default `resolve`; any other is then ENOSYS.
    """
    flags |= os.O_CLOEXEC
    if not has_openat2():
        return _open_by_walk(dir_fd, checked(path), flags, mode, resolve)
    how = _OPEN_HOW.pack(flags, mode if flags & (os.O_CREAT | os.O_TMPFILE) else 0, resolve)
    for _attempt in range(64):
        try:
            return call(_openat2, dir_fd, checked(path), how, _OPEN_HOW.size, name=path)
        except BlockingIOError:
            # EAGAIN: "..", met while somebody renamed something (fs/namei.c, handle_dots). To be tried again,
            # unless the caller asked for that answer.
            if resolve & RESOLVE_CACHED or flags & os.O_NONBLOCK:
                raise
    raise syscalls.error(errno.EAGAIN, path)


def _open_by_walk(dir_fd: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    """`openat2` with RESOLVE_SAFE, one component at a time."""
    if resolve != RESOLVE_SAFE:
        raise syscalls.error(errno.ENOSYS, path)
    if not path:
        raise syscalls.error(errno.ENOENT, path)
    parts = path.split(b"/")
    if path.startswith(b"/") or b".." in parts:
        # Unlike openat2, "a/.." is refused too: a walk cannot tell that it stays below `dir_fd`.
        raise syscalls.error(errno.EXDEV, path)
    names = [part for part in parts if part not in (b"", b".")]
    if path.endswith((b"/", b"/.")):
        flags |= os.O_DIRECTORY
    here = dir_fd
    try:
        for name in names[:-1]:
            below = _open_step(here, name, path)
            if here != dir_fd:
                os.close(here)
            here = below
        # Without O_NOFOLLOW a last link would be followed; with it, and without O_PATH, it is ELOOP as wanted.
        if names and flags & os.O_PATH and not flags & os.O_NOFOLLOW and _is_symlink(here, names[-1]):
            raise syscalls.error(errno.ELOOP, path)
        return os.open(names[-1] if names else b".", flags | os.O_NOFOLLOW, mode, dir_fd=here)
    finally:
        if here != dir_fd:
            os.close(here)


def _open_step(dir_fd: int, name: bytes, path: bytes) -> int:
    try:
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    except NotADirectoryError:
        if _is_symlink(dir_fd, name):
            raise syscalls.error(errno.ELOOP, path) from None
        raise


def _is_symlink(dir_fd: int, name: bytes) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)


def renameat2(old_dir_fd: int, old: bytes, new_dir_fd: int, new: bytes, flags: int = 0) -> None:
    """renameat2(2). EINVAL where the file system does not know `flags`."""
    if not flags:
        os.rename(old, new, src_dir_fd=old_dir_fd, dst_dir_fd=new_dir_fd)
        return
    call(_renameat2, old_dir_fd, checked(old), new_dir_fd, checked(new), flags, name=old)


def linkat_fd(fd: int, dir_fd: int, name: bytes) -> None:
    """Give the open file `fd` the name `name`. For O_TMPFILE files; ENOENT for one opened with O_EXCL."""
    try:
        call(_linkat, fd, b"", dir_fd, checked(name), AT_EMPTY_PATH, name=name)
    except FileNotFoundError:
        # Without CAP_DAC_READ_SEARCH the kernel hides the empty path behind ENOENT (fs/namei.c, do_linkat);
        # open(2), O_TMPFILE, gives the way round.
        os.link(b"/proc/self/fd/%d" % fd, name, dst_dir_fd=dir_fd, follow_symlinks=True)


def fchmodat_nofollow(dir_fd: int, name: bytes, mode: int) -> None:
    """Change the mode of `name` itself. A symbolic link has none to change: EOPNOTSUPP."""
    mode = stat.S_IMODE(mode)
    try:
        call(_fchmodat2, dir_fd, checked(name), mode, AT_SYMLINK_NOFOLLOW, name=name)
    except OSError as e:
        # fchmodat2 came with Linux 6.6; older seccomp filters say EPERM for what they do not know.
        if e.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        _chmod_by_fd(dir_fd, name, mode)


def _chmod_by_fd(dir_fd: int, name: bytes, mode: int) -> None:
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise syscalls.error(errno.EOPNOTSUPP, name)
        # fchmod(2) refuses O_PATH descriptors; the magic link leads to the very inode that was opened.
        os.chmod(b"/proc/self/fd/%d" % fd, mode)
    finally:
        os.close(fd)


def utimensat(dir_fd: int, name: bytes, atime: Time, mtime: Time) -> None:
    """Set the times of `name` itself, each to nanoseconds since the epoch (negative before it), `UTIME_NOW`, or
    None: left as it is. EINVAL for a time the kernel's 64-bit seconds cannot hold."""
    if isinstance(atime, int) and isinstance(mtime, int):
        # The same call by way of `os`, in half the time.
        try:
            os.utime(name, ns=(atime, mtime), dir_fd=dir_fd, follow_symlinks=False)
        except OverflowError:
            raise syscalls.error(errno.EINVAL, name) from None
        return
    call(_utimensat, dir_fd, checked(name), _timespecs(atime, mtime), AT_SYMLINK_NOFOLLOW, name=name)


def futimens(fd: int, atime: Time, mtime: Time) -> None:
    """`utimensat` for an open file."""
    if isinstance(atime, int) and isinstance(mtime, int):
        try:
            os.utime(fd, ns=(atime, mtime))
        except OverflowError:
            raise syscalls.error(errno.EINVAL) from None
        return
    call(_futimens, fd, _timespecs(atime, mtime))


def _timespecs(atime: Time, mtime: Time) -> bytes:
    try:
        return _TIMESPECS.pack(*_timespec(atime), *_timespec(mtime))
    except struct.error:
        raise syscalls.error(errno.EINVAL) from None


def _timespec(time: Time) -> tuple[int, int]:
    if time is None:
        return 0, _NS_OMIT
    if isinstance(time, UtimeNow):
        return 0, _NS_NOW
    # divmod rounds the seconds towards minus infinity, which leaves 0 <= ns < 10**9 as the kernel wants it.
    return divmod(time, 1_000_000_000)
