"""libfuse 2 as fusepy 3.0.1 binds it, with what that binding lacks or gets wrong put right.

fusepy brings the structures of every platform and the marshalling of each operation; kept from it are both. Added
or replaced here, each for a reason:

    loading          libfuse.so.2 by its own name. fusepy runs ldconfig (or gcc) to search, and takes a libfuse 3,
                     whose structures differ, without a word; `fuse_version()` is asked.
    the table        fallocate, missing in fusepy; flag_utime_omit_ok, without which `touch -m` is dropped silently;
                     flag_nullpath_ok and flag_nopath: operations on a handle need no path (and may have none).
    the main loop    ours, out of libfuse's public calls, in place of fuse_main_real: Python's signal handlers run,
                     the caller hears of INIT, and `Session.request` tells which message of the kernel is being
                     answered, which the path API hides.
    attributes       from the packed record (vfs.ATTR_RECORD), in nanoseconds
    times            tv_nsec of UTIME_NOW and UTIME_OMIT, which fusepy adds to the seconds
    names            bytes. fusepy decodes them; by Latin-1 every byte string survives that and the way back
    the context      umask, missing in fusepy (libfuse >= 2.8 has it)
    exceptions       an OSError is its errno; anything else, SystemExit included, is logged once with its request
                     and answered EIO. fusepy answers EINVAL, or stops serving.

It knows neither paths nor nodes; `unionfs.transport.fusepy` does.

A request is peeked at in the form of <linux/fuse.h>: struct fuse_in_header (40 bytes), then the operation's own.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import logging
import os
import struct
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol, cast

from unionfs.errors import MountError, TransportUnavailable

log = logging.getLogger("unionfs.fusepy")

UTIME_NOW: Final = (1 << 30) - 1
UTIME_OMIT: Final = (1 << 30) - 2

# <linux/fuse.h>, enum fuse_opcode: those the adapter asks for, and names for the log.
LOOKUP, UNLINK, RENAME, INIT, READDIR, RENAME2 = 1, 10, 12, 26, 28, 45
_OPCODES: Final = {
    1: "LOOKUP", 3: "GETATTR", 4: "SETATTR", 5: "READLINK", 6: "SYMLINK", 8: "MKNOD", 9: "MKDIR", 10: "UNLINK",
    11: "RMDIR", 12: "RENAME", 13: "LINK", 14: "OPEN", 15: "READ", 16: "WRITE", 17: "STATFS", 18: "RELEASE",
    20: "FSYNC", 21: "SETXATTR", 22: "GETXATTR", 23: "LISTXATTR", 24: "REMOVEXATTR", 25: "FLUSH", 26: "INIT",
    27: "OPENDIR", 28: "READDIR", 29: "RELEASEDIR", 30: "FSYNCDIR", 35: "CREATE", 38: "DESTROY", 43: "FALLOCATE",
}  # fmt: skip
#: vfs.ATTR_RECORD, which this layer may not import: ino size blocks, times, their ns parts, mode nlink uid gid rdev …
ATTR_RECORD: Final = struct.Struct("<QQQqqqIIIIIIIIII")
_IN_HEADER: Final = struct.Struct("=IIQQIIII")  # len opcode unique nodeid uid gid pid padding
_READ_IN_SIZE: Final = struct.Struct("=16xI")  # struct fuse_read_in: fh, offset, then size
_RENAME_IN: Final = 8  # struct fuse_rename_in: newdir

# <fuse_common.h>, struct fuse_conn_info.want
CAP_ATOMIC_O_TRUNC, CAP_BIG_WRITES, CAP_DONT_MASK = 1 << 3, 1 << 5, 1 << 6


class Request(NamedTuple):
    """The message of the kernel that the current thread is answering. `body` is all that follows the header, of
    RENAME and READDIR; b"" of others."""

    opcode: int
    unique: int
    node: int
    pid: int
    body: bytes

    def __str__(self) -> str:
        name = _OPCODES.get(self.opcode, f"opcode {self.opcode}")
        return f"{name} unique={self.unique} node={self.node} pid={self.pid}"

    @property
    def read_size(self) -> int:
        """READDIR: how many bytes the kernel has room for."""
        return int(_READ_IN_SIZE.unpack_from(self.body)[0])

    @property
    def rename_target(self) -> bytes:
        """RENAME: the new name."""
        return self.body[_RENAME_IN:].split(b"\0", 2)[1]


_NO_REQUEST: Final = Request(0, 0, 0, 0, b"")


class FileInfo(Protocol):
    """struct fuse_file_info as operations see it."""

    fh: int
    flags: int
    writepage: int
    direct_io: int
    keep_cache: int


Operations = Callable[..., Any]
"""`operations(name, *args)`: args as fusepy's `Operations` methods take them with raw_fi, names as Latin-1 `str`."""


