"""A session that is watched: what is told of each request, and that nothing is left of it afterwards."""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import unionfs
from tests.unit import devfuse_bytes as wire
from tests.unit.devfuse_bytes import request
from tests.unit.devfuse_memory import fail
from tests.unit.test_devfuse_session import WHO, Rig
from unionfs.layers.memory import MemoryDisk, MemoryLayer
from unionfs.overlay import UnionFilesystem
from unionfs.transport.devfuse.abi import OPCODES, Opcode
from unionfs.transport.devfuse.session import LATER, Session
from unionfs.vfs import Answered, Asked, Caller

PACKAGE = os.path.dirname(unionfs.__file__) + os.sep


class Notes:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Asked, Answered | None]] = []

    def asked(self, asked: Asked) -> Asked:
        return asked._replace(data=bytes(asked.data))

    def answered(self, token: object, answered: Answered | None) -> None:
        assert isinstance(token, Asked)
        self.told.append((token, answered))


def watched(**options: Any) -> tuple[Rig, Notes]:
    fuse, notes = Rig(**options), Notes()
    fuse.session.watch(notes)
    return fuse, notes


def last(notes: Notes) -> tuple[Asked, Answered]:
    asked, answered = notes.told[-1]
    assert answered is not None
    return asked, answered


def test_a_lookup_and_what_it_found() -> None:
    fuse, notes = watched()
    fuse.ok(request(wire.LOOKUP, 1, b"file\0"))
    asked, answered = last(notes)
    assert (asked.op, asked.node, asked.name) == ("lookup", 1, b"file")
    assert answered == Answered(node=2)


def test_a_lookup_of_nothing_is_told_as_enoent() -> None:
    fuse, notes = watched()
    fuse.ok(request(wire.LOOKUP, 1, b"nothing\0"))
    assert last(notes)[1].errno == errno.ENOENT


def test_a_failure_and_a_bug_are_told_as_they_are_answered() -> None:
    fuse, notes = watched()
    fuse.fs.broken["unlink"] = fail(errno.EACCES)
    assert fuse.fails(request(wire.UNLINK, 1, b"file\0")) == errno.EACCES
    assert last(notes)[1].errno == errno.EACCES
    fuse.fs.broken["unlink"] = ZeroDivisionError()
    assert fuse.fails(request(wire.UNLINK, 1, b"file\0")) == errno.EIO
    assert last(notes)[1].errno == errno.EIO


def test_a_malformed_request_is_answered_and_not_told() -> None:
    fuse, notes = watched()
    assert fuse.fails(request(wire.UNLINK, 1, b"file")) == errno.EINVAL
    assert notes.told == []


def test_where_a_rename_and_a_link_lead() -> None:
    fuse, notes = watched()
    fuse.ok(request(wire.RENAME2, 1, struct.pack("<QI4x", 3, 1) + b"file\0new\0"))
    asked, _ = last(notes)
    assert (asked.op, asked.node, asked.name, asked.to, asked.to_name) == ("rename", 1, b"file", 3, b"new")
    assert asked.fields == {"flags": 1}
    fuse.ok(request(wire.LINK, 3, struct.pack("<Q", 2) + b"again\0"))
    asked, answered = last(notes)
    assert (asked.op, asked.node, asked.to, asked.to_name) == ("link", 2, 3, b"again")
    assert answered.node == 2


def test_only_what_a_setattr_changes_is_told() -> None:
    fuse, notes = watched()
    mode_size_mtime_now = 1 | 8 | 256
    fields = struct.pack("<I4xQQ8xqqqIIII4xII4x", mode_size_mtime_now, 0, 7, 1, 2, 3, 4, 5, 6, 0o100640, 8, 9)
    fuse.ok(request(wire.SETATTR, 2, fields))
    assert last(notes)[0].fields == {"mode": 0o640, "size": 7, "mtime_ns": -1}


def test_what_is_written_is_told_with_its_data() -> None:
    fuse, notes = watched()
    fh, _, _ = fuse.open(2, os.O_RDWR)
    asked, answered = last(notes)
    assert (asked.op, asked.fields["flags"], answered.fh, answered.way) == ("open", os.O_RDWR, fh, "cached")
    fuse.ok(request(wire.WRITE, 2, struct.pack("<QQII8xI4x", fh, 0, 5, 0, 0) + b"hello"))
    asked, answered = last(notes)
    assert (asked.data, asked.fields, answered.amount) == (b"hello", {"fh": fh, "offset": 0, "size": 5}, 5)


def test_a_read_that_another_thread_answers_is_told_once_answered() -> None:
    fuse, notes = watched()
    fh, _, _ = fuse.open()
    fuse.ok(request(wire.READ, 2, struct.pack("<QQII8xI4x", fh, 0, 10, 0, 0)))
    assert notes.told[-2][1] is None  # LATER: it is asked once more
    asked, answered = last(notes)
    assert (asked.op, answered.amount) == ("read", 0)


