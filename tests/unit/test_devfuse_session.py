"""Dispatch without a kernel: request bytes in, the call on the file system and the reply bytes out."""

from __future__ import annotations

import errno
import logging
import os
import stat
import struct
import tempfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import devfuse_bytes as wire
from tests.unit.devfuse_bytes import EXAMPLES, UNIQUE, request
from tests.unit.devfuse_memory import MemoryFs, fail
from unionfs.errors import ProtocolError
from unionfs.transport.devfuse import abi
from unionfs.transport.devfuse.passthrough import Backings
from unionfs.transport.devfuse.reading import FileReader
from unionfs.transport.devfuse.session import LATER, Reply, Session
from unionfs.vfs import NOW, Caller, SetAttr

WHO = Caller(1000, 100, 77, 0)
FOREVER = 315_360_000


class Rig:
    """A session after INIT over a MemoryFs with `/file` (node 2, ino 1002) and `/dir` (node 3)."""

    def __init__(
        self,
        *,
        passthrough: bool = False,
        small: int = -1,
        flags: int = (1 << 43) - 1,
        reader: FileReader | None = None,
        **fs_extras: Any,
    ) -> None:
        self.fs = MemoryFs()
        self.fs.mknod(1, b"file", stat.S_IFREG | 0o644, 0, WHO)
        self.fs.mkdir(1, b"dir", 0o755, WHO)
        for name, value in fs_extras.items():
            setattr(self.fs, name, value)
        self.registered: list[int] = []
        self.unregistered: list[int] = []
        self.stale: list[int] = []
        backings = Backings(self._register, self.unregistered.append, small) if passthrough else None
        self.session = Session(self.fs, backings=backings, reader=reader, invalidate=self.stale.append)
        self.send(wire.init(flags=flags))
        self.fs.calls.clear()

    def _register(self, fd: int) -> int:
        self.registered.append(fd)
        return 50 + len(self.registered)

    def send(self, data: bytes) -> Reply:
        reply = self.session.handle(data, len(data))
        return self.session.handle_now(data, len(data)) if reply is LATER else reply

    def ok(self, data: bytes) -> bytes:
        """The body of a successful reply."""
        reply = self.send(data)
        assert reply is not None
        length, error, unique = struct.unpack_from("<IiQ", reply)
        assert (length, error, unique) == (len(reply), 0, UNIQUE)
        return bytes(reply[16:])

    def fails(self, data: bytes) -> int:
        reply = self.send(data)
        assert reply is not None and len(reply) == 16
        return -int(struct.unpack("<IiQ", reply)[1])

    def open(self, node: int = 2, flags: int = os.O_RDONLY) -> tuple[int, int, int]:
        """(fh, FOPEN flags, backing id)"""
        fh, fopen, backing = struct.unpack("<QIi", self.ok(request(wire.OPEN, node, struct.pack("<II", flags, 0))))
        return fh, fopen, backing

    def release(self, node: int, fh: int) -> None:
        self.ok(request(wire.RELEASE, node, struct.pack("<QIIQ", fh, 0, 0, 0)))


@pytest.fixture
def fuse() -> Rig:
    return Rig()


def entry(body: bytes) -> dict[str, int]:
    names = ("node", "generation", "entry_valid", "attr_valid", "entry_nsec", "attr_nsec", "ino")
    return dict(zip(names, struct.unpack_from("<QQQQIIQ", body), strict=True))


# names -------------------------------------------------------------------------------------------------------------
def test_lookup_answers_an_entry_that_holds_for_ever(fuse: Rig) -> None:
    found = entry(fuse.ok(request(wire.LOOKUP, 1, b"file\0")))
    assert found["node"] == 2 and found["ino"] == 1002
    assert found["entry_valid"] == found["attr_valid"] == FOREVER
    assert fuse.fs.calls == [("lookup", 1, b"file")]


def test_lookup_of_nothing_is_a_negative_entry(fuse: Rig) -> None:
    found = entry(fuse.ok(request(wire.LOOKUP, 1, b"nothing\0")))
    assert found["node"] == 0 and found["entry_valid"] == FOREVER