class Context(NamedTuple):
    uid: int
    gid: int
    pid: int
    umask: int


class _ConnInfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint)
        for name in ("proto_major", "proto_minor", "async_read", "max_write", "max_readahead", "capable", "want")
    ]


class _Args(ctypes.Structure):
    _fields_ = [("argc", ctypes.c_int), ("argv", ctypes.POINTER(ctypes.c_char_p)), ("allocated", ctypes.c_int)]


class _Context(ctypes.Structure):
    _fields_ = [
        ("fuse", ctypes.c_void_p),
        ("uid", ctypes.c_uint),
        ("gid", ctypes.c_uint),
        ("pid", ctypes.c_int),
        ("private_data", ctypes.c_void_p),
        ("umask", ctypes.c_uint),
    ]


def package_hint(os_release: str) -> str:
    """How to install libfuse 2 on the system that /etc/os-release (its text is given) describes."""
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    fields = {key: value.strip().strip("\"'") for key, value in fields.items()}
    family = {fields.get("ID", ""), *fields.get("ID_LIKE", "").split()}
    major = int(version) if (version := fields.get("VERSION_ID", "").split(".")[0]).isdigit() else 0
    if family & {"debian", "ubuntu"}:
        # libfuse2 was renamed with the 64-bit time_t transition: Debian 13, Ubuntu 24.04. Debian testing has no number.
        first_t64 = 24 if fields.get("ID") == "ubuntu" else 13
        name = "libfuse2" if 0 < major < first_t64 else "libfuse2t64"
        return f"apt-get install {name}"
    if family & {"fedora", "rhel", "centos"}:
        return "dnf install fuse-libs"
    if "arch" in family:
        return "pacman -S fuse2"
    if "alpine" in family:
        return "apk add fuse"
    return "install libfuse 2 (Debian 12: libfuse2, newer: libfuse2t64)"


def _hint() -> str:
    try:
        with open("/etc/os-release", encoding="utf-8", errors="replace") as file:
            return package_hint(file.read())
    except OSError:
        return package_hint("")


def load(library: str | None = None) -> ModuleType:
    """fusepy's module `fuse`, bound to libfuse 2 (`library`: the file to load instead of the usual one).

    Raises TransportUnavailable with the package to install where fusepy or libfuse 2 is missing, or where what was
    loaded is a libfuse 3.
    """
    wanted = library or os.environ.get("FUSE_LIBRARY_PATH")
    if wanted is None and os.uname().sysname == "Linux":
        wanted = "libfuse.so.2"
    try:
        if wanted is not None:
            _check_version(ctypes.CDLL(wanted), wanted)
    except OSError as error:
        raise TransportUnavailable("libfuse 2 not found", hint=_hint()) from error
    return _import_fusepy(wanted)


def _check_version(library: ctypes.CDLL, name: str) -> None:
    version = int(library.fuse_version())
    # fuse_version() is 29 for 2.9, 314 for 3.14.
    if not 26 <= version <= 29:
        raise TransportUnavailable(f"{name} is libfuse {str(version)[0]}, not libfuse 2", hint=_hint())