def test_a_passthrough_open_says_so(tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    fd = os.open(path, os.O_RDWR)
    try:
        fuse, notes = watched(passthrough=True)
        fuse.fs.fds[1002] = fd
        fuse.open(2, os.O_RDWR)
        assert last(notes)[1].way == "passthrough"
    finally:
        os.close(fd)


def test_names_in_a_listing_are_counted() -> None:
    fuse, notes = watched()
    for opcode in (wire.READDIR, wire.READDIRPLUS):
        fuse.ok(request(opcode, 1, struct.pack("<QQII8xI4x", 0, 0, 4096, 0, 0)))
        assert last(notes)[1].amount == 4  # . .. file dir


def test_attributes_are_told_by_name_and_value() -> None:
    fuse, notes = watched()
    fuse.ok(request(wire.SETXATTR, 2, struct.pack("<IIII", 3, 0, 0, 0) + b"user.a\0abc"))
    asked, _ = last(notes)
    assert (asked.attribute, asked.data, asked.name) == (b"user.a", b"abc", None)
    fuse.ok(request(wire.GETXATTR, 2, struct.pack("<I4x", 100) + b"user.a\0"))
    assert last(notes)[1].data == b"abc"


# nobody watches -------------------------------------------------------------------------------------------------------
class Mount:
    """A session over a union in memory."""

    def __init__(self) -> None:
        disk = MemoryDisk(lambda: 0, owner=(WHO.uid, WHO.gid))
        base = MemoryLayer(MemoryDisk(lambda: 0, 2), "base")
        for name in (b"a", b"b"):
            base.create(name, 0o644).close()
        self.fs = UnionFilesystem([base], MemoryLayer(disk, "upper"), MemoryLayer(disk, "work"))
        self.session = Session(self.fs)
        data = wire.init(flags=(1 << 43) - 1)
        self.session.handle(data, len(data))

    def send(self, data: bytes) -> bytes:
        reply = self.session.handle(data, len(data))
        if reply is LATER:
            reply = self.session.handle_now(data, len(data))
        return bytes(reply or b"")

    def walk_and_untar(self, number: int) -> None:
        """The requests of a walk, and of a file that is unpacked."""
        self.send(request(Opcode.READDIRPLUS, 1, struct.pack("<QQII8xI4x", 0, 0, 4096, 0, 0)))
        self.send(request(wire.LOOKUP, 1, b"a\0"))
        name = b"new%d\0" % number
        self.send(request(wire.LOOKUP, 1, name))
        create = struct.pack("<IIII", os.O_WRONLY | os.O_CREAT, stat.S_IFREG | 0o644, 0o022, 0)
        reply = self.send(request(Opcode.CREATE, 1, create + name))
        node = struct.unpack_from("<Q", reply, 16)[0]
        fh = struct.unpack_from("<Q", reply, 16 + 128)[0]
        self.send(request(Opcode.GETXATTR, node, struct.pack("<I4x", 0) + b"security.capability\0"))
        self.send(request(wire.WRITE, node, struct.pack("<QQII8xI4x", fh, 0, 5, 0, 0) + b"hello"))
        times = struct.pack("<I4xQQ8xqqqIIII4xII4x", 16 | 32 | 1, 0, 0, 1, 2, 3, 4, 5, 6, 0o100640, 0, 0)
        self.send(request(wire.SETATTR, node, times))
        self.send(request(wire.RELEASE, node, struct.pack("<QIIQ", fh, 0, 0, 0)))
        self.send(request(wire.FORGET, node, struct.pack("<Q", 1)))


def run_by(call: Callable[[], None]) -> set[CodeType]:
    """The functions of the package that a call runs."""
    codes: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            codes.add(frame.f_code)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return codes


def test_before_and_after_somebody_listens_the_very_same_functions_run() -> None:
    mount = Mount()
    before = list(mount.session._handlers), list(mount.session._waiting)
    mount.walk_and_untar(0)
    plain = run_by(lambda: mount.walk_and_untar(1))
    notes = Notes()
    mount.session.watch(notes)
    mount.fs.trace(lambda step: None)
    while_watched = run_by(lambda: mount.walk_and_untar(2))
    mount.session.watch(None)
    mount.fs.trace(None)
    assert run_by(lambda: mount.walk_and_untar(3)) == plain
    assert (mount.session._handlers, mount.session._waiting) == before
    assert len(notes.told) >= 9 and while_watched - plain
    mount.fs.close()


def test_the_functions_of_a_walk_and_an_untar_know_nothing_of_being_watched() -> None:
    """What every request goes through has not one more instruction for it."""
    mount = Mount()
    mount.walk_and_untar(0)  # directories are read, and the parent is copied up
    for code in run_by(lambda: mount.walk_and_untar(1)):
        assert not {"trace", "watch", "watcher", "report"} & {*code.co_names, *code.co_freevars}, code
    mount.fs.close()


def test_a_handler_that_is_not_watched_is_the_method_itself() -> None:
    mount = Mount()
    for opcode in range(OPCODES):
        handler = mount.session._handlers[opcode]
        assert getattr(handler, "__self__", None) in (mount.session, mount.session._answers), opcode
    mount.fs.close()


def test_who_is_asked_is_told() -> None:
    fuse, notes = watched()
    fuse.ok(request(wire.MKDIR, 1, struct.pack("<II", 0o755, 0o022) + b"made\0"))
    asked, _ = last(notes)
    assert isinstance(asked.caller, Caller) and asked.caller.umask == 0o022
    assert asked.fields == {"mode": 0o755}