def test_lookup_passes_other_errors_on(fuse: Rig) -> None:
    fuse.fs.broken["lookup"] = fail(errno.ENAMETOOLONG)
    assert fuse.fails(request(wire.LOOKUP, 1, b"n\0")) == errno.ENAMETOOLONG


def test_forget_has_no_reply(fuse: Rig) -> None:
    assert fuse.send(request(wire.FORGET, 2, struct.pack("<Q", 3))) is None
    assert fuse.send(request(wire.BATCH_FORGET, 0, struct.pack("<IIQQQQ", 2, 0, 2, 1, 3, 4))) is None
    assert fuse.fs.calls == [("forget", 2, 3), ("forget", 2, 1), ("forget", 3, 4)]


CALLS = [
    (
        request(wire.MKNOD, 1, struct.pack("<IIII", 0o10644, 0, 0o27, 0) + b"n\0"),
        ("mknod", 1, b"n", 0o10644, 0, Caller(1000, 100, 77, 0o27)),
    ),
    (
        request(wire.MKDIR, 1, struct.pack("<II", 0o777, 0o22) + b"n\0"),
        ("mkdir", 1, b"n", 0o777, Caller(1000, 100, 77, 0o22)),
    ),
    (request(wire.SYMLINK, 1, b"n\0target\0"), ("symlink", 1, b"n", b"target", WHO)),
    (request(wire.LINK, 3, struct.pack("<Q", 2) + b"n\0"), ("link", 2, 3, b"n", WHO)),
    (request(wire.UNLINK, 1, b"file\0"), ("unlink", 1, b"file")),
    (request(wire.RMDIR, 1, b"dir\0"), ("rmdir", 1, b"dir")),
    (request(wire.RENAME, 1, struct.pack("<Q", 3) + b"file\0n\0"), ("rename", 1, b"file", 3, b"n", 0)),
    (request(wire.RENAME2, 1, struct.pack("<QII", 3, 5, 0) + b"file\0n\0"), ("rename", 1, b"file", 3, b"n", 5)),
    (request(wire.GETATTR, 2, struct.pack("<IIQ", 0, 0, 9)), ("getattr", 2, None)),
    (request(wire.GETATTR, 2, struct.pack("<IIQ", 1, 0, 9)), ("getattr", 2, 9)),
    (request(wire.READLINK, 2), ("readlink", 2)),
    (request(wire.STATFS, 2), ("statfs", 2)),
    (request(wire.LISTXATTR, 2, struct.pack("<II", 0, 0)), ("listxattr", 2)),
    (
        request(wire.SETXATTR, 2, struct.pack("<IIII", 3, 1, 0, 0) + b"user.a\0v\0w"),
        ("setxattr", 2, b"user.a", b"v\0w", 1),
    ),
    (
        request(wire.CREATE, 1, struct.pack("<IIII", 0xC1, 0o100666, 0o22, 0) + b"n\0"),
        ("create", 1, b"n", 0o100666, 0xC1, Caller(1000, 100, 77, 0o22)),
    ),
    (
        request(wire.TMPFILE, 1, struct.pack("<IIII", 2, 0o100600, 0o22, 0) + b"#\0"),
        ("tmpfile", 1, 0o100600, 2, Caller(1000, 100, 77, 0o22)),
    ),
    (wire.read(wire.READ, 2, 101, 3, 5), ("read", 101, 3, 5)),
    (wire.write(2, 101, 3, b"data"), ("write", 101, 3, b"data", False)),
    (wire.write(2, 101, 3, b"data", abi.WRITE_KILL_SUIDGID), ("write", 101, 3, b"data", True)),
    (request(wire.FSYNC, 2, struct.pack("<QII", 101, 0, 0)), ("fsync", 101, False)),
    (request(wire.FSYNC, 2, struct.pack("<QII", 101, 1, 0)), ("fsync", 101, True)),
    (request(wire.FSYNCDIR, 1, struct.pack("<QII", 101, 1, 0)), ("fsyncdir", 101, True)),
    (request(wire.FALLOCATE, 2, struct.pack("<QQQII", 101, 1, 2, 3, 0)), ("fallocate", 101, 3, 1, 2)),
    (request(wire.LSEEK, 2, struct.pack("<QQII", 101, 7, 4, 0)), ("lseek", 101, 7, 4)),
    (
        request(wire.COPY_FILE_RANGE, 2, struct.pack("<QQQQQQQ", 101, 1, 2, 101, 5, 7, 0)),
        ("copy_file_range", 101, 1, 101, 5, 7),
    ),
    (
        request(wire.COPY_FILE_RANGE_64, 2, struct.pack("<QQQQQQQ", 101, 1, 2, 101, 5, 7, 0)),
        ("copy_file_range", 101, 1, 101, 5, 7),
    ),
    (request(wire.SYNCFS, 1, bytes(8)), ("syncfs",)),
    (request(wire.OPENDIR, 1, bytes(8)), ("opendir", 1)),
    (request(wire.RELEASEDIR, 1, struct.pack("<QIIQ", 101, 0, 0, 0)), ("releasedir", 101)),
    (wire.read(wire.READDIR, 1, 101, 0, 4096), ("readdir", 101, 0, 4096, 24)),
    (wire.read(wire.READDIRPLUS, 1, 101, 0, 4096), ("readdirplus", 101, 0, 4096, 152)),
]


