"""What the POSIX tests share: errno expectations, other users, the system calls that `os` lacks.

System calls go straight to libc, not through `unionfs.linux`: the tests must not trust what they test.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pickle
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest

T = TypeVar("T")
NOBODY = 65534
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.readdir.restype = ctypes.c_void_p
_libc.opendir.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long


@contextlib.contextmanager
def expect(number: int) -> Iterator[None]:
    """The block must fail with exactly this errno."""
    with pytest.raises(OSError) as caught:
        yield
    got = caught.value.errno or 0
    assert got == number, f"{errno.errorcode.get(got, got)} in place of {errno.errorcode[number]}"


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


@contextlib.contextmanager
def opened(path: Path | bytes | str, flags: int, mode: int = 0o644) -> Iterator[int]:
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def as_user(fn: Callable[[], T], uid: int = NOBODY, gid: int = NOBODY, groups: Sequence[int] = ()) -> T:
    """`fn()` in a child process with these ids and no privileges; its result, or its OSError raised here."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer: tuple[str, object]
        try:
            os.close(reader)
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            answer = ("value", fn())
        except OSError as e:
            answer = ("errno", (e.errno, e.strerror))
        except BaseException:
            answer = ("bug", traceback.format_exc())
        with open(writer, "wb") as f:
            pickle.dump(answer, f)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as f:
        data = f.read()
    os.waitpid(pid, 0)
    kind, value = pickle.loads(data)
    if kind == "errno":
        raise OSError(*value)
    assert kind == "value", value
    result: T = value
    return result


def python(code: str, *argv: str) -> subprocess.Popen[bytes]:
    """Another process that runs `code`, with pipes for stdin and stdout."""
    return subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", code, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def renameat2(old: Path, new: Path, flags: int) -> None:
    _check(_libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    _check(_libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def utimensat(path: Path, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
    """Times as (seconds, nanoseconds); UTIME_NOW and UTIME_OMIT go in the nanoseconds. Does not follow links."""
    times = struct.pack("=qqqq", *atime, *mtime)
    _check(_libc.utimensat(AT_FDCWD, os.fsencode(path), times, 0x100))


UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2


class Name(NamedTuple):
    """One struct dirent."""

    name: bytes
    ino: int
    type: int


class DirStream:
    """A DIR*: readdir(3), telldir(3), seekdir(3), rewinddir(3), one entry at a time."""

    def __init__(self, path: Path | bytes) -> None:
        self._dir = _libc.opendir(os.fsencode(path))
        if not self._dir:
            _check(-1)

    def read(self) -> Name | None:
        entry = _libc.readdir(ctypes.c_void_p(self._dir))
        if not entry:
            return None
        ino, _offset, _length, kind = struct.unpack("=QqHB", ctypes.string_at(entry, 19))
        return Name(ctypes.string_at(entry + 19), ino, kind)

    def rest(self) -> list[Name]:
        found = []
        while (entry := self.read()) is not None:
            found.append(entry)
        return found

    def tell(self) -> int:
        return int(_libc.telldir(ctypes.c_void_p(self._dir)))

    def seek(self, position: int) -> None:
        _libc.seekdir(ctypes.c_void_p(self._dir), ctypes.c_long(position))

    def rewind(self) -> None:
        _libc.rewinddir(ctypes.c_void_p(self._dir))

    def close(self) -> None:
        _libc.closedir(ctypes.c_void_p(self._dir))

    def __enter__(self) -> DirStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lstat_fields(path: Path) -> tuple[int, int, int, int, int]:
    """mode, uid, gid, size, rdev: what a copy must keep."""
    st = path.lstat()
    return st.st_mode, st.st_uid, st.st_gid, st.st_size, st.st_rdev


def next_tick(stamp_ns: int) -> None:
    """Return once the clock that stamps inodes is past `stamp_ns`: at most one tick, 10 ms."""
    coarse = 5  # CLOCK_REALTIME_COARSE, which current_time() of the kernel reads
    while time.clock_gettime_ns(coarse) <= stamp_ns:
        pass


def names(path: Path) -> set[str]:
    return set(os.listdir(path))


def ids(path: Path) -> tuple[int, int]:
    st = path.lstat()
    return st.st_uid, st.st_gid


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o7777
