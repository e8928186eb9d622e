"""libc by ctypes: how a C function is declared and called, and how its errno becomes an `OSError`.

INVARIANT: every foreign function in `unionfs.linux` is declared here once, with its argument types, by `declare` or
`declare_syscall`, and is called through `call`. Structures are passed as packed `bytes` where the kernel only reads
them: it is faster than a ctypes.Structure, and there is no alignment to get wrong.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Callable
from typing import Any, Final

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_SYMLINK_FOLLOW: Final = 0x400
AT_EMPTY_PATH: Final = 0x1000

c_int, c_uint, c_long, c_ulong = ctypes.c_int, ctypes.c_uint, ctypes.c_long, ctypes.c_ulong
c_size_t, c_int64, c_void_p = ctypes.c_size_t, ctypes.c_int64, ctypes.c_void_p
#: a NUL-terminated string, or a packed structure (`bytes` may hold NULs), or NULL (None)
c_bytes = ctypes.c_char_p

Function = Callable[..., int]

# CDLL, not PyDLL: the GIL is released during each call. use_errno: a private copy of errno per thread.
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _missing(*_args: Any) -> int:
    ctypes.set_errno(errno.ENOSYS)
    return -1


def declare(name: str, *argtypes: Any) -> Function:
    """A function of libc that returns int and sets errno; one that fails with ENOSYS where libc has none."""
    try:
        function = _libc[name]
    except AttributeError:
        return _missing
    function.argtypes = argtypes
    function.restype = c_int
    return function


def declare_syscall(number: int, *argtypes: Any) -> Function:
    """A system call by number, for those libc may not wrap. Numbers from 424 on are the same on every architecture
    (but alpha); callers use no others."""
    # A fresh function object: the prototypes of `syscall` differ per number.
    function: Function = ctypes.CFUNCTYPE(c_long, c_long, *argtypes, use_errno=True)(("syscall", _libc))
    return functools.partial(function, number)


def call(function: Function, *args: Any, name: bytes | None = None) -> int:
    """The result of `function(*args)`, retried on EINTR (PEP 475).

    Raises OSError with errno, its text, and `name` as the file name where given.
    """
    while True:
        result = function(*args)
        if result >= 0:
            return result
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise error(code, name)


def last_errno() -> int:
    """The errno of this thread's last failed foreign call; for those who do without `call` and its exception."""
    return ctypes.get_errno()


def error(code: int, name: bytes | None = None) -> OSError:
    """The `OSError` (the matching subclass, as `OSError` itself arranges) of an errno."""
    return OSError(code, os.strerror(code)) if name is None else OSError(code, os.strerror(code), name)


def checked(name: bytes) -> bytes:
    """`name`, or ValueError where it holds a NUL: C would silently take another, shorter name."""
    if b"\0" in name:
        raise ValueError("embedded null byte")
    return name


def buffer(size: int, start: bytes = b"") -> ctypes.Array[ctypes.c_char]:
    """Memory for the kernel to fill: `start`, then zeros up to `size`. `.raw` reads it."""
    return ctypes.create_string_buffer(start, size)


def address_of(memory: ctypes.Array[ctypes.c_char]) -> int:
    """The address of a buffer, to be put into a packed structure; the buffer must outlive the call."""
    return ctypes.addressof(memory)


def string_at(address: int, size: int) -> bytes:
    """A copy of `size` bytes of a buffer, where they are fewer than `.raw` would copy."""
    return ctypes.string_at(address, size)