@pytest.mark.parametrize(("data", "call"), CALLS, ids=lambda value: value[0] if isinstance(value, tuple) else "")
def test_each_operation_reaches_the_file_system(fuse: Rig, data: bytes, call: tuple[Any, ...]) -> None:
    fuse.fs.handles[101] = 1 if call[0] in ("readdir", "readdirplus", "releasedir", "opendir") else 2
    fuse.ok(data)
    assert fuse.fs.calls[0] == call


@pytest.mark.parametrize(("data", "call"), CALLS, ids=lambda value: value[0] if isinstance(value, tuple) else "")
def test_an_os_error_is_the_reply_of_each_operation(fuse: Rig, data: bytes, call: tuple[Any, ...]) -> None:
    fuse.fs.broken[call[0]] = fail(errno.EDQUOT)
    assert fuse.fails(data) == errno.EDQUOT


@pytest.mark.parametrize(("data", "call"), CALLS, ids=lambda value: value[0] if isinstance(value, tuple) else "")
def test_a_bug_is_eio_and_one_record_that_names_the_request(
    fuse: Rig, data: bytes, call: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    fuse.fs.broken[call[0]] = KeyError("bug")
    assert fuse.fails(data) == errno.EIO
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "node=" in record.getMessage() and "EIO" in record.getMessage()
    assert record.exc_info is not None and record.exc_info[0] is KeyError


def test_a_bug_in_forget_has_no_reply_either(fuse: Rig, caplog: pytest.LogCaptureFixture) -> None:
    fuse.fs.broken["forget"] = KeyError("bug")
    assert fuse.send(request(wire.FORGET, 2, struct.pack("<Q", 3))) is None
    assert len(caplog.records) == 1


@pytest.mark.parametrize("error", [OSError(), OSError(0, ""), OSError(600, "")], ids=["none", "zero", "large"])
def test_an_os_error_without_a_usable_errno_is_a_bug(fuse: Rig, error: OSError) -> None:
    fuse.fs.broken["lookup"] = error
    assert fuse.fails(request(wire.LOOKUP, 1, b"n\0")) == errno.EIO


def test_malformed_body_is_einval_and_logged(fuse: Rig, caplog: pytest.LogCaptureFixture) -> None:
    assert fuse.fails(request(wire.LOOKUP, 1, b"no terminator")) == errno.EINVAL
    assert "LOOKUP" in caplog.text


@pytest.mark.parametrize("opcode", [wire.ACCESS, wire.FLUSH, wire.STATX, wire.BMAP, wire.POLL, wire.GETLK, wire.SETLKW])
def test_useless_operations_are_enosys(fuse: Rig, opcode: int) -> None:
    data = next(data for _, data, _ in EXAMPLES if data[4:8] == struct.pack("<I", opcode))
    assert fuse.fails(data) == errno.ENOSYS
    assert not fuse.fs.calls


def test_unknown_opcodes_are_enosys(fuse: Rig) -> None:
    assert fuse.fails(request(49, 1, bytes(64))) == fuse.fails(request(4096, 1)) == errno.ENOSYS


def test_ioctl_is_enotty(fuse: Rig) -> None:
    assert fuse.fails(request(wire.IOCTL, 2, struct.pack("<QIIQII", 9, 0, 1, 0, 0, 0))) == errno.ENOTTY


def test_destroy_finishes(fuse: Rig) -> None:
    fuse.ok(request(wire.DESTROY, 0))
    assert fuse.session.finished


@given(st.sampled_from(EXAMPLES), st.integers(0, 300), st.binary(min_size=1, max_size=8))
def test_mutated_requests_never_break_the_session(example: tuple[str, bytes, str], at: int, patch: bytes) -> None:
    data = bytearray(example[1])
    at = at % max(len(data) - 8, 1) + 8
    data[at : at + len(patch)] = patch
    data[:4] = struct.pack("<I", len(data))
    logging.disable(logging.CRITICAL)
    try:
        reply = Rig().send(bytes(data))
    except ProtocolError:
        return  # no header to answer to
    finally:
        logging.disable(logging.NOTSET)
    assert reply is None or struct.unpack_from("<I", reply)[0] == len(reply)


# attributes --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("valid", "fields", "changes"),
    [
        (abi.FATTR_MODE, {"mode": 0o104755}, SetAttr(mode=0o4755)),
        (abi.FATTR_UID, {"uid": 7}, SetAttr(uid=7)),
        (abi.FATTR_GID, {"gid": 7}, SetAttr(gid=7)),
        (abi.FATTR_SIZE, {"size": 1 << 23}, SetAttr(size=1 << 23)),
        (abi.FATTR_ATIME, {"atime": 5, "atimensec": 6}, SetAttr(atime_ns=5_000_000_006)),
        (abi.FATTR_MTIME, {"mtime": -5, "mtimensec": 6}, SetAttr(mtime_ns=-4_999_999_994)),
        (abi.FATTR_ATIME | abi.FATTR_ATIME_NOW, {"atime": 5}, SetAttr(atime_ns=NOW)),
        (abi.FATTR_MTIME | abi.FATTR_MTIME_NOW, {"mtime": 5}, SetAttr(mtime_ns=NOW)),
        (abi.FATTR_KILL_SUIDGID | abi.FATTR_UID, {"uid": 1}, SetAttr(uid=1, kill_priv=True)),
        (abi.FATTR_CTIME, {"ctime": 5}, SetAttr()),
    ],
)
def test_setattr_changes_what_is_valid_only(fuse: Rig, valid: int, fields: dict[str, int], changes: SetAttr) -> None:
    fuse.ok(wire.setattr_(2, valid, fh=9, **fields))
    assert fuse.fs.calls[0] == ("setattr", 2, changes, WHO, None)