def _import_fusepy(library: str | None) -> ModuleType:
    """Import `fuse`, which looks at FUSE_LIBRARY_PATH once, when it is imported."""
    before = os.environ.get("FUSE_LIBRARY_PATH")
    if library is not None:
        os.environ["FUSE_LIBRARY_PATH"] = library
    try:
        module = importlib.import_module("fuse")
    except ModuleNotFoundError as error:
        raise TransportUnavailable("fusepy is not installed", hint="pip install fusepy") from error
    except OSError as error:
        raise TransportUnavailable("libfuse 2 not found", hint=_hint()) from error
    finally:
        if before is None:
            os.environ.pop("FUSE_LIBRARY_PATH", None)
        else:
            os.environ["FUSE_LIBRARY_PATH"] = before
    if not hasattr(module, "fuse_operations"):
        raise TransportUnavailable(
            "the module 'fuse' is not fusepy", hint="pip uninstall fuse-python; pip install fusepy"
        )
    _check_version(module._libfuse, str(module._libfuse._name))
    return module


def _declare(library: ctypes.CDLL) -> None:
    """Argument types of what the loop calls; pointers would be cut to 32 bits without them."""
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    for name, result, *arguments in (
        ("fuse_mount", pointer, ctypes.c_char_p, ctypes.POINTER(_Args)),
        ("fuse_unmount", None, ctypes.c_char_p, pointer),
        ("fuse_destroy", None, pointer),
        ("fuse_get_session", pointer, pointer),
        ("fuse_session_exited", integer, pointer),
        ("fuse_session_exit", None, pointer),
        ("fuse_session_process", None, pointer, ctypes.c_char_p, ctypes.c_size_t, pointer),
        ("fuse_chan_bufsize", ctypes.c_size_t, pointer),
        ("fuse_chan_recv", integer, ctypes.POINTER(pointer), ctypes.c_char_p, ctypes.c_size_t),
        ("fuse_get_context", ctypes.POINTER(_Context)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


def _fuse_new(library: ctypes.CDLL) -> Any:
    """fuse_new of API 2.6. libfuse 2.9 also exports one without a version, of API 1, and dlsym finds that first."""
    pointer = ctypes.c_void_p
    prototype = ctypes.CFUNCTYPE(
        pointer, pointer, ctypes.POINTER(_Args), ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
    )
    dlvsym = getattr(ctypes.CDLL(None), "dlvsym", None)
    if dlvsym is not None:
        dlvsym.restype, dlvsym.argtypes = pointer, (pointer, ctypes.c_char_p, ctypes.c_char_p)
        if address := dlvsym(library._handle, b"fuse_new", b"FUSE_2.6"):
            return prototype(address)
    return prototype(("fuse_new", library))  # a libc or a build without symbol versions has but one


def _binding_class(fuse: ModuleType) -> Any:
    """fusepy's FUSE with the faulty marshalling methods replaced; made here since fusepy cannot be imported earlier."""
    stat_type: Any = fuse.c_stat

    def fill(st: Any, record: bytes) -> None:
        (
            st.st_ino, st.st_size, st.st_blocks, st.st_atimespec.tv_sec, st.st_mtimespec.tv_sec, st.st_ctimespec.tv_sec,
            st.st_atimespec.tv_nsec, st.st_mtimespec.tv_nsec, st.st_ctimespec.tv_nsec,
            st.st_mode, st.st_nlink, st.st_uid, st.st_gid, st.st_rdev, st.st_blksize, _,
        ) = ATTR_RECORD.unpack(record)  # fmt: skip

    class Binding(fuse.FUSE):  # type: ignore[name-defined,misc]  # fusepy has no types
        use_ns = True
        raw_fi = True
        encoding = "latin-1"

        def __init__(self, operations: Operations) -> None:
            # FUSE.__init__ would mount and serve; the session does.
            self.operations = operations

        def fgetattr(self, path: bytes | None, buffer: Any, fip: Any) -> int:
            fill(buffer.contents, self.operations("getattr", path and path.decode("latin-1"), fip and fip.contents))
            return 0

        def utimens(self, path: bytes, buffer: Any) -> int:
            times = buffer.contents
            pairs = [(t.tv_sec, t.tv_nsec) for t in (times.actime, times.modtime)]
            return int(self.operations("utimens", path.decode("latin-1"), *pairs) or 0)

        def readlink(self, path: bytes, buffer: Any, size: int) -> int:
            target: bytes = self.operations("readlink", path.decode("latin-1"))[: size - 1]
            ctypes.memmove(buffer, target + b"\0", len(target) + 1)
            return 0

        def listxattr(self, path: bytes, buffer: Any, size: int) -> int:
            names = b"".join(name + b"\0" for name in self.operations("listxattr", path.decode("latin-1")))
            if not buffer or size == 0:
                return len(names)
            if len(names) > size:
                return -errno.ERANGE
            ctypes.memmove(buffer, names, len(names))
            return len(names)

        def readdir(self, path: bytes | None, buffer: Any, filler: Any, offset: int, fip: Any) -> int:
            # One c_stat for all: libfuse copies type and number out of it.
            st = stat_type()
            for name, ino, type_, cookie in self.operations("readdir", None, fip.contents.fh, offset):
                st.st_ino, st.st_mode = ino, type_ << 12
                if filler(buffer, name, st, cookie):
                    break
            return 0

        def fallocate(self, path: bytes | None, mode: int, offset: int, length: int, fip: Any) -> int:
            return int(self.operations("fallocate", None, mode, offset, length, fip.contents) or 0)

    return Binding


def _table_class(fuse: ModuleType) -> type[ctypes.Structure]:
    """struct fuse_operations of libfuse 2.9.1 and later: fusepy's ends before `poll`."""

    class Table(ctypes.Structure):
        _fields_ = [
            *fuse.fuse_operations._fields_,
            *((name, ctypes.c_void_p) for name in ("poll", "write_buf", "read_buf", "flock")),
            (
                "fallocate",
                ctypes.CFUNCTYPE(
                    ctypes.c_int,
                    ctypes.c_char_p,
                    ctypes.c_int,
                    fuse.c_off_t,
                    fuse.c_off_t,
                    ctypes.POINTER(fuse.fuse_file_info),
                ),
            ),
        ]

    return Table


#: What is not offered: locks stay in the kernel (flock and fcntl work within this machine), access is its affair too.
_ABSENT: Final = {"getdir", "utime", "lock", "bmap", "ioctl", "access", "poll", "write_buf", "read_buf", "flock"}


class Session:
    """One mount: made by the constructor, served by `run`, given back by `close`.

    `operations` answers every call, on any of the session's threads. `arguments` are libfuse's mount options.
    """

    def __init__(self, fuse: ModuleType, operations: Operations, mountpoint: bytes, arguments: Sequence[str]) -> None:
        """Raises MountError with what libfuse printed."""
        # A handle of its own: fusepy's declarations of the same functions stay as they are.
        self._lib = ctypes.CDLL(fuse._libfuse._name)
        _declare(self._lib)
        self._local = threading.local()
        self._mountpoint = mountpoint
        self._failed = False
        self._table = self._make_table(fuse, _binding_class(fuse)(operations))
        words = [b"unionfs", b"-o", os.fsencode(",".join(arguments))]
        args = _Args(len(words), (ctypes.c_char_p * len(words))(*words), 0)
        with _CapturedStderr() as said:
            self._channel = self._lib.fuse_mount(mountpoint, ctypes.byref(args))
            self._fuse = self._channel and _fuse_new(self._lib)(
                self._channel, ctypes.byref(args), ctypes.addressof(self._table), ctypes.sizeof(self._table), None
            )
            if self._channel and not self._fuse:
                self._lib.fuse_unmount(mountpoint, self._channel)
        if not self._fuse:
            raise MountError(f"cannot mount on {os.fsdecode(mountpoint)}: {said.text or 'libfuse refused'}")
        self._session = self._lib.fuse_get_session(self._fuse)

    def _make_table(self, fuse: ModuleType, binding: Any) -> ctypes.Structure:
        table_class = _table_class(fuse)
        table: Any = table_class()
        for field in table_class._fields_:
            name, prototype = field[0], field[1]
            if name.startswith("flag_") or name in _ABSENT:
                continue
            method = self._init if name == "init" else getattr(binding, name)
            setattr(table, name, prototype(self._guarded(method)))
        table.flag_nullpath_ok = 1
        table.flag_nopath = 1
        table.flag_utime_omit_ok = 1
        return cast(ctypes.Structure, table)

    def _guarded(self, method: Callable[..., int | None]) -> Callable[..., int]:
        """INVARIANT: nothing is raised into libfuse; ctypes would print it and answer an arbitrary number."""

        def callback(*args: Any) -> int:
            try:
                return method(*args) or 0
            except OSError as error:
                if error.errno is not None and error.errno > 0:
                    return -error.errno
                log.error("no errno in answer to %s", self.request, exc_info=True)
            except BaseException:
                log.error("bug in answer to %s", self.request, exc_info=True)
            return -errno.EIO

        return callback

    @property
    def request(self) -> Request:
        """What this thread is answering; of opcode 0 outside of a callback."""
        return getattr(self._local, "request", _NO_REQUEST)

    def context(self) -> Context:
        """Who asked (struct fuse_context); all 0 outside of a callback."""
        got = self._lib.fuse_get_context().contents
        return Context(got.uid, got.gid, got.pid, got.umask)

    def _init(self, conn: int) -> int:
        info = ctypes.cast(conn, ctypes.POINTER(_ConnInfo)).contents
        # DONT_MASK: the file system applies the umask, or a default ACL instead of it (acl(5)).
        # ATOMIC_O_TRUNC: open(O_TRUNC) is one request, and needs no copy-up of data about to go.
        # BIG_WRITES: 128 KiB instead of 4 KiB in a write.
        info.want |= info.capable & (CAP_DONT_MASK | CAP_ATOMIC_O_TRUNC | CAP_BIG_WRITES)
        return 0

    def run(self, ready: Callable[[], None], threads: int) -> None:
        """Serve until unmounted. `ready` is called by this thread when the kernel has had its answer to INIT; the
        other threads start then."""
        others: list[threading.Thread] = []

        def initialised() -> None:
            ready()
            for number in range(1, threads):
                other = threading.Thread(target=self._loop, args=(None,), name=f"fusepy-{number}", daemon=True)
                other.start()
                others.append(other)

        self._loop(initialised)
        if not self._failed:
            for other in others:
                other.join()

    def _loop(self, initialised: Callable[[], None] | None) -> None:
        lib, session, local = self._lib, self._session, self._local
        size = lib.fuse_chan_bufsize(self._channel)
        buffer = ctypes.create_string_buffer(size)
        channel = ctypes.c_void_p(self._channel)
        receive, process, exited = lib.fuse_chan_recv, lib.fuse_session_process, lib.fuse_session_exited
        peek = memoryview(buffer)
        while not exited(session):
            length = receive(ctypes.byref(channel), buffer, size)
            if length in (-errno.EINTR, -errno.EAGAIN):
                continue  # a signal: its Python handler runs here
            if length <= 0:
                # 0 is ENODEV: unmounted. Nothing else is known to happen; it ends the session all the same.
                self._failed = self._failed or length < 0
                lib.fuse_session_exit(session)
                break
            _, opcode, unique, node, _, _, pid, _ = _IN_HEADER.unpack_from(buffer)
            # Only of these is the body asked for; a WRITE's data is not copied.
            body = bytes(peek[40:length]) if opcode in (RENAME, READDIR) else b""
            local.request = Request(opcode, unique, node, pid, body)
            process(session, buffer, length, channel)
            if initialised is not None and opcode == INIT:
                initialised()
                initialised = None
        local.request = _NO_REQUEST

    def close(self) -> None:
        """Unmount (lazily) if that has not happened, and free what libfuse holds. Idempotent."""
        fuse, self._fuse = self._fuse, None
        if fuse:
            self._lib.fuse_unmount(self._mountpoint, self._channel)
            if not self._failed:  # else a thread may still be inside
                self._lib.fuse_destroy(fuse)


class _CapturedStderr:
    """libfuse, and the fusermount it runs, can only print why they fail: descriptor 2 becomes a file meanwhile."""

    text = ""

    def __enter__(self) -> _CapturedStderr:
        self._file = os.memfd_create("stderr", os.MFD_CLOEXEC)
        try:
            self._saved: int | None = os.dup(2)
        except OSError:
            self._saved = None  # closed
        os.dup2(self._file, 2)
        return self

    def __exit__(self, *_: object) -> None:
        if self._saved is None:
            os.close(2)
        else:
            os.dup2(self._saved, 2)
            os.close(self._saved)
        said = os.pread(self._file, 4096, 0).decode(errors="replace")
        os.close(self._file)
        self.text = "; ".join(line.strip() for line in said.splitlines() if line.strip())
