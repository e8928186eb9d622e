"""Requests that are kept back: which, in what order, and how they leave."""

from __future__ import annotations

import os

import pytest

from unionfs.transport.devfuse import abi, parking
from unionfs.transport.devfuse.abi import Opcode
from unionfs.transport.devfuse.parking import Parking


def request(opcode: int, unique: int = 1, pid: int = 0, body: bytes = b"") -> bytes:
    size = abi.IN_HEADER_SIZE + len(body)
    return abi.IN_HEADER.pack(size, opcode, unique, 1, 0, 0, pid, 0, 0) + body


def opening(flags: int) -> bytes:
    return request(Opcode.OPEN, body=abi.OPEN_IN.pack(flags, 0))


READS = {
    Opcode.LOOKUP, Opcode.FORGET, Opcode.GETATTR, Opcode.READLINK, Opcode.READ, Opcode.STATFS, Opcode.RELEASE,
    Opcode.FSYNC, Opcode.GETXATTR, Opcode.LISTXATTR, Opcode.FLUSH, Opcode.INIT, Opcode.OPENDIR, Opcode.READDIR,
    Opcode.RELEASEDIR, Opcode.FSYNCDIR, Opcode.GETLK, Opcode.SETLK, Opcode.SETLKW, Opcode.ACCESS, Opcode.INTERRUPT,
    Opcode.BMAP, Opcode.DESTROY, Opcode.IOCTL, Opcode.POLL, Opcode.NOTIFY_REPLY, Opcode.BATCH_FORGET,
    Opcode.READDIRPLUS, Opcode.LSEEK, Opcode.SYNCFS, Opcode.STATX,
    Opcode.SETUPMAPPING, Opcode.REMOVEMAPPING,  # of DAX, which only virtiofs has
}  # fmt: skip


@pytest.mark.parametrize(
    "opcode", [opcode for opcode in Opcode if opcode != Opcode.OPEN], ids=lambda opcode: opcode.name
)
def test_every_opcode_is_a_change_or_a_read(opcode: Opcode) -> None:
    """A new one is to be thought about."""
    assert parking.changes(request(opcode, body=bytes(200))) == (opcode not in READS)


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        (os.O_RDONLY, False),
        (os.O_RDONLY | os.O_NOATIME | os.O_DIRECT, False),
        (os.O_WRONLY, True),
        (os.O_RDWR, True),
        (os.O_RDONLY | os.O_TRUNC, True),
    ],
)
def test_open_is_a_change_where_it_lets_somebody_write(flags: int, changes: bool) -> None:
    assert parking.changes(opening(flags)) == changes


def test_requests_leave_in_the_order_in_which_they_came() -> None:
    lot = Parking()
    assert not lot.park(request(Opcode.MKDIR, 9)), "it was never shut"
    lot.shut()
    requests = [request(Opcode.MKDIR, unique) for unique in (5, 3, 8, 1)]
    assert all(lot.park(one) for one in requests)
    assert lot.open() == requests
    assert lot.open() == [] and not lot.park(requests[0])


def test_callers_that_gave_up_leave_and_an_interruption_is_kept_in_mind() -> None:
    lot = Parking()
    lot.shut()
    for unique, pid in ((1, 11), (2, 12), (3, 13)):
        lot.park(request(Opcode.MKDIR, unique, pid))
    assert lot.callers() == {11, 12, 13}
    assert lot.interrupt(2) and not lot.interrupt(7)
    asked: list[tuple[int, bool]] = []

    def gave_up(caller: int, interrupted: bool) -> bool:
        asked.append((caller, interrupted))
        return caller == 13

    assert [header.unique for header in lot.give_up(gave_up)] == [3]
    assert asked == [(11, False), (12, True), (13, False)]
    assert [header.unique for header in lot.give_up(lambda caller, interrupted: interrupted)] == [2]
    assert lot.callers() == {11} and len(lot.open()) == 1