def test_setattr_through_a_handle(fuse: Rig) -> None:
    fuse.ok(wire.setattr_(2, abi.FATTR_FH | abi.FATTR_SIZE, fh=9, size=1))
    assert fuse.fs.calls[0] == ("setattr", 2, SetAttr(size=1), WHO, 9)


# xattrs ------------------------------------------------------------------------------------------------------------
def test_getxattr_asks_for_the_size_first(fuse: Rig) -> None:
    fuse.fs.nodes[2].xattrs[b"user.a"] = b"value"
    assert fuse.ok(request(wire.GETXATTR, 2, struct.pack("<II", 0, 0) + b"user.a\0")) == struct.pack("<II", 5, 0)
    assert fuse.ok(request(wire.GETXATTR, 2, struct.pack("<II", 5, 0) + b"user.a\0")) == b"value"
    assert fuse.fails(request(wire.GETXATTR, 2, struct.pack("<II", 4, 0) + b"user.a\0")) == errno.ERANGE


def test_listxattr_joins_with_nul(fuse: Rig) -> None:
    fuse.fs.nodes[2].xattrs.update({b"user.a": b"", b"user.b": b""})
    assert fuse.ok(request(wire.LISTXATTR, 2, struct.pack("<II", 64, 0))) == b"user.a\0user.b\0"
    assert fuse.ok(request(wire.LISTXATTR, 3, struct.pack("<II", 64, 0))) == b""


def test_listxattr_shows_trusted_attributes_to_root_only(fuse: Rig) -> None:
    fuse.fs.nodes[2].xattrs.update({b"user.a": b"", b"trusted.b": b""})
    body = struct.pack("<II", 64, 0)
    assert fuse.ok(request(wire.LISTXATTR, 2, body)) == b"user.a\0"
    assert fuse.ok(request(wire.LISTXATTR, 2, body, uid=0)) == b"user.a\0trusted.b\0"


def test_setting_an_acl_as_a_non_member_clears_setgid(fuse: Rig) -> None:
    fuse.fs.nodes[2].mode = stat.S_IFREG | 0o2755
    ext = abi.SETXATTR_ACL_KILL_SGID
    fuse.ok(request(wire.SETXATTR, 2, struct.pack("<IIII", 1, 0, ext, 0) + b"system.posix_acl_access\0x"))
    assert fuse.fs.nodes[2].mode == stat.S_IFREG | 0o755


# open files --------------------------------------------------------------------------------------------------------
def test_cached_open_keeps_the_page_cache(fuse: Rig) -> None:
    assert fuse.open()[1:] == (abi.FOPEN_KEEP_CACHE, 0)


def test_truncating_open_by_an_unprivileged_caller_clears_set_user_id(fuse: Rig) -> None:
    fuse.ok(request(wire.OPEN, 2, struct.pack("<II", os.O_RDWR | os.O_TRUNC, abi.OPEN_KILL_SUIDGID)))
    assert ("setattr", 2, SetAttr(kill_priv=True), WHO, 101) in fuse.fs.calls


def test_write_hands_over_a_view_of_the_buffer(fuse: Rig) -> None:
    fh, _, _ = fuse.open(flags=os.O_RDWR)
    assert fuse.ok(wire.write(2, fh, 2, b"xy")) == struct.pack("<II", 2, 0)
    assert fuse.fs.nodes[2].data == b"\0\0xy"


def test_read_of_a_file_without_descriptor_is_for_a_worker(fuse: Rig) -> None:
    fh, _, _ = fuse.open()
    data = wire.read(wire.READ, 2, fh, 0, 10)
    assert fuse.session.handle(data, len(data)) is LATER


@pytest.mark.parametrize(
    "data",
    [
        request(wire.FSYNC, 2, bytes(16)),
        request(wire.FSYNCDIR, 1, bytes(16)),
        request(wire.SYNCFS, 1, bytes(8)),
        request(wire.FALLOCATE, 2, bytes(40)),
        request(wire.COPY_FILE_RANGE, 2, bytes(56)),
        request(wire.OPEN, 2, struct.pack("<II", os.O_WRONLY | os.O_TRUNC, 0)),
        wire.setattr_(2, abi.FATTR_SIZE),
    ],
)
def test_slow_requests_are_for_a_worker(fuse: Rig, data: bytes) -> None:
    assert fuse.session.handle(data, len(data)) is LATER
    assert not fuse.fs.calls


@pytest.mark.parametrize(
    "data",
    [
        request(wire.OPEN, 2, struct.pack("<II", os.O_WRONLY, 0)),
        wire.setattr_(2, abi.FATTR_UID),
        request(wire.LINK, 1, struct.pack("<Q", 2) + b"n\0"),
        request(wire.SETXATTR, 2, struct.pack("<IIII", 1, 0, 0, 0) + b"user.a\0v"),
        request(wire.REMOVEXATTR, 2, b"user.a\0"),
    ],
)
def test_changes_that_copy_up_much_are_for_a_worker(data: bytes) -> None:
    large, small = Rig(slow=lambda node: node == 2), Rig(slow=lambda node: False)
    assert large.session.handle(data, len(data)) is LATER
    assert small.session.handle(data, len(data)) is not LATER


def test_reading_open_of_a_large_lower_file_is_not_slow() -> None:
    fuse = Rig(slow=lambda node: True)
    data = request(wire.OPEN, 2, struct.pack("<II", os.O_RDONLY, 0))
    assert fuse.session.handle(data, len(data)) is not LATER


# passthrough -------------------------------------------------------------------------------------------------------
@pytest.fixture
def direct() -> Rig:
    """With passthrough; `/file` is backed by a real file."""
    fuse = Rig(passthrough=True)
    lower = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the rig
    fuse.fs.fds[1002] = lower.fileno()
    fuse.keep = [lower]  # type: ignore[attr-defined]
    return fuse


def copy_up(fuse: Rig) -> None:
    upper = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the rig
    fuse.fs.fds[1002] = upper.fileno()
    fuse.keep.append(upper)  # type: ignore[attr-defined]


def test_opens_of_one_inode_share_a_backing_id(direct: Rig) -> None:
    first, second = direct.open(), direct.open(flags=os.O_WRONLY)
    assert first[1:] == second[1:] == (abi.FOPEN_PASSTHROUGH, 51)
    direct.release(2, first[0])
    assert direct.unregistered == []
    direct.release(2, second[0])
    assert direct.unregistered == [51]
    assert direct.open()[2] == 52


def _with_data(rig: Rig) -> int:
    fd = os.memfd_create("file")
    rig.fs.fds[rig.fs.nodes[2].ino] = fd
    return fd


def test_a_small_file_is_cached_for_readers_and_the_mode_lasts_while_it_is_open() -> None:
    rig = Rig(passthrough=True, small=100)
    fd = _with_data(rig)
    try:
        reader, writer = rig.open(), rig.open(flags=os.O_WRONLY)
        assert reader[1:] == writer[1:] == (abi.FOPEN_KEEP_CACHE, 0)
        rig.release(2, reader[0])
        rig.release(2, writer[0])
        os.truncate(fd, 101)
        assert rig.open()[1] == abi.FOPEN_PASSTHROUGH
    finally:
        os.close(fd)


def test_pages_cached_before_a_passthrough_write_are_not_kept_once() -> None:
    rig = Rig(passthrough=True, small=100)
    fd = _with_data(rig)
    try:
        rig.release(2, rig.open()[0])
        writer = rig.open(flags=os.O_RDWR)
        assert writer[1] == abi.FOPEN_PASSTHROUGH
        rig.release(2, writer[0])
        first = rig.open()
        assert first[1] == 0
        rig.release(2, first[0])
        assert rig.open()[1] == abi.FOPEN_KEEP_CACHE
    finally:
        os.close(fd)


def test_pages_of_a_file_never_cached_are_good_after_a_passthrough_write() -> None:
    rig = Rig(passthrough=True, small=100)
    fd = _with_data(rig)
    try:
        rig.release(2, rig.open(flags=os.O_RDWR)[0])
        assert rig.open()[1] == abi.FOPEN_KEEP_CACHE
    finally:
        os.close(fd)


class Storing(FileReader):
    """A reader that notes what is given to the kernel's cache."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: list[tuple[int, int]] = []

    def store(self, node: int, fd: int, size: int, start: int = 0) -> bool:
        self.stored.append((node, size))
        return True


def _storing(**extras: Any) -> tuple[Rig, Storing]:
    """A rig whose opens tell a size of 100 bytes, with a reader that stores them."""
    reader = Storing()
    rig = Rig(small=100, reader=reader, **extras)
    plain = rig.fs.open
    rig.fs.open = lambda node, flags: plain(node, flags)._replace(size=100, fd=0)  # type: ignore[method-assign]
    return rig, reader


def _read(node: int, fh: int, offset: int = 0) -> bytes:
    return request(wire.READ, node, struct.pack("<QQIIQII", fh, offset, 100, 0, 0, 0, 0))


def test_the_first_reader_of_a_small_file_brings_its_data_to_the_kernel() -> None:
    rig, reader = _storing()
    first, second = rig.open(), rig.open()
    assert first[1] == second[1] == abi.FOPEN_KEEP_CACHE and reader.stored == [(2, 100)]


def test_nothing_is_stored_while_somebody_may_wait_for_a_page() -> None:
    rig, reader = _storing()
    rig.open(flags=os.O_RDWR)
    rig.open()
    assert reader.stored == []


def test_a_file_whose_data_the_kernel_has_is_not_opened_again() -> None:
    later: list[int] = []

    def open_later(node: int) -> int:
        later.append(node)
        return 777

    rig, _ = _storing(open_later=open_later)
    rig.release(2, rig.open()[0])
    rig.fs.calls.clear()
    assert rig.open() == (777, abi.FOPEN_KEEP_CACHE, 0)
    assert later == [2] and rig.fs.calls == []


def test_a_file_is_stored_anew_once_the_kernel_asks_for_data_that_it_had() -> None:
    rig, reader = _storing(open_later=lambda node: 777)
    fh, _, _ = rig.open()
    rig.send(_read(2, fh, offset=50))
    rig.release(2, fh)
    rig.open()
    assert reader.stored == [(2, 100), (2, 100)]


def test_a_file_read_to_its_end_in_one_piece_is_not_opened_again() -> None:
    later: list[int] = []

    def open_later(node: int) -> int:
        later.append(node)
        return 777

    rig = Rig(small=100, open_later=open_later)
    rig.fs.nodes[2].data = bytearray(b"x" * 99)
    fh, _, _ = rig.open()
    assert len(rig.ok(_read(2, fh))) == 99
    rig.release(2, fh)
    assert rig.open()[0] == 777 and later == [2]


def test_a_file_of_which_only_a_part_was_read_is_opened() -> None:
    rig = Rig(small=100, open_later=lambda node: 777)
    rig.fs.nodes[2].data = bytearray(b"x" * 101)
    fh, _, _ = rig.open()
    assert len(rig.ok(_read(2, fh))) == 100
    rig.release(2, fh)
    assert rig.open()[0] != 777


def test_a_node_that_was_forgotten_is_stored_anew() -> None:
    rig, reader = _storing(open_later=lambda node: 777)
    rig.release(2, rig.open()[0])
    rig.send(request(wire.FORGET, 2, struct.pack("<Q", 1)))
    rig.open()
    assert reader.stored == [(2, 100), (2, 100)]


def test_open_after_copy_up_under_a_reader_is_estale_and_supersedes_the_node(direct: Rig) -> None:
    superseded: list[int] = []
    direct.session.files._fs_supersede = superseded.append
    direct.open()
    copy_up(direct)
    assert direct.fails(request(wire.OPEN, 2, struct.pack("<II", os.O_WRONLY, 0))) == errno.ESTALE
    assert superseded == [2]
    assert direct.stale == [2]
    assert len(direct.fs.handles) == 1  # the failed open's handle is closed again


def test_attributes_of_a_superseded_inode_are_not_kept_until_its_old_node_is_forgotten(direct: Rig) -> None:
    direct.open()
    copy_up(direct)
    direct.fails(request(wire.OPEN, 2, struct.pack("<II", os.O_WRONLY, 0)))
    lookup, getattr_ = request(wire.LOOKUP, 1, b"file\0"), request(wire.GETATTR, 2, bytes(16))
    assert entry(direct.ok(lookup))["attr_valid"] == 0
    assert struct.unpack_from("<Q", direct.ok(getattr_)) == (0,)
    assert entry(direct.ok(request(wire.LOOKUP, 1, b"dir\0")))["attr_valid"] == FOREVER
    direct.send(request(wire.FORGET, 2, struct.pack("<Q", 1)))
    assert entry(direct.ok(lookup))["attr_valid"] == FOREVER


def test_open_after_copy_up_with_no_reader_left_just_works(direct: Rig) -> None:
    fh, _, _ = direct.open()
    direct.release(2, fh)
    copy_up(direct)
    assert direct.open(flags=os.O_WRONLY)[1:] == (abi.FOPEN_PASSTHROUGH, 52)


def test_create_of_an_existing_copied_up_file_is_estale_too(direct: Rig) -> None:
    direct.open()
    copy_up(direct)
    create = request(wire.CREATE, 1, struct.pack("<IIII", 2, 0o100644, 0, 0) + b"file\0")
    assert direct.fails(create) == errno.ESTALE
    assert direct.fs.calls[-1] == ("forget", 2, 1)


def test_file_without_descriptor_is_cached_and_stays_so(direct: Rig) -> None:
    del direct.fs.fds[1002]
    assert direct.open()[1:] == (abi.FOPEN_KEEP_CACHE, 0)
    copy_up(direct)
    # A passthrough open beside a cached one would be EIO.
    assert direct.open()[1:] == (abi.FOPEN_KEEP_CACHE, 0)


@pytest.mark.parametrize(("mode", "expected"), [(0o4755, True), (0o2755, True), (0o2745, False), (0o755, False)])
def test_writers_of_a_set_user_id_file_go_through_us(direct: Rig, mode: int, expected: bool) -> None:
    direct.fs.nodes[2].mode = stat.S_IFREG | mode
    assert bool(direct.open(flags=os.O_WRONLY)[1] & abi.FOPEN_DIRECT_IO) is expected
    assert direct.open()[1] == abi.FOPEN_PASSTHROUGH


def test_refused_registration_makes_the_file_cached(direct: Rig) -> None:
    def refuse(fd: int) -> int:
        raise fail(errno.ELOOP)

    direct.session.files.backings = Backings(refuse, direct.unregistered.append, -1)
    assert direct.open()[1:] == (abi.FOPEN_KEEP_CACHE, 0)


# replies that nobody got -------------------------------------------------------------------------------------------
def test_undelivered_open_is_closed(direct: Rig) -> None:
    data = request(wire.OPEN, 2, struct.pack("<II", 0, 0))
    direct.session.undelivered(direct.send(data), wire.OPEN, 2)
    assert not direct.fs.handles and direct.unregistered == [51]


def test_undelivered_create_is_closed_and_forgotten(fuse: Rig) -> None:
    data = request(wire.CREATE, 1, struct.pack("<IIII", 2, 0o100644, 0, 0) + b"n\0")
    fuse.session.undelivered(fuse.send(data), wire.CREATE, 1)
    assert not fuse.fs.handles and fuse.fs.nodes[4].lookups == 0


def test_undelivered_lookup_is_forgotten(fuse: Rig) -> None:
    before = fuse.fs.nodes[2].lookups
    fuse.session.undelivered(fuse.send(request(wire.LOOKUP, 1, b"file\0")), wire.LOOKUP, 1)
    assert fuse.fs.nodes[2].lookups == before


def test_undelivered_opendir_is_closed(fuse: Rig) -> None:
    fuse.session.undelivered(fuse.send(request(wire.OPENDIR, 1, bytes(8))), wire.OPENDIR, 1)
    assert not fuse.fs.handles


def test_undelivered_errors_grant_nothing(fuse: Rig) -> None:
    fuse.session.undelivered(fuse.send(request(wire.OPEN, 99, bytes(8))), wire.OPEN, 99)
    assert [call[0] for call in fuse.fs.calls] == ["open"]


# listings without OPENDIR ------------------------------------------------------------------------------------------
def test_with_stable_cookies_a_directory_is_opened_once_and_closed_when_forgotten() -> None:
    fuse = Rig(stable_cookies=True)
    # INIT came after the attribute was set, hence OPENDIR is not wanted.
    assert fuse.fails(request(wire.OPENDIR, 1, bytes(8))) == errno.ENOSYS
    fuse.ok(wire.read(wire.READDIR, 3, 0, 0, 4096))
    fuse.ok(wire.read(wire.READDIRPLUS, 3, 0, 2, 4096))
    assert [call for call in fuse.fs.calls if call[0] == "opendir"] == [("opendir", 3)]
    fuse.send(request(wire.FORGET, 3, struct.pack("<Q", 1)))
    assert not fuse.fs.handles


def test_close_releases_the_directories() -> None:
    fuse = Rig(stable_cookies=True)
    fuse.ok(wire.read(wire.READDIR, 3, 0, 0, 4096))
    fuse.session.close()
    assert not fuse.fs.handles


def test_statistics_count_requests(fuse: Rig) -> None:
    fuse.ok(request(wire.LOOKUP, 1, b"file\0"))
    fuse.ok(request(wire.LOOKUP, 1, b"dir\0"))
    assert fuse.session.statistics() == {
        "request_lookup": 2, "request_init": 1, "passthrough_open": 0, "bytes_read": 0, "bytes_written": 0
    }  # fmt: skip


def test_interrupt_names_the_request() -> None:
    fuse = Rig()
    asked: list[int] = []
    fuse.session.on_interrupt = asked.append
    assert fuse.send(request(wire.INTERRUPT, 0, struct.pack("<Q", 66))) is None
    assert asked == [66]
